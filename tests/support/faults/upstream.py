"""Passing requests on to another server: the fault server as a proxy in front of it.

``Host`` stays what the client sent, so that URLs which the other server mints lead through the proxy again. Bodies are
held whole, one request at a time and connection: faults may then change any byte of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

from tests.support.faults.exchange import Answer
from tests.support.wire.server import Seen

__all__ = ["Upstream"]

_HEAD_LIMIT = 1024 * 1024
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length", "te", "upgrade"}

_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Upstream:
    """Another server over plain HTTP/1.1; use it as a `Backend`.

    Args:
        url: Where it listens.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "http"
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._idle: list[_Pair] = []

    async def aclose(self) -> None:
        """Close what is kept open."""
        idle, self._idle = self._idle, []
        for _, writer in idle:
            await _close(writer)

    async def __call__(self, seen: Seen) -> Answer:
        """Ask it, and return what it said."""
        while self._idle:
            pair = self._idle.pop()
            if not pair[0].at_eof():  # never asked twice: what is passed on may have been done
                return await self._ask(pair, seen)
            await _close(pair[1])
        return await self._ask(await asyncio.open_connection(*self._address, limit=_HEAD_LIMIT), seen)

    async def _ask(self, pair: _Pair, seen: Seen) -> Answer:
        reader, writer = pair
        try:
            kept = [f"{name}: {value}" for name, value in seen.headers.items() if name not in _HOP]
            if seen.body or seen.method in {"PUT", "POST", "PATCH"}:
                kept.append(f"content-length: {len(seen.body)}")
            lines = [f"{seen.method} {seen.target} HTTP/1.1", *kept, "", ""]
            writer.write("\r\n".join(lines).encode("latin-1"))
            writer.write(seen.body)
            await writer.drain()
            answer, is_kept = await _read(reader, seen.method)
        except BaseException:  # cancelled or broken: nobody may use this connection again
            await _close(writer)
            raise
        if is_kept:
            self._idle.append(pair)
        else:
            await _close(writer)
        return answer


async def _read(reader: asyncio.StreamReader, method: str) -> tuple[Answer, bool]:
    """Return a reply, and whether the connection may be used again."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        if status >= 200:
            break
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    is_kept = headers.pop("connection", "").lower() != "close"
    chunked = "chunked" in headers.pop("transfer-encoding", "")
    length = headers.get("content-length")
    if method == "HEAD" or status in {204, 304}:
        body = b""
    elif chunked:
        pieces = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
        body = b"".join(pieces)
    elif length is not None:
        body = await reader.readexactly(int(length))
    else:
        body, is_kept = await reader.read(), False
    if method != "HEAD":
        headers.pop("content-length", None)
    return Answer(status, body, headers), is_kept


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        await writer.wait_closed()
