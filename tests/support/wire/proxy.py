"""An HTTP proxy: forwards requests in absolute form, tunnels after CONNECT, asks for a password when told to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from urllib.parse import urlsplit

from tests.support.wire.server import Script, Seen, Wire

__all__ = ["proxy"]

_REFUSED = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"


def proxy(*, port: int, password: str | None = None) -> Script:
    """Serve as a proxy before the server at *port* of this machine, whatever host a request names.

    Args:
        port: Where every request goes, so that names that do not exist can be used.
        password: ``user:password`` that ``Proxy-Authorization`` must carry; None: nobody is asked.
    """

    async def script(wire: Wire) -> None:
        while True:
            seen = await wire.head()
            if password is not None and seen.headers.get("proxy-authorization") != _basic(password):
                await wire.send(_REFUSED)
                return
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                if seen.method == "CONNECT":
                    await wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await _tunnel(wire, reader, writer)
                    return
                await _forward(wire, seen, reader, writer)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    return script


def _basic(password: str) -> str:
    return "Basic " + base64.b64encode(password.encode()).decode()


async def _forward(wire: Wire, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    url = urlsplit(seen.target)
    start = len(f"{url.scheme}://{url.netloc}") if url.scheme else 0
    lines = seen.head.decode("latin-1").split("\r\n")[1:-2]
    kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
    head = [f"{seen.method} {seen.target[start:] or '/'} HTTP/1.1", *kept, "Connection: close", "", ""]
    writer.write("\r\n".join(head).encode("latin-1") + await wire.reader.readexactly(seen.length))
    writer.write_eof()
    answer = await reader.read()
    await wire.send(answer)


async def _tunnel(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(64 * 1024):
                target.write(data)
                await target.drain()
        target.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(pump(wire.reader, writer))
        group.create_task(pump(reader, wire.writer))
