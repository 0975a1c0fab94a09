"""Starting and ending worker processes: a fresh interpreter each, two pipes, and no way to outlive its parent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from asyncsdk.engine.crew.channel import Channel
from asyncsdk.engine.crew.shares import Share
from asyncsdk.engine.temporaries import worker_mark
from asyncsdk.errors import ConfigError
from asyncsdk.transport.threads import Threads

__all__ = ["Member", "check_system"]

_BOOTSTRAP = (
    "import json, signal, sys; "
    "[signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]; "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from asyncsdk.engine.crew.worker import main; main()"
)
"""A worker takes no notice of signals that ask a program to end: its parent gets them too, and then ends the pipe, upon
which workers clean up. (Whoever sends SIGTERM to all processes of a service would else see each of them replaced.) It
imports from where its parent does, and nothing from the folder it happens to stand in."""

_PIPE_BYTES = 1024 * 1024
"""Room in a pipe, where the system lets us choose: a batch of rows fits, so that neither side waits for the other."""

_LAST_WORDS_SECONDS = 1.0
"""How long a process whose pipe has ended may take to end itself, so that its exit status can be told."""

_lock = threading.Lock()
_descriptors: set[int] = set()
_started: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


def check_system() -> None:
    """Raise unless worker processes can be started here.

    Raises:
        ConfigError: This is Windows, or a program without an interpreter that could be started.
    """
    if os.name != "posix":
        raise ConfigError("processes must be 1 on this system: worker processes are for POSIX systems only")
    if getattr(sys, "frozen", False) or not sys.executable:
        raise ConfigError(
            "processes must be 1 here: this program is frozen or embedded, and there is no interpreter to start"
        )


class Member:
    """One worker process, from its start to its end.

    Args:
        on_message: Called with itself and every message it sends.
        on_end: Called with itself when it will say nothing more.

    Attributes:
        mark: What the names of its temporary files hold.
        is_ready: Whether it can be given work.
        is_wanted: False: we told it to end.
        caution: How many crashes what it holds has been in.
        small: Transfers by one request that it holds.
        large: Transfers by many that it holds.
        rate: Transfers that it finishes per second.
        folder: Where it stands; None: where it was started.
        share: Its share of the limits, as it knows it.
    """

    def __init__(
        self,
        number: int,
        slots: int,
        large_slots: int,
        on_message: Callable[[Member, tuple[Any, ...]], None],
        on_end: Callable[[Member], None],
    ) -> None:
        self.number = number
        self.slots = slots
        self.large_slots = large_slots
        self.mark = worker_mark()
        self.is_ready = False
        self.is_wanted = True
        self.caution = 0
        self.small = 0
        self.large = 0
        self.rate = 0.0
        self.folder: str | None = None
        self.share: Share | None = None
        self._on_message = on_message
        self._on_end = on_end
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def load(self) -> int:
        """Transfers that it holds."""
        return self.small + self.large

    @property
    def pid(self) -> int | None:
        """Its number at the system, once it was started."""
        return None if self._process is None else self._process.pid

    async def start(self, threads: Threads, hello: tuple[Any, ...]) -> None:
        """Start it and send its settings; it is ready when it says so.

        Raises:
            OSError: The system refuses.
        """
        process, reads, writes = await threads.run(_spawn, undo=_undo)
        self._process = process
        self._channel = Channel(
            reads, writes, lambda message: self._on_message(self, message), self._end, lambda fd: _close((fd,))
        )
        self.send(hello)

    def send(self, message: tuple[Any, ...]) -> None:
        """Send *message*; to one that has ended, nothing is sent."""
        if self._channel is not None:
            self._channel.send(message)

    def dismiss(self) -> None:
        """Tell it to clean up and end."""
        self.is_wanted = False
        if self._channel is not None:
            self._channel.finish()

    def kill(self) -> None:
        """End it at once."""
        self.is_wanted = False
        if self._process is not None:
            self._process.kill()

    async def wait(self, threads: Threads, seconds: float = _LAST_WORDS_SECONDS) -> str:
        """Wait until the process has ended, kill it after *seconds*, close what is left; returns how it ended."""
        process = self._process
        assert process is not None
        try:
            await threads.run(_reap, process, seconds)
        finally:
            self.close()
        code = process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):  # a signal without a name
                return f"signal {-code} ({signal.Signals(-code).name})"
        return f"exit status {code}"

    def close(self) -> None:
        """Close its pipes. Calling it again does nothing."""
        if self._channel is not None:
            self._channel.close()

    def _end(self) -> None:
        self._on_end(self)


def _spawn() -> tuple[subprocess.Popen[bytes], int, int]:
    """Start an interpreter; returns it and our ends of its pipes. Blocking."""
    with _lock:  # nothing is forked between a pipe and the note of it
        its_input, writes = os.pipe()
        try:
            reads, its_output = os.pipe()
        except OSError:
            os.close(its_input)
            os.close(writes)
            raise
        ours, its = (reads, writes), (its_input, its_output)
        _descriptors.update(ours, its)
    try:
        for fd in (writes, reads):
            _widen(fd)
        # Paths are text here and there: both must mean the same bytes by it.
        flags = ["-P", "-X", f"utf8={sys.flags.utf8_mode}"]
        flags += ["-I"] * sys.flags.isolated + ["-E"] * sys.flags.ignore_environment
        places = json.dumps([path or os.getcwd() for path in sys.path])  # noqa: PTH109  # text is what is sent
        # In a session of its own: Ctrl-C at the terminal would end an interpreter that has only begun.
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and our own words
            [sys.executable, *flags, "-c", _BOOTSTRAP, places],
            stdin=its_input,
            stdout=its_output,
            start_new_session=True,
        )
    except BaseException:  # whatever it was, no descriptor stays open; then raised again
        _close(ours)
        raise
    finally:
        _close(its)
    _started.add(process)
    return process, reads, writes


def _undo(started: tuple[subprocess.Popen[bytes], int, int]) -> None:
    process, reads, writes = started
    _close((reads, writes))
    process.kill()
    process.wait()


def _reap(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _widen(fd: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):  # a pipe as it is does, with more turns
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _close(descriptors: tuple[int, ...]) -> None:
    with _lock:
        for fd in descriptors:
            _descriptors.discard(fd)
            os.close(fd)


def _let_go() -> None:
    """In a forked child: let go of the pipes, so that workers notice the end of their true parent."""
    _lock.release()
    if _descriptors:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in _descriptors:
            os.dup2(null, fd, inheritable=False)  # the numbers stay taken, so that a late close hits nothing else
        os.close(null)
        _descriptors.clear()
    for process in _started:
        process.returncode = 0  # nobody's to wait for here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_let_go)
