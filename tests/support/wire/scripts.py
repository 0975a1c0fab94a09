"""Scripts that many tests need: replies in pieces with an end, early replies, a well-behaved server."""

from __future__ import annotations

import asyncio
from typing import Literal

from tests.support.wire.server import Script, Wire

__all__ = ["OK", "Ending", "early", "end", "polite", "reply", "sized", "then"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Ending = Literal["close", "drop", "reset", "half", "keep"]
"""In good order; FIN only; RST; FIN but reading on; or staying open and silent until the client goes."""


def sized(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a reply with a ``Content-Length``."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def end(wire: Wire, ending: Ending) -> None:
    """End a connection the way that *ending* says."""
    if ending == "close":
        await wire.close()
    elif ending == "drop":
        wire.drop()
    elif ending == "reset":
        wire.reset()
    else:
        if ending == "half":
            wire.half_close()
        await wire.rest()


def reply(*pieces: bytes, pause: float = 0.0, ending: Ending = "close") -> Script:
    """Read one request whole, write *pieces*, and end."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(*pieces, pause=pause)
        if ending == "reset":
            await asyncio.sleep(0.05)  # a reset overtakes bytes that the client has not read yet
        await end(wire, ending)

    return script


def then(*answers: bytes, ending: Ending = "keep") -> Script:
    """Read requests one after the other and answer each with the next of *answers*, then end."""

    async def script(wire: Wire) -> None:
        for answer in answers:
            await wire.request()
            await wire.send(answer)
        await end(wire, ending)

    return script


def polite(body: bytes = b"ok") -> Script:
    """Answer every request with 200 and *body*, for as long as the client wants."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(sized(body))

    return script


def early(
    answer: bytes, *, after: int, what: Literal["close", "reset", "read_on", "silence"], pause: float = 0.2
) -> Script:
    """Answer when *after* bytes of the body were read, then end, go on reading the body, or read no more."""

    async def script(wire: Wire) -> None:
        seen = await wire.head()
        await wire.reader.readexactly(after)
        await wire.send(answer)
        if what == "read_on":
            await wire.reader.readexactly(seen.length - after)
            await polite()(wire)
        elif what == "silence":
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(pause)  # the reply must get there before the reset that unread bytes cause
            await end(wire, what)

    return script
