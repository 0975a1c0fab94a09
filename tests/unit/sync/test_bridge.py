"""How a blocking call and its caller work together: threads, exceptions, cancellation, warnings."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import traceback
import types
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from asyncsdk.errors import BlockingCallInAsyncWarning
from asyncsdk.sync import bridge
from asyncsdk.sync.bridge import is_notebook, on_caller, run


class Oops(Exception):
    """Raised by the tests."""


async def thread_id() -> int:
    return threading.get_ident()


async def tell(callback: Callable[[int], None], times: int = 3, *, cleanup: list[str] | None = None) -> str:
    try:
        for number in range(times):
            callback(number)
            await asyncio.sleep(0)
        if cleanup is not None:
            await asyncio.Event().wait()
    finally:
        if cleanup is not None:
            await asyncio.sleep(0)
            cleanup.append("done")
    return "told"


def test_calls_run_in_one_other_thread() -> None:
    """All calls of all threads are run by one thread, which is none of theirs."""
    with ThreadPoolExecutor(4) as pool:
        ids = {run(thread_id), *pool.map(lambda _: run(thread_id), range(8))}
    assert len(ids) == 1
    assert threading.get_ident() not in ids


def test_arguments_and_value_pass_through() -> None:
    """Positional and keyword arguments arrive, the value comes back as the same object."""
    given = object()

    async def echo(first: object, *, second: object) -> tuple[object, object]:
        return first, second

    assert run(echo, given, second=given) == (given, given)


def test_callbacks_run_on_the_calling_thread_in_order() -> None:
    """Callbacks are called here, in order, all of them before the call returns."""
    seen: list[tuple[int, int]] = []
    result = run(tell, on_caller(lambda number: seen.append((number, threading.get_ident()))), 5)
    assert result == "told"
    assert seen == [(number, threading.get_ident()) for number in range(5)]


def test_no_callback_stays_none() -> None:
    """A callback that was not given is not wrapped."""
    assert on_caller(None) is None


def test_exception_of_a_callback_ends_the_call_unchanged() -> None:
    """What a callback raises cancels the work, waits for its cleanup and comes out as the same object."""
    cleanup: list[str] = []
    error = Oops()

    def fail(number: int) -> None:
        if number == 1:
            raise error

    with pytest.raises(Oops) as caught:
        run(tell, on_caller(fail), cleanup=cleanup)
    assert caught.value is error
    assert cleanup == ["done"]
    assert error.__cause__ is None
    assert not isinstance(error.__context__, asyncio.CancelledError)


def test_no_callback_after_one_raised() -> None:
    """Once a callback raised, no other one is called."""
    calls: list[int] = []

    async def many(callback: Callable[[int], None]) -> None:
        for number in range(100):
            callback(number)
        await asyncio.Event().wait()

    def fail(number: int) -> None:
        calls.append(number)
        raise Oops

    with pytest.raises(Oops):
        run(many, on_caller(fail))
    assert calls == [0]


def test_exception_of_the_call_shows_both_threads() -> None:
    """An exception of the work comes out as the same object; its traceback names the caller and the place."""
    error = Oops("deep")

    async def deep_inside() -> None:
        raise error

    def this_is_the_caller() -> None:
        run(deep_inside)

    with pytest.raises(Oops) as caught:
        this_is_the_caller()
    assert caught.value is error
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names.index("this_is_the_caller") < names.index("deep_inside")


def test_failed_call_leaves_no_cycle() -> None:
    """The exception of a call, its frames and the call go without the garbage collector."""

    class Big:
        pass

    async def fail(big: Big) -> None:
        raise Oops

    def call() -> weakref.ref[Big]:
        big = Big()
        reference = weakref.ref(big)
        with pytest.raises(Oops):
            run(fail, big)
        return reference

    gc.collect()
    gc.disable()
    try:
        reference = call()
        run(thread_id)  # the loop drops its last handle of the call before in turn it takes the next one
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_base_exceptions_of_the_call_are_raised_here(error: BaseException) -> None:
    """SystemExit and the like belong to the caller; the loop goes on working."""

    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(fail)
    assert caught.value is error
    assert run(thread_id) != threading.get_ident()


def test_cancelled_call_never_gives_none() -> None:
    """A call whose task is cancelled from elsewhere raises CancelledError."""

    async def cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        run(cancelled)


def test_task_that_ends_the_loop_does_not() -> None:
    """SystemExit in a task of the background leaves the loop working for every other call."""

    async def leave() -> None:
        raise SystemExit(3)

    async def start() -> None:
        task = asyncio.create_task(leave())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(SystemExit):
            task.result()

    run(start)
    assert run(thread_id) != threading.get_ident()


def test_context_variables_are_seen() -> None:
    """The call sees the caller's context variables; what it sets stays with it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")

    async def read() -> str:
        before = variable.get()
        variable.set("the call's")
        return before

    token = variable.set("the caller's")
    try:
        assert run(read) == "the caller's"
        assert variable.get() == "the caller's"
    finally:
        variable.reset(token)


def test_call_from_the_loop_itself_is_refused() -> None:
    """A blocking call in the bridge's own loop would wait for itself: it raises at once, naming what to await."""

    async def inside() -> None:
        run(thread_id)

    with pytest.raises(RuntimeError, match="await thread_id"):
        run(inside)


async def test_call_in_a_running_loop_warns_and_names_the_twin() -> None:
    """In a foreign running loop a call works, and the warning points at the caller's line and at what to await."""
    with pytest.warns(BlockingCallInAsyncWarning, match=r"await thread_id") as caught:
        run(thread_id)
    assert caught[0].filename == __file__


async def test_warning_as_error_stops_the_call_before_it_starts() -> None:
    """Made an error, the warning is strict mode: nothing has run."""
    started: list[int] = []

    async def start() -> None:
        started.append(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error", BlockingCallInAsyncWarning)
        with pytest.raises(BlockingCallInAsyncWarning):
            run(start)
    assert started == []


async def test_notebooks_may_block_their_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an IPython kernel no warning is given; IPython in a terminal has no kernel and is warned."""
    shell = types.SimpleNamespace(kernel=object())
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert is_notebook()
    assert run(thread_id) != threading.get_ident()
    del shell.kernel
    assert not is_notebook()
    with pytest.warns(BlockingCallInAsyncWarning):
        run(thread_id)


def test_callbacks_may_make_calls_themselves() -> None:
    """A callback may call too, and the outer call goes on afterwards."""
    inner: list[int] = []
    assert run(tell, on_caller(lambda _: inner.append(run(thread_id)))) == "told"
    assert len(set(inner)) == 1
    assert len(inner) == 3


def test_events_waiting_for_a_slow_caller_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback slower than the work holds the work up: events do not pile up."""
    monkeypatch.setattr(bridge, "MAX_EVENTS", 8)
    monkeypatch.setattr(bridge, "ROOM_WAIT_SECONDS", 30.0)
    posted = 0
    ahead: list[int] = []

    async def work(callback: Callable[[int], None]) -> None:
        nonlocal posted
        for number in range(200):
            posted = number
            callback(number)

    def slow(number: int) -> None:
        threading.Event().wait(0.0005)
        ahead.append(posted - number)

    run(work, on_caller(slow))
    assert len(ahead) == 200
    assert max(ahead) <= 9


def test_slow_callback_that_calls_does_not_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the queue full, a callback's own call still gets the loop."""
    monkeypatch.setattr(bridge, "MAX_EVENTS", 4)
    monkeypatch.setattr(bridge, "ROOM_WAIT_SECONDS", 30.0)
    done: list[int] = []

    def call(_: int) -> None:
        done.append(run(thread_id))

    run(tell, on_caller(call), 50)
    assert len(done) == 50


def test_cleanup_is_waited_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled call that does not end is left to itself; the exception says so."""
    monkeypatch.setattr(bridge, "CANCEL_GRACE_SECONDS", 0.05)
    release = threading.Event()
    ended = threading.Event()

    async def stubborn(callback: Callable[[], None]) -> None:
        callback()
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        ended.set()

    def fail() -> None:
        raise Oops

    try:
        with pytest.raises(Oops) as caught:
            run(stubborn, on_caller(fail))
        assert "still cleans up" in caught.value.__notes__[0]
    finally:
        release.set()
    assert ended.wait(10)


@pytest.mark.parametrize("moment", ["before the start", "after the start"])
def test_interrupt_around_the_start(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Ctrl-C between two lines, before anything waits: nothing goes on behind the caller's back, nothing hangs."""
    host = bridge.current_loop_thread()
    loop = host.begin_call()
    host.end_call()
    call_soon = loop.call_soon_threadsafe
    cleanup: list[str] = []
    started = threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleanup.append("done")

    def interrupted(*args: object, **kwargs: object) -> None:
        monkeypatch.undo()
        if moment == "after the start":
            call_soon(*args, **kwargs)  # type: ignore[arg-type]
            started.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(work)
    assert not getattr(caught.value, "__notes__", None), "the end was not noticed"
    assert cleanup == (["done"] if moment == "after the start" else [])
    assert ", 0 calls" in repr(host)


def test_many_threads_call_at_once() -> None:
    """Calls of many threads run at the same time, each served by its own thread."""
    threads = 16
    together = threading.Barrier(threads)
    seen: dict[int, set[int]] = {}

    async def wait_for_the_others(callback: Callable[[int], None], arrived: list[int]) -> int:
        arrived.append(1)
        while len(arrived) < threads:  # ends only when all are under way
            await asyncio.sleep(0.001)
        callback(threading.get_ident())
        return len(arrived)

    arrived: list[int] = []

    def call() -> int:
        mine: set[int] = set()
        together.wait(20)
        result = run(wait_for_the_others, on_caller(lambda _: mine.add(threading.get_ident())), arrived)
        seen[threading.get_ident()] = mine
        return result

    with ThreadPoolExecutor(threads) as pool:
        results = [future.result() for future in [pool.submit(call) for _ in range(threads)]]
    assert results == [threads] * threads
    assert all(mine == {thread} for thread, mine in seen.items())


def test_finished_call_is_not_counted() -> None:
    """Calls that ended, well or not, leave the loop thread free for a fork."""
    host = bridge.current_loop_thread()

    async def fail() -> None:
        raise Oops

    run(thread_id)
    with pytest.raises(Oops):
        run(fail)
    assert ", 0 calls" in repr(host)
