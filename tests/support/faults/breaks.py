"""Faults of the wire: connections that break, stall or crawl, and bodies that are cut, too long, or changed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from tests.support.faults.exchange import Answer, Exchange
from tests.support.faults.fault import Direction, Fault, end

__all__ = ["Crawl", "Flip", "HangUp", "Lost", "Overlong", "Raw", "Reset", "SlowFirstByte", "Stall", "Truncate"]


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """The connection breaks after *after* bytes of a body; -1 is half of it, -2 anywhere by chance, but before its end.

    Attributes:
        direction: Of the request: nothing is done. Of the reply: it was done.
        how: By RST, which also takes back what the client has not read yet, or by FIN.
    """

    after: int = 0
    direction: Direction = "down"
    how: Literal["reset", "close"] = "reset"

    async def on_head(self, exchange: Exchange) -> None:
        if self.direction == "up":
            await exchange.read(self._place(exchange.seen.length, exchange))
            end(exchange, self.how)

    async def send(self, exchange: Exchange) -> None:
        assert exchange.answer is not None
        await exchange.send(stop=self._place(len(exchange.answer.body), exchange))
        if self.how == "reset":
            await asyncio.sleep(0.02)  # a reset overtakes bytes that the client has not read yet
        end(exchange, self.how)

    def _place(self, size_bytes: int, exchange: Exchange) -> int:
        if self.after == -2:
            return exchange.random.randrange(size_bytes) if size_bytes else 0
        return size_bytes // 2 if self.after < 0 else self.after


@dataclass(frozen=True, slots=True)
class Lost(Fault):
    """It was done, and the reply never comes: the connection breaks instead."""

    how: Literal["reset", "close"] = "reset"

    async def on_answer(self, exchange: Exchange) -> None:
        end(exchange, self.how)


@dataclass(frozen=True, slots=True)
class HangUp(Fault):
    """The reply comes whole, then the connection is closed, though nobody said so."""

    async def send(self, exchange: Exchange) -> None:
        await exchange.send()
        await exchange.wire.close()
        raise EOFError


@dataclass(frozen=True, slots=True)
class Stall(Fault):
    """Nothing moves after *after* bytes of a body, for *seconds*, then it goes on; None: until the client leaves.

    Attributes:
        after: -1 is all of it: the request was read, and is not answered.
        started: Set when nothing moves any more.
    """

    after: int = 0
    direction: Direction = "down"
    seconds: float | None = None
    started: asyncio.Event | None = None

    async def on_head(self, exchange: Exchange) -> None:
        if self.direction == "up":
            await exchange.read(None if self.after < 0 else self.after)
            await self._pause(exchange)

    async def send(self, exchange: Exchange) -> None:
        assert exchange.answer is not None
        if self.direction == "up":
            await exchange.send()
            return
        await exchange.send(stop=self.after)
        await self._pause(exchange)
        await exchange.wire.send(exchange.answer.body[self.after :])

    async def _pause(self, exchange: Exchange) -> None:
        if self.started is not None:
            self.started.set()
        if self.seconds is None:
            if self.direction == "up" and exchange.unread:
                await asyncio.Event().wait()  # reading on would be no stall; the end of the test ends it
            await exchange.until_client_leaves()
        else:
            await asyncio.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class SlowFirstByte(Fault):
    """The answer takes *seconds* to begin; None: it never does, and the client has to leave. It was done."""

    seconds: float | None = 1.0

    async def on_answer(self, exchange: Exchange) -> None:
        if self.seconds is None:
            await exchange.until_client_leaves()
        else:
            await asyncio.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class Crawl(Fault):
    """A body moves *step* bytes at a time with a pause before each: never silent, never done."""

    step: int = 1
    seconds: float = 0.05
    direction: Direction = "down"

    async def on_head(self, exchange: Exchange) -> None:
        while self.direction == "up" and exchange.unread:
            await asyncio.sleep(self.seconds)
            await exchange.read(self.step)

    async def send(self, exchange: Exchange) -> None:
        assert exchange.answer is not None
        if self.direction == "up":
            await exchange.send()
            return
        await exchange.send(stop=0)
        body = exchange.answer.body
        for start in range(0, len(body), self.step):
            await asyncio.sleep(self.seconds)
            await exchange.wire.send(body[start : start + self.step])


@dataclass(frozen=True, slots=True)
class Truncate(Fault):
    """A body ends after *after* bytes; -1 is half of it, -2 anywhere by chance, but before its end.

    Attributes:
        declared: Whether the head of the reply says so too: then only size or digest can tell. Else the connection is
            closed early.
        direction: Of the reply; or of the request, which the server then takes for whole (`Reset` breaks it instead).
    """

    after: int = 0
    declared: bool = False
    direction: Direction = "down"

    async def on_body(self, exchange: Exchange) -> None:
        if self.direction == "up":
            exchange.seen.body = exchange.seen.body[: self._kept(exchange.seen.body, exchange)]

    async def on_answer(self, exchange: Exchange) -> None:
        answer = exchange.answer
        assert answer is not None
        if self.direction == "up":
            return
        if not self.declared:
            answer.declared, answer.closes = len(answer.body), True
        answer.body = answer.body[: self._kept(answer.body, exchange)]

    async def send(self, exchange: Exchange) -> None:
        await exchange.send()
        if self.direction == "down" and not self.declared:
            await exchange.wire.close()
            raise EOFError

    def _kept(self, body: bytes, exchange: Exchange) -> int:
        if self.after == -2:
            return exchange.random.randrange(len(body)) if body else 0
        return len(body) // 2 if self.after < 0 else self.after


@dataclass(frozen=True, slots=True)
class Overlong(Fault):
    """The reply has *extra* bytes too many, in its declared length, or beyond it."""

    extra: int = 10
    declared: bool = True

    async def on_answer(self, exchange: Exchange) -> None:
        answer = exchange.answer
        assert answer is not None
        if not self.declared:
            answer.declared = len(answer.body)
        answer.body += exchange.random.randbytes(self.extra)


@dataclass(frozen=True, slots=True)
class Flip(Fault):
    """One bit of a body changes on the way, the framing stays right.

    Attributes:
        direction: Of the request, as a box before the server would; or of the reply, behind it.
        bit: Which one, counted from the start of the body; -1: by chance. Beyond the end, and in an empty body, none.
    """

    direction: Direction = "down"
    bit: int = -1

    async def on_body(self, exchange: Exchange) -> None:
        if self.direction == "up":
            exchange.seen.body = self._flipped(exchange.seen.body, exchange)

    async def on_answer(self, exchange: Exchange) -> None:
        assert exchange.answer is not None
        if self.direction == "down":
            exchange.answer.body = self._flipped(exchange.answer.body, exchange)

    def _flipped(self, body: bytes, exchange: Exchange) -> bytes:
        bit = exchange.random.randrange(8 * len(body)) if body and self.bit < 0 else self.bit
        if not 0 <= bit < 8 * len(body):
            return body
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)


@dataclass(frozen=True, slots=True)
class Raw(Fault):
    """Any bytes are the answer (Latin-1), then the connection is closed, unless told not to. Nothing was done."""

    text: str = "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello"
    closes: bool = True

    async def on_head(self, exchange: Exchange) -> None:
        await exchange.read()
        exchange.answer = Answer(0)
        await exchange.wire.send(self.text.encode("latin-1"))
        if self.closes:
            await exchange.wire.close()
            raise EOFError

    async def send(self, exchange: Exchange) -> None:
        """It is sent."""
