"""A small scripted HTTP/1.1 server on real sockets: an object store that can be told to misbehave.

It records every request byte for byte. By default it keeps what is PUT under its path, serves GET with single ranges
and ETags, and speaks S3's multipart upload (``?uploadId=U&partNumber=N``). It is a `FaultServer`: its ``plan`` may let
any request meet any fault, and `HttpServer.script` puts faults, or actions of a test's own, in front of single ones:
each is used by one request for that path, in order.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs

from tests.support.faults.breaks import HangUp, Lost, Raw, Reset, Stall, Truncate
from tests.support.faults.exchange import Answer, Exchange
from tests.support.faults.fault import Fault
from tests.support.faults.refusals import IgnoreRange, Refuse
from tests.support.faults.server import FaultServer, go_through
from tests.support.wire.server import Seen, Wire

__all__ = [
    "Action",
    "Connection",
    "HttpServer",
    "Received",
    "answer",
    "close",
    "cut_reply",
    "cut_request",
    "early",
    "ignore_range",
    "lose_reply",
    "raw",
    "reply_then_close",
    "stall",
]


class Received:
    """One request as it arrived.

    Attributes:
        headers: Name and value of each, as they came.
    """

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.method = seen.method
        self.target = seen.target
        self.head = seen.head
        self.connection = seen.connection
        lines = seen.head.decode("latin-1").split("\r\n")[1:]
        self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]

    @property
    def body(self) -> bytes:
        """What of it was read."""
        return self.seen.body

    @body.setter
    def body(self, body: bytes) -> None:
        self.seen.body = body

    @property
    def path(self) -> str:
        """Its path, without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """Its parameters, each with its first value."""
        return {
            key: values[0] for key, values in parse_qs(self.target.partition("?")[2], keep_blank_values=True).items()
        }

    def header(self, name: str) -> str | None:
        """Return a header as the server is to see it: a fault may have changed it."""
        return self.seen.headers.get(name.lower())


class Connection:
    """One accepted connection, as actions see it."""

    def __init__(self, wire: Wire, server: HttpServer) -> None:
        self.wire = wire
        self.number = wire.number
        self.reader = wire.reader
        self.writer = wire.writer
        self.server = server

    async def read_body(self, request: Received, limit: int | None = None) -> None:
        """Read the body of the request, or no more than *limit* bytes of it."""
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
    ) -> None:
        """Send a reply; or its head and no more than *cut_after* bytes, and close the connection."""
        reply = Answer(status, body, self.server.dated(headers or {}), declared)
        await self.wire.send(reply.head("GET"))
        for start in range(0, len(body[:cut_after]), 256 * 1024):
            await self.wire.send(body[:cut_after][start : start + 256 * 1024])
        if cut_after is not None:
            await self.wire.close()
            raise EOFError


class _Kept(Connection):
    """Keeps the reply of the store, which a fault may spoil before it is sent."""

    kept: Answer | None = None

    async def reply(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, **_unused: object
    ) -> None:
        assert not _unused, "a store answers whole"
        lower = {name.lower(): value for name, value in self.server.dated(headers or {}).items()}
        self.kept = Answer(status, body, lower)


Action = Callable[[Connection, Received], Awaitable["bool | Fault"]]
"""Answers one request; returns False to let the store answer it all the same, or the fault that it is to meet."""


@dataclass
class _Upload:
    parts: dict[int, bytes] = field(default_factory=dict)
    path: str = ""
    is_open: bool = True


class HttpServer(FaultServer):
    """Use it as an async context manager.

    Attributes:
        objects: What is stored, by path.
        requests: Everything that came.
        uploads: Multipart uploads by id, open or not.
        aborted: Ids of those that were aborted.
        active: Requests being answered now; ``most_active`` the highest it was.
        with_checksums: Whether replies state ``x-amz-checksum-crc32c``.
        delay: Seconds before every reply of the store.
        clock: What the ``Date`` header says, seconds since 1970; None: the time.
    """

    requests: list[Received]  # type: ignore[assignment]

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, _Upload] = defaultdict(_Upload)
        self.aborted: list[str] = []
        self.active = 0
        self.most_active = 0
        self.with_checksums = False
        self.delay = 0.0
        self.clock: float | None = None
        self.etags: dict[str, str] = {}
        self.keep_bodies = True
        self._scripts: dict[str, deque[Action | Fault]] = defaultdict(deque)

    def script(self, path: str, *actions: Action | Fault) -> None:
        """Let the next requests for *path* meet *actions*, one each; ``*`` is every path."""
        self._scripts[path].extend(actions)

    @property
    def unused(self) -> int:
        """How many scripted actions no request has come for."""
        return sum(map(len, self._scripts.values()))

    def of(self, method: str, path: str | None = None) -> list[Received]:
        """Return the requests of a method, and of a path when given."""
        return [r for r in self.requests if r.method == method and (path is None or r.path == path)]

    def dated(self, headers: dict[str, str]) -> dict[str, str]:
        """Return *headers* with the time by this server's clock, unless they say another."""
        if self.clock is None or "date" in map(str.lower, headers):
            return headers
        return {"date": formatdate(self.clock, usegmt=True), **headers}

    # --- connections -----------------------------------------------------------------------------------------

    def saw(self, seen: Seen) -> None:
        """Nothing: `serve_one` keeps it, with what is known of it."""

    async def serve(self, wire: Wire) -> None:
        """Serve one connection."""
        connection = Connection(wire, self)
        try:
            while True:
                await self._serve_one(connection, Received(await wire.head()))
        except ConnectionError:
            await wire.close()  # what was written still goes out
            raise

    async def _serve_one(self, connection: Connection, request: Received) -> None:
        if self.keep_bodies:
            self.requests.append(request)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            fault: bool | Fault = self.plan.next_for(request.seen)
            for path in (request.path, "*"):
                if self._scripts.get(path):
                    scripted = self._scripts[path].popleft()
                    fault = scripted if isinstance(scripted, Fault) else await scripted(connection, request)
                    break
            if fault is True:
                return
            kept = _Kept(connection.wire, self)

            async def ask(seen: Seen) -> Answer:
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self.answer(kept, request)
                assert kept.kept is not None
                return kept.kept

            exchange = Exchange(connection.wire, request.seen, ask, self.plan.random, clock=self.clock)
            await go_through(exchange, fault or Fault())
            if exchange.answer is not None and exchange.answer.closes:
                raise EOFError
        finally:
            self.active -= 1

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


# --- faults, by the names that tests of the engine know them by ----------------------------------------------


def answer(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Fault:
    """Read the request, then answer with this."""
    return Refuse(status, body=body, headers=headers or {})


def raw(data: bytes, *, then_close: bool = True) -> Fault:
    """Read the request, then send these bytes, whatever they are."""
    return Raw(data.decode("latin-1"), closes=then_close)


def close() -> Fault:
    """Read the request, then close without a word."""
    return Raw("")


def cut_request(after: int) -> Fault:
    """Close after reading this many bytes of the body."""
    return Reset(after, "up", "close")


def cut_reply(after: int) -> Fault:
    """Answer as the store would, but close after this many bytes of the body."""
    return Truncate(after)


def stall(started: asyncio.Event | None = None) -> Fault:
    """Read the request and never answer."""
    return Stall(-1, "up", started=started)


def early(status: int, body: bytes = b"", *, after: int = 1024) -> Fault:
    """Answer before the body is there, then read no more of it."""
    return Refuse(status, body=body, early=True, reads=after)


def ignore_range() -> Fault:
    """Answer with the whole object whatever range was asked for."""
    return IgnoreRange()


def lose_reply(*, method: str = "", query: str = "") -> Action:
    """Do as asked, then close without a word; other requests than those meant are answered."""

    async def action(connection: Connection, request: Received) -> bool | Fault:
        return Lost("close") if method in {"", request.method} and query in request.target else False

    return action


def reply_then_close() -> Fault:
    """Let the store answer, then close the connection although it may be kept."""
    return HangUp()
