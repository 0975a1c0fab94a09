"""One request to the fault server and what is answered, as faults see them on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate

from tests.support.wire.server import Seen, Wire

__all__ = ["Answer", "Backend", "Exchange"]

_REASONS = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    404: "Not Found",
    416: "Range Not Satisfiable",
    503: "Service Unavailable",
}


@dataclass
class Answer:
    """A reply that was not sent yet.

    Attributes:
        headers: Names in lower case, or faults do not know them; ``Content-Length`` and ``Date`` are added.
        declared: What ``Content-Length`` says; None: the truth.
        closes: Whether the connection ends after it.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    declared: int | None = None
    closes: bool = False

    def head(self, method: str) -> bytes:
        """Return its head as it goes over the wire."""
        names = {name.lower() for name in self.headers}
        headers = self.headers if "date" in names else {"date": formatdate(usegmt=True), **self.headers}
        if self.status >= 200 and self.status != 204:
            # A HEAD has no body, but says how long it would be.
            length = headers.pop("content-length", None) if method == "HEAD" and not self.body else None
            stated = self.declared if self.declared is not None else int(length or len(self.body))
            headers["content-length"] = str(stated)
        if self.closes:
            headers["connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if name != "transfer-encoding"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


Backend = Callable[[Seen], Awaitable[Answer]]
"""Answers a request whose body was read: the store, or a server that it is passed on to."""


class Exchange:
    """One request, from its head to the end of its reply.

    Attributes:
        wire: The connection.
        seen: The request; its body fills as it is read.
        random: Where chance comes from.
        answer: What will be sent, once it is known.
        clock: What time it is here, seconds since 1970 UTC; None: the time.
    """

    def __init__(
        self, wire: Wire, seen: Seen, backend: Backend, chance: random.Random, *, clock: float | None = None
    ) -> None:
        self.wire = wire
        self.seen = seen
        self.random = chance
        self.answer: Answer | None = None
        self.clock = clock
        self._backend = backend
        self._unread = max(0, seen.length - len(seen.body))
        self._is_chunked = "chunked" in seen.headers.get("transfer-encoding", "").lower()
        self._is_told_to_go_on = seen.headers.get("expect", "").lower() != "100-continue"

    async def read(self, size_bytes: int | None = None) -> None:
        """Read the body, or no more than *size_bytes* of it."""
        wanted = self._unread if size_bytes is None else min(size_bytes, self._unread)
        if wanted and not self._is_told_to_go_on:
            self._is_told_to_go_on = True
            await self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._is_chunked:
            self._is_chunked = False
            self.seen.body += await self._read_chunks()
        elif wanted:
            self._unread -= wanted
            piece = await self.wire.reader.readexactly(wanted)
            self.seen.body = self.seen.body + piece if self.seen.body else piece

    async def _read_chunks(self) -> bytes:
        pieces = []
        while size := int((await self.wire.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append(await self.wire.reader.readexactly(size))
            await self.wire.reader.readexactly(2)
        while await self.wire.reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers say nothing that anybody here wants to know
        return b"".join(pieces)

    async def ask(self) -> None:
        """Read what is left of the body, and let the backend answer."""
        await self.read()
        self.answer = await self._backend(self.seen)

    async def send(self, *, stop: int | None = None) -> None:
        """Send the answer, or its head and no more than *stop* bytes of its body."""
        assert self.answer is not None
        if self.clock is not None:
            self.answer.headers.setdefault("date", formatdate(self.clock, usegmt=True))
        body = b"" if self.seen.method == "HEAD" else self.answer.body
        head = self.answer.head(self.seen.method)
        if stop is not None or len(body) > 64 * 1024:
            await self.wire.send(head, body[:stop])
        else:
            await self.wire.send(head + body)

    async def until_client_leaves(self) -> None:
        """Do nothing until the connection ends from the other side."""
        while await self.wire.reader.read(64 * 1024):
            await asyncio.sleep(0)
        raise EOFError

    @property
    def unread(self) -> int:
        """Bytes of the body that were not read."""
        return self._unread
