"""One round of the soak: files, streams, predictions and a checkpoint up, down, compared, deleted."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from asyncsdk import AsyncClient, AsyncDataset, AsyncSDKError, ItemUpload, Report
from asyncsdk.engine import KiB, MiB

__all__ = ["Round", "Tally"]

R = TypeVar("R")

_REPEATS = 6
"""How often something is done at most: each time it fails for no fault of its own."""

_TASK = "found"

_PIECE_BYTES = 32 * KiB
"""Of what is made and compared here: small, so that memory is the client's."""


@dataclass
class Tally:
    """What rounds add up to.

    Attributes:
        objects: Objects that moved, up or down.
        size_bytes: Their bytes.
        compared: Digests that were compared.
        repeated: What failed with a typed error and was done again: calls, and objects by the code of their error.
        examples: The first message of each code.
        problems: What is lost, wrong, there twice, sent twice, left behind, or could not be done.
    """

    objects: int = 0
    size_bytes: int = 0
    compared: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    async def again(self, name: str, call: Callable[[], Awaitable[R]]) -> R:
        """Do it until it does not fail.

        Raises:
            AsyncSDKError: It failed six times, or in a way that doing it again does not help.
        """
        for _ in range(_REPEATS - 1):
            try:
                return await call()
            except AsyncSDKError as error:
                if not error.retryable:
                    raise
                self.repeated[error.code] += 1
                self.examples.setdefault(error.code, f"{name}: {error}")
        return await call()

    async def moved(self, name: str, call: Callable[[], Awaitable[Report]]) -> int:
        """Move objects until none fails; returns how many arrived in all."""
        done = 0
        for _ in range(_REPEATS):
            report = await self.again(name, call)
            done += report.done
            self.objects += report.done
            self.size_bytes += report.bytes_done
            if report.ok:
                return done
            self.repeated.update(report.failures_by_code)
            for failure in report.failures:
                self.examples.setdefault(failure.code, f"{name}: {failure.name}: {failure.error}")
        self.problems.append(f"{name}: {report.failed} objects failed {_REPEATS} times: {report.failures[0]}")
        return done

    def expect(self, name: str, is_so: bool, otherwise: str) -> None:
        """Note a problem unless *is_so*."""
        if not is_so:
            self.problems.append(f"{name}: {otherwise}")

    def compare(self, name: str, expected: dict[str, str], found: dict[str, str]) -> None:
        """Compare digests by path."""
        self.compared += len(expected)
        for word, paths in {
            "lost": sorted(expected.keys() - found.keys()),
            "left behind": sorted(found.keys() - expected.keys()),
            "wrong": sorted(path for path in expected.keys() & found.keys() if expected[path] != found[path]),
        }.items():
            self.expect(name, not paths, f"{len(paths)} {word}, such as {paths[:1]}")


class Round:
    """One round.

    Args:
        client: Of all rounds.
        tally: Counts what is done and found.
        folder: Where its files are made, and removed at its end.
        number: From 0; makes its names.
        chance: Where sizes and bytes come from.
        scale: 1.0: some 340 objects of 90 MB.
    """

    def __init__(
        self, client: AsyncClient, tally: Tally, folder: Path, number: int, chance: random.Random, scale: float
    ) -> None:
        self._client = client
        self._tally = tally
        self._number = number
        self._chance = chance
        self._scale = scale
        self._source = folder / "files"
        self._copy = folder / "copy"
        self._weights = folder / "weights.bin"
        self._digests: dict[str, str] = {}
        self._streams: dict[
            str, tuple[int, int]
        ] = {}  # size and seed: held as bytes they would hide what the client holds

    async def run(self, stays: AsyncDataset | None) -> None:
        """Do it all, in the dataset *stays*, or in one of its own, which it deletes."""
        tally, name = self._tally, f"round {self._number}"
        await asyncio.to_thread(self._make)
        try:
            if stays is not None:
                dataset = stays
            else:
                dataset = await tally.again("create", lambda: self._client.datasets.create(name, exist_ok=True))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._folder_up(name, dataset))
                group.create_task(self._streams_up(name, dataset))
                group.create_task(self._checkpoint(name))
            await self._again_and_changed(name, dataset)
            await self._listed(name, dataset)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._predictions(name, dataset))
                group.create_task(self._down(name, dataset))
            if stays is None:
                await tally.again("delete", dataset.delete)
        finally:
            await asyncio.to_thread(self._remove)

    # --- files -------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        self._remove()
        sizes = {f"small/{number:04}.bin": 40 * KiB for number in range(self._count(300))}
        sizes |= {f"middle/{number:04}.bin": 3 * MiB for number in range(self._count(24))}
        sizes |= {"large.bin": 36 * MiB}
        for path, limit in sizes.items():
            least = {"small": 0, "middle": 64 * KiB}.get(path.partition("/")[0], 17 * MiB)  # in parts from 16 MiB on
            self._write(path, self._chance.randrange(least, limit))
        for number in range(self._count(12)):
            size, seed = self._chance.randrange(2 * MiB), self._chance.randrange(2**32)
            self._streams[f"streams/{number:04}.bin"] = size, seed
            self._digests[f"streams/{number:04}.bin"] = _digest(_pieces(size, seed))
        _fill(self._weights, self._chance.randrange(17 * MiB, 24 * MiB), self._chance.randrange(2**32))

    def _count(self, usual: int) -> int:
        return max(2, round(usual * self._scale))

    def _write(self, path: str, size_bytes: int) -> None:
        file = self._source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        self._digests[path] = _fill(file, size_bytes, self._chance.randrange(2**32))

    def _remove(self) -> None:
        for folder in (self._source, self._copy):
            if folder.exists():
                shutil.rmtree(folder)
        for file in self._weights.parent.glob("weights*"):
            file.unlink()

    # --- up ----------------------------------------------------------------------------------------------------

    async def _folder_up(self, name: str, dataset: AsyncDataset) -> None:
        await self._tally.moved(f"{name}, folder up", lambda: dataset.upload(self._source))

    async def _streams_up(self, name: str, dataset: AsyncDataset) -> None:
        """Of size unknown before their end; what failed is read anew."""

        def uploads() -> list[ItemUpload]:
            return [ItemUpload(_stream(size, seed), path=path) for path, (size, seed) in self._streams.items()]

        await self._tally.moved(f"{name}, streams up", lambda: dataset.upload(uploads()))

    async def _again_and_changed(self, name: str, dataset: AsyncDataset) -> None:
        """The same sends nothing; of a few that changed, only those."""
        sent = await self._tally.moved(f"{name}, again", lambda: dataset.upload(self._source))
        self._tally.expect(f"{name}, again", sent == 0, f"{sent} finished objects were sent again")
        changed = self._chance.sample(sorted(self._digests.keys() - self._streams.keys()), self._count(20))
        for path in changed:
            await asyncio.to_thread(self._write, path, 1 + (self._source / path).stat().st_size)
        sent = await self._tally.moved(f"{name}, changed", lambda: dataset.upload(self._source))
        self._tally.expect(f"{name}, changed", sent == len(changed), f"{len(changed)} changed, {sent} were sent")

    async def _listed(self, name: str, dataset: AsyncDataset) -> None:
        async def listed() -> list[str]:
            return [item.path async for item in dataset.items.list()]

        paths = await self._tally.again("list", listed)
        self._tally.expect(name, sorted(paths) == sorted(self._digests), f"{len(paths)} items of {len(self._digests)}")

    # --- down --------------------------------------------------------------------------------------------------

    async def _down(self, name: str, dataset: AsyncDataset) -> None:
        await self._tally.moved(f"{name}, down", lambda: dataset.download(self._copy))
        self._tally.compare(f"{name}, down", self._digests, await asyncio.to_thread(_digests, self._copy))
        excluded = ["streams/**"]
        verified = await self._tally.again("verify", lambda: dataset.verify(self._source, exclude=excluded))
        self._tally.expect(f"{name}, verify", verified.ok, f"the folder is not the dataset: {verified}")

    async def _checkpoint(self, name: str) -> None:
        tally, back = self._tally, self._weights.with_suffix(".back")
        model = await tally.again("create", lambda: self._client.models.create(name, exist_ok=True))
        await tally.again("checkpoint up", lambda: model.upload_checkpoint(self._weights, epoch=1))
        await tally.again("checkpoint down", lambda: model.download_checkpoint(back, which=1))
        tally.objects += 2
        tally.size_bytes += 2 * self._weights.stat().st_size
        found, expected = await asyncio.to_thread(lambda: (_digest_of(back), _digest_of(self._weights)))
        tally.compare(f"{name}, checkpoint", {"weights": expected}, {"weights": found})

        async def listed() -> int:
            return len([one async for one in model.checkpoints.list()])

        count = await tally.again("list", listed)
        tally.expect(f"{name}, checkpoint", count == 1, f"{count} checkpoints instead of 1")
        await tally.again("delete", model.delete)

    async def _predictions(self, name: str, dataset: AsyncDataset) -> None:
        tally = self._tally
        rows = [
            {"path": path, "predictions": [{"category": "thing", "score": self._chance.random()}]}
            for path in self._digests
        ]
        tasks = dataset.prediction_tasks
        await tally.again(
            "create", lambda: tasks.create(_TASK, kind="classification", categories=["thing"], exist_ok=True)
        )
        report = await tally.again("predictions", lambda: dataset.upload_predictions(_TASK, rows))
        tally.expect(f"{name}, predictions", report.ok, f"{report.failed} rows were refused")

        async def listed() -> dict[str, list[object]]:
            return {row.path: list(row.predictions) async for row in dataset.predictions.list(_TASK)}

        stored = await tally.again("list", listed)
        tally.expect(
            f"{name}, predictions", stored == {row["path"]: row["predictions"] for row in rows}, "rows are not as sent"
        )


def _pieces(size_bytes: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for start in range(0, size_bytes, _PIECE_BYTES):
        yield chance.randbytes(min(_PIECE_BYTES, size_bytes - start))


async def _stream(size_bytes: int, seed: int) -> AsyncIterator[bytes]:
    for piece in _pieces(size_bytes, seed):
        await asyncio.sleep(0)
        yield piece


def _fill(file: Path, size_bytes: int, seed: int) -> str:
    """Make a file; returns the digest of what it was meant to hold."""
    with file.open("wb") as opened:
        for piece in _pieces(size_bytes, seed):
            opened.write(piece)
    return _digest(_pieces(size_bytes, seed))


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _digest_of(file: Path) -> str:
    with file.open("rb") as opened:
        return _digest(iter(lambda: opened.read(_PIECE_BYTES), b""))


def _digests(folder: Path) -> dict[str, str]:
    """Return every file below *folder*, hidden and unfinished ones too."""
    return {file.relative_to(folder).as_posix(): _digest_of(file) for file in folder.rglob("*") if file.is_file()}
