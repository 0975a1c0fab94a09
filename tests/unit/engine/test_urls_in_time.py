"""URLs that end while their requests wait: chosen when a request has its slot, renewed as often as time makes it so.

Time is scaled: the server's clock goes on with what it is sent, and this machine's is the same one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.engine import BlobTarget, Download, Engine, MultipartTarget, Origin, PutTarget, Target, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.engine.expiry import Clocks
from asyncsdk.errors import PermissionDenied, ServerError
from tests.support.feeds import RecordingFeed
from tests.support.http_server import Connection, HttpServer, Received
from tests.unit.engine.conftest import config

NOW = 1_900_000_000.0
LIFE_SECONDS = 600
PART_SECONDS = 2.0
PARTS = 300
EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


class TimedServer(HttpServer):
    """A server whose clock goes on by two seconds with every part, and which refuses URLs that have ended by it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: float = NOW
        self.refused = 0
        self.blocks: dict[str, bytes] = {}

    async def answer(self, connection: Connection, request: Received) -> None:
        query = request.query
        if float(query["Expires"]) <= self.clock:
            self.refused += 1
            await connection.reply(403, EXPIRED)
            return
        if "comp" in query:
            await self._answer_block(connection, request, query)
        else:
            await super().answer(connection, request)
        if request.method == "PUT" or request.header("range"):
            self.clock += PART_SECONDS

    async def _answer_block(self, connection: Connection, request: Received, query: dict[str, str]) -> None:
        if query["comp"] == "block":
            self.blocks[query["blockid"]] = request.body
        else:
            names = re.findall(r"<Latest>(.*?)</Latest>", request.body.decode())
            self.objects[request.path] = b"".join(self.blocks[name] for name in names)
        await connection.reply(201)

    def expires(self) -> str:
        """Return the end of a URL that is minted now."""
        return f"Expires={int(self.clock) + LIFE_SECONDS}"


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TimedServer]:
    async with TimedServer() as running:
        monkeypatch.setattr(Clocks.__init__, "__defaults__", (lambda: running.clock,))
        yield running


def s3(server: TimedServer, name: str, parts: int = PARTS, first_part: int = 1) -> MultipartTarget:
    whole = server.url(f"/{name}?uploadId={name}&{server.expires()}")
    urls = tuple(f"{whole}&partNumber={number}" for number in range(first_part, first_part + parts))
    return MultipartTarget(name, 16, urls, whole, whole, first_part=first_part)


def azure(server: TimedServer, name: str) -> BlobTarget:
    return BlobTarget(server.url(f"/{name}?{server.expires()}"), upload_id=name, part_size=16, single_bytes=16)


@pytest.mark.parametrize("kind", ["s3", "azure"])
async def test_parts_that_wait_for_a_slot_longer_than_their_urls_live_arrive(server: TimedServer, kind: str) -> None:
    """Four objects of 300 parts take 40 minutes, their URLs live for ten: all arrive, few are refused on the way."""
    data = {name: bytes([number]) * 16 * PARTS for number, name in enumerate("abcd")}
    make = s3 if kind == "s3" else azure

    def renew(transfer: Upload | Download, first_part: int) -> Target | Origin:
        return make(server, transfer.name)

    feed = RecordingFeed([Upload(body, make(server, name), name=name) for name, body in data.items()], on_renew=renew)
    async with Engine(config(hedge=False, concurrency="auto")) as engine:
        (await engine.collect(feed)).raise_for_failures()
    assert {name: server.objects[f"/{name}"] for name in data} == data
    assert server.refused <= 32  # until the first reply nobody knows what time it is there
    assert len(feed.renewals) <= len(data) * (4 * PARTS * PART_SECONDS / LIFE_SECONDS + 2)


async def test_few_parts_of_an_object_are_begun_before_they_can_be_sent(server: TimedServer) -> None:
    """As many tasks as there are slots for parts, and a few that wait: not one for each part of the object."""
    most = 0

    async def watch(connection: Connection, request: Received) -> bool:
        nonlocal most
        most = max(most, len(engine.limits.slots._waiting["part"]))
        return False

    server.script("/a", *[watch] * PARTS)
    async with Engine(config(hedge=False, concurrency="auto")) as engine:
        feed = RecordingFeed(
            [Upload(bytes(16 * PARTS), s3(server, "a"))], on_renew=lambda transfer, first: s3(server, "a")
        )
        (await engine.collect(feed)).raise_for_failures()
    assert most <= 8


async def test_a_url_that_ends_again_and_again_is_renewed_each_time(server: TimedServer) -> None:
    """Two refusals of one part for its time, an hour between them: the second one is as good a reason as the first."""
    late = 0

    async def outlive(connection: Connection, request: Received) -> bool:
        nonlocal late
        if late == 3:
            return False
        late += 1
        server.clock += LIFE_SECONDS + 1  # while it was under way
        return False

    server.script("/a", *[outlive] * 9)
    feed = RecordingFeed(
        [Upload(b"abc", PutTarget(server.url(f"/a?{server.expires()}")))],
        on_renew=lambda transfer, first: PutTarget(server.url(f"/a?{server.expires()}")),
    )
    async with Engine(config()) as engine:
        (await engine.collect(feed)).raise_for_failures()
    assert server.refused == 3
    assert len(feed.renewals) == 3


@pytest.mark.parametrize("kind", ["put", "s3", "azure", "ranges"])
async def test_a_server_that_refuses_fresh_urls_ends_it(server: TimedServer, tmp_path: Path, kind: str) -> None:
    """URLs that have ended by the server's clock when they are minted: one renewal after the refusal, then its word."""
    server.objects["/d"] = bytes(3 * MiB)
    minted = 0

    def end(url: str) -> str:
        nonlocal minted
        minted += 1
        return url.replace(
            f"Expires={int(server.clock) + LIFE_SECONDS}", f"Expires={int(server.clock) - 3600 + minted}"
        )

    def fresh(transfer: object = None, first: int = 1) -> Target | Origin:
        if kind == "s3":
            target = s3(server, "a")
            return replace(target, part_urls=tuple(end(url) for url in target.part_urls))
        if kind == "azure":
            return replace(azure(server, "a"), url=end(azure(server, "a").url))
        url = end(server.url(f"/{'d' if kind == 'ranges' else 'a'}?{server.expires()}"))
        return PutTarget(url) if kind == "put" else UrlOrigin(url, size_bytes=3 * MiB)

    first = fresh()
    transfer = Download(first, tmp_path / "d") if isinstance(first, UrlOrigin) else Upload(bytes(32), first)  # type: ignore[arg-type]
    feed = RecordingFeed([transfer], on_renew=fresh)
    async with Engine(config(concurrency=1)) as engine:
        report = await engine.collect(feed)
    assert isinstance(report.failures[0].error, PermissionDenied)
    assert server.refused == 2
    assert len(feed.renewals) <= 3  # two of them ahead of time


async def test_ranges_that_wait_longer_than_their_url_lives_are_fetched(server: TimedServer, tmp_path: Path) -> None:
    """The downloads' side of it."""
    server.objects["/d"] = data = bytes(range(256)) * 4096 * 24

    def origin() -> UrlOrigin:
        return UrlOrigin(server.url(f"/d?Expires={int(server.clock) + 15}"), size_bytes=len(data))

    feed = RecordingFeed([Download(origin(), tmp_path / "d")], on_renew=lambda transfer, first: origin())
    async with Engine(config(hedge=False)) as engine:
        (await engine.collect(feed)).raise_for_failures()
    assert (tmp_path / "d").read_bytes() == data
    assert server.refused <= 4


async def test_a_renewal_that_fails_for_now_is_tried_again(server: TimedServer) -> None:
    """The platform is busy for a moment when it is asked for a fresh URL: an attempt that failed, and no more."""
    asked = 0

    def renew(transfer: Upload | Download, first_part: int) -> Target | Origin:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ServerError("the platform is busy", status=503)
        return PutTarget(server.url(f"/a?{server.expires()}"))

    feed = RecordingFeed([Upload(b"abc", PutTarget(server.url(f"/a?Expires={int(NOW) - 60}")))], on_renew=renew)
    async with Engine(config()) as engine:
        (await engine.collect(feed)).raise_for_failures()
    assert asked == 3
    assert server.objects["/a"] == b"abc"


@pytest.mark.parametrize("kind", ["range", "whole", "small"])
async def test_a_body_that_takes_long_is_no_clock_that_is_behind(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What time it is over there is told by the head, when it comes; the body may take minutes after that."""
    ours = NOW
    monkeypatch.setattr(Clocks.__init__, "__defaults__", (lambda: ours,))
    size = {"range": 4 * MiB, "whole": MiB, "small": 1000}[kind]
    server.objects["/d"] = bytes(size)

    async def slow(connection: Connection, request: Received) -> bool:
        nonlocal ours
        start, stop = 0, size
        if request.header("range"):
            start, stop = (int(number) for number in (request.header("range") or "")[6:].split("-"))
            stop += 1
        ranged = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if request.header("range") else {}
        await connection.reply(206 if ranged else 200, b"", {"ETag": '"x"', **ranged}, declared=stop - start)
        await asyncio.sleep(0.05)
        ours += 60.0
        connection.writer.write(server.objects["/d"][start:stop])
        await connection.writer.drain()
        server.clock = ours
        return True

    server.script("/d", *[slow] * 9)
    async with Engine(config(concurrency=1, hedge=False)) as engine:
        transfer = Download(UrlOrigin(server.url("/d?Expires=2000000000"), size_bytes=size), tmp_path / "d")
        (await engine.collect([transfer])).raise_for_failures()
        assert abs(engine._open().clocks.skew(server.url("/d")) or 99.0) < 1.0
