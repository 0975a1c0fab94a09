"""Parts that were sent twice to a server whose ETags differ with every upload: the one that it has is the one named.

A request that was given up (late, or its reply never came) may still be taken, after the one that counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asyncsdk.engine import Engine, MiB, MultipartTarget, TransferConfig
from asyncsdk.errors import ResponseError
from asyncsdk.transport.base import Timeouts
from tests.faults.conftest import config
from tests.support.faults.data import noise
from tests.support.faults.exchange import Answer
from tests.support.faults.server import FaultServer
from tests.support.faults.store import ObjectStore
from tests.support.wire.server import Seen

PARTS = 24
LATE = 22


class LateStore(ObjectStore):
    """Takes the first upload of one part only at a moment that is chosen: after another one of the same bytes.

    Args:
        lands: ``sent``: right after the other one; ``listed``: after the parts were listed; ``always``: anew after
            every listing.
    """

    def __init__(self, lands: str) -> None:
        super().__init__(has_etags_of_chance=True)
        self.lands = lands
        self.first: Seen | None = None
        self.asked: list[str] = []
        self.has_landed = asyncio.Event()
        self.uploads["u1"] = {}

    async def __call__(self, seen: Seen) -> Answer:
        is_late = seen.method == "PUT" and f"partNumber={LATE}&" in f"{seen.target}&"
        self.asked.append("part" if is_late else seen.method)
        if is_late and self.first is None:
            self.first = seen
            await self.has_landed.wait()
            await asyncio.sleep(1.0)  # the client drops it meanwhile
            return Answer(500)
        answer = await super().__call__(seen)
        lands = is_late if self.lands == "sent" else seen.method == "GET" and "uploadId" in seen.target
        if lands and self.first is not None:
            await super().__call__(self.first)
            self.has_landed.set()
            if self.lands == "listed":
                self.first = Seen("GET", "/nothing", b"")
        return answer


def in_parts(server: FaultServer, *, lists: bool = True) -> MultipartTarget:
    url = server.url("/large?uploadId=u1")
    urls = tuple(f"{url}&partNumber={number}" for number in range(1, PARTS + 1))
    return MultipartTarget("u1", MiB, urls, complete_url=url, abort_url=url, list_urls=(url,) if lists else ())


def patient(**changes: object) -> TransferConfig:
    """On a busy machine joining the parts takes a while, and only the late part shall be given up."""
    return config(timeouts=Timeouts(connect=5.0, idle=5.0, reply=5.0), **changes)


@pytest.fixture(params=["sent", "listed"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[FaultServer]:
    async with FaultServer(store=LateStore(request.param)) as running:
        yield running


async def test_a_repetition_that_won_is_completed_with_the_etag_that_stands(server: FaultServer) -> None:
    """Though the request that lost landed last."""
    data = noise(PARTS * MiB, 1)
    async with Engine(patient()) as engine, asyncio.timeout(60):
        outcome = await engine.upload(data, in_parts(server))
        assert engine.limits.hedging.won == 1
    assert outcome.verified
    assert server.store["/large"] == data
    assert isinstance(server.store, LateStore)
    assert server.store.asked.count("part") == 2
    assert server.store.asked.count("POST") == (1 if server.store.lands == "sent" else 2)


async def test_a_part_tried_again_is_completed_with_the_etag_that_stands(server: FaultServer) -> None:
    """The same after a reply that never came."""
    data = noise(PARTS * MiB, 2)
    async with Engine(patient(hedge=False)) as engine, asyncio.timeout(60):
        assert (await engine.upload(data, in_parts(server))).ok
        assert engine.limits.hedging.repeated == 0
    assert server.store["/large"] == data


async def test_a_server_that_cannot_be_asked_gets_no_repetitions() -> None:
    """It would have to be guessed which of two requests it took last."""
    async with FaultServer(store=LateStore("listed")) as server, Engine(patient()) as engine, asyncio.timeout(60):
        data = noise(PARTS * MiB, 3)
        assert (await engine.upload(data, in_parts(server, lists=False))).ok  # its reply never came: asked once more
        assert engine.limits.hedging.repeated == 0
        assert server.store["/large"] == data


async def test_parts_that_never_stand_still_fail_in_the_end() -> None:
    """Completing is not asked for again and again for ever."""
    store = LateStore("always")
    async with FaultServer(store=store) as server, Engine(patient()) as engine, asyncio.timeout(60):
        with pytest.raises(ResponseError) as caught:
            await engine.upload(noise(PARTS * MiB, 4), in_parts(server))
    assert caught.value.server_code == "InvalidPart"
    assert store.asked.count("POST") == 4
    assert store.uploads == {}, "it was not aborted"


async def test_nothing_is_listed_when_no_part_was_sent_twice() -> None:
    """One upload of each part: completing costs one request, as ever."""
    store = LateStore("sent")
    store.first = Seen("GET", "/nothing", b"")  # nothing is late
    async with FaultServer(store=store) as server, Engine(patient()) as engine:
        assert (await engine.upload(noise(PARTS * MiB, 5), in_parts(server))).ok
    assert "GET" not in store.asked
