"""Entries per second of the two calls that frame every upload: prepare and commit, without HTTP and without transfers.

    python -m benchmarks.control                              data folder in memory, then one on the disk of /tmp
    python -m benchmarks.control --folder FOLDER --size 20480 --json

What is measured, in one process and one thread, batch after batch into one growing dataset:

* ``handle``: the message is made; its handler runs and replies (what the embedded platform does).
* ``json``: from the bytes of a request's body to the bytes of the reply's (what the served platform does beside HTTP).

The objects are written between the two calls, outside the measured time, as the object endpoint writes them: whole,
under their staged names, not synced. Making them durable is part of commit, and of what is measured: on a disk the
wall time holds the wait for it, CPU time does not. ``--synced`` has the system write them down before, so that what is
left is the platform's own work. ``--paths spread`` has each batch fall all over the paths that are there, where the
default is the order of walking a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.protocol.datasets import CreateDataset
from asyncsdk.protocol.uploads import CommitEntry, CommitUploads, PrepareUploads, UploadEntry
from asyncsdk.server.backend import Backend
from asyncsdk.server.http.api import read_message, reply_adapter
from asyncsdk.server.objects.minting import FileMinter, Minter, UrlMinter

__all__ = ["Cost", "Run", "run"]

WAYS = ("handle", "json")
PATHS = ("walk", "spread")


@dataclass(slots=True)
class Cost:
    """What the batches of one call cost.

    Attributes:
        wall_seconds: Of each batch.
        user_seconds: Of each batch, CPU of the whole process in user mode.
        system_seconds: Of each batch, CPU of the whole process in the kernel.
    """

    wall_seconds: list[float] = field(default_factory=list)
    user_seconds: list[float] = field(default_factory=list)
    system_seconds: list[float] = field(default_factory=list)

    def measure(self, call: Any) -> Any:
        """Return what *call* returns, and note what it cost."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        result = call()
        self.wall_seconds.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.user_seconds.append(after.ru_utime - before.ru_utime)
        self.system_seconds.append(after.ru_stime - before.ru_stime)
        return result

    def drop_first(self) -> None:
        """Forget the first batch: it warms up."""
        for figures in (self.wall_seconds, self.user_seconds, self.system_seconds):
            del figures[0]

    def rates(self, batch: int) -> dict[str, float]:
        """Return entries per second of all batches together and of the median batch, and CPU per entry."""
        entries = batch * len(self.wall_seconds)
        user, system = sum(self.user_seconds), sum(self.system_seconds)
        return {
            "entries_per_second": entries / sum(self.wall_seconds),
            "entries_per_second_of_median_batch": batch / statistics.median(self.wall_seconds),
            "entries_per_cpu_second": entries / (user + system),
            "user_us_per_entry": user / entries * 1e6,
            "system_us_per_entry": system / entries * 1e6,
        }


@dataclass(slots=True)
class Run:
    """One data folder filled in one way."""

    folder: str
    file_system: str
    way: str
    targets: str
    batch: int
    batches: int
    size_bytes: int
    synced: bool
    paths: str
    prepare: Cost = field(default_factory=Cost)
    commit: Cost = field(default_factory=Cost)


def run(
    parent: Path,
    *,
    way: str,
    batches: int,
    batch: int = 1000,
    size_bytes: int = 100,
    synced: bool = False,
    paths: str = "walk",
) -> Run:
    """Fill a new data folder below *parent* and return what that cost; the folder is removed afterwards.

    Args:
        parent: An existing folder.
        way: ``handle`` or ``json``, see above.
        batches: Measured batches; one more warms up.
        batch: Entries of each, up to 1,000.
        size_bytes: Of each object.
        synced: Whether the objects are on disk before they are committed.
        paths: ``walk``: in the order of a folder's files. ``spread``: each batch all over those that are there.
    """
    folder = Path(tempfile.mkdtemp(prefix="asyncsdk-control-", dir=parent))
    try:
        backend = Backend.open(folder / "data")
        try:
            minter: Minter = FileMinter(backend.objects)
            if way == "json":
                minter = UrlMinter(backend.signer, "http://127.0.0.1:8750")
            minted = type(minter).__name__
            figures = Run(str(parent), _file_system(parent), way, minted, batch, batches, size_bytes, synced, paths)
            _fill(backend, minter, figures)
            return figures
        finally:
            backend.close()
    finally:
        shutil.rmtree(folder)


def _fill(backend: Backend, minter: Minter, figures: Run) -> None:
    dataset = backend.handle(CreateDataset(name="control"), backend.owner(), minter)
    data = os.urandom(figures.size_bytes)
    checksum = crc32c_hex(crc32c(data))
    paths = _paths(figures.paths)
    for _ in range(figures.batches + 1):
        asked = [UploadEntry(path=next(paths), size_bytes=len(data), crc32c=checksum) for _ in range(figures.batch)]
        prepared = _ask(
            backend, minter, figures.prepare, figures.way, PrepareUploads(dataset_id=dataset.id, entries=tuple(asked))
        )
        entries = []
        for entry, reply in zip(asked, prepared["entries"], strict=True):
            _write(backend.objects.staged_path(reply["key"][:24], checksum), data)
            entries.append(
                CommitEntry(item_id=make_id(), path=entry.path, key=reply["key"], size_bytes=len(data), crc32c=checksum)
            )
        if figures.synced:
            os.sync()
        done = _ask(
            backend, minter, figures.commit, figures.way, CommitUploads(dataset_id=dataset.id, entries=tuple(entries))
        )
        verdicts = {reply["verdict"] for reply in done["entries"]}
        if verdicts != {"created"}:
            raise RuntimeError(f"entries were not created but {sorted(verdicts)}")
    figures.prepare.drop_first()
    figures.commit.drop_first()


def _ask(
    backend: Backend, minter: Minter, cost: Cost, way: str, message: PrepareUploads | CommitUploads
) -> dict[str, Any]:
    """Return the reply's fields; only what the platform does counts."""
    message_type, principal = type(message), backend.owner()
    if way == "handle":
        reply = cost.measure(lambda: backend.handle(message, principal, minter))  # type: ignore[misc]  # a union
        return {"entries": [{"verdict": entry.verdict, "key": getattr(entry, "key", None)} for entry in reply.entries]}
    body = orjson.dumps(message.split()[1])  # as the client makes it
    path_values = {"dataset_id": message.dataset_id}

    def answer() -> bytes:
        read = read_message(message_type, path_values, b"", body)
        return reply_adapter(message_type).dump_json(backend.handle(read, principal, minter))

    fields: dict[str, Any] = json.loads(cost.measure(answer))
    return fields


def _paths(pattern: str) -> Iterator[str]:
    """Yield paths in the order that walking a folder gives, one folder of 1,000 files after the other; or all over."""
    for number in count():
        place = number if pattern == "walk" else number * 2654435761 % 2**32  # an odd factor: no place comes twice
        yield f"train/images/{place // 1000 % 10_000:04d}/{place:010d}.jpg"


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _file_system(folder: Path) -> str:
    told = subprocess.run(["stat", "--file-system", "--format=%T", str(folder)], capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def _show(figures: Run) -> None:
    for name in ("prepare", "commit"):
        rates = getattr(figures, name).rates(figures.batch)
        print(
            f"{figures.folder:10} {figures.file_system:10} {figures.way:6} {name:7} "
            f"{rates['entries_per_second']:9,.0f} /s"
            f"  median batch {rates['entries_per_second_of_median_batch']:9,.0f} /s"
            f"  per CPU second {rates['entries_per_cpu_second']:9,.0f}"
            f"  user {rates['user_us_per_entry']:5.1f} us  system {rates['system_us_per_entry']:5.1f} us"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, action="append", help="where to put data folders; may be repeated")
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--batches", type=int, default=50, help="measured batches (default 50)")
    parser.add_argument("--batch", type=int, default=1000, help="entries of a batch (default 1000)")
    parser.add_argument("--size", type=int, default=100, help="bytes of each object (default 100)")
    parser.add_argument("--synced", action="store_true", help="objects are on disk before they are committed")
    parser.add_argument("--paths", choices=PATHS, default="walk", help="order of the paths (default walk)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each run")
    options = parser.parse_args(arguments)
    memory = Path("/dev/shm")
    folders = options.folder or [*([memory] if memory.is_dir() else []), Path(tempfile.gettempdir())]
    for folder in folders:
        for way in options.way or WAYS:
            figures = run(
                folder,
                way=way,
                batches=options.batches,
                batch=options.batch,
                size_bytes=options.size,
                synced=options.synced,
                paths=options.paths,
            )
            if options.json:
                print(json.dumps(asdict(figures)))
            else:
                _show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
