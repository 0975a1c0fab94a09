"""The express lane and the ordinary one give the same outcomes.

One seed makes the situations; each is played through an engine on the lean transport (whose small objects go by the
express lane) and through one on httpx (where everything is moved by workers), against a server that behaves the same
way for both. Compared are status, error, attempts, size, checksum, verified, ETag, reply, progress, and what is on disk
and in the store afterwards.

Not compared, because both are right:

* how many requests it took, where one lane asks once more to find out what the other knew already;
* attempts, when a connection closes without a reply: a kept one may be replaced for free.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.engine import (
    Download,
    Engine,
    Outcome,
    Progress,
    PutTarget,
    RetryPolicy,
    TransferConfig,
    Upload,
    UrlOrigin,
)
from asyncsdk.engine.config import MiB
from asyncsdk.transport.httpx_transport import HttpxTransport
from tests.support.faults.fault import Fault
from tests.support.feeds import RecordingFeed
from tests.support.http_server import (
    Action,
    Connection,
    HttpServer,
    Received,
    answer,
    close,
    cut_reply,
    cut_request,
    raw,
)

SEED = 20_261_122
SIZES = [0, 0, 1, 100, 20_480, 20_480, 65_535, 65_536, 65_537, 262_144, 262_145, 300_000, 1_200_000, 2_600_000]
WRONG = "00000001"
PAST = 1_000_000_000.0

CONFIG = TransferConfig(
    concurrency=3,
    part_size=MiB,
    multipart_threshold=2 * MiB,
    retry=RetryPolicy(max_attempts=3, wait_initial_seconds=0.001, wait_max_seconds=0.002, retry_after_max_seconds=0.01),
)


@dataclass
class Place:
    """Where situations are played: a server and a folder of their own for each engine."""

    server: HttpServer
    folder: Path


@dataclass
class Situation:
    """One transfer, and what meets it."""

    number: int
    data: bytes
    facts: list[str] = field(default_factory=list)
    is_renewed: bool = False
    has_closes: bool = False
    make: Callable[[Place], Upload | Download] = field(default=lambda place: Upload(b"", PutTarget("")))

    @property
    def target(self) -> str:
        """Its path on the server."""
        return f"/{self.number}"


# --- what a server does --------------------------------------------------------------------------------------


def stating(*names: tuple[str, str], body: bytes | None = None, status: int = 200) -> Action:
    """Answer with these headers: a GET with *body*, a PUT by keeping what came."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        if request.method == "PUT":
            connection.server.objects[request.path] = request.body
        await connection.reply(status, body or b"", dict(names))
        return True

    return action


async def expired(connection: Connection, request: Received) -> bool:
    """Refuse a URL that has expired. Whether it is renewed before it is asked is chance: by then, the time there may
    be known or not."""
    if request.target.endswith("?fresh"):
        return False
    await connection.read_body(request)
    await connection.reply(403, b"expired")
    return True


def early(status: int) -> Action:
    """Answer before the body is there, and read no more of it."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request, 1024)
        await connection.reply(status, headers={"Connection": "close"})
        await asyncio.Event().wait()
        return True

    return action


def touching(path: Path, how: str, then: Action | Fault | None) -> Action:
    """Do something to a source before the answer."""

    async def action(connection: Connection, request: Received) -> bool | Fault:
        if how == "gone":
            path.unlink()
        else:
            with path.open("ab") as file:
                file.write(b"more")
        return then if isinstance(then, Fault) else False if then is None else await then(connection, request)

    return action


def trouble(dice: random.Random, situation: Situation, *, is_upload: bool) -> list[Action]:
    """Return what the server does to the first requests, and write it down."""
    data, size = situation.data, len(situation.data)
    wrong = ("x-amz-checksum-crc32c", crc32c_base64(crc32c(data) ^ 1))
    right = ("x-amz-checksum-crc32c", crc32c_base64(crc32c(data)))
    body = None if is_upload else data
    etag = ("ETag", '"e"')
    choices: dict[str, list[Action]] = {
        "nothing": [],
        "a refusal": [answer(dice.choice([300, 304, 400, 403, 404, 409, 410, 418, 501, 507]), b"no")],
        "a passing fault": [answer(dice.choice([408, 429, 500, 502, 503]), b"later", {"Retry-After": "0"})]
        * dice.randrange(1, 3),
        "a lasting fault": [answer(503, b"<Error><Code>SlowDown</Code></Error>")] * 9,
        "a wrong checksum once": [stating(wrong, etag, body=body)],
        "a wrong checksum always": [stating(wrong, etag, body=body)] * 9,
        "a right checksum": [stating(right, etag, body=body)],
        "a checksum of checksums": [stating(wrong, ("x-amz-checksum-type", "COMPOSITE"), etag, body=body)],
        "goog": [stating(("x-goog-hash", f"crc32c={right[1]},md5=AAAA"), body=body)],
        "no HTTP": [raw(b"nonsense\r\n\r\n")] * dice.choice([1, 9]),
        "a close": [close()] * dice.choice([1, 9]),
        "another success": [stating(etag, body=body, status=dice.choice([201, 203, 204]) if is_upload else 203)],
        "a refusal with a large body": [answer(404, b"x" * 100_000)],
    }
    if is_upload:
        choices["a cut request"] = [cut_request(size // 2)] * dice.choice([1, 9])
        choices["a chatty success"] = [stating(etag, body=b"said", status=200)]
    else:
        choices |= {
            "a cut reply": [cut_reply(size // 2)] * dice.choice([1, 9]) if size else [],
            "a short object": [answer(200, data[:-1])] * 2 if size else [],
            "a long object": [answer(200, data + b"x")] * 2,
            "a long chunked object": [raw(_chunked(data + b"x" * 10))] * 9,
            "a short chunked object": [raw(_chunked(data[: size // 2]))] * 9,
            "a chunked object": [raw(_chunked(data))],
            "an object up to the end": [raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data)],
            "a padded length": [raw(b"HTTP/1.1 200 OK\r\nContent-Length: 000%d\r\n\r\n" % size + data)],
            "a part": [answer(206, data[:10], {"Content-Range": f"bytes 0-9/{max(size, 10)}"})],
            "416": [answer(416, b"", {"Content-Range": "bytes */77"})],
            "412": [answer(412)],
            "204": [answer(204)],
        }
    name = dice.choice(["nothing", *choices])
    situation.facts.append(name)
    situation.has_closes = name in {"a close", "a cut request"}
    return choices[name]


def _chunked(data: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    half = len(data) // 2
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (data[:half], data[half:]) if piece)
    return head + pieces + b"0\r\n\r\n"


# --- situations ----------------------------------------------------------------------------------------------


def situations(seed: int, count: int) -> list[Situation]:
    """Return *count* of them."""
    dice = random.Random(seed)
    result = []
    for number in range(count):
        situation = Situation(number, random.Random(number).randbytes(dice.choice(SIZES)))
        (_an_upload if dice.random() < 0.5 else _a_download)(dice, situation)
        result.append(situation)
    return result


def _an_upload(dice: random.Random, situation: Situation) -> None:
    data, facts = situation.data, situation.facts
    facts.append("upload")
    actions = trouble(dice, situation, is_upload=True)
    source = dice.choice(["path"] * 6 + ["bytes", "view", "words", "missing", "folder", "pipe", "loop", "bad name"])
    size = dice.choice([None, None, len(data), len(data) + 1])
    checksum = dice.choice([None, None, crc32c_hex(crc32c(data)), WRONG])
    filled = dice.choice([None, None, None, "", crc32c_base64(crc32c(data))])
    touch = dice.choice([None] * 6 + ["gone", "changed"]) if source == "path" else None
    expiry = dice.choice(["none"] * 4 + ["renewed", "not renewed"])
    url = dice.choice([""] * 12 + ["bad url", "bad header"])
    is_early = len(data) > 2_000_000 and dice.random() < 0.5
    situation.is_renewed = expiry == "renewed"
    facts += [f"{len(data)} bytes", source, f"{size=} {checksum=} {filled=} {touch=} {expiry=} {url=} {is_early=}"]

    def make(place: Place) -> Upload:
        path = place.folder / f"source-{situation.number}"
        _make_source(path, source, data)
        script = [early(dice_status)] if is_early else list(actions)
        if touch is not None:
            script = [touching(path, touch, script[0] if script else None), *script[1:]]
        if expiry != "none":
            script = [expired]
        place.server.script(situation.target, *script)
        headers = {} if filled is None else {"X-Amz-Checksum-Crc32c": filled}
        if url == "bad header":
            headers["X-Bad"] = "a\r\nb"
        where = "http:///nowhere" if url == "bad url" else place.server.url(situation.target)
        given: Path | bytes | memoryview = path / "\0" if source == "bad name" else path
        if source in {"bytes", "view"}:
            given = data if source == "bytes" else memoryview(data)
        elif source == "words":
            whole = data[: len(data) // 4 * 4]
            given = memoryview(whole).cast("I")
        return Upload(
            given,
            PutTarget(where, headers, expires_at=None if expiry == "none" else PAST),
            size_bytes=size,
            crc32c=checksum,
        )

    dice_status = dice.choice([413, 403])
    situation.make = make


def _make_source(path: Path, kind: str, data: bytes) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind != "missing":
        path.write_bytes(data)


def _a_download(dice: random.Random, situation: Situation) -> None:
    data, facts = situation.data, situation.facts
    facts.append("download")
    actions = trouble(dice, situation, is_upload=False)
    size = dice.choice([None, len(data), len(data), len(data), len(data) + 1])
    checksum = dice.choice([None, None, crc32c_hex(crc32c(data)), WRONG])
    etag = dice.choice([None, None, None, '"e"', 'W/"e"', '"other"'])
    kinds = ["plain"] * 8 + ["nested", "existing", "folder", "link to folder", "link", "under a file", "long", "bad"]
    sink = dice.choice([*kinds, "full", "full"])
    expiry = dice.choice(["none"] * 4 + ["renewed", "not renewed"])
    if sink not in {"plain", "nested", "existing", "link"}:
        # One trouble at a time: either could be told first.
        actions, size, checksum, etag = [], dice.choice([None, len(data)]), None, None
    if len(data) > CONFIG.multipart_threshold:
        actions, size = actions[:1], None  # which range meets what would be chance
    situation.is_renewed = expiry == "renewed"
    facts += [f"{len(data)} bytes", f"{size=} {checksum=} {etag=} {sink=} {expiry=}"]

    def make(place: Place) -> Download:
        place.server.objects[situation.target] = data
        place.server.etags[situation.target] = '"e"'
        script = list(actions) if expiry == "none" else [expired]
        place.server.script(situation.target, *script)
        origin = UrlOrigin(
            place.server.url(situation.target),
            size_bytes=size,
            etag=etag,
            crc32c=checksum,
            expires_at=None if expiry == "none" else PAST,
        )
        return Download(origin, _make_sink(place.folder / f"sink-{situation.number}", sink))

    situation.make = make


def _make_sink(folder: Path, kind: str) -> Path:
    folder.mkdir()
    path = folder / "object"
    if kind in {"existing", "link"}:
        (folder / "old").write_bytes(b"old")
    if kind == "existing":
        path.write_bytes(b"before")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to folder":
        (folder / "inner").mkdir()
        path.symlink_to(folder / "inner")
    elif kind == "link":
        path.symlink_to(folder / "old")
    elif kind == "under a file":
        path.write_bytes(b"in the way")
        path = path / "object"
    elif kind == "nested":
        path = folder / "a" / "b" / "object"
    elif kind == "long":
        path = folder / ("n" * 300)
    elif kind == "bad":
        path = folder / "a\0b"
    elif kind == "full":
        path = folder / "full"
    return path


# --- playing them --------------------------------------------------------------------------------------------


def on_disk(folder: Path) -> list[tuple[str, object]]:
    """Return the files and links under *folder*."""
    found: list[tuple[str, object]] = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found.append((name, ("link", path.readlink().name)))
        elif path.is_file():
            found.append((name, crc32c_hex(crc32c(path.read_bytes()))))
    return found


def told(situation: Situation, outcome: Outcome, place: Place) -> dict[str, object]:
    """Return everything that can be told of one outcome."""
    error = outcome.error
    result: dict[str, object] = {
        "status": outcome.status,
        "error": None if error is None else (type(error).__name__, getattr(error, "status", None), error.retryable),
        "attempts": outcome.attempts,
        "size": outcome.size_bytes,
        "checksum": outcome.checksum,
        "verified": outcome.verified,
        "etag": outcome.etag,
        "reply": outcome.reply,
    }
    if situation.has_closes or situation.is_renewed:
        result["attempts"] = None
    if isinstance(outcome.transfer, Download):
        folder = place.folder / f"sink-{situation.number}"
        result["disk"] = on_disk(folder)
        assert not list(folder.rglob("*.part")), situation.facts
    else:
        stored = place.server.objects.get(situation.target)
        result["stored"] = stored if stored is None else crc32c_hex(crc32c(stored))
    return result


def renewed(transfer: Upload | Download, place: Place) -> PutTarget | UrlOrigin | None:
    """Return a fresh target or origin for transfers that get one."""
    situation: Situation = transfer.key
    if not situation.is_renewed:
        return None
    url = place.server.url(situation.target + "?fresh")
    if isinstance(transfer, Upload):
        assert isinstance(transfer.target, PutTarget)
        return PutTarget(url, transfer.target.headers)
    origin = transfer.origin
    assert isinstance(origin, UrlOrigin)
    return UrlOrigin(url, size_bytes=origin.size_bytes, etag=origin.etag, crc32c=origin.crc32c)


async def play(engine: Engine, place: Place, played: Sequence[Situation]) -> list[object]:
    """Play them in runs of a few each, and add to the results of each run what counted as moved in the end."""
    results: list[object] = []
    for start in range(0, len(played), 6):
        group = played[start : start + 6]
        transfers = []
        for situation in group:
            transfers.append(situation.make(place))
            transfers[-1].key = situation
        feed = RecordingFeed(transfers, on_renew=lambda transfer, _: renewed(transfer, place))
        moved: list[Progress] = []
        outcomes: dict[int, Outcome] = {}
        async with engine.run(feed, on_progress=moved.append) as run:
            async for outcome in run:
                assert outcome.transfer.key.number not in outcomes, "one outcome each"
                outcomes[outcome.transfer.key.number] = outcome
        results += [told(situation, outcomes[situation.number], place) for situation in group]
        results.append(moved[-1].bytes_done)
    return results


def fill_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that is written for a file called "full" find the disk full."""
    write = os.pwrite

    def pwrite(fd: int, data: bytes | memoryview, offset: int) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().name.startswith(".full."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)


async def agree(count: int, seed: int, folder: Path) -> None:
    """Compare both lanes."""
    played = situations(seed, count)
    results = []
    for lane in ("express", "ordinary"):
        place = folder / lane
        place.mkdir()
        async with HttpServer() as server:
            transport = None if lane == "express" else HttpxTransport(timeouts=CONFIG.timeouts)
            async with Engine(CONFIG, transport=transport) as engine:
                results.append(await play(engine, Place(server, place), played))
            if transport is not None:
                await transport.aclose()
    express, ordinary = results
    facts = [situation.facts for situation in played]
    runs = [item for start in range(0, count, 6) for item in [*facts[start : start + 6], facts[start : start + 6]]]
    differences = [
        f"{what}:\n  express  {one}\n  ordinary {other}"
        for what, one, other in zip(runs, express, ordinary, strict=True)
        if one != other
    ]
    assert not differences, f"{len(differences)} of {count} differ\n" + "\n".join(differences)
    done = sum(isinstance(result, dict) and result["status"] == "done" for result in express)
    assert 0.15 * count < done < 0.85 * count, "both ends are met"


async def test_lanes_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 situations."""
    fill_disks(monkeypatch)
    await agree(300, SEED, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_lanes_agree_at_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 situations."""
    fill_disks(monkeypatch)
    await agree(5_000, SEED + 1, tmp_path)
