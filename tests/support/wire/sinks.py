"""What tests do again and again with a transport: collect a body, count bytes, name an outcome."""

from __future__ import annotations

from asyncsdk.transport.base import BytesBody, Reply, Request, Timeouts, Transport

__all__ = ["PATIENT", "QUICK", "Collect", "get", "put"]

QUICK = Timeouts(connect=5.0, idle=0.3, reply=0.3)
"""For silence that must be noticed."""

PATIENT = Timeouts(connect=10.0, idle=10.0, reply=10.0)
"""For everything else: shorter than the limit of a test, so that a hang is told apart from slowness."""


class Collect:
    """A sink that remembers; what it is given may change after the call."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data


async def get(transport: Transport, url: str, **facts: object) -> Reply:
    """Send a GET."""
    return await transport.send(Request("GET", url, **{"timeouts": PATIENT, **facts}))  # type: ignore[arg-type]


async def put(transport: Transport, url: str, data: bytes, **facts: object) -> Reply:
    """Send a PUT with a body from memory."""
    return await transport.send(
        Request("PUT", url, body=BytesBody(data), **{"timeouts": PATIENT, **facts})  # type: ignore[arg-type]
    )
