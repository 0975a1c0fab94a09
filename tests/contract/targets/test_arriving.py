"""What every target promises of bytes that arrive, whatever its server speaks."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Engine, ResumableTarget, Upload
from asyncsdk.engine.budget import process_budget
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch, PermissionDenied, SourceChanged
from tests.contract.targets.conftest import config
from tests.support.clouds.kinds import PART_BYTES, SCRIPTED, Scripted
from tests.support.faults.breaks import Lost
from tests.support.faults.fault import Fault
from tests.support.feeds import RecordingFeed
from tests.support.http_server import Connection, Received, answer, close, cut_request, stall


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_003):
        yield data[start : start + 100_003]


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 4 * PART_BYTES, 4 * PART_BYTES + 17])
@pytest.mark.parametrize("source", ["bytes", "path", "open file", "buffered", "stream"])
async def test_every_source_arrives_whole(
    engine: Engine, kind: Scripted, tmp_path: Path, source: str, size: int
) -> None:
    """All bytes, once, with the right size and checksum in the outcome; verified where the server states a digest."""
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        given = {"bytes": data, "path": path, "open file": file, "buffered": io.BytesIO(data), "stream": pieces(data)}
        outcome = await engine.upload(given[source], kind.target("o"))
    assert kind.stored("o") == data
    assert (outcome.size_bytes, outcome.crc32c) == (size, crc32c_hex(crc32c(data)))
    assert outcome.verified is kind.verifies
    assert not getattr(kind.server, "refused", [])


REQUESTS = {"multipart": 4, "blocks": 4, "session": 3}
"""Of an upload of two parts and a bit, that of the list or of completing among them; 1 of the other kinds."""


@pytest.mark.parametrize("fault", ["503", "cut", "closed", "reply lost", "slow down"])
@pytest.mark.parametrize(
    ("kind", "at"), [(name, at) for name in SCRIPTED for at in range(REQUESTS.get(name, 1))], indirect=["kind"]
)
async def test_any_request_may_fail_once(engine: Engine, kind: Scripted, tmp_path: Path, fault: str, at: int) -> None:
    """One failure at any request costs another attempt and nothing else: the object is whole, and there once."""
    data = os.urandom(2 * PART_BYTES + 17)
    path = tmp_path / "file"
    path.write_bytes(data)
    slow = answer(503, b"<Error><Code>SlowDown</Code></Error>", {"Retry-After": "0"})
    faults = {"503": answer(503), "cut": cut_request(1000), "closed": close(), "slow down": slow, "reply lost": Lost()}
    kind.server.script("/o", *[Fault()] * at, faults[fault])
    outcome = await engine.upload(path, kind.target("o"))
    assert kind.server.unused == 0, "the fault was not met"
    assert kind.stored("o") == data
    assert list(kind.server.objects) == ["/o"]
    assert not any(upload.is_open for upload in kind.server.uploads.values())
    assert outcome.crc32c == crc32c_hex(crc32c(data))
    assert not getattr(kind.server, "refused", [])


async def test_the_servers_no_ends_it_at_once_and_tells_why(engine: Engine, kind: Scripted) -> None:
    """A 403 that is no expiry is final, and the server's words are in the error; what was signed is not."""
    body = b"<Error><Code>AccessDenied</Code><Message>the bucket is closed</Message></Error>"
    kind.server.script("/o", *[answer(403, body)] * 9)
    with pytest.raises(PermissionDenied, match="the bucket is closed") as caught:
        await engine.upload(os.urandom(10), kind.target("o"))
    assert caught.value.server_code == "AccessDenied"
    assert len([r for r in kind.server.requests if r.method != "DELETE"]) == 1
    target = kind.target("p")
    shown = f"{caught.value!r} {caught.value} {caught.value.body} {target!r}"
    for secret in ("Expires=", "sig=", "c2lnbmF0dXJl", "session-0000", "uploadId=", "5ec4e7", "c2VjcmV0"):
        assert secret not in shown


async def test_what_arrives_damaged_is_sent_again(engine: Engine, kind: Scripted, tmp_path: Path) -> None:
    """Bits that flip on the way are noticed by whoever was told a digest, and the next attempt is whole."""
    if kind.name in {"session", "plain form", "form"}:
        pytest.skip("its protocol lets no digest go along with the bytes of a request")
    data = os.urandom(2 * PART_BYTES)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def flip(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        request.body = bytes([request.body[0] ^ 1]) + request.body[1:]
        return False

    kind.server.script("/o", flip)
    outcome = await engine.upload(path, kind.target("o"))
    assert kind.stored("o") == data
    assert outcome.verified


async def test_a_damaged_session_is_never_called_done(engine: Engine) -> None:
    """A session tells its digest at the end: what was damaged on the way fails then."""
    kind = Scripted("session")
    async with kind.server:

        async def flip(connection: Connection, request: Received) -> bool:
            await connection.read_body(request)
            request.body = bytes([request.body[0] ^ 1]) + request.body[1:]
            return False

        kind.server.script("/o", flip)
        with pytest.raises(ChecksumMismatch):
            await engine.upload(os.urandom(PART_BYTES + 1), kind.target("o"))


async def test_a_wrong_announced_checksum_is_an_error(engine: Engine, kind: Scripted) -> None:
    """Bytes that are not the announced ones are a failure; where parts are joined at the end, nothing appears."""
    with pytest.raises(ChecksumMismatch):
        await engine.upload(os.urandom(2 * PART_BYTES), kind.target("o"), crc32c="00000001")
    if kind.is_parted:
        assert kind.stored("o") is None


@pytest.mark.parametrize("policy", ["fail", "retry", "accept"])
async def test_a_source_that_changes(kind: Scripted, tmp_path: Path, policy: str) -> None:
    """By the policy: a failure, the file as it is now, or whatever was read."""
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * PART_BYTES))
    new = os.urandom(2 * PART_BYTES + 5)

    async def meanwhile(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        if path.stat().st_size != len(new):
            path.write_bytes(new)
        return False

    kind.server.script("/o", meanwhile)
    feed = RecordingFeed([Upload(path, kind.target("o"))], on_renew=lambda transfer, first: kind.target("o"))
    async with Engine(config(source_changed=policy)) as engine:
        report = await engine.collect(feed)
    if policy == "fail":
        assert isinstance(report.failures[0].error, SourceChanged)
        assert kind.stored("o") is None or not kind.is_parted
    elif policy == "retry":
        report.raise_for_failures()
        assert kind.stored("o") == new
        assert len(feed.renewals) == (kind.name == "session")  # what a session has cannot be replaced
    else:
        report.raise_for_failures()
        assert len(kind.stored("o") or b"") == 2 * PART_BYTES


async def test_a_cancelled_upload_leaves_nothing_behind(engine: Engine, kind: Scripted) -> None:
    """Memory is given back; parts are removed where the protocol can."""
    started = asyncio.Event()
    kind.server.script("/o", stall(started))
    task = asyncio.create_task(engine.upload(pieces(bytes(3 * PART_BYTES)), kind.target("o")))
    await asyncio.wait_for(started.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process_budget().leased_bytes == 0
    assert kind.stored("o") is None
    assert len(kind.server.aborted) == (kind.name in {"multipart", "session"})


@pytest.mark.parametrize("minutes", [-15, 15])
async def test_clocks_that_differ_do_not_matter(kind: Scripted, tmp_path: Path, minutes: int) -> None:
    """A URL expires by the server's clock: it is renewed after the refusal that this explains, once."""
    if kind.name == "session":
        pytest.skip("a session has no expiry in its URL")
    server = kind.server
    server.clock = 1_900_000_000.0 + 60 * minutes
    kind.lifetime_seconds = 60.0
    stale = kind.target("o")
    server.clock += 61.0
    path = tmp_path / "file"
    path.write_bytes(data := os.urandom(2 * PART_BYTES + 1))
    refusal = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"

    async def refuse_old(connection: Connection, request: Received) -> bool:
        expires = float(request.query.get("Expires", "9999999999"))
        if expires > (server.clock or 0):
            return False
        await connection.read_body(request)
        await connection.reply(403, refusal)
        return True

    server.script("/o", *[refuse_old] * 20)
    kind.lifetime_seconds = 3600.0
    feed = RecordingFeed([Upload(path, stale)], on_renew=lambda transfer, first: _same_upload(kind, stale))
    async with Engine(config()) as engine:
        (await engine.collect(feed)).raise_for_failures()
    assert kind.stored("o") == data
    assert len(feed.renewals) <= (3 if kind.is_parted else 1)


async def test_a_url_is_renewed_ahead_of_its_end(kind: Scripted, tmp_path: Path) -> None:
    """Once the server's clock is known, nothing is sent to a URL that is about to expire."""
    if kind.name == "session":
        pytest.skip("a session has no expiry in its URL")
    server = kind.server
    server.clock = 1_900_000_000.0
    paths = [tmp_path / f"{number}" for number in range(2)]
    for path in paths:
        path.write_bytes(os.urandom(2 * PART_BYTES + 1))
    first = kind.target("0")
    kind.lifetime_seconds = 5.0
    late = kind.target("1")
    kind.lifetime_seconds = 3600.0
    feed = RecordingFeed(
        [Upload(paths[0], first), Upload(paths[1], late)],
        on_renew=lambda transfer, number: _same_upload(kind, late),
    )
    async with Engine(config(concurrency=1, large_objects=1)) as engine:
        async with engine.run([Upload(paths[0], first)]) as outcomes:
            assert [outcome.ok async for outcome in outcomes] == [True]
        report = await engine.collect(RecordingFeed([Upload(_late_source(paths[1]), late)], on_renew=feed._on_renew))
    report.raise_for_failures()
    assert kind.stored("1") == paths[1].read_bytes()
    used = {r.target for r in server.requests if r.path == "/1"}
    assert not any(_is_of(late, target) for target in used)


def _late_source(path: Path) -> AsyncIterator[bytes]:
    """A stream goes by the workers, whose requests all look at the clock."""
    return pieces(path.read_bytes())


def _is_of(target: object, asked: str) -> bool:
    url = getattr(target, "url", "") or getattr(target, "complete_url", "")
    return str(url).rpartition("/")[2] in asked


def _same_upload(kind: Scripted, stale: object) -> object:
    """Return fresh URLs of the same upload."""
    key = "o" if "/o?" in (getattr(stale, "url", "") or getattr(stale, "complete_url", "")) else "1"
    fresh = kind.target(key)
    if hasattr(stale, "part_urls"):
        old, new = stale.upload_id, fresh.upload_id  # type: ignore[union-attr]
        urls = tuple(url.replace(f"uploadId={new}&", f"uploadId={old}&") for url in fresh.part_urls)  # type: ignore[union-attr]
        whole = fresh.complete_url.replace(f"uploadId={new}&", f"uploadId={old}&")  # type: ignore[union-attr]
        return replace(fresh, upload_id=old, part_urls=urls, complete_url=whole, abort_url=whole, list_urls=(whole,))  # type: ignore[type-var]
    return fresh


def test_a_session_must_be_cut_into_multiples() -> None:
    """What Google refuses is refused before anything is sent."""
    with pytest.raises(AsyncSDKError, match="256 KiB"):
        ResumableTarget("http://127.0.0.1/o?upload_id=x", 100_000)
