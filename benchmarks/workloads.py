"""What is measured: files up and down, against nginx by the engine alone, against a platform by the entity API.

A workload gets ready, does its work inside the meter, then verifies what arrived; the same files serve every
contender. It returns how many objects and bytes arrived, or raises `WorkloadFailed`.
"""

from __future__ import annotations

import filecmp
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncsdk.client import AsyncClient
from asyncsdk.engine import Download, Engine, MiB, PutTarget, Transfer, TransferConfig, Upload, UrlOrigin

__all__ = ["WORKLOADS", "Place", "Workload", "WorkloadFailed", "make_files"]

DATASET = "bench"


class WorkloadFailed(RuntimeError):
    """Something failed or came back with other bytes: there is no figure."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a workload runs.

    Attributes:
        server: ``nginx`` or ``platform``.
        url: Where it listens.
        token: The platform's token; never shown.
        source: Folder of the files to send, and to compare with.
        destination: Folder that downloads go to; must not exist.
        stored: Folder that nginx serves.
        concurrency: Requests at once; None: the engine's default.
    """

    server: str
    url: str
    token: str = field(repr=False)
    source: Path
    destination: Path
    stored: Path
    concurrency: int | None = None

    def config(self) -> TransferConfig:
        """Settings of the engine."""
        return TransferConfig() if self.concurrency is None else TransferConfig(concurrency=self.concurrency)


Workload = Callable[[Place, AbstractContextManager[Any]], Coroutine[Any, Any, tuple[int, int]]]


def make_files(folder: Path, *, count: int, size_bytes: int) -> None:
    """Write *count* files of random bytes, no two alike, at most 1,000 in one folder; done already: nothing to do."""
    done = folder / f".{count}x{size_bytes}"
    if done.exists():
        return
    generator = random.Random(20_26)
    for number in range(count):
        path = folder / "files" / f"{number // 1000:03}" / f"{number:06}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            left = size_bytes
            while left:
                left -= file.write(generator.randbytes(min(left, 8 * MiB)))
    done.touch()


async def upload(place: Place, meter: AbstractContextManager[Any]) -> tuple[int, int]:
    """Send every file of the source folder."""
    files = place.source / "files"
    if place.server == "nginx":
        transfers: Iterator[Transfer] = (
            Upload(path, PutTarget(f"{place.url}/{path.relative_to(files).as_posix()}")) for path in _walk(files)
        )
        result = await _run_engine(place, transfers, meter)
        _compare(files, place.stored)
        return result
    async with _client(place) as client:
        dataset = await client.datasets.create(DATASET)
        with meter:
            report = await dataset.upload(files)
        report.raise_for_failures()
        stored = [item async for item in dataset.items.list()]
        if {item.path: item.size_bytes for item in stored} != {
            path.relative_to(files).as_posix(): path.stat().st_size for path in _walk(files)
        }:
            raise WorkloadFailed("the dataset does not hold what was sent")
        return report.done, report.bytes_done


async def download(place: Place, meter: AbstractContextManager[Any]) -> tuple[int, int]:
    """Fetch what `upload` sent before, and compare every byte."""
    files = place.source / "files"
    if place.server == "nginx":
        transfers: Iterator[Transfer] = (
            Download(
                UrlOrigin(f"{place.url}/{path.relative_to(files).as_posix()}", size_bytes=path.stat().st_size),
                place.destination / path.relative_to(files),
            )
            for path in _walk(files)
        )
        result = await _run_engine(place, transfers, meter)
        _compare(files, place.destination)
        return result
    async with _client(place) as client:
        dataset = await client.datasets.get(name=DATASET)
        with meter:
            report = await dataset.download(place.destination)
        report.raise_for_failures()
        _compare(files, place.destination)
        return report.done, report.bytes_done


WORKLOADS: Mapping[str, Workload] = {"upload": upload, "download": download}


async def _run_engine(
    place: Place, transfers: Iterator[Transfer], meter: AbstractContextManager[Any]
) -> tuple[int, int]:
    objects = size_bytes = 0
    async with Engine(place.config()) as engine:
        with meter:
            async with engine.run(transfers) as outcomes:
                async for outcome in outcomes:
                    if outcome.error is not None:
                        raise WorkloadFailed(f"{outcome.name}: {outcome.error}") from outcome.error
                    objects += 1
                    size_bytes += outcome.size_bytes
    return objects, size_bytes


@asynccontextmanager
async def _client(place: Place) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(place.url, token=place.token, config=place.config()) as client:
        await client.whoami()  # connected before the clock runs
        yield client


def _walk(folder: Path) -> Iterator[Path]:
    for inner in sorted(folder.iterdir()):
        yield from sorted(inner.iterdir())


def _compare(left: Path, right: Path) -> None:
    for path in _walk(left):
        other = right / path.relative_to(left)
        if not other.is_file() or not filecmp.cmp(path, other, shallow=False):
            raise WorkloadFailed(f"{path.name} arrived with other bytes, or not at all")
