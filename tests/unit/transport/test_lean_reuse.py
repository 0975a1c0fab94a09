"""When a connection of the lean transport goes on at once with the next request, and when it must not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.transport.base import Reply, Request, Timeouts
from asyncsdk.transport.lean import LeanTransport
from asyncsdk.transport.lean.exchange import Exchange
from tests.support.wire.certificates import Certificates
from tests.support.wire.scripts import OK, sized

SMUGGLED = sized(b"smuggled")


class Chain(Exchange):
    """Begins its follower in the call that tells of its reply, as the express lane does."""

    def __init__(self, transport: LeanTransport, request: Request, follower: Chain | None = None) -> None:
        super().__init__(request)
        self._transport = transport
        self._follower = follower
        self.end: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def succeed(self, reply: Reply) -> None:
        self.end.set_result(reply)
        if self._follower is not None:
            self._transport.begin(self._follower)

    def fail(self, error: Exception) -> None:
        self.end.set_exception(error)


class TlsServer:
    """One that decides which bytes of its TLS go out together. The first connection smuggles, others are polite."""

    def __init__(self, context: ssl.SSLContext, ahead: int) -> None:
        self._context = context
        self._ahead = ahead
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        smuggles = self.connections == 1
        came, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(came, leaving, server_side=True)
        try:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(leaving.read())
                    came.write(await self._more(reader))
            writer.write(leaving.read())
            while True:
                await self._request(tls, came, reader)
                tls.write(OK)
                data = leaving.read()
                if smuggles:
                    tls.write(SMUGGLED)
                    behind = leaving.read()
                    writer.write(data + behind[: self._ahead])
                    await self._more(reader)  # the next request, or the end
                    data = behind[self._ahead :]
                writer.write(data)
        except EOFError:
            writer.close()

    async def _more(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(65536)
        if not data:
            raise EOFError
        return data

    async def _request(self, tls: ssl.SSLObject, came: ssl.MemoryBIO, reader: asyncio.StreamReader) -> None:
        seen = b""
        while not seen.endswith(b"\r\n\r\n"):
            try:
                seen += tls.read(65536)
            except ssl.SSLWantReadError:
                came.write(await self._more(reader))


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    made = Certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.ca_file))
    return made


@pytest.fixture
async def transport(certificates: Certificates) -> AsyncIterator[LeanTransport]:
    made = LeanTransport()
    yield made
    await made.aclose()


@pytest.mark.parametrize("ahead", [1, 10, 40])
async def test_the_begin_of_another_record_behind_a_reply_ends_the_connection(
    transport: LeanTransport, certificates: Certificates, ahead: int
) -> None:
    """What the rest of it says would be taken for the reply to what is sent next."""
    server = TlsServer(certificates.server(), ahead)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        second = Chain(transport, Request("GET", url))
        first = Chain(transport, Request("GET", url), second)
        transport.begin(first)
        async with asyncio.timeout(20):
            assert [(await one.end).body for one in (first, second)] == [b"ok", b"ok"]
        assert server.connections == 2
        await transport.aclose()


async def test_one_sweep_looks_after_all_deadlines(transport: LeanTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when what is begun during one, because something was overdue, has limits of its own."""
    scheduled = 0
    call_later = asyncio.get_running_loop().call_later

    class Told(Exchange):
        def succeed(self, reply: Reply) -> None:
            raise AssertionError("the server never answers")

        def fail(self, error: Exception) -> None:
            nonlocal scheduled
            monkeypatch.setattr(transport._loop, "call_later", counted)
            transport.watch(Timeouts(reply=50.0))

    def counted(delay: float, callback: object, *args: object) -> asyncio.TimerHandle:
        nonlocal scheduled
        scheduled += callback == transport._look_around
        return call_later(delay, callback, *args)  # type: ignore[arg-type]

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        kept = Told(Request("GET", url, timeouts=Timeouts(reply=60.0)))
        transport.begin(kept)
        transport.begin(Told(Request("GET", url, timeouts=Timeouts(reply=0.1))))
        async with asyncio.timeout(20):
            while not scheduled:
                await asyncio.sleep(0.01)
        assert scheduled == 1
        monkeypatch.undo()
        transport.abandon(kept)
        await transport.aclose()
