"""Ctrl-C once drains, twice cancels, three times ends; SIGTERM is the second: real processes, real servers."""

from __future__ import annotations

import filecmp
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest

from asyncsdk.cli.exits import ExitCode

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")

WAIT_SECONDS = 50
FINISHING = "SIGINT: finishing what is under way"
STOPPING = "stopping and cleaning up"


class Slow(BaseHTTPRequestHandler):
    """Keeps what is PUT; answers when it is told to."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    may_answer: threading.Event
    seen: list[str]

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen.append(self.path)
        type(self).may_answer.wait(WAIT_SECONDS)
        type(self).objects[self.path] = data
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@dataclass
class Server:
    url: str
    objects: dict[str, bytes]
    may_answer: threading.Event
    seen: list[str]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that holds every answer back until it is told."""
    found = Server("", {}, threading.Event(), [])
    values = {"objects": found.objects, "may_answer": found.may_answer, "seen": found.seen}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Slow,), values)) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        found.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield found
        found.may_answer.set()
        running.shutdown()
        thread.join()


class Command:
    """A command as a process of its own, whose standard error can be watched while it runs."""

    def __init__(self, folder: Path, *arguments: object, stdin: int | None = subprocess.DEVNULL) -> None:
        self._err = folder / "stderr"
        self._out = folder / "stdout"
        with self._err.open("wb") as err, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asyncsdk", *map(str, arguments)], stdin=stdin, stdout=out, stderr=err
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def out(self) -> str:
        return self._out.read_text()

    def wait_until(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so():
            assert self.process.poll() is None, self.err
            assert time.monotonic() < deadline, self.err
            time.sleep(0.01)

    def interrupt(self, said: str, number: int = signal.SIGINT) -> None:
        """Send a signal and wait until the command says what it does about it."""
        before = self.err.count(said)
        self.process.send_signal(number)
        self.wait_until(lambda: self.err.count(said) > before)

    def wait(self) -> int:
        return self.process.wait(WAIT_SECONDS)


def manifest(folder: Path, server: Server, count: int) -> Path:
    """Write *count* files and a manifest that uploads them."""
    lines = []
    for number in range(count):
        (folder / str(number)).write_bytes(b"%d" % number)
        lines.append(json.dumps({"source": str(folder / str(number)), "url": f"{server.url}/{number}"}))
    path = folder / "manifest"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def transfer(tmp_path: Path, server: Server, count: int) -> Command:
    return Command(
        tmp_path, "transfer", manifest(tmp_path, server, count), "--concurrency", 3, "--json",
        "--report", tmp_path / "report", "--events", tmp_path / "events",
    )  # fmt: skip


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_first_ctrl_c_finishes_what_is_under_way(tmp_path: Path, server: Server) -> None:
    """Three requests are in flight: they end well, nothing else begins, and the report says that it is not whole."""
    with transfer(tmp_path, server, 50) as command:
        command.wait_until(lambda: len(server.seen) == 3)
        command.interrupt(FINISHING)
        assert command.process.poll() is None
        server.may_answer.set()
        assert command.wait() == ExitCode.INTERRUPTED
    assert len(server.objects) == len(server.seen) == 3
    *whole, last = rows(tmp_path / "report")
    assert [row["status"] for row in whole] == ["done"] * 3
    assert last == {"operation": "transfer", "name": "", "status": "incomplete"}
    *_, summary, error = map(json.loads, command.out.splitlines())
    assert (summary["summary"]["done"], summary["summary"]["is_complete"]) == (3, False)
    assert error["error"]["exit_status"] == 130
    events = {row["event"]: row for row in rows(tmp_path / "events")}
    assert (events["drained"]["active"], events["drained"]["dropped"]) == (3, 47)
    assert (events["run_ended"]["done"], events["run_ended"]["is_complete"]) == (3, False)


def test_first_ctrl_c_when_all_is_under_way_leaves_nothing_undone(tmp_path: Path, server: Server) -> None:
    """Everything of the manifest is in flight already: the command ends as if nothing had happened."""
    with transfer(tmp_path, server, 3) as command:
        command.wait_until(lambda: len(server.seen) == 3)
        command.interrupt(FINISHING)
        server.may_answer.set()
        assert command.wait() == ExitCode.OK
    assert [row["status"] for row in rows(tmp_path / "report")] == ["done"] * 3 + ["complete"]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_second_signal_cancels(tmp_path: Path, server: Server, second: signal.Signals) -> None:
    """The server never answers, so draining never ends; cancelling does."""
    with transfer(tmp_path, server, 50) as command:
        command.wait_until(lambda: len(server.seen) == 3)
        command.interrupt(FINISHING)
        command.interrupt(STOPPING, second)
        assert command.wait() == 128 + second
    assert server.objects == {}
    assert [row["status"] for row in rows(tmp_path / "report")] == ["incomplete"]


def test_sigterm_cancels_at_once(tmp_path: Path, server: Server) -> None:
    """It is not waited for what is under way."""
    with transfer(tmp_path, server, 50) as command:
        command.wait_until(lambda: len(server.seen) == 3)
        command.interrupt(STOPPING, signal.SIGTERM)
        assert command.wait() == ExitCode.TERMINATED
    assert FINISHING not in command.err


def children(pid: int) -> list[int]:
    """Return the processes that *pid* started, from whichever of its threads."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(number) for listed in lists for number in listed.read_text().split()]


def ignores_sigterm(pid: int) -> bool:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn")]
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_signal_to_every_process_of_a_command_ends_it_as_one(tmp_path: Path, server: Server) -> None:
    """As a service manager sends it: workers take no notice, none is replaced, and all end with their parent."""
    path, small = tmp_path / "manifest", tmp_path / "small"
    small.write_bytes(b"x")
    path.write_text("".join(f'{{"source": "{small}", "url": "{server.url}/{number}"}}\n' for number in range(50_000)))
    server.may_answer.set()
    with Command(tmp_path, "transfer", path, "--concurrency", 4, "--processes", 2) as command:
        pid = command.process.pid
        command.wait_until(lambda: len(children(pid)) == 2)  # after a second of work
        workers = children(pid)
        command.wait_until(lambda: all(map(ignores_sigterm, workers)))
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        seen = len(server.seen)
        command.wait_until(lambda: len(server.seen) > seen + 200)
        assert children(pid) == workers
        os.kill(pid, signal.SIGTERM)
        assert command.wait() == ExitCode.TERMINATED, command.err
    deadline = time.monotonic() + WAIT_SECONDS
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


_STUCK = """
import asyncio, sys, time
from asyncsdk.cli.interrupts import run_interruptible
if sys.argv[1] == "plain":
    import asyncsdk.cli.interrupts
    asyncsdk.cli.interrupts.new_event_loop = asyncio.new_event_loop
async def work():
    print("ready", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("stuck", flush=True)
        while sys.argv[2] == "blocked":
            time.sleep(0.01)
        await asyncio.sleep(1000)
def on_signal(number, stage):
    print(stage.name, flush=True)
run_interruptible(work, on_signal, lambda: True)
"""


@pytest.mark.parametrize("cleanup", ["blocked", "waiting"])
@pytest.mark.parametrize("loop", ["plain", "fast"])
def test_third_ctrl_c_ends_whatever_happens(loop: str, cleanup: str) -> None:
    """Also when the cleanup never ends, or keeps the event loop from ever looking at a signal."""
    with subprocess.Popen([sys.executable, "-c", _STUCK, loop, cleanup], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in ("ready", "DRAINING", "CANCELLED"):
                assert process.stdout.readline() == f"{line}\n"
                if line == "CANCELLED":
                    assert process.stdout.readline() == "stuck\n"
                process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_SECONDS) == 130
        finally:
            process.kill()


LOADING = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "asyncsdk.cli.parser":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from asyncsdk.cli import main
sys.exit(main(["whoami"]))
"""


def test_ctrl_c_while_the_program_is_loaded_shows_no_traceback() -> None:
    """Which takes a second on a busy machine."""
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert (done.returncode, done.stdout) == (ExitCode.INTERRUPTED, "")
    assert done.stderr == "asyncsdk: error: interrupted\n"


def test_a_command_that_moves_nothing_ends_with_the_first(tmp_path: Path) -> None:
    """There is nothing to drain while a manifest is awaited that does not come."""
    with Command(tmp_path, "transfer", "-", "--events", tmp_path / "events", stdin=subprocess.PIPE) as command:
        command.wait_until(lambda: "run_started" in (tmp_path / "events").read_text()
                           if (tmp_path / "events").exists() else False)  # fmt: skip
        command.process.send_signal(signal.SIGINT)
        assert command.wait() == ExitCode.INTERRUPTED
        assert command.process.stdin is not None
        command.process.stdin.close()


@pytest.mark.parametrize("verb", ["upload", "download"])
def test_the_same_command_goes_on_after_a_drain(tmp_path: Path, home: Path, verb: str) -> None:
    """What was left undone is done by running it again, and nothing is there twice."""
    source = tmp_path / "source"
    for number in range(600):
        path = source / f"{number % 10}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    events = tmp_path / "events"
    arguments: list[object] = ["upload", source, "d", "--create"]
    if verb == "download":
        with Command(tmp_path, *arguments) as command:
            assert command.wait() == 0, command.err
        arguments = ["download", "d", tmp_path / "copy"]
    with Command(tmp_path, *arguments, "--events", events) as command:
        command.wait_until(lambda: events.exists() and "object_finished" in events.read_text())
        command.process.send_signal(signal.SIGINT)
        status = command.wait()
        said = command.err
    assert status in (ExitCode.INTERRUPTED, ExitCode.OK), said  # it may have been through already
    assert "Traceback" not in said
    with Command(tmp_path, *arguments) as command:
        assert command.wait() == 0, command.err
    with Command(tmp_path, "verify", "d", source, "--json") as command:
        assert command.wait() == 0, command.out
    if verb == "download":
        for folder in source.iterdir():
            names = sorted(path.name for path in folder.iterdir())
            assert filecmp.cmpfiles(folder, tmp_path / "copy" / folder.name, names, shallow=False)[0] == names


_BLOCKING = """
import os, signal, sys
import asyncsdk
before = signal.getsignal(signal.SIGINT)
folder = sys.argv[1]
def rows():
    for number in range(10**9):
        yield asyncsdk.ItemUpload(b"%d" % number, f"{number}")
with asyncsdk.Client(data=folder) as client:
    dataset = client.datasets.create("d")
    told = []
    def on_event(event):
        told.append(event.kind)
        if event.kind == "object_finished" and told.count("object_finished") == 1:
            print("ready", flush=True)
    try:
        dataset.upload(rows(), on_event=on_event)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert next(iter(dataset.items.list(limit=1))).path
    assert dataset.upload([asyncsdk.ItemUpload(b"later", "later")]).done == 1
    assert dataset.items.exists("later")
    assert not [path for path, _, files in os.walk(folder) for name in files if name.endswith(".part")]
print("alive", flush=True)
"""


def test_ctrl_c_in_a_blocking_call_cancels_that_call_only(tmp_path: Path) -> None:
    """The library takes over no signal; the client goes on, and what was committed is there."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _BLOCKING, tmp_path / "data"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT_SECONDS)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "interrupted\nalive\n", "")
