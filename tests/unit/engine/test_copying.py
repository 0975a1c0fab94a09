"""Copies of large files that go on with what an earlier process left."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Download, Engine, FileOrigin, FileTarget, Outcome, Upload
from asyncsdk.engine.received import COPIED_BYTES, Received
from asyncsdk.engine.sinks import PartFile
from asyncsdk.engine.sources import FileSource
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch, DestinationFull, SourceChanged, SourceUnreadable
from tests.unit.engine.test_received import Book

SIZE = 3 * COPIED_BYTES + 321
DATA = os.urandom(1024 * 1024) * 48 + os.urandom(321)


class Setup:
    """Copies one file, up or down, and counts what is read of it.

    Attributes:
        read_bytes: What the last copy read.
        fails_at: Reading beyond fails.
        is_kept: Whether the book is kept.
    """

    def __init__(self, folder: Path, is_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "to"
        self.source = folder / "source"
        self.source.write_bytes(DATA)
        self.book = Book()
        self.crc32c = crc32c_hex(crc32c(DATA))
        self.destination = self.folder / (f"name.{self.crc32c}" if is_up else "name")
        self.read_bytes = 0
        self.fails_at: int | None = None
        self.fails_with: Callable[[], AsyncSDKError] = lambda: SourceUnreadable("gone", source="source")
        self.identity: tuple[int, int, int] | None = None
        self.is_kept = True
        self._is_up = is_up
        read_at = FileSource.read_at

        def counted(source: FileSource, size_bytes: int, offset: int) -> bytes:
            if self.fails_at is not None and offset >= self.fails_at:
                raise self.fails_with()
            data = read_at(source, size_bytes, offset)
            self.read_bytes += len(data)
            return data

        monkeypatch.setattr(FileSource, "read_at", counted)

    async def copy(self, engine: Engine, fails_at: int | None = None) -> Outcome:
        self.read_bytes, self.fails_at = 0, fails_at
        known = self.book.received()
        received = Received(
            known.unfinished,
            known.ranges,
            known.on_begin,
            known.on_range,
            known.on_end,
            lambda: self.is_kept,
            self.identity,
        )
        transfer: Upload | Download
        if self._is_up:
            transfer = Upload(self.source, FileTarget(self.folder, "name"), crc32c=self.crc32c, received=received)
        else:
            origin = FileOrigin(self.source, SIZE, self.crc32c, f'"{self.crc32c}"')
            transfer = Download(origin, self.destination, received=received)
        async with engine.run([transfer]) as running:
            (outcome,) = [one async for one in running]
        return outcome

    @property
    def unfinished(self) -> list[Path]:
        return list(self.folder.glob("*.part"))

    def check_done(self, outcome: Outcome) -> None:
        assert outcome.error is None
        assert (outcome.size_bytes, outcome.crc32c) == (SIZE, self.crc32c)
        assert list(self.folder.iterdir()) == [self.destination]
        assert self.destination.read_bytes() == DATA


@pytest.fixture(params=["up", "down"])
def half(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    return Setup(tmp_path, request.param == "up", monkeypatch)


async def test_only_ranges_that_are_missing_are_copied(engine: Engine, half: Setup) -> None:
    outcome = await half.copy(engine, 2 * COPIED_BYTES + 1000)
    assert isinstance(outcome.error, SourceUnreadable)
    assert half.unfinished
    assert sorted(half.book.ranges) == [1, 2]
    half.check_done(await half.copy(engine))
    assert half.read_bytes == SIZE - 2 * COPIED_BYTES


async def test_a_range_whose_bytes_are_not_what_was_copied_is_copied_again(engine: Engine, half: Setup) -> None:
    await half.copy(engine, 2 * COPIED_BYTES)
    with half.unfinished[0].open("r+b") as file:
        file.write(b"torn")
    half.check_done(await half.copy(engine))
    assert half.read_bytes == SIZE - COPIED_BYTES


async def test_a_file_that_lost_its_end_is_gone_on_with_before_it(engine: Engine, half: Setup) -> None:
    await half.copy(engine, 2 * COPIED_BYTES)
    os.truncate(half.unfinished[0], COPIED_BYTES + 5)
    half.check_done(await half.copy(engine))
    assert half.read_bytes == SIZE - COPIED_BYTES


async def test_what_nobody_would_find_again_is_removed(engine: Engine, half: Setup) -> None:
    half.is_kept = False
    await half.copy(engine, 2 * COPIED_BYTES)
    assert not half.unfinished
    assert half.book.unfinished is None


@pytest.mark.parametrize(
    "error",
    [DestinationFull("full", destination="d"), SourceChanged("changed", source="s"), ChecksumMismatch("a", "b")],
    ids=lambda error: type(error).__name__,
)
async def test_what_is_of_no_use_is_removed(engine: Engine, half: Setup, error: AsyncSDKError) -> None:
    half.fails_with = lambda: error
    outcome = await half.copy(engine, COPIED_BYTES)
    assert type(outcome.error) is type(error)
    assert not half.unfinished
    assert half.book.unfinished is None


async def test_a_file_that_changed_is_copied_anew(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and bytes are the same, but nobody could know that."""
    half = Setup(tmp_path, True, monkeypatch)
    await half.copy(engine, 2 * COPIED_BYTES)
    (left,) = half.unfinished
    os.utime(half.source, (1, 1))
    half.check_done(await half.copy(engine))
    assert half.read_bytes == SIZE
    assert not left.exists()


async def test_of_a_file_that_was_replaced_before_it_was_open_nothing_is_told(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Setup(tmp_path, True, monkeypatch)
    half.identity = (SIZE, 1, 1)
    await half.copy(engine, 2 * COPIED_BYTES)
    assert (half.book.unfinished, half.book.ranges, half.unfinished) == (None, {}, [])
    half.check_done(await half.copy(engine))


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
    copying = asyncio.create_task(half.copy(engine))
    assert await asyncio.to_thread(made.wait, 10)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert half.book.unfinished is None
    assert not half.unfinished
