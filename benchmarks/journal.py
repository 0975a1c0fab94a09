"""What the journal costs and what it gives: ``python -m benchmarks.journal`` (``--quick``: a hundredth, does it work).

``cost``: microseconds of client CPU for each small object that ``dataset.upload`` and ``dataset.download`` move, with a
journal and without, in turns, against ``asyncsdk serve`` in a process of its own; the medians, and the median of the
differences of neighbouring turns. A whole run moves by several us from turn to turn, so what the journal alone does is
measured by itself, too: told of objects in pages of 200, 500 and 1,000 (what comes in 0.1 s at 2,000, 5,000 and
10,000 objects per second), digest, entry, page, transaction and threads.

``resume``: an upload in a process of its own is killed (SIGKILL) when all its objects are final but it has not ended;
then a file is added and the same call made again, in another process. From that call until the new object is there:
seconds, CPU of the client and CPU of the server; the same without a journal beside it.

``memory``: peak resident memory of writing a million entries, taking them up, and looking all of them up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from asyncsdk import AsyncClient
from asyncsdk.engine import Download, Event, ObjectFinished, Outcome, Skipped, UrlOrigin
from asyncsdk.engine.journal import Identity, Journal, RunRecord, digest_of, journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.engine.journal.store import Store
from asyncsdk.entities.download_books import DownloadBooks
from asyncsdk.entities.examining import PreparedItem
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.entities.upload_books import UploadBooks
from benchmarks.servers import ServedPlatform

__all__ = ["cost", "main", "memory", "resume"]

_SMALL_BYTES = 1024
_IN_A_FOLDER = 1000
_RECEIPT = b"r" * 40
_RUN = RunRecord("upload", {"place": "benchmark"})


def _say(values: dict[str, Any]) -> None:
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({**values, "load": load}), flush=True)


def _make_files(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number // _IN_A_FOLDER:05}" / f"{number:07}.bin"
        if number % _IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(number.to_bytes(8, "little") * (_SMALL_BYTES // 8))


# --- cost ------------------------------------------------------------------------------------------------------------


def cost(parent: Path, objects: int, turns: int) -> None:
    """Print what the journal costs for each small object."""
    many = max(objects, 20_000)
    for verb, final in (("upload", False), ("download", True)):
        for page in (200, 500, 1000):
            alone = [asyncio.run(_alone(parent / "alone", many, page, final=final)) for _ in range(turns)]
            _say({"what": "journal alone", "verb": verb, "page": page, "us_each": round(statistics.median(alone), 2)})
    with ServedPlatform(parent) as platform:
        asyncio.run(_moved(parent, platform, objects, turns))


async def _alone(home: Path, objects: int, page: int, *, final: bool) -> float:
    journal = await Journal.open(home, _RUN)
    books: DownloadBooks | UploadBooks = DownloadBooks(journal) if final else UploadBooks(journal)
    with tempfile.NamedTemporaryFile() as file:
        made = [_outcome(number, final=final) for number in range(page)]
        descriptor = file.fileno()
        books.arrived(made[0])
        await books.flush()
        started = time.process_time()
        for _ in range(objects // page):
            for outcome in made:
                if final:  # as a download does for it, with the file that it has just written
                    status = os.fstat(descriptor)
                    outcome.identity = (outcome.size_bytes, status.st_mtime_ns, status.st_ino)
                books.arrived(outcome)
            await books.flush()
            if isinstance(books, UploadBooks):
                books.committed(made)
        await books.flush()
        spent = time.process_time() - started
    if not journal.is_kept:
        raise RuntimeError("the journal was given up")
    await journal.end(is_complete=True)
    return spent / (objects - objects % page) * 1e6


def _outcome(number: int, *, final: bool) -> Outcome:
    """Return what becomes of one small object."""
    name, checksum, size = f"{number // 1000:05}/{number:07}.bin", f"crc32c:{number:08x}", _SMALL_BYTES
    if final:
        download = Download(UrlOrigin("http://h/o"), Path("/nowhere") / name, key=number, name=name)
        return Outcome(download, "done", size_bytes=size, checksum=checksum)
    known = PreparedItem(ItemUpload(Path(name), name), name, size_bytes=size, key=f"{number:024x}-{number:032x}")
    known.identity = Identity(size, 1_700_000_000_000_000_000 + number, number)
    known.item_id = f"{number:024x}"
    return Outcome(Skipped(name, size, known), "done", size_bytes=size, checksum=checksum)


async def _moved(parent: Path, platform: ServedPlatform, objects: int, turns: int) -> None:
    source, copy = parent / "files", parent / "copy"
    _make_files(source, objects)
    spent: dict[tuple[str, bool], list[float]] = {}
    async with AsyncClient(platform.url, token=platform.token, home=parent / "home") as client:
        for turn in range(turns + 1):
            for is_kept in (turn % 2 == 0, turn % 2 == 1):  # whoever goes first is not always the same
                dataset = await client.datasets.create(f"{turn}-{is_kept}")
                for verb in ("upload", "download"):
                    started = time.process_time()
                    if verb == "upload":
                        report = await dataset.upload(source, resume=is_kept)
                    else:
                        report = await dataset.download(copy, resume=is_kept)
                    each = (time.process_time() - started) / objects * 1e6
                    report.raise_for_failures()
                    if turn:  # the first one warms up
                        spent.setdefault((verb, is_kept), []).append(each)
                shutil.rmtree(copy)
                await dataset.delete()
    for verb in ("upload", "download"):
        kept, none = spent[verb, True], spent[verb, False]
        differences = [one - other for one, other in zip(kept, none, strict=True)]
        _say(
            {
                "what": "client CPU", "verb": verb, "objects": objects, "turns": turns,
                "us_with": round(statistics.median(kept), 2), "us_without": round(statistics.median(none), 2),
                "us_difference": round(statistics.median(differences), 2),
                "us_differences": [round(one, 2) for one in differences],
            }
        )  # fmt: skip


# --- resume ----------------------------------------------------------------------------------------------------------


def resume(parent: Path, objects: int) -> None:
    """Print how long the same call takes to its first new object after a kill."""
    for is_kept in (True, False):
        folder = parent / f"resume-{is_kept}"
        source = folder / "files"
        _make_files(source, objects)
        with ServedPlatform(folder) as platform:
            arguments = [platform.url, str(source), str(folder / "home"), str(objects), str(int(is_kept))]
            environment = {**os.environ, "ASYNCSDK_TOKEN": platform.token}
            first = _child("first", arguments, environment)
            assert first.stdout is not None
            told = first.stdout.readline()
            first.send_signal(signal.SIGKILL)
            first.communicate()
            if told.strip() != "all are final":
                raise RuntimeError(f"the upload that was to be killed ended by itself: {told}")
            found = list(summaries(journal_folder(folder / "home")))
            if [run.state for run in found] != (["killed"] if is_kept else []):
                raise RuntimeError(f"the kill left {found}")
            (source / "zz-new.bin").write_bytes(b"new")
            server_started = _cpu_of(platform)
            again = _child("again", arguments, environment)
            out, _ = again.communicate()
            if again.returncode:
                raise RuntimeError("the upload that was to go on failed")
            values = json.loads(out.splitlines()[-1])
            server = round(_cpu_of(platform) - server_started, 2)
            _say({"what": "first new object", "journal": is_kept, "objects": objects, **values, "server_cpu_s": server})
        shutil.rmtree(folder)


def _child(what: str, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.journal", "child", what, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _cpu_of(platform: ServedPlatform) -> float:
    """Return the CPU seconds of the server, of children that ended, too."""
    fields = Path(f"/proc/{platform.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


async def _upload_and_wait(url: str, source: str, home: str, objects: int, is_kept: bool) -> None:
    """Upload, and say when everything is final; then do nothing any more, to be killed."""
    done = [0]

    def on_outcome(outcome: Outcome) -> None:
        done[0] += outcome.ok
        if done[0] == objects:
            print("all are final", flush=True)
            time.sleep(600)

    async with AsyncClient(url, home=Path(home)) as client:
        dataset = await client.datasets.create("d")
        await dataset.upload(source, resume=is_kept, on_outcome=on_outcome)


async def _upload_again(url: str, source: str, home: str, objects: int, is_kept: bool) -> None:
    """Upload the same, and say what it took until the first object that was sent was there."""
    found: dict[str, float] = {}
    async with AsyncClient(url, home=Path(home)) as client:
        dataset = await client.datasets.get(name="d")
        started, cpu = time.monotonic(), time.process_time()

        def on_event(event: Event) -> None:
            if isinstance(event, ObjectFinished) and event.status == "done" and not found:
                found["seconds"] = round(time.monotonic() - started, 2)
                found["client_cpu_s"] = round(time.process_time() - cpu, 2)

        report = await dataset.upload(source, resume=is_kept, on_event=on_event)
        report.raise_for_failures()
        if (report.done, report.skipped) != (1, objects):
            raise RuntimeError(f"{report.done} were sent, {report.skipped} were there")
    print(json.dumps(found), flush=True)


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(parent: Path, objects: int) -> None:
    """Print the peak of resident memory, and what it takes to put so many entries in order."""
    path = parent / "memory" / "run.sqlite3"
    store = Store.open(path, _RUN)
    names = [f"{number:07}.bin" for number in range(1000)]
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for numbers in _batches(range(objects), 1000):
        finished = [(digest_of(f"{n:07}.bin"), Identity(n, n, n), n % 2**32, _RECEIPT) for n in numbers]
        store.add(finished, settled=[one[0] for one in finished])
    store.close()
    started = time.process_time()
    store = Store.open(path, _RUN)
    taken_up = time.process_time() - started
    for numbers in _batches(range(objects), len(names)):
        found = store.find([f"{number:07}.bin" for number in numbers])
        if len(found) != len(numbers):
            raise RuntimeError(f"{len(found)} of {len(numbers)} entries were found")
    looked_up = time.process_time() - started - taken_up
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = path.stat().st_size
    store.remove()
    _say(
        {
            "what": "memory", "entries": objects, "rss_at_start_mib": round(start, 1), "rss_peak_mib": round(peak, 1),
            "taking_up_cpu_s": round(taken_up, 2), "looking_up_us_each": round(looked_up / objects * 1e6, 2),
            "bytes_each": round(size / objects, 1),
        }
    )  # fmt: skip


def _batches(numbers: range, count: int) -> Iterator[list[int]]:
    rest = iter(numbers)
    while batch := list(islice(rest, count)):
        yield batch


def main() -> int:
    """Run what was asked for, everything unless told otherwise, and print a line of JSON for each figure."""
    if sys.argv[1:2] == ["child"]:
        _, _, what, url, source, home, objects, is_kept = sys.argv
        work: Callable[..., Any] = _upload_and_wait if what == "first" else _upload_again
        asyncio.run(work(url, source, home, int(objects), is_kept == "1"))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("cost", "resume", "memory"), help="which (all)")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the work: does it run")
    parser.add_argument("--parent", type=Path, help="folder for what is made meanwhile; that of temporary files")
    options = parser.parse_args()
    share = 100 if options.quick else 1
    if options.what is None:  # each in a process of its own: peaks of memory stay where they belong
        for what in ("cost", "resume", "memory"):
            subprocess.run([sys.executable, "-m", "benchmarks.journal", what, *sys.argv[1:]], check=True)
        return 0
    with tempfile.TemporaryDirectory(prefix="asyncsdk-journal-", dir=options.parent) as name:
        if options.what == "cost":
            cost(Path(name), 50_000 // share, turns=2 if options.quick else 7)
        elif options.what == "resume":
            resume(Path(name), 100_000 // share)
        else:
            memory(Path(name), 1_000_000 // share)
    return 0


if __name__ == "__main__":
    sys.exit(main())
