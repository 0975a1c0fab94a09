"""Steps of work on large bodies: when they end, whatever the client does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from asyncsdk.server.http.bodies import ClientGone
from asyncsdk.server.http.front import pumps
from asyncsdk.server.http.front.objects import Put, Taker
from asyncsdk.server.http.front.pumps import ReceivePump, Step
from asyncsdk.server.http.replies import Reply

GIB = 1024**3


class Counted:
    """Takes bytes and counts them."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, chunks: Sequence[bytes]) -> None:
        self.size_bytes += sum(map(len, chunks))

    def finish(self) -> object:
        return self.size_bytes

    def discard(self) -> None:
        pass


def pump_of(connection: socket.socket, size_bytes: int) -> tuple[ReceivePump, Counted]:
    taker = Counted()

    def begin() -> tuple[Taker, Callable[[object], Reply]]:
        return taker, lambda size: Reply(200, [(b"size", b"%d" % size)])

    return ReceivePump(connection, Put("0" * 24, size_bytes, None, begin), b""), taker


@contextmanager
def sending(data: bytes, *, pause: float, times: int) -> Iterator[tuple[socket.socket, threading.Event]]:
    """A socket that *data* comes from again and again, and an event that ends it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stop = threading.Event()

    def send() -> None:
        for _ in range(times):
            if stop.wait(pause):
                break
            with suppress(ConnectionError):
                theirs.sendall(data)
        theirs.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield ours, stop
    finally:
        stop.set()
        ours.close()
        thread.join()


def test_a_client_that_sends_byte_after_byte_gets_no_thread_for_itself() -> None:
    """Each byte comes well within the time that a thread waits for the next one."""
    with sending(b"x", pause=0.001, times=5000) as (ours, _):
        pump, taker = pump_of(ours, GIB)
        steps = [pump.step() for _ in range(3)]
        assert steps == [Step.READABLE] * 3
        assert taker.size_bytes == pump.moved < 1000
        pump.discard()


def test_a_client_that_keeps_up_is_served_by_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps that its bytes have earned are waited for."""
    monkeypatch.setattr(pumps, "TURN_SECONDS", 60.0)
    monkeypatch.setattr(pumps, "GRACE_MS", 5000.0)  # the machine may be busy
    monkeypatch.setattr(pumps, "EARNING_BYTES", 1)
    data = bytes(64 * 1024)
    with sending(data, pause=0.001, times=100) as (ours, _):
        pump, taker = pump_of(ours, 100 * len(data))
        assert pump.step() is Step.DONE
        assert (taker.size_bytes, pump.reply.headers) == (100 * len(data), [(b"size", b"6553600")])


def test_a_client_that_keeps_up_for_ever_lets_others_have_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "GRACE_MS", 5000.0)
    monkeypatch.setattr(pumps, "EARNING_BYTES", 1)
    with sending(bytes(64 * 1024), pause=0.001, times=5000) as (ours, stop):
        pump, taker = pump_of(ours, 10 * GIB)
        assert pump.step() is Step.AGAIN
        assert 0 < taker.size_bytes < 5000 * 64 * 1024
        stop.set()
        with pytest.raises(ClientGone):
            while True:
                pump.step()
