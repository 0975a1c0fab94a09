"""``--retry REPORT`` killed with SIGKILL and typed again: it goes on, and with what the run before had half moved."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.checksums import crc32c_hex
from asyncsdk.cli.exits import ExitCode
from asyncsdk.engine.journal import journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.errors import PermissionDenied
from asyncsdk.server.http.front.objects import ObjectBytes
from tests.integration.test_journal_command import begun, hang, run_in
from tests.support.commands import Caller, command
from tests.support.http_server import Connection, HttpServer, Received, answer
from tests.support.killing import ROOT, Blow, Watch, random_seed
from tests.support.server import RunningServer

pytestmark = pytest.mark.timeout(120)

SMALL = 40
PART_BYTES = 8 * 1024 * 1024
LARGE_BYTES = 3 * PART_BYTES
CONCURRENCY = 4
WHEN = (1_700_000_000, 1_700_000_000)
KILLS = pytest.mark.parametrize(
    "kills", [pytest.param(1, id="one"), pytest.param(15, id="many", marks=[pytest.mark.slow])]
)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capfd)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.fixture
def served(watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    """A platform that counts what it is asked for, known to every command."""
    with RunningServer(tmp_path / "platform") as running:
        monkeypatch.setenv("ASYNCSDK_URL", running.url)
        monkeypatch.setenv("ASYNCSDK_TOKEN", running.token)
        yield running


def make_folder(folder: Path, random_: random.Random) -> dict[str, bytes]:
    files = {f"{number:02d}.bin": random_.randbytes(random_.randint(1, 2000)) for number in range(SMALL)}
    files["large.bin"] = random_.randbytes(LARGE_BYTES)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
        os.utime(folder / name, WHEN)
    return files


def failed_in(report: Path) -> set[str]:
    entries = [json.loads(line) for line in report.read_text().splitlines()]
    return {entry["name"] for entry in entries if entry["status"] == "failed"}


def kill_until_done(
    watch: Watch, arguments: list[object], home: Path, report: Path, kills: int, rng: random.Random
) -> None:
    """Run a retry into its own report, killed *kills* times, then to its end by ``journal resume``."""
    before = report.read_bytes()
    options = ["--retry", report, "--report", report, "--concurrency", CONCURRENCY, "--quiet"]
    for number in range(kills):
        point = rng.randint(5, SMALL // 2) if number == 0 else rng.randint(2, max(2, SMALL // kills))
        is_over = watch.run_command(command(*arguments, *options), Blow(requests=point, grace_seconds=0.5))
        if is_over:  # by then so little was left
            return
        assert report.read_bytes() == before, "what had failed is not lost"
        (run,) = summaries(journal_folder(home))
        assert (run.state, run.arguments["retry"]) == ("killed", str(report))
    (run,) = summaries(journal_folder(home))
    again = command("journal", "resume", run.run_id, *options[2:])
    assert watch.run_command(again, Blow())


@KILLS
def test_a_killed_upload_of_what_had_failed_goes_on(
    call: Caller,
    served: RunningServer,
    watch: Watch,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
    record_property: Any,
) -> None:
    """The parts that the first run had sent are not sent again either."""
    rng = random.Random(random_seed(record_property))
    source, report = tmp_path / "source", tmp_path / "report.jsonl"
    files = make_folder(source, rng)
    put = ObjectBytes.put

    def refuse(bytes_: ObjectBytes, head: Any) -> Any:
        if b"partNumber=1&" in head.query + b"&" or b"partNumber=2&" in head.query + b"&":
            return put(bytes_, head)
        raise PermissionDenied("not now")

    with monkeypatch.context() as patched:
        patched.setattr(ObjectBytes, "put", refuse)
        said = call("upload", source, "d", "--create", "--report", report, "--concurrency", 1)
    assert said.status == ExitCode.SOME_FAILED
    assert failed_in(report) == set(files)
    assert sorted(number for _, number in watch.parts) == [1, 2]
    kill_until_done(watch, ["upload", source, "d"], home, report, kills, rng)
    assert failed_in(report) == set()
    assert sorted(number for _, number in watch.parts) == [1, 2, 3], "its upload went on"
    assert max(watch.parts[part] for part in watch.parts if part[1] < 3) == 1
    small = sum(watch.sent.values())
    assert SMALL <= small <= SMALL + kills * CONCURRENCY, "but what was under way, nothing was sent again"
    assert list(journal_folder(home).iterdir()) == [], "nothing is left to be known"
    copy = tmp_path / "copy"
    assert call("download", "d", copy).status == ExitCode.OK
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == files


@KILLS
def test_a_killed_download_of_what_had_failed_goes_on(
    call: Caller,
    served: RunningServer,
    watch: Watch,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
    record_property: Any,
) -> None:
    """Its own files are no hindrance with ``--on-existing fail``; ranges that the first run had are there still."""
    rng = random.Random(random_seed(record_property))
    source, copy, report = tmp_path / "source", tmp_path / "copy", tmp_path / "report.jsonl"
    files = make_folder(source, rng)
    assert call("upload", source, "d", "--create").status == ExitCode.OK
    find, ranges = ObjectBytes.find, []

    def refuse(bytes_: ObjectBytes, head: Any) -> Any:
        if b"crc32c=" + crc32c_hex_of(files["large.bin"]) not in head.query or len(ranges) == 2:
            raise PermissionDenied("not now")
        ranges.append(head)
        return find(bytes_, head)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectBytes, "find", refuse)
        said = call("download", "d", copy, "--on-existing", "fail", "--report", report, "--concurrency", 1)
    assert said.status == ExitCode.SOME_FAILED
    assert failed_in(report) == set(files)
    first = Counter(watch.fetched)
    assert len(first) == 2
    kill_until_done(watch, ["download", "d", copy, "--on-existing", "fail"], home, report, kills, rng)
    assert failed_in(report) == set()
    assert {key: watch.fetched[key] for key in first} == dict(first), "ranges that are there are not fetched again"
    assert sum(watch.fetched.values()) <= SMALL + 3 + kills * CONCURRENCY
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == files
    assert list(journal_folder(home).iterdir()) == []


def crc32c_hex_of(data: bytes) -> bytes:
    from google_crc32c import value

    return crc32c_hex(value(data)).encode()


async def answer_first(connection: Connection, request: Received) -> bool:
    """Nothing special: what the store has."""
    return False


async def test_a_killed_transfer_of_what_had_failed_goes_on(tmp_path: Path, home: Path) -> None:
    """No platform can be asked; the journal, and the half-received file, are all there is."""
    report, data = tmp_path / "report.jsonl", os.urandom(LARGE_BYTES)
    async with HttpServer() as server:
        lines: list[dict[str, Any]] = []
        for number in range(SMALL):
            (tmp_path / f"up{number}").write_bytes(b"up %d" % number)
            os.utime(tmp_path / f"up{number}", WHEN)
            lines.append({"source": f"up{number}", "url": server.url(f"/up{number}?signature=a")})
            server.script(f"/up{number}", answer(403))
        lines.append({"url": server.url("/big?signature=a"), "destination": "big"})
        lines.append({"url": server.url("/last?signature=a"), "destination": "last"})
        server.objects["/big"] = data
        server.script("/big", answer_first, answer_first, answer(403))
        manifest = tmp_path / "m.jsonl"
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        first = ("transfer", manifest.name, "--report", report.name, "--concurrency", 1)
        assert (await run_in(tmp_path, *first))[0] == ExitCode.SOME_FAILED
        (run,) = summaries(journal_folder(home))
        assert (run.state, run.objects, run.half_received) == ("failed", 0, 1)

        server.requests.clear()
        server.script("/last", hang)
        before = report.read_bytes()
        again = ("transfer", manifest.name, "--retry", report.name, "--report", report.name)
        process = await begun(tmp_path, *again)
        async with asyncio.timeout(50):
            while next(summaries(journal_folder(home))).objects < SMALL + 1:
                await asyncio.sleep(0.01)
        process.kill()
        await process.communicate()
        assert report.read_bytes() == before, "what had failed is not lost"
        ranges = [request.header("range") for request in server.of("GET", "/big")]
        missing = f"bytes={2 * PART_BYTES}-{LARGE_BYTES - 1}"
        assert ranges == [f"bytes=0-{PART_BYTES - 1}", missing], "the first says whether it is the same object"
        assert len(server.requests) == SMALL + 3
        _, (listed,) = await run_in(tmp_path, "journal", "list")
        assert (listed["state"], listed["arguments"]["retry"]) == ("killed", str(report))

        server.requests.clear()
        server.objects["/last"] = b"here"
        status, entries = await run_in(tmp_path, *again)
        assert (status, entries[-1]["summary"]["skipped"]) == (ExitCode.OK, SMALL + 1)
        assert [request.path for request in server.requests] == ["/last"], "nothing was moved again"
        assert failed_in(report) == set()
        assert list(journal_folder(home).iterdir()) == []
        assert (tmp_path / "big").read_bytes() == data
        assert [server.objects[f"/up{number}"] for number in range(SMALL)] == [b"up %d" % n for n in range(SMALL)]


@pytest.mark.slow
async def test_a_transfer_of_what_had_failed_survives_many_kills(
    tmp_path: Path, home: Path, record_property: Any
) -> None:
    """What the journal has is not moved again, however often: the last one moves exactly what is missing."""
    rng, lines, report = random.Random(random_seed(record_property)), [], tmp_path / "report.jsonl"
    kills, count = 15, 15 * SMALL
    async with HttpServer() as server:
        for number in range(count):
            (tmp_path / f"up{number}").write_bytes(rng.randbytes(rng.randint(1, 500)))
            os.utime(tmp_path / f"up{number}", WHEN)
            lines.append({"source": f"up{number}", "url": server.url(f"/up{number}")})
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        end = {"operation": "transfer", "name": "", "status": "complete"}
        report.write_text("".join(json.dumps(one) + "\n" for one in [*map(failed_line, lines), end]))
        again = ("transfer", "m.jsonl", "--retry", report.name, "--report", report.name, "--concurrency", CONCURRENCY)
        server.delay, known = 0.01, 0
        for _ in range(kills):
            least = known + rng.randint(1, SMALL // 2)
            process = await begun(tmp_path, *again)
            async with asyncio.timeout(50):
                while sum(run.objects for run in summaries(journal_folder(home))) < least:
                    await asyncio.sleep(0.01)
            process.kill()
            await process.communicate()
            known = sum(run.objects for run in summaries(journal_folder(home)))
        assert known < count, "nothing is left for the last one"
        server.requests.clear()
        status, entries = await run_in(tmp_path, *again)
        assert (status, entries[-1]["summary"]["skipped"]) == (ExitCode.OK, known)
        assert len(server.requests) == count - known
        assert failed_in(report) == set()
        assert all(server.objects[f"/up{n}"] == (tmp_path / f"up{n}").read_bytes() for n in range(count))
        assert list(journal_folder(home).iterdir()) == []


KILLED_AT_ITS_END = """
import os, signal, sys
from asyncsdk.cli import main
from asyncsdk.cli.runs import Run

end_report = Run.end_report

def killed(run):
    if sys.argv[1] == "after":
        end_report(run)
    os.kill(os.getpid(), signal.SIGKILL)

Run.end_report = killed
main(sys.argv[2:])
"""


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.slow), "after"])
async def test_a_retry_killed_at_its_end_moves_nothing_again(tmp_path: Path, home: Path, moment: str) -> None:
    """The report is whole before the journal is forgotten: one of them always says what was done."""
    report = tmp_path / "report.jsonl"
    async with HttpServer() as server:
        (tmp_path / "up").write_bytes(b"up")
        os.utime(tmp_path / "up", WHEN)
        line = {"source": str(tmp_path / "up"), "url": server.url("/up")}
        (tmp_path / "m.jsonl").write_text(json.dumps(line))
        end = {"operation": "transfer", "name": "", "status": "complete"}
        report.write_text("".join(json.dumps(one) + "\n" for one in (failed_line(line), end)))
        again = ("transfer", tmp_path / "m.jsonl", "--retry", report, "--report", report)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", KILLED_AT_ITS_END, moment, *map(str, again)), cwd=ROOT, stderr=subprocess.PIPE
        )
        await process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert len(failed_in(report)) == (moment == "before")
        assert (await run_in(ROOT, *again))[0] == ExitCode.OK
        assert len(server.requests) == 1
        assert failed_in(report) == set()
        assert list(journal_folder(home).iterdir()) == []


@pytest.mark.slow
async def test_who_moves_all_trusts_no_retry(tmp_path: Path, home: Path) -> None:
    """A retry that was killed says nothing of the next night, nor of another report."""
    async with HttpServer() as server:
        (tmp_path / "up").write_bytes(b"up")
        os.utime(tmp_path / "up", WHEN)
        lines = [{"source": "up", "url": server.url("/up")}, {"url": server.url("/last"), "destination": "last"}]
        manifest, report = tmp_path / "m.jsonl", tmp_path / "report.jsonl"
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        server.script("/up", answer(403))
        all_of_it = ("transfer", manifest.name, "--report", report.name)
        assert (await run_in(tmp_path, *all_of_it))[0] == ExitCode.SOME_FAILED

        async def kill_a_retry() -> None:
            server.script("/last", hang)
            process = await begun(tmp_path, "transfer", manifest.name, "--retry", report.name)
            async with asyncio.timeout(50):
                while not any(run.objects == 1 for run in summaries(journal_folder(home))):
                    await asyncio.sleep(0.01)
            process.kill()
            await process.communicate()
            server.requests.clear()

        await kill_a_retry()
        server.script("/up", answer(403))
        assert (await run_in(tmp_path, *all_of_it, "--no-resume"))[0] == ExitCode.SOME_FAILED
        assert failed_in(report) == {"up", "last"}
        server.requests.clear()
        server.objects["/last"] = b"here"
        assert (await run_in(tmp_path, "transfer", manifest.name, "--retry", report.name))[0] == ExitCode.OK
        assert sorted(request.path for request in server.requests) == ["/last", "/up"]

        report.write_text("".join(json.dumps(line) + "\n" for line in map(failed_line, lines)))
        (tmp_path / "last").unlink()
        await kill_a_retry()
        assert (await run_in(tmp_path, *all_of_it))[0] == ExitCode.OK
        assert sorted(request.path for request in server.requests) == ["/last", "/up"]


def failed_line(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a report: that *line* of a manifest has failed."""
    name = line.get("source") or line["destination"]
    source, destination = line.get("source", line["url"]), line.get("destination", line["url"])
    return {"operation": "transfer", "name": name, "source": source, "destination": destination, "status": "failed"}
