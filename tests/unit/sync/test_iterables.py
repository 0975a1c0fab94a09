"""Iterables of the caller: pulled on its thread, lazily, and closed when the work fails."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import UserList
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from asyncsdk.sync.bridge import run
from asyncsdk.sync.iterables import MAX_BATCH, caller_iterable, caller_list, caller_stream, caller_streams


class Oops(Exception):
    """Raised by the tests."""


async def collect(source: Iterable[Any] | AsyncIterable[Any], *, limit: int | None = None) -> list[Any]:
    assert isinstance(source, AsyncIterable)
    elements: list[Any] = []
    async for element in source:
        elements.append(element)
        if len(elements) == limit:
            break
    return elements


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_every_element_arrives_in_order_from_the_calling_thread(count: int) -> None:
    """All elements cross, in order, and only the calling thread runs the generator."""
    threads: set[int] = set()

    def numbers() -> Iterator[int]:
        for number in range(count):
            threads.add(threading.get_ident())
            yield number

    assert run(collect, caller_iterable(numbers())) == list(range(count))
    assert threads <= {threading.get_ident()}


def test_class_with_iter_runs_on_the_calling_thread() -> None:
    """``__iter__`` itself is called on the calling thread too."""

    class Rows:
        thread = 0

        def __iter__(self) -> Iterator[int]:
            self.thread = threading.get_ident()
            return iter([1, 2])

    rows = Rows()
    assert run(collect, caller_iterable(rows)) == [1, 2]
    assert rows.thread == threading.get_ident()


def test_endless_iterable_is_read_lazily() -> None:
    """No more than one batch is pulled ahead of what is read."""
    pulled = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    assert run(collect, caller_iterable(endless()), limit=3) == [1, 2, 3]
    assert pulled <= MAX_BATCH


def test_element_does_not_wait_for_the_next_one() -> None:
    """An element is read while the iterable still waits for what makes the next."""
    has_first = threading.Event()

    async def read(source: AsyncIterable[str]) -> list[str]:
        elements = []
        async for element in source:
            has_first.set()
            elements.append(element)
        return elements

    def slow() -> Iterator[str]:
        yield "first"
        assert has_first.wait(20), "the first element was held back"
        yield "second"

    source: Any = caller_iterable(slow())
    assert run(read, source) == ["first", "second"]


def test_exception_of_an_iterable_comes_out_after_its_elements() -> None:
    """What an iterable raises is raised where it is read, after the elements before it, and is not changed."""
    error = Oops()
    seen: list[int] = []

    async def read(source: AsyncIterable[int]) -> None:
        async for element in source:
            seen.append(element)  # noqa: PERF401  # those before the error count

    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    source: Any = caller_iterable(broken())
    with pytest.raises(Oops) as caught:
        run(read, source)
    assert caught.value is error
    assert seen == [1, 2]


def test_keyboard_interrupt_in_an_iterable_cancels_the_call() -> None:
    """An interrupt inside the iterable cancels the work and comes out."""
    cleanup: list[str] = []

    async def read(source: AsyncIterable[int]) -> None:
        try:
            async for _ in source:
                pass
        finally:
            await asyncio.sleep(0)
            cleanup.append("done")

    def interrupted() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    source: Any = caller_iterable(interrupted())
    with pytest.raises(KeyboardInterrupt):
        run(read, source)
    assert cleanup == ["done"]


def test_generator_is_closed_when_the_call_fails() -> None:
    """A generator's own cleanup runs, on the calling thread, when the work fails."""
    closed_by: list[int] = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed_by.append(threading.get_ident())

    async def fail(source: AsyncIterable[int]) -> None:
        async for _ in source:
            raise Oops

    source: Any = caller_iterable(generator := numbers())
    with pytest.raises(Oops):
        run(fail, source)
    assert closed_by == [threading.get_ident()]
    assert list(generator) == []


def test_generator_not_read_to_its_end_is_left_open_on_success() -> None:
    """A generator that the work did not need whole still has what was not pulled."""

    def numbers() -> Iterator[int]:
        yield from range(1000)

    generator = numbers()
    assert run(collect, caller_iterable(generator), limit=1) == [0]
    assert next(generator) <= MAX_BATCH


def test_two_iterables_of_one_call_take_turns() -> None:
    """Several iterables of one call are served by the same thread without blocking one another."""

    async def pairs(first: AsyncIterable[int], second: AsyncIterable[int]) -> list[tuple[int, int]]:
        other = aiter(second)
        return [(one, await anext(other)) async for one in first]

    left: Any = caller_iterable(iter(range(600)))
    right: Any = caller_iterable(iter(range(600)))
    assert run(pairs, left, right) == [(number, number) for number in range(600)]


class _Record(BaseModel):
    name: str


class _Table:
    """Iterates over its column names, as data frames do."""

    def __iter__(self) -> Iterator[str]:
        return iter(["source"])

    def to_dict(self, kind: str) -> dict[str, list[str]]:
        return {"source": []}


async def _asynchronous() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    "value",
    [
        "folder",
        b"bytes",
        Path("folder"),
        [1],
        (1,),
        {"source": []},
        range(3),
        None,
        io.BytesIO(b"x"),
        _Record(name="x"),
        _Table(),
        _asynchronous(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_runs_no_code_of_the_user_is_passed_on(value: Any) -> None:
    """Paths, lists, tables, files, records and asynchronous iterables reach the twin as the same object."""
    assert caller_iterable(value) is value
    assert caller_list(value) is value


def test_stream_of_a_list_is_read_like_any_other() -> None:
    """Where the twin takes asynchronous iterables only, a list of pieces becomes one."""
    source: Any = caller_stream([b"a", b"b"])
    assert run(collect, source) == [b"a", b"b"]
    assert caller_stream(b"ab") == b"ab"
    assert caller_stream(Path("x")) == Path("x")


def test_streams_by_name_are_each_read_here() -> None:
    """Every iterable among the values becomes one that the twin reads; paths and bytes stay as they are."""

    async def read(streams: dict[str, Any]) -> list[Any]:
        return [await collect(streams["a"]), streams["b"], streams["c"]]

    streams = caller_streams({"a": iter([b"a", b"b"]), "b": b"ab", "c": Path("x")})
    assert run(read, streams) == [[b"a", b"b"], b"ab", Path("x")]
    assert caller_streams(None) is None


def test_iterables_read_at_once_are_listed_here() -> None:
    """Where the twin takes plain iterables, a generator is read beforehand on the calling thread."""
    assert caller_list(number for number in range(3)) == [0, 1, 2]
    assert caller_list(UserList([1])) == [1]
