"""One budget for every buffer: connections and parts together never hold more, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from asyncsdk.engine import (
    Download,
    Engine,
    MultipartTarget,
    PutTarget,
    StreamSink,
    Transfer,
    Upload,
    UrlOrigin,
)
from asyncsdk.engine import (
    engine as engine_module,
)
from asyncsdk.engine.allowance import Allowance
from asyncsdk.engine.budget import Budget, Lease
from asyncsdk.engine.config import KiB, MiB
from asyncsdk.transport.base import Transport
from asyncsdk.transport.httpx_transport import HttpxTransport
from asyncsdk.transport.lean import LeanTransport
from asyncsdk.transport.tls import TlsConfig
from tests.support.http_server import HttpServer
from tests.support.wire.certificates import Certificates
from tests.unit.engine.conftest import config

LONG = 24 * MiB
LARGE = 6 * MiB


class Watched(Budget):
    """Remembers the most that was ever held, and by connections."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.highest = self.highest_leased = self.refused = 0

    def _note(self) -> None:
        self.highest = max(self.highest, self.used_bytes)
        self.highest_leased = max(self.highest_leased, self.leased_bytes)

    async def take(self, size_bytes: int) -> Lease:
        lease = await super().take(size_bytes)
        self._note()
        return lease

    def take_nowait(self, size_bytes: int) -> Lease | None:
        lease = super().take_nowait(size_bytes)
        self._note()
        return lease

    def allow(self, allowance: Allowance, size_bytes: int, *, is_needed: bool) -> bool:
        is_had = super().allow(allowance, size_bytes, is_needed=is_needed)
        self.refused += not is_had
        self._note()
        return is_had


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Watched]:
    """Gives the process another budget, which is watched."""

    def use(limit_bytes: int) -> Watched:
        watched = Watched(limit_bytes)
        monkeypatch.setattr(engine_module, "process_budget", lambda: watched)
        return watched

    return use


TRANSPORTS: dict[str, Callable[[TlsConfig], Transport]] = {
    "lean": lambda tls: LeanTransport(tls=tls),
    "httpx": lambda tls: HttpxTransport(tls=tls),
}


@pytest.fixture(params=["lean", "lean by TLS", "httpx"])
async def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[HttpServer, Callable[[], Transport]]]:
    kind: str = request.param
    context, tls = None, TlsConfig()
    if "TLS" in kind:
        certificates = Certificates(tmp_path_factory.mktemp("certificates"))
        context, tls = certificates.server(), TlsConfig(ca_file=certificates.ca_file)
    async with HttpServer(context) as server:
        yield server, lambda: TRANSPORTS[kind.partition(" ")[0]](tls)


async def pieces(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 300 * KiB):
        yield bytes(min(300 * KiB, size - start))


async def swallow(data: bytes) -> None:
    await asyncio.sleep(0)


def mixed(server: HttpServer, folder: Path) -> Iterator[Transfer]:
    """Small files, streams in parts, long files, ranges to streams and downloads into memory, in turns."""
    (folder / "small").write_bytes(os.urandom(20 * KiB))
    with (folder / "long").open("wb") as file:
        file.truncate(LONG)
    for number in range(120):
        yield Upload(folder / "small", PutTarget(server.url(f"/small{number}")))
        if number % 4 == 0:
            yield Download(UrlOrigin(server.url("/kept"), size_bytes=20 * KiB), folder / f"kept{number}")
        if number % 40 == 0:
            parts = tuple(server.url(f"/parts{number}?uploadId=U{number}&partNumber={n + 1}") for n in range(6))
            complete = server.url(f"/parts{number}?uploadId=U{number}")
            yield Upload(pieces(LARGE), MultipartTarget(f"U{number}", MiB, parts, complete))
            yield Upload(pieces(100 * KiB), PutTarget(server.url(f"/stream{number}")))
            yield Download(UrlOrigin(server.url("/large"), size_bytes=LARGE), StreamSink(swallow))
            yield Download(UrlOrigin(server.url("/large"), size_bytes=LARGE), folder / f"large{number}")
            yield Download(UrlOrigin(server.url("/kept"), size_bytes=20 * KiB))
        if number % 80 == 0:
            yield Upload(folder / "long", PutTarget(server.url("/long")))


async def move_all(engine: Engine, server: HttpServer, folder: Path) -> int:
    server.objects["/kept"] = os.urandom(20 * KiB)
    server.objects["/large"] = os.urandom(LARGE)
    done = 0
    async with asyncio.timeout(90), engine.run(mixed(server, folder)) as outcomes:
        async for outcome in outcomes:
            assert outcome.ok, outcome.error
            done += 1
    return done


async def test_connections_and_buffers_together_keep_to_it(
    place: tuple[HttpServer, Callable[[], Transport]], budget: Callable[[int], Watched], tmp_path: Path
) -> None:
    """At every moment of a run of everything at once, which wants far more: 48 requests would take 18 MiB or more."""
    server, make = place
    watched = budget(16 * MiB)
    transport = make()
    async with Engine(config(concurrency=48, large_objects=6), transport=transport) as engine:
        assert await move_all(engine, server, tmp_path) == 120 + 30 + 3 * 5 + 2
    await transport.aclose()
    assert watched.highest <= 16 * MiB
    assert watched.highest > 12 * MiB, "it was never short: this shows nothing"
    assert watched.refused
    assert watched.highest_leased > 3 * MiB
    assert watched.used_bytes == 0


async def test_the_least_budget_moves_everything(
    place: tuple[HttpServer, Callable[[], Transport]], budget: Callable[[int], Watched], tmp_path: Path
) -> None:
    """One part is all of it: that part alone, and one connection."""
    server, make = place
    watched = budget(MiB)
    transport = make()
    async with Engine(config(concurrency=8, large_objects=6), transport=transport) as engine:
        assert await move_all(engine, server, tmp_path) == 120 + 30 + 3 * 5 + 2
    await transport.aclose()
    assert watched.refused
    assert watched.used_bytes == 0


async def test_connections_that_nobody_uses_make_room(
    place: tuple[HttpServer, Callable[[], Transport]], budget: Callable[[int], Watched], tmp_path: Path
) -> None:
    """Kept ones are closed when somebody waits for memory, and opened again when they are needed."""
    server, make = place
    watched = budget(16 * MiB)
    transport = make()
    async with Engine(config(concurrency=20), transport=transport) as engine:
        server.objects["/kept"] = os.urandom(20 * KiB)
        downloads = [
            Download(UrlOrigin(server.url("/kept"), size_bytes=20 * KiB), tmp_path / f"{n}") for n in range(200)
        ]
        (await engine.collect(downloads)).raise_for_failures()
        kept = watched.used_bytes
        assert kept > 5 * MiB
        async with asyncio.timeout(30):
            lease = await watched.take(12 * MiB)
        assert watched.used_bytes - lease.size_bytes <= 4 * MiB < kept
        (await engine.collect(downloads)).raise_for_failures()
        assert watched.used_bytes <= 16 * MiB
        lease.release()
    await transport.aclose()
    assert watched.used_bytes == 0


async def test_the_second_engine_gets_its_part(
    place: tuple[HttpServer, Callable[[], Transport]], budget: Callable[[int], Watched]
) -> None:
    """Though the first one keeps as many connections as there may be, which nobody uses any more."""
    server, make = place
    watched = budget(16 * MiB)
    transports = [make(), make()]
    server.objects["/kept"] = os.urandom(20 * KiB)
    downloads = [Download(UrlOrigin(server.url("/kept"), size_bytes=20 * KiB)) for _ in range(300)]
    async with (
        Engine(config(concurrency=40), transport=transports[0]) as first,
        Engine(config(concurrency=40), transport=transports[1]) as second,
    ):
        async with asyncio.timeout(60):
            (await first.collect(downloads)).raise_for_failures()
            before = max(allowance.held_bytes for allowance in watched._allowances)
            (await second.collect(downloads)).raise_for_failures()
        held = [allowance.held_bytes for allowance in watched._allowances]
        assert len(held) == 2
        assert max(held) < before
        assert all(allowance.held_bytes > allowance.least_bytes for allowance in watched._allowances)
    for transport in transports:
        await transport.aclose()
    assert watched.used_bytes == 0


async def test_a_request_that_waits_for_a_connection_can_be_cancelled(budget: Callable[[int], Watched]) -> None:
    """And the one behind it has its turn."""
    watched = budget(2 * MiB)
    async with HttpServer() as server:
        server.objects["/kept"] = b"x" * 1000
        release = asyncio.Event()

        async def hold(connection: object, request: object) -> bool:
            await release.wait()
            return False

        server.script("/slow", hold, hold, hold)
        server.objects["/slow"] = b"y" * 1000
        async with Engine(config(concurrency=8)) as engine:
            slow = [
                asyncio.create_task(engine.download(UrlOrigin(server.url("/slow"), size_bytes=1000))) for _ in range(3)
            ]
            async with asyncio.timeout(10):
                while not watched.refused:
                    await asyncio.sleep(0.01)
            waiting = asyncio.create_task(engine.download(UrlOrigin(server.url("/kept"), size_bytes=1000)))
            behind = asyncio.create_task(engine.download(UrlOrigin(server.url("/kept"), size_bytes=1000)))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            release.set()
            async with asyncio.timeout(10):
                assert (await behind).ok
                assert all(outcome.ok for outcome in await asyncio.gather(*slow))
    assert watched.used_bytes == 0


async def test_closing_fails_what_waits_for_a_connection(budget: Callable[[int], Watched]) -> None:
    watched = budget(2 * MiB)
    async with HttpServer() as server:
        never = asyncio.Event()

        async def hold(connection: object, request: object) -> bool:
            await never.wait()
            return False

        server.script("/slow", *[hold] * 8)
        engine = Engine(config(concurrency=8))
        origin = UrlOrigin(server.url("/slow"), size_bytes=1000)
        tasks = [asyncio.create_task(engine.download(origin)) for _ in range(8)]
        async with asyncio.timeout(10):
            while not watched.refused:
                await asyncio.sleep(0.01)
        await engine.aclose()
        async with asyncio.timeout(10):
            errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, Exception) for error in errors)
        never.set()
    assert watched.used_bytes == 0
