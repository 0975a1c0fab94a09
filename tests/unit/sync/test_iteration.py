"""Asynchronous iterators and context managers in blocking code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator

import anyio
import pytest

from asyncsdk.sync.bridge import run
from asyncsdk.sync.iteration import context, iterate
from tests.support.blocking import count_calls


class Oops(Exception):
    """Raised by the tests."""


async def numbers(count: int, log: list[str] | None = None) -> AsyncIterator[int]:
    try:
        for number in range(count):
            yield number
    finally:
        if log is not None:
            log.append("closed")


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_everything_arrives_in_order(batch: int) -> None:
    """All elements come, in order, whatever the batch."""
    assert list(iterate(numbers(600), batch=batch)) == list(range(600))


def test_elements_cross_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements that are there cross many per hop."""
    hops = count_calls(monkeypatch)
    assert len(list(iterate(numbers(1000)))) == 1000
    assert len(hops) == 4


def test_element_does_not_wait_for_the_next_one() -> None:
    """One that is there is given out while the next is long in coming."""
    release = threading.Event()

    async def slow() -> AsyncIterator[int]:
        yield 1
        while not release.is_set():
            await asyncio.sleep(0.001)
        yield 2

    iterator = iterate(slow())
    assert next(iterator) == 1
    release.set()
    assert list(iterator) == [2]


def test_exception_comes_after_the_elements_before_it() -> None:
    """What the iterator raises is raised here, unchanged, once; then it has ended."""
    error = Oops()

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise error

    iterator = iterate(broken())
    assert next(iterator) == 1
    with pytest.raises(Oops) as caught:
        next(iterator)
    assert caught.value is error
    assert list(iterator) == []


def test_closing_early_runs_the_cleanup() -> None:
    """``close`` ends the asynchronous iterator and waits for its cleanup; again, it does nothing."""
    log: list[str] = []
    iterator = iterate(numbers(10, log), batch=1)
    assert next(iterator) == 0
    iterator.close()
    iterator.close()
    assert log == ["closed"]
    assert list(iterator) == []


def test_dropping_one_closes_it_in_the_background() -> None:
    """One that is dropped half-way is closed by the loop; dropping it does not wait."""
    log: list[str] = []
    next(iterate(numbers(10, log), batch=1))
    gc.collect()
    for _ in range(3):
        run(asyncio.sleep, 0)
    assert log == ["closed"]


# --- context managers --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def scope(log: list[str], *, swallow: type[BaseException] | None = None) -> AsyncIterator[str]:
    task = asyncio.current_task()
    with anyio.CancelScope():  # must be left by the task that entered it
        try:
            yield "value"
        except BaseException as error:
            log.append(type(error).__name__)
            if swallow is None or not isinstance(error, swallow):
                raise
        finally:
            log.append("same task" if asyncio.current_task() is task else "another task")


def test_context_is_entered_and_left_by_one_task() -> None:
    """The value is given; entering and leaving happen in one task, with calls in between."""
    log: list[str] = []
    with context(scope(log), str) as value:
        assert value == "value"
        run(asyncio.sleep, 0)
        assert log == []
    assert log == ["same task"]


@pytest.mark.parametrize("error", [Oops(), KeyboardInterrupt(), SystemExit(1)])
def test_exception_of_the_block_reaches_the_manager_and_comes_out(error: BaseException) -> None:
    """What the block raises is seen by the manager and comes out as the same object."""
    log: list[str] = []
    with pytest.raises(type(error)) as caught, context(scope(log), str):
        raise error
    assert caught.value is error
    assert log == [type(error).__name__, "same task"]


def test_manager_may_deal_with_the_exception() -> None:
    """An exception that the manager swallows does not come out."""
    log: list[str] = []
    with context(scope(log, swallow=Oops), str):
        raise Oops
    assert log == ["Oops", "same task"]


def test_exception_on_entering_comes_out() -> None:
    """When entering fails, the block is not run."""

    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise Oops
        yield

    entered = False
    with pytest.raises(Oops), context(broken(), str):
        entered = True
    assert not entered


def test_exception_on_leaving_comes_out() -> None:
    """What the manager raises on leaving comes out of the block."""

    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        yield
        raise Oops

    with pytest.raises(Oops), context(broken(), str):
        pass
