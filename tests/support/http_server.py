"""A small scripted HTTP/1.1 server on real sockets: an object store that can be told to misbehave.

It records every request byte for byte. By default it keeps what is PUT under its path, serves GET with single ranges
and ETags, and speaks S3's multipart upload (``?uploadId=U&partNumber=N``). `HttpServer.script` puts actions in front:
each is used by one request for that path, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

__all__ = [
    "Connection",
    "HttpServer",
    "Received",
    "answer",
    "close",
    "cut_reply",
    "cut_request",
    "early",
    "ignore_range",
    "raw",
    "reply_then_close",
    "stall",
]

_REASONS = {200: "OK", 204: "No Content", 206: "Partial Content", 404: "Not Found", 416: "Range Not Satisfiable"}


@dataclass
class Received:
    """One request as it arrived."""

    method: str
    target: str
    head: bytes
    headers: list[tuple[str, str]]
    body: bytes = b""
    connection: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return {
            key: values[0] for key, values in parse_qs(self.target.partition("?")[2], keep_blank_values=True).items()
        }

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Connection:
    """One accepted connection, as actions see it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: HttpServer

    async def read_body(self, request: Received, limit: int | None = None) -> None:
        length = int(request.header("content-length") or 0)
        wanted = length if limit is None else min(limit, length)
        pieces = []
        while wanted > 0:
            piece = await self.reader.read(min(wanted, 256 * 1024))
            if not piece:
                raise ConnectionResetError
            pieces.append(piece)
            wanted -= len(piece)
        request.body = b"".join(pieces)

    async def reply(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        cut_after: int | None = None,
        declared: int | None = None,
        with_body: bool = True,
    ) -> None:
        given = {"Date": formatdate(self.server.clock, usegmt=True) if self.server.clock else formatdate(usegmt=True)}
        if status != 204:
            given["Content-Length"] = str(len(body) if declared is None else declared)
        given |= headers or {}
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None) + "\r\n"
        self.writer.write(head.encode("latin-1"))
        if with_body:
            view = memoryview(body)[:cut_after]
            for start in range(0, len(view), 256 * 1024):
                self.writer.write(view[start : start + 256 * 1024])
                await self.writer.drain()
        await self.writer.drain()
        if cut_after is not None:
            self.writer.close()
            raise ConnectionResetError


Action = Callable[[Connection, Received], Awaitable[bool]]
"""Answers one request; returns False to let the store answer it all the same."""


@dataclass
class _Upload:
    parts: dict[int, bytes] = field(default_factory=dict)
    path: str = ""
    is_open: bool = True


class HttpServer:
    """Use it as an async context manager.

    Attributes:
        objects: What is stored, by path.
        requests: Everything that came.
        uploads: Multipart uploads by id, open or not.
        aborted: Ids of those that were aborted.
        connections: How many were accepted.
        active: Requests being answered now; ``most_active`` the highest it was.
        with_checksums: Whether replies state ``x-amz-checksum-crc32c``.
        delay: Seconds before every reply of the store.
        clock: What the ``Date`` header says, seconds since 1970; None: the time.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.objects: dict[str, bytes] = {}
        self.requests: list[Received] = []
        self.uploads: dict[str, _Upload] = defaultdict(_Upload)
        self.aborted: list[str] = []
        self.connections = 0
        self.active = 0
        self.most_active = 0
        self.with_checksums = False
        self.delay = 0.0
        self.clock: float | None = None
        self.etags: dict[str, str] = {}
        self.keep_bodies = True
        self._scripts: dict[str, deque[Action]] = defaultdict(deque)
        self._tasks: set[asyncio.Task[None]] = set()
        self.open_connections = 0
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1024 * 1024, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, target: str) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}{target}"

    def script(self, path: str, *actions: Action) -> None:
        """Let the next requests for *path* be answered by *actions*, one each; ``*`` is every path."""
        self._scripts[path].extend(actions)

    def of(self, method: str, path: str | None = None) -> list[Received]:
        """Return the requests of a method, and of a path when given."""
        return [r for r in self.requests if r.method == method and (path is None or r.path == path)]

    # --- connections -----------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        connection = Connection(self.connections, reader, writer, self)
        try:
            while await self._serve_one(connection):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.drain()
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self.open_connections -= 1
            self._tasks.discard(task)

    async def _serve_one(self, connection: Connection) -> bool:
        try:
            head = await connection.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:] if line)]
        request = Received(method, target, head, headers, connection=connection.number)
        if self.keep_bodies:
            self.requests.append(request)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            for path in (request.path, "*"):
                if self._scripts.get(path):
                    action = self._scripts[path].popleft()
                    if await action(connection, request):
                        return True
                    break
            if not request.body:
                await connection.read_body(request)
            if self.delay:
                await asyncio.sleep(self.delay)
            await self.answer(connection, request)
        finally:
            self.active -= 1
        return True

    # --- the store -------------------------------------------------------------------------------------------

    def etag(self, path: str) -> str:
        return self.etags.get(path) or f'"{hashlib.md5(self.objects[path]).hexdigest()}"'

    def _checksum(self, body: bytes) -> dict[str, str]:
        from asyncsdk.checksums import crc32c, crc32c_base64

        return {"x-amz-checksum-crc32c": crc32c_base64(crc32c(body))} if self.with_checksums else {}

    async def answer(self, connection: Connection, request: Received) -> None:
        query = request.query
        if "uploadId" in query:
            await self._answer_multipart(connection, request, query)
        elif request.method == "PUT":
            if self.keep_bodies:
                self.objects[request.path] = request.body
                await connection.reply(200, headers={"ETag": self.etag(request.path), **self._checksum(request.body)})
            else:
                await connection.reply(200)
        elif request.method == "GET":
            await self._answer_get(connection, request)
        else:
            await connection.reply(405)

    async def _answer_get(self, connection: Connection, request: Received) -> None:
        body = self.objects.get(request.path)
        if body is None:
            await connection.reply(404, b"<Error><Code>NoSuchKey</Code><Message>It is not there.</Message></Error>")
            return
        etag = self.etag(request.path)
        if (wanted := request.header("if-match")) is not None and wanted != etag:
            await connection.reply(412)
            return
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.header("range") or "")
        if match is None:
            await connection.reply(200, body, headers | self._checksum(body))
            return
        start = int(match[1])
        stop = min(int(match[2]) + 1 if match[2] else len(body), len(body))
        if start >= len(body):
            await connection.reply(416, headers={"Content-Range": f"bytes */{len(body)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        await connection.reply(206, body[start:stop], headers)

    async def _answer_multipart(self, connection: Connection, request: Received, query: dict[str, str]) -> None:
        upload_id = query["uploadId"]
        upload = self.uploads[upload_id]
        upload.path = request.path
        if request.method == "DELETE":
            upload.is_open = False
            upload.parts.clear()
            self.aborted.append(upload_id)
            await connection.reply(204)
        elif not upload.is_open:
            await connection.reply(404, b"<Error><Code>NoSuchUpload</Code></Error>")
        elif request.method == "PUT":
            upload.parts[int(query["partNumber"])] = request.body
            digest = hashlib.md5(request.body).hexdigest()
            await connection.reply(200, headers={"ETag": f'"{digest}"', **self._checksum(request.body)})
        elif request.method == "GET":
            listed = "".join(
                f'<Part><PartNumber>{number}</PartNumber><ETag>"{hashlib.md5(body).hexdigest()}"</ETag>'
                f"<Size>{len(body)}</Size></Part>"
                for number, body in sorted(upload.parts.items())
            )
            await connection.reply(200, f"<ListPartsResult>{listed}</ListPartsResult>".encode())
        else:
            await self._complete(connection, request, upload)

    async def _complete(self, connection: Connection, request: Received, upload: _Upload) -> None:
        listed = re.findall(r"<PartNumber>(\d+)</PartNumber>\s*<ETag>(?:&quot;|\")?([0-9a-f]+)", request.body.decode())
        numbers = [int(number) for number, _ in listed]
        right = all(hashlib.md5(upload.parts.get(int(number), b"?")).hexdigest() == etag for number, etag in listed)
        if not right or numbers != sorted(upload.parts):
            await connection.reply(400, b"<Error><Code>InvalidPart</Code></Error>")
            return
        upload.is_open = False
        self.objects[upload.path] = b"".join(upload.parts[number] for number in numbers)
        etag = self.etag(upload.path).replace('"', "&quot;")
        await connection.reply(
            200, f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>".encode()
        )


# --- actions -------------------------------------------------------------------------------------------------


def answer(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Action:
    """Read the request, then answer with this."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        await connection.reply(status, body, headers)
        return True

    return action


def raw(data: bytes, *, then_close: bool = True) -> Action:
    """Read the request, then send these bytes, whatever they are."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        connection.writer.write(data)
        await connection.writer.drain()
        if then_close:
            raise ConnectionResetError
        return True

    return action


def close() -> Action:
    """Read the request, then close without a word."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        raise ConnectionResetError

    return action


def cut_request(after: int) -> Action:
    """Close after reading this many bytes of the body."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request, after)
        raise ConnectionResetError

    return action


def cut_reply(after: int) -> Action:
    """Answer as the store would, but close after this many bytes of the body."""

    async def action(connection: Connection, request: Received) -> bool:
        body = connection.server.objects[request.path]
        await connection.reply(200, body, {"ETag": connection.server.etag(request.path)}, cut_after=after)
        return True

    return action


def stall(started: asyncio.Event | None = None) -> Action:
    """Read the request and never answer."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        if started is not None:
            started.set()
        await asyncio.Event().wait()
        return True

    return action


def early(status: int, body: bytes = b"", *, after: int = 1024) -> Action:
    """Answer before the body is there, then read no more of it."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request, after)
        await connection.reply(status, body)
        await asyncio.Event().wait()
        return True

    return action


def ignore_range() -> Action:
    """Answer with the whole object whatever range was asked for."""

    async def action(connection: Connection, request: Received) -> bool:
        body = connection.server.objects[request.path]
        await connection.reply(200, body, {"ETag": connection.server.etag(request.path)})
        return True

    return action


def reply_then_close() -> Action:
    """Let the store answer, then close the connection although it may be kept."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        await connection.server.answer(connection, request)
        raise ConnectionResetError

    return action
