"""Downloads in ranges that go on with what an earlier process left."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Download, Engine, Outcome, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.engine.received import Received, Unfinished
from asyncsdk.engine.sinks import PartFile
from tests.support.http_server import HttpServer, answer
from tests.unit.engine.conftest import config

SIZE = 4 * MiB + 321


class Book:
    """Remembers what a download tells, as a journal would."""

    def __init__(self) -> None:
        self.unfinished: Unfinished | None = None
        self.ranges: dict[int, tuple[int, int]] = {}
        self.ended = 0

    def received(self) -> Received:
        return Received(self.unfinished, dict(self.ranges), self._begin, self._range, self._end)

    def _begin(self, unfinished: Unfinished) -> None:
        self.unfinished, self.ranges = unfinished, {}

    def _range(self, number: int, size_bytes: int, checksum: int) -> None:
        self.ranges[number] = (size_bytes, checksum)

    def _end(self) -> None:
        self.unfinished, self.ranges = None, {}
        self.ended += 1


class Setup:
    def __init__(self, server: HttpServer, folder: Path) -> None:
        self.server = server
        self.data = os.urandom(SIZE)
        server.objects["/o"] = self.data
        self.path = folder / "file"
        self.book = Book()
        self.knows_size = True

    @property
    def ranges(self) -> list[str]:
        """What was asked for, in order of place."""
        return sorted(
            (r.header("range") or "" for r in self.server.of("GET")), key=lambda text: int(text[6:].split("-")[0])
        )

    async def fetch(self, engine: Engine) -> Outcome:
        self.server.requests.clear()
        data = self.server.objects["/o"]
        origin = UrlOrigin(self.server.url("/o"), size_bytes=len(data), etag=self.server.etag("/o"))
        if not self.knows_size:
            origin = UrlOrigin(self.server.url("/o"))
        outcomes = [Download(origin, self.path, received=self.book.received())]
        async with engine.run(outcomes) as running:
            (outcome,) = [one async for one in running]
        return outcome

    async def fail_half_way(self, engine: Engine) -> None:
        """Let the last but one range fail for good: the others are there."""
        start = 3 * MiB

        async def refuse(connection: object, request: object) -> bool:
            if (request.header("range") or "").startswith(f"bytes={start}-"):  # type: ignore[attr-defined]
                while len(self.book.ranges) < 2:
                    await asyncio.sleep(0.001)
                return answer(403)
            return False

        self.server.script("/o", *[refuse] * 12)  # type: ignore[list-item]
        outcome = await self.fetch(engine)
        self.server._scripts.clear()
        assert outcome.error is not None
        assert not self.path.exists()

    @property
    def parts(self) -> list[Path]:
        return list(self.path.parent.glob(".*.part"))


@pytest.fixture
def half(server: HttpServer, tmp_path: Path) -> Setup:
    return Setup(server, tmp_path)


@pytest.mark.parametrize("knows_size", [True, False], ids=["size known", "size unknown"])
async def test_only_what_is_missing_is_fetched(engine: Engine, half: Setup, knows_size: bool) -> None:
    half.knows_size = knows_size
    await half.fail_half_way(engine)
    there = set(half.book.ranges)
    assert 4 not in there
    assert there
    assert half.book.unfinished is not None
    assert [str(path) for path in half.parts] == [half.book.unfinished.temporary]
    outcome = await half.fetch(engine)
    assert outcome.error is None
    assert outcome.crc32c == crc32c_hex(crc32c(half.data))
    assert half.path.read_bytes() == half.data
    asked = {int(text[6:].split("-")[0]) // MiB + 1 for text in half.ranges}
    assert asked == set(range(1, 6)) - (there - ({1} if not knows_size else set()))  # the first one tells the size
    assert (half.parts, half.book.unfinished, half.book.ended) == ([], None, 1)


@pytest.mark.parametrize("knows_size", [True, False], ids=["size known", "size unknown"])
@pytest.mark.parametrize("part_size", [2 * MiB, 3 * MiB - 5])
async def test_another_part_size_goes_on_with_the_ranges_there_are(
    engine: Engine, half: Setup, part_size: int, knows_size: bool
) -> None:
    half.knows_size = knows_size
    await half.fail_half_way(engine)
    there = set(half.book.ranges)
    (part,) = half.parts
    inode = part.stat().st_ino
    async with Engine(config(part_size=part_size)) as other:
        outcome = await half.fetch(other)
    assert outcome.error is None
    assert half.path.stat().st_ino == inode
    assert half.path.read_bytes() == half.data
    to_learn_the_size = {f"bytes=0-{part_size - 1}"} - ({""} if knows_size else set())
    asked = {int(text[6:].split("-")[0]) // MiB + 1 for text in half.ranges if text not in to_learn_the_size}
    assert asked == set(range(1, 6)) - there
    assert (half.parts, half.book.ended) == ([], 1)


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_file_that_nobody_would_find_again_is_removed(engine: Engine, half: Setup, is_kept: bool) -> None:
    """Asked when it is left: a journal may have been given up since the file was begun."""
    asked = []
    begin = half.book.received

    def received() -> Received:
        made = begin()
        made.is_kept = lambda: asked.append(half.parts) is None and is_kept
        return made

    half.book.received = received  # type: ignore[method-assign]
    await half.fail_half_way(engine)
    assert len(asked) == 1
    assert len(asked[0]) == 1
    assert len(half.parts) == is_kept
    assert half.book.ended == (not is_kept)


async def test_a_range_whose_bytes_are_not_what_came_is_fetched_again(engine: Engine, half: Setup) -> None:
    await half.fail_half_way(engine)
    damaged = min(half.book.ranges)
    with half.parts[0].open("r+b") as file:
        file.seek((damaged - 1) * MiB + 77)
        file.write(b"damage")
    assert (await half.fetch(engine)).error is None
    assert half.path.read_bytes() == half.data
    assert f"bytes={(damaged - 1) * MiB}-{damaged * MiB - 1}" in half.ranges


async def test_another_version_is_fetched_anew(engine: Engine, half: Setup) -> None:
    await half.fail_half_way(engine)
    half.server.objects["/o"] = os.urandom(SIZE)
    assert (await half.fetch(engine)).error is None
    assert half.path.read_bytes() == half.server.objects["/o"]
    assert len(half.ranges) == 5
    assert half.parts == []


@pytest.mark.parametrize("what", ["gone", "longer", "folder", "link"])
async def test_a_file_that_is_no_longer_the_one_is_not_gone_on_with(engine: Engine, half: Setup, what: str) -> None:
    await half.fail_half_way(engine)
    (part,) = half.parts
    secret = half.path.parent / "secret"
    secret.write_bytes(b"untouched")
    if what == "longer":
        os.truncate(part, SIZE + 1)
    else:
        part.unlink()
        if what == "folder":
            part.mkdir()
        elif what == "link":
            part.symlink_to(secret)
    assert (await half.fetch(engine)).error is None
    assert half.path.read_bytes() == half.data
    assert len(half.ranges) == 5
    assert secret.read_bytes() == b"untouched"


async def test_an_object_that_changes_meanwhile_leaves_nothing(engine: Engine, half: Setup) -> None:
    """The half-received file of a version that is gone is of no use to anybody."""
    await half.fail_half_way(engine)
    half.server.script("/o", *[answer(412)] * 5)
    outcome = await half.fetch(engine)
    assert outcome.error is not None
    assert outcome.error.code == "object_changed"
    assert (half.parts, half.book.unfinished) == ([], None)


async def test_without_a_book_a_failed_download_leaves_nothing(engine: Engine, half: Setup) -> None:
    half.book.received = lambda: None  # type: ignore[method-assign,assignment,return-value]
    half.book.ranges = {1: (0, 0), 2: (0, 0)}  # nobody tells: do not wait for it
    await half.fail_half_way(engine)
    assert half.parts == []
    assert half.book.ended == 0


@pytest.mark.parametrize(
    ("mine", "theirs", "is_like"),
    [
        (("e", None), ("e", None), True),
        (("e", None), ("f", None), False),
        ((None, "0a"), (None, "0a"), True),
        (("e", "0a"), ("e", "0b"), False),
        (("e", None), (None, "0a"), False),
        ((None, None), (None, None), False),
    ],
)
def test_nothing_is_gone_on_with_that_cannot_be_told_apart(
    mine: tuple[str | None, str | None], theirs: tuple[str | None, str | None], is_like: bool
) -> None:
    one, other = (Unfinished("t", 100, 10, *facts) for facts in (mine, theirs))
    assert one.is_like(other) is is_like
    assert not one.is_like(Unfinished("t", 101, 10, *mine))
    assert one.is_like(Unfinished("t", 100, 20, *theirs)) is is_like
    assert not Unfinished("t", 100, 0, *mine).is_like(other)


async def test_a_file_that_was_made_and_not_told_of_is_removed(
    engine: Engine, half: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while it is made: nobody would ever remove it."""
    open_file, made = PartFile.open, threading.Event()

    def slow(file: PartFile) -> bool:
        was_there = open_file(file)
        made.set()
        time.sleep(0.05)
        return was_there

    monkeypatch.setattr(PartFile, "open", slow)
    fetching = asyncio.create_task(half.fetch(engine))
    assert await asyncio.to_thread(made.wait, 10)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert half.book.unfinished is None
    assert list(half.path.parent.iterdir()) == []
