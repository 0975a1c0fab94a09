"""How the lean transport sends bodies: one byte after the other, counted as it leaves, whatever the system can do."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.errors import SourceChanged, SourceUnreadable
from asyncsdk.transport.base import Body, BytesBody, FileBody, Reply, Request
from asyncsdk.transport.lean import reading, sending
from asyncsdk.transport.lean.exchange import Exchange
from asyncsdk.transport.lean.reading import CacheReader
from asyncsdk.transport.lean.sending import BUFFER_BYTES, Progress, Sender

HEAD = b"PUT / HTTP/1.1\r\n\r\n"


class Sent(Exchange):
    """Knows what left."""

    def __init__(self, body: Body) -> None:
        self.steps: list[int] = []
        super().__init__(Request("PUT", "http://store.invalid/", body=body, on_sent=self.steps.append))

    def succeed(self, reply: Reply) -> None:
        raise AssertionError("a sender tells nobody")

    def fail(self, error: Exception) -> None:
        raise AssertionError("a sender tells nobody")


class Ends:
    """A sender's socket and the one at the other end."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.got = bytearray()
        self.borrowed = 0

    def read(self) -> None:
        """Take what arrived."""
        while True:
            try:
                data = self.far.recv(1 << 20)
            except BlockingIOError:
                return
            if not data:
                return
            self.got += data

    def borrow(self, size_bytes: int) -> bytearray:
        self.borrowed += 1
        return bytearray(BUFFER_BYTES)

    def sender(self, exchange: Exchange) -> Sender:
        return Sender(self.near, None, exchange, memoryview(HEAD), 0, self.borrow)

    def send_all(self, sender: Sender) -> int:
        """Pump to the end; return how often a thread was needed."""
        threads = 0
        for _ in range(10_000):
            progress = sender.pump()
            self.read()
            if progress is Progress.DONE:
                return threads
            if progress is Progress.COLD:
                threads += 1
                sender.warm()
        raise AssertionError("it never ends")


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.near.close()
    both.far.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    """A file of 6 MB, open."""
    data = os.urandom(6_000_000)
    (tmp_path / "file").write_bytes(data)
    number = os.open(tmp_path / "file", os.O_RDONLY)
    yield number, data
    os.close(number)


RANGES = [(0, 6_000_000), (5, 4_194_309), (7, 7), (1_000, 200_001)]


@pytest.mark.parametrize(("start", "stop"), RANGES)
@pytest.mark.parametrize("checksum", [None, Crc32c])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EIO])
@pytest.mark.parametrize("fails_after", [0, 1, 2])
def test_a_file_that_sendfile_cannot_send_is_read(
    ends: Ends,
    file: tuple[int, bytes],
    monkeypatch: pytest.MonkeyPatch,
    start: int,
    stop: int,
    checksum: type[Crc32c] | None,
    number: int,
    fails_after: int,
) -> None:
    """From the first call on, or after it sent a part of what was checksummed: every byte once, in order."""
    calls = 0
    real = os.sendfile

    def limited(out: int, fd: int, offset: int, count: int) -> int:
        nonlocal calls
        calls += 1
        if calls > fails_after:
            raise OSError(number, os.strerror(number))
        return real(out, fd, offset, min(count, 1000))

    monkeypatch.setattr(os, "sendfile", limited)
    body = FileBody(file[0], start, stop, checksum=checksum() if checksum else None)
    exchange = Sent(body)
    ends.send_all(ends.sender(exchange))
    assert bytes(ends.got) == HEAD + file[1][start:stop]
    assert sum(exchange.steps) == stop - start
    if body.checksum is not None:
        assert (body.checksum.value, body.checksum.size_bytes) == (crc32c(file[1][start:stop]), stop - start)


@pytest.mark.parametrize(("start", "stop"), RANGES)
@pytest.mark.parametrize("checksum", [None, Crc32c])
@pytest.mark.parametrize("sendfile", [True, False])
def test_what_the_page_cache_does_not_hold_is_left_to_a_thread(
    ends: Ends,
    file: tuple[int, bytes],
    monkeypatch: pytest.MonkeyPatch,
    start: int,
    stop: int,
    checksum: type[Crc32c] | None,
    sendfile: bool,
) -> None:
    """Every read without waiting finds nothing: each 4 MiB cost a thread once, and all arrives."""
    monkeypatch.setattr(sending, "_CAN_SENDFILE", sendfile)
    nowait = reading._NOWAIT or 8
    monkeypatch.setattr(reading, "_NOWAIT", nowait)
    real = os.preadv

    def cold(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags & nowait:
            raise BlockingIOError(errno.EAGAIN, "cold")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", cold)
    body = FileBody(file[0], start, stop, checksum=checksum() if checksum else None)
    exchange = Sent(body)
    threads = ends.send_all(ends.sender(exchange))
    assert bytes(ends.got) == HEAD + file[1][start:stop]
    assert sum(exchange.steps) == stop - start
    if checksum is not None or not sendfile:
        assert threads == -(-(stop - start) // (4 * 1024 * 1024))


def test_after_a_thread_no_more_is_read_than_it_brought(file: tuple[int, bytes]) -> None:
    """What lies behind may be cold, and would keep the event loop."""
    reader = CacheReader(file[0], 6_000_000)
    reader.warm(0)
    view = memoryview(bytearray(BUFFER_BYTES))
    assert reader.read_into(view, 4 * 1024 * 1024 - 100) == 100


@pytest.mark.parametrize("nowait", [True, False])
def test_a_file_system_that_cannot_tell_is_judged_by_its_speed(
    file: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch, nowait: bool
) -> None:
    """One slow read, and the next ones are left to a thread."""
    real = os.preadv

    def odd(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", odd)
    monkeypatch.setattr(reading, "_NOWAIT", 8 if nowait else 0)
    monkeypatch.setattr(reading, "_SLOW_SECONDS", -1.0)
    reader = CacheReader(file[0], 6_000_000)
    view = memoryview(bytearray(1000))
    assert reader.read_into(view, 0) == 1000
    assert reader.read_into(view, 1000) is None
    reader.warm(1000)
    assert reader.read_into(view, 1000) == 1000
    assert bytes(view) == file[1][1000:2000]


def test_a_disk_that_fails_in_the_thread_is_an_error_when_it_is_read(
    ends: Ends, file: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the source, not of the connection."""

    def broken(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        raise BlockingIOError if flags else OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "preadv", broken)
    monkeypatch.setattr(reading, "_NOWAIT", 8)
    sender = ends.sender(Sent(FileBody(file[0], 0, 6_000_000, "name", Crc32c())))
    assert sender.pump() is Progress.COLD
    sender.warm()
    with pytest.raises(SourceUnreadable, match="name"):
        sender.pump()


@pytest.mark.parametrize("checksum", [None, Crc32c])
@pytest.mark.parametrize("size", [100_000, 5_000_000])
def test_a_file_that_became_shorter_is_a_changed_source(
    ends: Ends, tmp_path: Path, checksum: type[Crc32c] | None, size: int
) -> None:
    """Found when it is reached."""
    (tmp_path / "short").write_bytes(bytes(size))
    with (tmp_path / "short").open("rb") as short:
        sender = ends.sender(Sent(FileBody(short.fileno(), 0, size + 1, "short", checksum() if checksum else None)))
        with pytest.raises(SourceChanged):
            ends.send_all(sender)
    ends.read()
    assert len(ends.got) == len(HEAD) + size


def body_of(kind: str, file: tuple[int, bytes]) -> Body:
    """Return 6 MB that go out in another way each."""
    if kind == "bytes":
        return BytesBody(file[1])
    return FileBody(file[0], 0, len(file[1]), checksum=Crc32c() if kind == "file" else None)


@pytest.mark.parametrize("kind", ["bytes", "file", "sendfile"])
def test_a_socket_that_is_full_to_the_last_byte_is_no_broken_one(
    ends: Ends, file: tuple[int, bytes], kind: str
) -> None:
    """It takes nothing at all, and says so by an error."""
    exchange = Sent(body_of(kind, file))
    sender = ends.sender(exchange)
    with pytest.raises(BlockingIOError):
        while True:
            ends.near.send(b"x")
    assert sender.pump() is Progress.FULL
    assert exchange.steps == []
    ends.read()
    ends.got.clear()
    ends.send_all(sender)
    assert bytes(ends.got) == HEAD + file[1]


@pytest.mark.parametrize("kind", ["bytes", "file", "sendfile"])
def test_a_reset_is_an_error_of_the_connection(ends: Ends, file: tuple[int, bytes], kind: str) -> None:
    """Not of the file."""
    sender = ends.sender(Sent(body_of(kind, file)))
    assert sender.pump() is Progress.FULL
    ends.far.close()
    with pytest.raises(OSError, match=r"[Rr]eset|[Bb]roken") as caught:
        sender.pump()
    assert caught.value.errno in {errno.EPIPE, errno.ECONNRESET}


@pytest.mark.parametrize("kind", ["bytes", "file", "sendfile"])
def test_bytes_are_counted_as_they_leave(ends: Ends, file: tuple[int, bytes], kind: str) -> None:
    """Not when a whole megabyte is gone: a slow connection would look as if nothing moved."""
    ends.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    exchange = Sent(body_of(kind, file))
    sender = ends.sender(exchange)
    assert sender.pump() is Progress.FULL
    ends.read()
    assert sum(exchange.steps) == len(ends.got) - len(HEAD) > 0
    ends.send_all(sender)
    assert sum(exchange.steps) == 6_000_000
    assert min(exchange.steps) > 0
    assert bytes(ends.got) == HEAD + file[1]


@pytest.mark.parametrize("kind", ["bytes", "file", "sendfile"])
def test_a_sender_that_was_released_by_what_it_called_sends_nothing_more(
    ends: Ends, file: tuple[int, bytes], kind: str
) -> None:
    """Nor borrows another buffer."""
    size = 6_000_000
    exchange = Sent(body_of(kind, file))
    sender = ends.sender(exchange)
    exchange.request.on_sent = lambda count: sender.release() and None
    for _ in range(100):
        progress = sender.pump()
        ends.read()
    assert progress is Progress.DONE
    assert len(ends.got) < size
    assert ends.borrowed <= 1
