"""How a blocking call runs its asynchronous twin: in the loop of another thread, while this thread serves it.

``run`` hands the call to the loop of `LoopThread` and waits. What the call wants of its caller meanwhile (a callback to
be called, the next elements of an iterable) arrives as events in a queue and is done here, on the calling thread.

- A callback that raises ends the call: it is cancelled, its cleanup is waited for, the exception comes out unchanged.
- Ctrl-C does the same, and waits `CANCEL_GRACE_SECONDS` at most; a second Ctrl-C does not wait.
- A call that was cancelled raises `asyncio.CancelledError`; it never returns None instead.
- Context variables of the caller are seen by the call.

A callback slower than the events hold the loop up, as it would in the asynchronous API: memory stays bounded.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar, cast, overload

from asyncsdk.errors import BlockingCallInAsyncWarning, ForkedProcessError
from asyncsdk.sync.loop import LoopThread, current_loop_thread

__all__ = ["Call", "ForCaller", "is_notebook", "on_caller", "run"]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., None])

CANCEL_GRACE_SECONDS = 10.0
"""How long a cancelled call may clean up (abort a multipart upload, flush the journal) before its caller goes on."""

MAX_EVENTS = 1024
"""Events that may wait for the calling thread before the loop waits for it."""

ROOM_WAIT_SECONDS = 0.1
"""Longest the loop waits for one event, should the calling thread itself wait for another call."""

_WINDOWS_SLICE_SECONDS = 0.1
"""Waiting for a lock cannot be interrupted by Ctrl-C on Windows: so it is done in slices there."""

_PACKAGE = str(Path(__file__).parent) + os.sep
_Event = Callable[[], object]
_active = threading.local()


class Call:
    """One blocking call: what it became, and the events it has for its caller."""

    def __init__(self, host: LoopThread, name: str) -> None:
        self.host = host
        self.name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: SimpleQueue[_Event | None] = SimpleQueue()
        self._room = threading.Condition()
        self._is_room_wanted = False
        self._nested = 0
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self.on_close: list[Callable[[bool], None]] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that runs the call, once it was given to one."""
        assert self._loop is not None
        return self._loop

    # --- in the loop ---------------------------------------------------------------------------------------

    def start(self, function: Callable[[], Awaitable[Any]]) -> None:
        """Start the work; called in the loop."""
        self._task = self.loop.create_task(self._execute(function), name=f"asyncsdk-sync {self.name}")

    async def _execute(self, function: Callable[[], Awaitable[Any]]) -> None:
        try:
            self._value = await function()
        except BaseException as error:  # noqa: BLE001  # SystemExit too belongs to the caller, not to the loop
            self._error = error
        finally:
            self.host.end_call()  # before the caller is told: it may fork as soon as it knows
            self._events.put(None)

    def post(self, event: _Event) -> bool:
        """Have *event* done by the calling thread; False when that has left. From any thread but the calling one."""
        if self._is_closed:
            return False
        self._events.put(event)
        if self._events.qsize() > MAX_EVENTS:
            with self._room:
                self._is_room_wanted = True
                self._room.wait_for(self._has_room, ROOM_WAIT_SECONDS)
        return True

    def _has_room(self) -> bool:
        return self._is_closed or self._nested > 0 or self._events.qsize() <= MAX_EVENTS // 2

    # --- on the calling thread -----------------------------------------------------------------------------

    def serve(self, function: Callable[[], Awaitable[Any]]) -> None:
        """Have *function* awaited in the loop, and do what it asks for until it has ended; then see `result`.

        Whatever is raised here, Ctrl-C at any moment, cancels it and waits for its cleanup.
        """
        try:
            self._loop = self.host.begin_call()
            self._loop.call_soon_threadsafe(self.start, function, context=contextvars.copy_context())
            self._serve_events()
        except BaseException as error:  # Ctrl-C too must cancel what runs in the loop; raised again
            is_here = self.host.pid == os.getpid()  # else this thread forked in a callback: not our call any more
            if is_here and self._loop is not None and not self.cancel():
                error.add_note(f"{self.name} was cancelled and still cleans up in the background")
            raise

    def _serve_events(self) -> None:
        while (event := self._next_event()) is not None:
            event()
            if self.host.pid != os.getpid():
                # This thread forked in a callback; the call goes on in the parent, nobody works for it here.
                raise ForkedProcessError(
                    f"{self.name} is under way in the process that this one was forked from; make a new call here"
                )
            if self._is_room_wanted and self._has_room():
                self._make_room()

    def _next_event(self) -> _Event | None:
        if os.name != "nt":
            return self._events.get()
        while True:
            try:
                return self._events.get(timeout=_WINDOWS_SLICE_SECONDS)
            except Empty:
                continue

    def _make_room(self) -> None:
        with self._room:
            self._is_room_wanted = False
            self._room.notify_all()

    def enter_nested(self) -> None:
        """A callback makes a blocking call of its own: nothing may wait for this one meanwhile."""
        self._nested += 1
        self._make_room()

    def leave_nested(self) -> None:
        """That call has returned."""
        self._nested -= 1

    def cancel(self) -> bool:
        """Cancel the call and wait for its cleanup; whether it ended within the time given."""
        self._is_closed = True  # no callback is called and no iterable is pulled any more
        self._make_room()
        self.loop.call_soon_threadsafe(self._cancel_in_loop)
        deadline = time.monotonic() + CANCEL_GRACE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                # In slices everywhere: a wait with a time limit must not swallow the second Ctrl-C on any system.
                if self._events.get(timeout=min(left, _WINDOWS_SLICE_SECONDS)) is None:
                    return True
            except Empty:
                continue
        return False

    def _cancel_in_loop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:  # Ctrl-C came before the start was asked for, and now it never will be
            self.host.end_call()
            self._events.put(None)

    def close(self, *, has_failed: bool) -> None:
        """Close what the call pulled from on the calling thread."""
        self._is_closed = True
        for close in self.on_close:
            close(has_failed)

    def result(self) -> Any:
        """Return what the work returned, or raise what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # the traceback holds this frame: without the link back there is no cycle
        return self._value


class ForCaller(ABC):
    """An argument that works on the calling thread; ``bind`` gives what the asynchronous twin is given instead."""

    @abstractmethod
    def bind(self, call: Call) -> Any:
        """Return the stand-in for one call."""


class _CallerCallback(ForCaller):
    def __init__(self, callback: Callable[..., None]) -> None:
        self._callback = callback

    def bind(self, call: Call) -> Callable[..., None]:
        callback = self._callback

        def post(*args: Any, **kwargs: Any) -> None:
            call.post(partial(callback, *args, **kwargs))

        return post


@overload
def on_caller(callback: F) -> F: ...
@overload
def on_caller(callback: F | None) -> F | None: ...
def on_caller(callback: F | None) -> F | None:
    """Mark an argument of `run` as a callback: it is called on the thread that made the call.

    What it raises ends the call and comes out of it unchanged.
    """
    return None if callback is None else cast("F", _CallerCallback(callback))


def run(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``await function(*args, **kwargs)`` gives, run in the process's own event loop.

    Works from any thread but the loop's own, also inside a running loop: that is what notebooks need; elsewhere it
    blocks that loop, which a warning says. Arguments marked by `on_caller` and the like are bound to this call.

    Raises:
        RuntimeError: The calling thread is the one that would do the work, or the interpreter is exiting.
        ForkedProcessError: This process was forked from a callback of this very call.
        asyncio.CancelledError: The call was cancelled.
    """
    host = current_loop_thread()
    name = getattr(function, "__qualname__", repr(function))
    if host.is_current_thread():
        raise RuntimeError(
            f"a blocking call was made from the event loop that serves blocking calls: it would wait for itself "
            f"for ever; await {name} instead"
        )
    _warn_when_in_loop(name)
    call = Call(host, name)
    bound_args: Any = [arg.bind(call) if isinstance(arg, ForCaller) else arg for arg in args]
    bound_kwargs: Any = {key: arg.bind(call) if isinstance(arg, ForCaller) else arg for key, arg in kwargs.items()}
    bound = partial(function, *bound_args, **bound_kwargs)
    outer: Call | None = getattr(_active, "call", None)
    if outer is not None:
        outer.enter_nested()
    has_failed = True
    try:
        _active.call = call
        call.serve(bound)
        value: T = call.result()
        has_failed = False
        return value
    finally:
        _active.call = outer
        if outer is not None:
            outer.leave_nested()
        call.close(has_failed=has_failed)
        del call, outer


def is_notebook() -> bool:
    """Whether this is an IPython kernel (Jupyter, Colab), where the running loop waits for the cell anyway."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and getattr(get_shell(), "kernel", None) is not None


def _warn_when_in_loop(name: str) -> None:
    # The private function is None outside a loop; the public one raises, which costs ten times as much.
    if asyncio._get_running_loop() is None or is_notebook():
        return
    warnings.warn(
        f"a blocking call holds up the event loop that runs on this thread; use its async twin: await {name}(...)",
        BlockingCallInAsyncWarning,
        stacklevel=_stack_level_of_user(),
    )


def _stack_level_of_user() -> int:
    """Return the stack level, seen from `_warn_when_in_loop`, of the first frame outside this package."""
    frame = sys._getframe(1)
    level = 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    return level
