"""What watches the sockets of the lean transport, over real ones."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterator

import pytest

from asyncsdk.transport.lean.watching import Watcher

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["epoll", "loop"])
def by_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the system has no epoll, so that the event loop watches each socket."""
    if request.param == "loop":
        monkeypatch.delattr(select, "epoll")
    elif not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    return bool(request.param == "loop")


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Three pairs of connected sockets: ours, and the other side's."""
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for pair in made:
        for sock in pair:
            sock.close()


async def turns(count: int = 5) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0.001)


async def test_whoever_can_be_read_is_told(by_loop: bool, pairs: list[Pair]) -> None:
    """Again and again until it is read; an end counts, too."""
    watcher = Watcher(asyncio.get_running_loop())
    told: list[int] = []
    for number, (ours, _) in enumerate(pairs):
        watcher.watch(ours.fileno(), lambda number=number: told.append(number))
    pairs[0][1].send(b"x")
    pairs[2][1].close()
    await turns()
    assert set(told) == {0, 2}
    assert told.count(0) > 1
    pairs[0][0].recv(1)
    await turns()  # it may have been on its way
    told.clear()
    await turns()
    assert set(told) == {2}
    for ours, _ in pairs:
        watcher.forget(ours.fileno())
    told.clear()
    await turns()
    assert told == []
    watcher.close()


async def test_what_is_forgotten_can_be_watched_again(by_loop: bool, pairs: list[Pair]) -> None:
    """Also when nothing else was watched meanwhile."""
    watcher = Watcher(asyncio.get_running_loop())
    ours, theirs = pairs[0]
    told: list[str] = []
    watcher.watch(ours.fileno(), lambda: told.append("first"))
    watcher.forget(ours.fileno())
    theirs.send(b"x")
    await turns()
    assert told == []
    watcher.watch(ours.fileno(), lambda: told.append("second"))
    await turns()
    assert set(told) == {"second"}
    watcher.forget(ours.fileno())
    watcher.close()


async def test_who_was_forgotten_by_the_one_before_is_told_nothing(by_loop: bool, pairs: list[Pair]) -> None:
    """Though both were ready in the same turn."""
    watcher = Watcher(asyncio.get_running_loop())
    told: list[int] = []

    def first_of(number: int) -> None:
        told.append(number)
        for ours, _ in pairs:
            watcher.forget(ours.fileno())

    for number, (ours, theirs) in enumerate(pairs):
        watcher.watch(ours.fileno(), lambda number=number: first_of(number))
        theirs.send(b"x")
    await turns()
    assert len(told) == 1
    watcher.close()


async def test_a_mistake_in_one_callback_is_no_loss_to_others(by_loop: bool, pairs: list[Pair]) -> None:
    """The event loop is told of it; the others come in the next turn."""
    loop, errors = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    watcher = Watcher(loop)
    told: list[int] = []

    def go(number: int) -> None:
        watcher.forget(pairs[number][0].fileno())
        if number == 0:
            raise ZeroDivisionError
        told.append(number)

    for number, (ours, theirs) in enumerate(pairs):
        watcher.watch(ours.fileno(), lambda number=number: go(number))
        theirs.send(b"x")
    await turns()
    assert sorted(told) == [1, 2]
    assert [type(error) for error in errors] == [ZeroDivisionError]
    watcher.close()
