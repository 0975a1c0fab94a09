"""A transport that answers at once, to test the engine without the cost of sockets."""

from __future__ import annotations

import re

from asyncsdk.transport.base import FileBody, Headers, Reply, ReplyHead, Request

__all__ = ["InstantTransport"]

_CHUNK = 256 * 1024


class InstantTransport:
    """Takes every body, and serves an object of zeros of *size_bytes* by ranges."""

    def __init__(self, size_bytes: int = 0) -> None:
        self.size_bytes = size_bytes
        self.sent = 0
        self.requests = 0

    async def send(self, request: Request) -> Reply:
        self.requests += 1
        if request.method == "GET":
            return self._serve(request)
        body = request.body
        if isinstance(body, FileBody):
            for offset in range(0, body.size_bytes, _CHUNK):
                body.read(offset, _CHUNK)
        if body is not None:
            self.sent += body.size_bytes
            if request.on_sent is not None:
                request.on_sent(body.size_bytes)
        return Reply(200, Headers([("ETag", '"e"')]))

    def _serve(self, request: Request) -> Reply:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        start, stop = (int(match[1]), min(int(match[2]) + 1, self.size_bytes)) if match else (0, self.size_bytes)
        part = [("Content-Range", f"bytes {start}-{stop - 1}/{self.size_bytes}")] if match else []
        headers = Headers([("ETag", '"e"'), *part])
        head = ReplyHead(206 if match else 200, headers)
        sink = request.on_head(head) if request.on_head is not None else None
        assert sink is not None
        zeros = bytes(_CHUNK)
        for offset in range(start, stop, _CHUNK):
            sink.write(zeros[: stop - offset])
        return Reply(head.status, headers, size_bytes=stop - start)

    async def aclose(self) -> None:
        """It holds nothing."""
