"""What signals do to a command, in this process and in one that is stuck."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.cli import main, program
from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.interrupts import Interrupted, Stage, run_interruptible
from asyncsdk.cli.output import Output
from asyncsdk.cli.progress import ProgressDisplay
from asyncsdk.engine import Progress
from asyncsdk.errors import ConnectionFailed, LeftUndone

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to itself")

WAIT_SECONDS = 30
Work = Callable[[], Coroutine[Any, Any, int]]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Handlers, the wakeup descriptor and threads are as before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    threads = threading.active_count()
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert threading.active_count() == threads
    wakeup = signal.set_wakeup_fd(-1)
    assert wakeup == -1


def run(work: Work, *, drains: bool = True) -> tuple[int, list[Stage]]:
    stages: list[Stage] = []
    return run_interruptible(work, lambda number, stage: stages.append(stage), lambda: drains), stages


def sent(*numbers: int, then: Exception | None = None, hides: Exception | None = None) -> Work:
    """Return work that sends itself signals, one after the other was taken, and raises *then*; *hides* on cancel."""

    async def work() -> int:
        try:
            for number in numbers:
                os.kill(os.getpid(), number)
                await asyncio.sleep(0.05)
            if then is None:
                return 7
        except asyncio.CancelledError:
            if hides is not None:
                raise hides from None
            raise
        raise then

    return work


def test_a_drained_command_that_leaves_nothing_undone_ends_as_ever() -> None:
    assert run(sent(signal.SIGINT)) == (7, [Stage.DRAINING])


@pytest.mark.parametrize("error", [LeftUndone(3), ExceptionGroup("both", [LeftUndone(3), LeftUndone(1)])])
def test_what_a_drain_leaves_undone_is_the_interrupt(error: Exception) -> None:
    with pytest.raises(Interrupted) as caught:
        run(sent(signal.SIGINT, then=error))
    assert (caught.value.exit_status, caught.value.__cause__) == (130, None)


def test_an_error_while_draining_is_the_error() -> None:
    """The signal cancelled nothing: what ended the command is told, with its own exit status."""
    with pytest.raises(ConnectionFailed, match="gone"):
        run(sent(signal.SIGINT, then=ConnectionFailed("gone")))


def test_an_error_of_the_cleanup_is_told_beside_the_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted) as caught:
        run(sent(signal.SIGTERM, hides=ConnectionFailed("cleanup")))
    assert (caught.value.exit_status, str(caught.value.__cause__)) == (143, "cleanup")

    def refuse(invocation: object) -> int:
        raise caught.value

    monkeypatch.setattr(program, "_run", refuse)
    assert main(["whoami"]) == ExitCode.TERMINATED
    assert "while stopping: cleanup" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGHUP, ExitCode.HUNG_UP)]
)
def test_some_signals_do_not_wait_for_what_is_under_way(number: int, status: int) -> None:
    with pytest.raises(Interrupted) as caught:
        run(sent(number))
    assert caught.value.exit_status == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_stays_ignored(number: signal.Signals) -> None:
    """As of ``nohup``, and of ``... &`` in a script; SIGTERM still ends the command."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert run(sent(number, number, number)) == (7, [])
        with pytest.raises(Interrupted):
            run(sent(number, signal.SIGTERM))
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_signal_before_the_loop_began_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow() -> asyncio.AbstractEventLoop:
        os.kill(os.getpid(), signal.SIGTERM)
        return asyncio.new_event_loop()

    monkeypatch.setattr("asyncsdk.cli.interrupts.new_event_loop", slow)

    async def work() -> int:
        await asyncio.sleep(WAIT_SECONDS)
        return 0

    with pytest.raises(Interrupted):
        run(work)


def test_a_command_on_another_thread_takes_no_signals() -> None:
    found: list[tuple[int, list[Stage]]] = []
    thread = threading.Thread(target=lambda: found.append(run(sent())))
    thread.start()
    thread.join()
    assert found == [(7, [])]


_STUCK = """
import asyncio, ctypes, os, sys
from asyncsdk.cli import interrupts
if sys.argv[1] == "plain":
    interrupts.new_event_loop = asyncio.new_event_loop
def stick():
    if sys.argv[2] == "pipe":
        os.open(sys.argv[3], os.O_RDONLY)  # nobody ever writes
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    while True:  # never comes back, whatever signal comes
        libc.pthread_mutex_lock(mutex)
async def work():
    await asyncio.sleep(0)
    print("ready", flush=True)
    stick()
interrupts.run_interruptible(work, lambda number, stage: None)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("where", ["pipe", "mutex"])
@pytest.mark.parametrize("loop", ["plain", "fast"])
def test_a_command_whose_loop_is_stuck_can_be_ended(
    tmp_path: Path, loop: str, where: str, number: signal.Signals
) -> None:
    """In a call that begins again after a signal, and in one that no signal interrupts, as of a network drive."""
    if where == "mutex" and sys.platform != "linux":
        pytest.skip("a mutex of zeros is Linux's")
    os.mkfifo(tmp_path / "pipe")
    arguments = [sys.executable, "-c", _STUCK, loop, where, tmp_path / "pipe"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            deadline = time.monotonic() + WAIT_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(number)
                time.sleep(0.05)
            assert process.returncode == 128 + number
        finally:
            process.kill()


_TWICE = """
import asyncio, os, signal, sys
from asyncsdk.cli.interrupts import run_interruptible
async def work():
    try:
        for number in map(int, sys.argv[1:]):
            os.kill(os.getpid(), number)
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.1)
        print("cleaned up", flush=True)
run_interruptible(work, lambda number, stage: None)
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_that_is_sent_twice_at_once_leaves_time_to_clean_up(second: signal.Signals) -> None:
    """As `timeout` does, and a terminal that goes: that is nobody who has lost patience."""
    arguments = [sys.executable, "-c", _TWICE, str(int(signal.SIGTERM)), str(int(second))]
    said = subprocess.run(arguments, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert said.stdout == "cleaned up\n"
    assert "Interrupted" in said.stderr


def test_closed_streams_are_no_reason_to_crash(tmp_path: Path) -> None:
    """Numbers 0 to 2 would be those of sockets, upon which the fast event loop ends the process."""
    (tmp_path / "m").write_text("")
    script = 'exec "$0" -m asyncsdk transfer m --no-resume --report r <&- >&- 2>&-'
    said = subprocess.run(["/bin/sh", "-c", script, sys.executable], cwd=tmp_path, timeout=WAIT_SECONDS, check=False)
    assert said.returncode == ExitCode.OK
    assert (tmp_path / "r").read_text().count("complete") == 1


class Gone(io.TextIOWrapper):
    """A terminal that somebody closed."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    """Notes, problems and progress go nowhere; a result that cannot be written is still an error."""
    gone = Gone()
    monkeypatch.setattr(gone, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", gone)
    output = Output()
    output.note("a")
    output.problem("b")
    progress = ProgressDisplay(output, "upload")
    for done in range(3):
        progress.show(Progress(done=done, seconds=10.0 * done))
    progress.close()
    output.flush()
    monkeypatch.setattr(sys, "stdout", gone)
    with pytest.raises(OSError, match="Input/output"):
        Output().text("result")
