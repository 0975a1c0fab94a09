"""The one event loop of all blocking calls of a process: its thread, and how both live through fork and exit.

A `LoopThread` runs on a daemon thread that the first call starts. Around a fork:

- before, when no call is under way, the thread is stopped and joined, so that the process forks with one thread less
  and no lock of the loop is held by nobody in the child. Other threads that want to call wait until the fork is over;
- in the parent, the next call starts a thread for the same loop, so that its connections and tasks go on. When tasks
  of the background are alive (a heartbeat), the thread starts again at once;
- in the child, everything is new. The old loop is set aside for good: its sockets are exchanged for the null device
  (no goodbye reaches the parent's peers, no end of file is held back), and its tasks are never finalized, because
  their cleanup is the parent's business.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import logging
import os
import selectors
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

__all__ = ["Closable", "LoopThread", "closed_at_exit", "current_loop_thread"]

STOP_TIMEOUT_SECONDS = 5.0
"""How long a fork or the exit waits for the loop to come back from what it is doing."""

EXIT_GRACE_SECONDS = 5.0
"""How long the exit of the interpreter waits for cancelled calls to clean up, and for open clients to close."""

_logger = logging.getLogger(__name__)


class _Selector(selectors.BaseSelector):
    """A selector that a forked child can leave without touching what it shares with the parent.

    Parent and child share one epoll instance; unregistering a socket in the child would unregister the parent's.
    """

    def __init__(self) -> None:
        self._inner = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._inner.select(timeout)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()

    def abandon(self) -> None:
        """Drop this process's copies of the sockets; their numbers stay taken, so that a late close hits nothing."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            for key in list((self._inner.get_map() or {}).values()):
                os.dup2(null, key.fd, inheritable=False)
        finally:
            os.close(null)
        self._inner.close()
        self._inner = selectors.DefaultSelector()


class _Executor(ThreadPoolExecutor):
    """The loop's threads for blocking work; knows whether it has any."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="asyncsdk-sync-worker")
        self._busy: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self._busy.add(future)
        future.add_done_callback(self._busy.discard)
        return future

    @property
    def is_idle(self) -> bool:
        return not self._busy


class Closable(Protocol):
    """What is closed when the interpreter exits."""

    async def aclose(self) -> None:
        """Release what it holds."""


class LoopThread:
    """One event loop, run by one daemon thread. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Re-entrant: a signal handler or a destructor may fork or call while this very thread holds it.
        self.lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._selector: _Selector | None = None
        self._executor: _Executor | None = None
        self._thread: threading.Thread | None = None
        self._stop_lock = threading.Lock()
        self._is_stop_wanted = False
        self._calls = 0
        self._is_closed = False
        self.resources: weakref.WeakSet[Closable] = weakref.WeakSet()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "running" if self._is_alive else "idle"
        return f"<LoopThread {state}, pid {self.pid}, {self._calls} calls>"

    @property
    def _is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def is_current_thread(self) -> bool:
        """Whether the caller runs on the loop's thread."""
        thread = self._thread
        return thread is not None and thread.ident == threading.get_ident()

    def begin_call(self) -> asyncio.AbstractEventLoop:
        """Count a call as under way and return the running loop; `end_call` must follow.

        Raises:
            RuntimeError: The interpreter is exiting.
        """
        with self.lock:
            if self._is_closed:
                raise RuntimeError("no blocking call can be made any more: the interpreter is exiting")
            loop = self._ensure_running()
            self._calls += 1
            return loop

    def end_call(self) -> None:
        """Take back one `begin_call`."""
        with self.lock:
            self._calls -= 1

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Run *callback* in the loop when its thread runs; never waits, never starts a thread, fit for destructors.

        Returns:
            False when nothing will run it.
        """
        loop = self._loop
        if loop is None or self._is_closed or self.pid != os.getpid():
            return False
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError:  # closed between the two lines
            return False
        return True

    # --- the thread ----------------------------------------------------------------------------------------

    def _ensure_running(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            loop = self._loop = self._make_loop()
        if not self._is_alive:
            self._executor = _Executor()
            loop.set_default_executor(self._executor)
            self._thread = threading.Thread(target=self._run, args=(loop,), name="asyncsdk-sync", daemon=True)
            self._thread.start()
        return loop

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        if hasattr(os, "register_at_fork"):
            # Never uvloop: nobody can ask it for its sockets, which a forked child must let go of.
            self._selector = _Selector()
            return asyncio.SelectorEventLoop(self._selector)
        return asyncio.new_event_loop()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while True:
            try:
                loop.run_forever()
            except BaseException:  # every other call needs the loop
                # SystemExit or KeyboardInterrupt of a background task: its owner has it too.
                _logger.exception("a background task tried to end the event loop of the blocking calls")
            with self._stop_lock:
                if self._is_stop_wanted:
                    self._thread = None
                    return

    def _stop(self) -> bool:
        """Stop the thread between two turns of the loop; whether it did within the time given."""
        thread, loop = self._thread, self._loop
        if thread is None or loop is None or not thread.is_alive():
            return True
        if self.is_current_thread():
            return False
        self._is_stop_wanted = True
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_TIMEOUT_SECONDS)
        with self._stop_lock:
            self._is_stop_wanted = False
            has_left = self._thread is None
        if has_left:
            thread.join()
        return has_left

    # --- fork ----------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Stop and join the thread if no call is under way; holds the lock until after the fork."""
        self.lock.acquire()
        if self._calls == 0 and self._stop():
            executor = self._executor
            if executor is not None and executor.is_idle:
                executor.shutdown(wait=True)

    def after_fork_in_parent(self) -> None:
        """Go on where `before_fork` stopped."""
        try:
            loop = self._loop
            if loop is not None and not self._is_alive and not self._is_closed and asyncio.all_tasks(loop):
                self._ensure_running()
        finally:
            self.lock.release()

    def abandon(self) -> None:
        """Give up everything inherited from the parent; called once, in the child."""
        self._is_closed = True
        loop, selector = self._loop, self._selector
        if loop is None:
            return
        if selector is not None:
            selector.abandon()
        # A finalized coroutine runs its cleanup: it would remove temporary files that the parent still writes. So
        # these live for ever, beyond the clearing of modules at exit, which only a reference of nobody's can do.
        inherited = (loop, asyncio.all_tasks(loop))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))

    # --- exit ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel what is under way, let it clean up, close open clients, end the loop. Bounded in time.

        Runs the rest of the loop on the calling thread: at exit no thread can be started any more.
        """
        with self.lock:
            if self._is_closed or self.pid != os.getpid():
                return
            self._is_closed = True
            loop = self._loop
        if loop is None or not self._stop():
            return
        try:
            loop.run_until_complete(self._drain())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
            loop.close()

    async def _drain(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        waited = {*tasks, *(asyncio.ensure_future(resource.aclose()) for resource in list(self.resources))}
        if not waited:
            return
        done, pending = await asyncio.wait(waited, timeout=EXIT_GRACE_SECONDS)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                _logger.log(_severity(error), "cleanup at exit failed: %r", error)
        if pending:
            _logger.warning("%d calls did not end within %g s of the exit", len(pending), EXIT_GRACE_SECONDS)
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=0.1)


def _severity(error: BaseException) -> int:
    # Some versions of Python (3.12.0 and 3.12.1) refuse any new thread to exit handlers. What a client would have
    # closed in one is closed by the system a moment later; nobody needs to hear of it at each exit.
    is_refused_thread = isinstance(error, RuntimeError) and "interpreter shutdown" in str(error)
    return logging.DEBUG if is_refused_thread else logging.WARNING


_current = LoopThread()


def current_loop_thread() -> LoopThread:
    """Return the loop thread of this process; a fork that passed the hooks by is noticed here."""
    if _current.pid != os.getpid():
        _after_fork_in_child()
    return _current


def closed_at_exit(resource: Closable) -> None:
    """Close *resource* when the interpreter exits while it is still in use."""
    current_loop_thread().resources.add(resource)


def _before_fork() -> None:
    _current.before_fork()


def _after_fork_in_parent() -> None:
    _current.after_fork_in_parent()


def _after_fork_in_child() -> None:
    global _current  # noqa: PLW0603  # the one piece of state of this module: which process it serves
    inherited = _current
    _current = LoopThread()
    inherited.abandon()


def _at_exit() -> None:
    current_loop_thread().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
