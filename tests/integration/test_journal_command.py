"""``asyncsdk journal``: runs that were stopped are listed, shown, gone on with and forgotten; no secret is in any."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.journals import command_of
from asyncsdk.engine.journal import RunRecord, RunSummary, journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.engine.journal.store import Store
from asyncsdk.errors import ConfigError, PermissionDenied
from asyncsdk.server.http.front.objects import ObjectBytes
from tests.support.commands import command
from tests.support.http_server import Connection, HttpServer, Received
from tests.support.server import RunningServer

LARGE_BYTES = 24 * 1024 * 1024


class Caller:
    """Runs commands in this process; standard output as JSON lines."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.err = ""

    def __call__(self, *arguments: object, status: ExitCode = ExitCode.OK) -> list[dict[str, Any]]:
        self._capfd.readouterr()
        got = main([*map(str, arguments), "--json"])
        out, self.err = self._capfd.readouterr()
        assert got == status, self.err
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capfd)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    with RunningServer(tmp_path / "platform") as running:
        monkeypatch.setenv("ASYNCSDK_URL", running.url)
        monkeypatch.setenv("ASYNCSDK_TOKEN", running.token)
        yield running


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder in which one of the names leads nowhere: its upload fails, and the run has to be gone on with."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.jpg").write_bytes(b"photo %d" % number)
        os.utime(folder / f"{number:02d}.jpg", (1_700_000_000, 1_700_000_000))
    (folder / "zz.jpg").symlink_to(tmp_path / "not-yet")
    return folder


def test_an_upload_that_failed_in_part_is_listed_shown_and_resumed(
    call: Caller, served: RunningServer, photos: Path, tmp_path: Path, home: Path
) -> None:
    call("upload", photos, "d", "--create", "--exclude", "*.txt", status=ExitCode.SOME_FAILED)
    (run,) = call("journal", "list")
    assert (run["verb"], run["state"], run["objects"], run["owner"]) == ("upload", "failed", 30, "")
    assert run["arguments"]["place"] == str(photos)
    assert run["arguments"]["exclude"] == ["*.txt"]
    assert call("journal", "show", run["run_id"][:10]) == [run]
    (tmp_path / "not-yet").write_bytes(b"here now")
    (photos / "notes.txt").write_bytes(b"left out")
    entries = call("journal", "resume", run["run_id"])
    assert entries[-1]["summary"]["done"] == 1
    assert entries[-1]["summary"]["skipped"] == 30
    assert call("journal", "list") == []
    assert len(call("items", "list", "d")) == 31


def test_what_the_platform_lost_since_is_sent_again(
    call: Caller, served: RunningServer, photos: Path, tmp_path: Path
) -> None:
    """The journal saves work, it does not decide: items deleted or replaced meanwhile come back."""
    call("upload", photos, "d", "--create", status=ExitCode.SOME_FAILED)
    call("items", "delete", "d", "03.jpg", "07.jpg", "--yes")
    other = tmp_path / "other"
    other.write_bytes(b"another photo")
    call("items", "create", "d", other, "--path", "09.jpg", "--exist-ok")
    (tmp_path / "not-yet").write_bytes(b"here now")
    summary = call("upload", photos, "d")[-1]["summary"]
    assert (summary["done"], summary["skipped"]) == (4, 27)


def test_a_file_that_changed_is_sent_again_and_a_touched_one_is_not(
    call: Caller, served: RunningServer, photos: Path, tmp_path: Path
) -> None:
    call("upload", photos, "d", "--create", status=ExitCode.SOME_FAILED)
    (photos / "01.jpg").write_bytes(b"photo X")
    os.utime(photos / "01.jpg", (1_700_000_000, 1_700_000_001))
    (photos / "02.jpg").touch()
    entries = call("upload", photos, "d", status=ExitCode.SOME_FAILED)
    assert [entry["name"] for entry in entries[:-1] if entry["status"] == "done"] == ["01.jpg"]


def test_forget_and_no_resume(call: Caller, served: RunningServer, photos: Path, home: Path) -> None:
    call("upload", photos, "d", "--create", "--no-resume", status=ExitCode.SOME_FAILED)
    assert not journal_folder(home).exists()
    call("upload", photos, "d", status=ExitCode.SOME_FAILED)
    (run,) = call("journal", "list")
    call("journal", "forget", run["run_id"], "--dry-run")
    assert len(call("journal", "list")) == 1
    assert call("journal", "forget", run["run_id"]) == [
        {"run_id": run["run_id"], "forgotten": True, "files_removed": 0, "bytes_removed": 0}
    ]
    assert call("journal", "list") == []
    call("journal", "show", run["run_id"], status=ExitCode.NOT_FOUND)


def test_a_half_received_file_is_told_and_goes_with_its_journal(
    call: Caller,
    served: RunningServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of a large download that failed, not killed, the bytes that came stay for the next time, and are known from
    wherever one stands."""
    data = random.Random(5).randbytes(LARGE_BYTES)
    (tmp_path / "big.bin").write_bytes(data)
    call("upload", tmp_path / "big.bin", "d", "--create")
    find, left = ObjectBytes.find, iter(range(2))

    def refuse_the_third(bytes_: ObjectBytes, head: Any) -> Any:
        if next(left, None) is None:
            raise PermissionDenied("not any more")
        return find(bytes_, head)

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with monkeypatch.context() as patched:
        patched.setattr(ObjectBytes, "find", refuse_the_third)
        call("download", "d", "copy", "--concurrency", 1, status=ExitCode.SOME_FAILED)
    (half,) = (tmp_path / "here" / "copy").iterdir()
    assert half.suffix == ".part"
    monkeypatch.chdir(tmp_path)
    (run,) = call("journal", "list")
    assert (run["state"], run["large"], run["half_received"]) == ("failed", 1, 1)
    assert 0 < run["half_received_bytes"] <= LARGE_BYTES
    assert main(["journal", "list"]) == ExitCode.OK
    assert "1 file (" in capfd.readouterr().out
    call("journal", "forget", run["run_id"], "--dry-run")
    assert "and remove 1 file (" in call.err
    assert half.exists()
    (forgotten,) = call("journal", "forget", run["run_id"])
    assert (forgotten["files_removed"], forgotten["bytes_removed"]) == (1, run["half_received_bytes"])
    assert list((tmp_path / "here" / "copy").iterdir()) == []
    call("download", "d", "copy")
    assert (tmp_path / "copy" / "big.bin").read_bytes() == data


def test_no_journal_holds_a_secret(
    call: Caller, served: RunningServer, photos: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither tokens nor signatures, URLs of objects or names of files get into the folder."""
    call("upload", photos, "d", "--create", "--token", served.token, status=ExitCode.SOME_FAILED)
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(
        json.dumps({"url": f"{served.url}/nowhere?signature=s3cr3tsign", "destination": str(tmp_path / "x"),
                    "headers": {"Authorization": "Bearer s3cr3ttoken"}}) + "\n"
    )  # fmt: skip
    call("transfer", manifest, status=ExitCode.SOME_FAILED)
    written = b"".join(path.read_bytes() for path in journal_folder(home).iterdir())
    for secret in (served.token.encode(), b"s3cr3t", b"/objects/", b"signature", b"07.jpg", b"Bearer"):
        assert secret not in written, secret


def kill_when(process: subprocess.Popen[bytes], home: Path, is_ready: Callable[[RunSummary], bool]) -> None:
    """SIGKILL *process* as soon as a journal is as *is_ready* wants it."""
    deadline = time.monotonic() + 50
    while time.monotonic() < deadline and process.poll() is None:
        if any(is_ready(run) for run in summaries(journal_folder(home))):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_checkpoint_download_is_resumed_by_its_id(
    call: Caller, served: RunningServer, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`best` may be another checkpoint by then: what is gone on with is the one that was begun."""
    data = random.Random(1).randbytes(LARGE_BYTES)
    weights, copy = tmp_path / "weights.bin", tmp_path / "copy.bin"
    weights.write_bytes(data)
    call("checkpoint", "upload", weights, "m", "--create", "--best")
    limit = ["--concurrency", "1", "--part-size", "1MiB"]
    killed, asked, find = threading.Event(), [0], ObjectBytes.find

    def find_some(bytes_: ObjectBytes, head: Any) -> Any:
        asked[0] += 1
        if asked[0] == 6:
            killed.wait(50)  # the client gets no further
        return find(bytes_, head)

    monkeypatch.setattr(ObjectBytes, "find", find_some)
    process = subprocess.Popen(command("checkpoint", "download", "m", copy, *limit), stderr=subprocess.PIPE)
    kill_when(process, home, lambda run: run.verb == "checkpoint_download" and run.parts >= 3)
    killed.set()
    (run,) = call("journal", "list")
    assert run["state"] == "killed"
    assert run["large"] == 1
    better = tmp_path / "better.bin"
    better.write_bytes(b"better")
    call("checkpoint", "upload", better, "m", "--best")
    call("journal", "resume", run["run_id"], *limit)
    assert copy.read_bytes() == data
    assert call("journal", "list") == []
    assert list(tmp_path.glob(".*.part")) == []


async def serve_manifest(server: HttpServer, tmp_path: Path) -> Path:
    """Return a manifest of uploads and downloads at *server*, its paths relative to the folder it is in."""
    lines: list[dict[str, Any]] = []
    for number in range(20):
        (tmp_path / f"up{number}").write_bytes(b"up %d" % number)
        os.utime(tmp_path / f"up{number}", (1_700_000_000, 1_700_000_000))
        lines.append({"source": f"up{number}", "url": server.url(f"/up{number}?signature=a")})
        server.objects[f"/down{number}"] = b"down %d" % number
        lines.append({"url": server.url(f"/down{number}?signature=a"), "destination": f"down{number}"})
    lines.append({"url": server.url("/last?signature=a"), "destination": "last"})
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


async def begun(folder: Path, *arguments: object) -> asyncio.subprocess.Process:
    """Start a command in *folder*."""
    return await asyncio.create_subprocess_exec(
        *command(*arguments, "--json"), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip


async def run_in(folder: Path, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    """Run a command in *folder*; return its status, and the JSON it wrote."""
    process = await begun(folder, *arguments)
    out, _ = await process.communicate()
    return process.returncode or 0, [json.loads(line) for line in out.splitlines()]


async def hang(connection: Connection, request: Received) -> bool:
    await asyncio.Event().wait()
    return True


async def test_a_manifest_goes_on_though_its_urls_were_signed_anew(tmp_path: Path, home: Path) -> None:
    async with HttpServer() as server:
        manifest = await serve_manifest(server, tmp_path)

        async def transfer(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
            return await run_in(tmp_path, *arguments)

        server.script("/last", hang)
        process = await begun(tmp_path, "transfer", manifest.name)
        async with asyncio.timeout(50):
            while not any(run.objects == 40 for run in summaries(journal_folder(home))):
                await asyncio.sleep(0.01)
        process.kill()
        await process.communicate()
        manifest.write_text(manifest.read_text().replace("signature=a", "signature=b"))
        (tmp_path / "up3").write_bytes(b"changed!")
        (tmp_path / "down5").unlink()
        (tmp_path / "down6").write_bytes(b"mine now")
        server.objects["/last"] = b"here"
        server.requests.clear()
        _, (run,) = await transfer("journal", "list")
        status, entries = await transfer("journal", "resume", run["run_id"])
        assert status == ExitCode.OK
        assert (entries[-1]["summary"]["done"], entries[-1]["summary"]["skipped"]) == (4, 37)
        asked = sorted(request.path for request in server.requests)
        assert asked == ["/down5", "/down6", "/last", "/up3"]
        assert (tmp_path / "down6").read_bytes() == b"down 6"
        assert server.objects["/up3"] == b"changed!"
        assert await transfer("journal", "list") == (0, [])


async def test_a_line_that_always_fails_keeps_no_other_from_moving(tmp_path: Path, home: Path) -> None:
    """Every night the same manifest: what lies at its URLs may be new, and nobody can be asked."""
    async with HttpServer() as server:
        manifest = await serve_manifest(server, tmp_path)
        status, _ = await run_in(tmp_path, "transfer", manifest.name, "--report", "report")
        assert status == ExitCode.SOME_FAILED
        assert list(journal_folder(home).iterdir()) == []
        server.objects["/down7"] = b"new of this night"
        status, entries = await run_in(tmp_path, "transfer", manifest.name)
        assert (entries[-1]["summary"]["done"], entries[-1]["summary"]["failed"]) == (40, 1)
        assert (tmp_path / "down7").read_bytes() == b"new of this night"
        server.objects["/last"] = b"here"
        status, entries = await run_in(tmp_path, "transfer", manifest.name, "--retry", "report")
        assert (status, entries[-1]["summary"]["done"]) == (ExitCode.OK, 1)


async def test_lines_that_differ_in_what_they_ask_for_are_two(tmp_path: Path, home: Path) -> None:
    """One script may give out many objects, and one file go to several places of it."""
    (tmp_path / "up").write_bytes(b"up")
    os.utime(tmp_path / "up", (1_700_000_000, 1_700_000_000))
    async with HttpServer() as server:
        server.script("/put", *[answer_empty] * 2, hang)
        lines = [{"source": "up", "url": server.url("/put?object=a&Signature=x"), "key": "the first"}]
        lines += [{"source": "up", "url": server.url(f"/put?object={name}&Signature=x")} for name in "bc"]
        manifest = tmp_path / "m.jsonl"
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        process = await begun(tmp_path, "transfer", manifest.name, "--concurrency", 1)
        async with asyncio.timeout(50):
            while not any(run.objects == 2 for run in summaries(journal_folder(home))):
                await asyncio.sleep(0.01)
        process.kill()
        await process.communicate()
        manifest.write_text(manifest.read_text().replace("=x", "=y"))
        server.script("/put", answer_empty)
        status, entries = await run_in(tmp_path, "transfer", manifest.name)
        assert (status, entries[-1]["summary"]["done"], entries[-1]["summary"]["skipped"]) == (ExitCode.OK, 1, 2)
        assert [request.target for request in server.requests][3:] == ["/put?object=c&Signature=y"]


async def answer_empty(connection: Connection, request: Received) -> bool:
    await connection.read_body(request)
    await connection.reply(200)
    return True


async def test_what_a_retry_moved_is_not_moved_again(tmp_path: Path, home: Path) -> None:
    """The run that the report is of was stopped: the same command goes on with what is left."""
    async with HttpServer() as server:
        manifest = await serve_manifest(server, tmp_path)
        found, report = server.objects.pop("/down3"), tmp_path / "report"
        server.script("/last", hang)
        process = await begun(tmp_path, "transfer", manifest.name, "--report", "report")
        async with asyncio.timeout(50):
            while not report.exists() or len(report.read_text().splitlines()) < 40:
                await asyncio.sleep(0.01)
        process.kill()
        await process.communicate()
        server.objects |= {"/down3": found, "/last": b"here"}
        status, entries = await run_in(tmp_path, "transfer", manifest.name, "--retry", "report")
        assert (status, entries[-1]["summary"]["done"]) == (ExitCode.SOME_FAILED, 1)
        server.requests.clear()
        status, entries = await run_in(tmp_path, "transfer", manifest.name)
        assert status == ExitCode.OK
        assert [request.path for request in server.requests] == ["/last"]
        assert list(journal_folder(home).iterdir()) == []
        await run_in(tmp_path, "transfer", manifest.name, "--retry", "report")
        assert list(journal_folder(home).iterdir()) == []


def test_journals_that_cannot_be_read_are_told(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody is told that all is complete while there is one that nobody can read."""
    folder = journal_folder(home)
    folder.mkdir(parents=True)
    (folder / "upload-1.sqlite3").write_bytes(b"x" * 5000)
    assert main(["journal", "list"]) == ExitCode.OK
    told = capfd.readouterr()
    assert told.out == ""
    assert "upload-1.sqlite3: is damaged" in told.err
    assert "complete" not in told.err
    assert main(["journal", "forget", "upload-1"]) == ExitCode.OK
    assert main(["journal", "list"]) == ExitCode.OK
    assert "all that were begun are complete" in capfd.readouterr().err


def test_a_run_that_is_under_way_is_not_gone_on_with(call: Caller, home: Path) -> None:
    record = RunRecord("transfer", {"place": "/m"}, {"place": "/m", "folder": "/"})
    store = Store.open(journal_folder(home) / f"{record.run_id}.sqlite3", record)
    try:
        for verb in ("resume", "forget"):
            call("journal", verb, record.run_id, status=ExitCode.REFUSED)
            assert "is under way" in call.err
    finally:
        store.release("stopped")


@pytest.mark.parametrize(
    ("verb", "arguments", "command"),
    [
        (
            "upload",
            {"url": "http://h", "place": "/p", "dataset": "d", "on_existing": "fail", "include": ["-x", "b"]},
            ["upload", "/p", "d", "--on-existing=fail", "--include=-x", "--include=b", "--url", "http://h"],
        ),
        (
            "download",
            {"data": "/data", "place": "/p", "dataset": "d", "on_existing": "overwrite", "exclude": ["c"]},
            ["download", "d", "/p", "--on-existing=overwrite", "--exclude=c", "--data", "/data"],
        ),
        (
            "checkpoint_upload",
            {
                "url": "http://h",
                "place": "/p",
                "model": "m",
                "facts": {"epoch": 3, "is_best": True, "is_final": False, "metrics": {"loss": 0.1}},
            },
            ["checkpoint", "upload", "/p", "m", "--epoch=3", "--best", "--metric=loss=0.1", "--url", "http://h"],
        ),
        ("transfer", {"place": "/m.jsonl", "folder": "/"}, ["transfer", "/m.jsonl"]),
        (
            "transfer",
            {"place": "/m.jsonl", "folder": "/", "retry": "/r.jsonl"},
            ["transfer", "/m.jsonl", "--retry=/r.jsonl"],
        ),
    ],
)
def test_a_run_becomes_the_command_that_started_it(verb: str, arguments: dict[str, Any], command: list[str]) -> None:
    run = RunSummary("x-1", verb, arguments, "stopped", "", 0, 0, 0, 0, 0, 0, is_rebuildable=True)
    assert command_of(run) == command


def test_a_run_that_only_a_program_can_start_says_so() -> None:
    run = RunSummary("x-1", "upload", {"place": "name:n"}, "stopped", "", 0, 0, 0, 0, 0, 0, is_rebuildable=False)
    with pytest.raises(ConfigError, match="run it again"):
        command_of(run)
