"""The server's own HTTP/1.1, spoken to byte by byte: what no well-behaved client ever sends, and when it sends it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.server.http import server as http_server
from asyncsdk.server.http.front import exchange, pace
from asyncsdk.server.objects.quick import QuickStaging
from asyncsdk.targets import MultipartTarget, PutTarget, UrlOrigin
from tests.support.server import RunningServer

MIB = 1024 * 1024
SMALL = bytes(range(256)) * 80
LARGE = bytes(range(256)) * 4 * 1024 * 3
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("data")) as running:
        yield running


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


class Wire:
    """A connection that sends what it is told and reads replies one by one."""

    def __init__(self, server: RunningServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.socket.settimeout(30)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> None:
        data = self.socket.recv(MIB)
        assert data, f"the server closed after {self._buffer[:200]!r}"
        self._buffer += data

    def answer(self, *, to_head: bool = False) -> Answer:
        """Return the next reply; its body is as long as its head says."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        status = int(lines[0].split(" ")[1])
        size = 0 if to_head or status in {100, 204, 304} else int(headers["content-length"])
        while len(self._buffer) < size:
            self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Answer(status, headers, body)

    def rest(self) -> bytes:
        """Return whatever comes until the server closes."""
        while True:
            try:
                data = self.socket.recv(MIB)
            except ConnectionResetError:
                return self._buffer
            if not data:
                return self._buffer
            self._buffer += data


def put(server: RunningServer, data: bytes, *, lines: str = "", **facts: int) -> tuple[str, bytes]:
    """Return a new object id, and the head that puts *data* there."""
    object_id = make_id()
    target = server.minter(**facts).target(object_id, size_bytes=len(data), crc32c=None)
    assert isinstance(target, PutTarget)
    return object_id, head_of("PUT", target.url, f"Content-Length: {len(data)}\r\n{lines}")


def head_of(method: str, url: str, lines: str = "") -> bytes:
    parts = urlsplit(url)
    return f"{method} {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


def get(server: RunningServer, data: bytes, method: str = "GET", lines: str = "") -> bytes:
    """Publish *data* and return the head that gets it."""
    object_id, digest = server.publish(data)
    origin = server.minter().origin(object_id, size_bytes=len(data), crc32c=digest, etag="")
    assert isinstance(origin, UrlOrigin)
    return head_of(method, origin.url, lines)


def staged(server: RunningServer, object_id: str) -> list[str]:
    folder = server.backend.objects.staging_folder(object_id)
    return sorted(path.name for path in folder.glob(f"{object_id}*")) if folder.exists() else []


def whole(object_id: str, data: bytes) -> list[str]:
    return [f"{object_id}.{crc32c_hex(crc32c(data))}"]


def eventually(condition: object, *, what: str) -> None:
    assert callable(condition)
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(what)


# --- what could be read in two ways ---

SMUGGLED = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/projects HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\nHost: x\n\n",
        b"GET /health HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        b"GET /health HTTP/1.1\rHost: x\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"get /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
)
def test_a_request_that_two_programs_could_read_in_two_ways_is_refused_and_nothing_after_it_answered(
    server: RunningServer, head: bytes
) -> None:
    with Wire(server) as wire:
        wire.send(head + SMUGGLED)
        answer = wire.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (400, "bad_request", "close")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b""


@pytest.mark.parametrize(
    "body",
    [b"5\r\nab", b"g\r\n", b"5;x\ny\r\nabcde\r\n", b"3\r\nabcde\r\n0\r\n\r\n", b"3\nabc\n0\n\n", b"-1\r\n",
     b"0\r\na b\r\n\r\n", b"0" * 2000],
)  # fmt: skip
def test_chunks_that_cannot_be_read_are_never_a_body(server: RunningServer, body: bytes) -> None:
    """The reply, if any, is no success; the connection ends, whatever follows."""
    head = (
        f"POST /v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    with Wire(server) as wire:
        wire.send(head.encode() + body)
        wire.socket.shutdown(socket.SHUT_WR)
        received = wire.rest()
    assert b" 200 " not in received


def test_a_body_in_chunks_is_a_body(server: RunningServer) -> None:
    name = f"chunked {make_id()}"
    content = json.dumps({"name": name}).encode()
    head = (
        f"POST /v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (1, content[at : at + 1]) for at in range(len(content)))
    with Wire(server) as wire:
        for byte in head + chunks + b"0\r\nx-trailer: y\r\n\r\n" + HEALTH:
            wire.send(bytes([byte]))
        answer = wire.answer()
        assert (answer.status, json.loads(answer.body)["name"]) == (200, name)
        assert wire.answer().status == 200


def test_an_object_in_chunks_is_refused(server: RunningServer) -> None:
    object_id, head = put(server, SMALL)
    head = head.replace(f"Content-Length: {len(SMALL)}".encode(), b"Transfer-Encoding: chunked")
    with Wire(server) as wire:
        wire.send(head + b"5\r\nabcde\r\n0\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.code) == (411, "length_required")
    assert staged(server, object_id) == []


# --- one request after the other ---


def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    """Small and large, by the loop, by threads and by the application, all sent before any reply is read."""
    one, first = put(server, SMALL)
    two, second = put(server, LARGE)
    requests = [
        (first + SMALL, 200, b""),
        (HEALTH, 200, None),
        (get(server, SMALL), 200, SMALL),
        (second + LARGE, 200, b""),
        (get(server, LARGE), 200, LARGE),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, None),
        (get(server, SMALL, lines="Range: bytes=5-9\r\n"), 206, SMALL[5:10]),
        (HEALTH, 200, None),
    ]
    with Wire(server) as wire:
        sender = threading.Thread(target=lambda: [wire.send(request) for request, _, _ in requests])
        sender.start()
        for _, status, body in requests:
            answer = wire.answer()
            assert answer.status == status
            assert body is None or answer.body == body
        sender.join()
    assert (staged(server, one), staged(server, two)) == (whole(one, SMALL), whole(two, LARGE))


def test_requests_may_come_byte_by_byte(server: RunningServer) -> None:
    object_id, head = put(server, b"0123456789")
    with Wire(server) as wire:
        for byte in b"\r\n" + head + b"0123456789" + HEALTH:
            wire.send(bytes([byte]))
        assert [wire.answer().status for _ in range(2)] == [200, 200]
    assert staged(server, object_id) == whole(object_id, b"0123456789")


def test_ten_thousand_requests_use_one_connection(server: RunningServer) -> None:
    object_id, head = put(server, b"again")
    request = head + b"again" + get(server, b"out")
    with Wire(server) as wire:
        for _ in range(50):
            sender = threading.Thread(target=wire.send, args=(request * 100,))
            sender.start()
            assert {(wire.answer().status, wire.answer().body) for _ in range(100)} == {(200, b"out")}
            sender.join()
    assert staged(server, object_id) == whole(object_id, b"again")


def test_head_has_no_body_and_the_connection_goes_on(server: RunningServer) -> None:
    head = get(server, LARGE, "HEAD")
    with Wire(server) as wire:
        wire.send(
            head + b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n" + head.replace(b"signature=", b"signature=0") + HEALTH
        )
        assert wire.answer(to_head=True).headers["content-length"] == str(len(LARGE))
        assert wire.answer(to_head=True).status == 200
        assert wire.answer(to_head=True).status == 403
        assert json.loads(wire.answer().body)["status"] == "ok"


@pytest.mark.parametrize(
    "head",
    [b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"GET /health HTTP/1.0\r\n\r\n"],
    ids=["asked to close", "HTTP/1.0"],
)
def test_the_connection_ends_when_the_client_wants_no_more(server: RunningServer, head: bytes) -> None:
    with Wire(server) as wire:
        wire.send(head + HEALTH)
        assert wire.answer().headers["connection"] == "close"
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b""


def test_a_target_may_be_a_whole_url(server: RunningServer) -> None:
    with Wire(server) as wire:
        wire.send(b"GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer().status == 200


# --- ends of connections ---


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_client_that_closes_its_half_still_gets_its_replies(server: RunningServer, data: bytes) -> None:
    object_id, head = put(server, data)
    with Wire(server) as wire:
        wire.send(HEALTH + head + data + HEALTH)
        wire.socket.shutdown(socket.SHUT_WR)
        assert [wire.answer().status for _ in range(3)] == [200, 200, 200]
        assert wire.rest() == b""
    assert staged(server, object_id) == whole(object_id, data)


@pytest.mark.parametrize("ends", ["half", "whole", "reset"])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_body_that_breaks_off_leaves_nothing(server: RunningServer, data: bytes, ends: str) -> None:
    object_id, head = put(server, data)
    with Wire(server) as wire:
        wire.send(head + data[:-1])
        if data is LARGE:
            eventually(lambda: staged(server, object_id), what="the server never began")
        if ends == "half":
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.rest() == b""
        elif ends == "reset":
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: not staged(server, object_id), what="something stayed behind")


def test_a_part_that_breaks_off_has_no_receipt(server: RunningServer) -> None:
    size = 20 * MIB
    object_id = make_id()
    target = server.minter().target(object_id, size_bytes=size, crc32c=None)
    assert isinstance(target, MultipartTarget)
    with Wire(server) as wire:
        wire.send(head_of("PUT", target.part_urls[0], f"Content-Length: {target.part_size}\r\n") + bytes(MIB))
        eventually(lambda: staged(server, object_id), what="the server never began")
    with Wire(server) as wire:
        wire.send(head_of("GET", target.list_urls[0]))
        assert b"<Part>" not in wire.answer().body


def test_a_reader_that_goes_away_disturbs_nobody(server: RunningServer) -> None:
    request = get(server, LARGE * 5)
    for _ in range(20):
        with Wire(server) as wire:
            wire.send(request)
            wire.socket.recv(1000)
    with Wire(server) as wire:
        wire.send(request)
        assert wire.answer().body == LARGE * 5


def test_a_slow_reader_gets_every_byte(server: RunningServer) -> None:
    data = LARGE * 5
    with Wire(server) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        wire.send(get(server, data) * 2)
        time.sleep(0.3)  # the server runs into a full buffer, longer than a thread waits
        assert [wire.answer().body == data for _ in range(2)] == [True, True]


def test_replies_that_are_not_taken_yet_keep_their_order_and_stop_the_server_from_reading(
    server: RunningServer,
) -> None:
    """Small and large ones take turns in filling the socket; meanwhile more requests wait unread."""
    small, large = get(server, SMALL), get(server, LARGE)
    with Wire(server) as wire:
        requests = (small * 5 + large) * 15 + HEALTH
        sender = threading.Thread(target=wire.send, args=(requests,))
        sender.start()
        time.sleep(0.5)  # longer than it takes to fill the buffers of both sockets
        for body in ([SMALL] * 5 + [LARGE]) * 15:
            assert wire.answer().body == body
        assert wire.answer().status == 200
        sender.join()


# --- refused before the body ---


def test_a_large_body_is_refused_before_it_is_sent_and_the_reply_arrives(server: RunningServer) -> None:
    data = bytes(8 * MIB)
    object_id, head = put(server, data, expires_seconds=-1)
    with Wire(server) as wire:
        wire.send(head)
        answer = wire.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (403, "expired_url", "close")
    with Wire(server) as wire:
        wire.send(head + data)  # a client that looks for replies afterwards only
        assert wire.answer().code == "expired_url"
    assert staged(server, object_id) == []


def test_after_a_small_body_is_refused_the_connection_goes_on(server: RunningServer) -> None:
    object_id, head = put(server, SMALL, expires_seconds=-1)
    with Wire(server) as wire:
        wire.send(head)
        assert wire.answer().code == "expired_url"
        wire.send(SMALL[:100])
        wire.send(SMALL[100:] + HEALTH)
        assert wire.answer().status == 200
    assert staged(server, object_id) == []


def test_a_client_that_never_stops_sending_is_cut_off(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncsdk.server.http.front.connection.LINGER_BYTES", MIB)
    _, head = put(server, bytes(14 * MIB), expires_seconds=-1)
    assert exchange.DRAIN_BYTES <= MIB
    with Wire(server) as wire:
        wire.send(head)
        assert wire.answer().status == 403
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(10_000):
                wire.send(bytes(64 * 1024))


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_who_expects_to_continue_is_told(server: RunningServer, data: bytes) -> None:
    object_id, head = put(server, data, lines="Expect: 100-continue\r\n")
    with Wire(server) as wire:
        wire.send(head)
        assert wire.answer().status == 100
        wire.send(data + HEALTH)
        assert [wire.answer().status for _ in range(2)] == [200, 200]
    assert staged(server, object_id) == whole(object_id, data)


def test_who_expects_to_continue_is_refused_at_once(server: RunningServer) -> None:
    _, head = put(server, LARGE, lines="Expect: 100-continue\r\n", expires_seconds=-1)
    with Wire(server) as wire:
        wire.send(head)
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (403, "close")


def test_the_application_is_told_to_continue_too(server: RunningServer) -> None:
    content = json.dumps({"name": f"expected {make_id()}"}).encode()
    lines = f"Host: x\r\nContent-Length: {len(content)}\r\nExpect: 100-continue\r\n"
    with Wire(server) as wire:
        wire.send(f"POST /v1/projects HTTP/1.1\r\nAuthorization: Bearer {server.token}\r\n{lines}\r\n".encode())
        assert wire.answer().status == 100
        wire.send(content)
        assert wire.answer().status == 200
    with Wire(server) as wire:
        wire.send(f"POST /v1/projects HTTP/1.1\r\nAuthorization: Bearer wrong\r\n{lines}\r\n".encode())
        assert wire.answer().status == 401


# --- time ---


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    """A server that waits for bytes no longer than 0.3 s."""
    monkeypatch.setattr(http_server, "IDLE_SECONDS", 0.3)
    with RunningServer(tmp_path) as running:
        yield running


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_body_that_stands_still_is_given_up(impatient: RunningServer, data: bytes) -> None:
    object_id, head = put(impatient, data)
    with Wire(impatient) as wire:
        wire.send(head + data[:-1])
        answer = wire.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (408, "request_timeout", "close")
    eventually(lambda: not staged(impatient, object_id), what="something stayed behind")


@pytest.mark.parametrize("size", [pytest.param(20_000, marks=pytest.mark.slow), 200_000])
def test_a_body_that_trickles_in_is_given_up(impatient: RunningServer, size: int) -> None:
    """Bytes that come one by one, each soon enough, would otherwise take a connection for days."""
    object_id, head = put(impatient, bytes(size))
    with Wire(impatient) as wire:
        wire.send(head)
        wire.socket.settimeout(0.05)
        for _ in range(1000):
            wire.send(b"\0")
            try:
                first = wire.socket.recv(12)
            except TimeoutError:
                continue
            assert first == b"HTTP/1.1 408"
            break
        else:
            pytest.fail("the server waited for ever")
    eventually(lambda: not staged(impatient, object_id), what="something stayed behind")


def test_a_client_that_takes_nothing_is_given_up(impatient: RunningServer) -> None:
    request = get(impatient, LARGE * 5)
    with Wire(impatient) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        wire.send(request)
        time.sleep(1.5)
        assert len(wire.rest()) < len(LARGE * 5)


# --- side by side ---


def test_puts_of_one_object_at_once_leave_one_whole_object(server: RunningServer) -> None:
    object_id, head = put(server, SMALL)
    large_id, large_head = put(server, LARGE)
    statuses: list[int] = []

    def send_both() -> None:
        with Wire(server) as wire:
            for _ in range(10):
                wire.send(head + SMALL)
                statuses.append(wire.answer().status)
                wire.send(large_head + LARGE)
                statuses.append(wire.answer().status)

    threads = [threading.Thread(target=send_both) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 160
    assert (staged(server, object_id), staged(server, large_id)) == (whole(object_id, SMALL), whole(large_id, LARGE))


def test_more_slow_uploads_than_threads_leave_room_for_others(server: RunningServer) -> None:
    """A client that stops in the middle of a body holds a connection, and no thread."""
    slow = [(Wire(server), *put(server, LARGE)) for _ in range(40)]
    try:
        for wire, _, head in slow:
            wire.send(head + LARGE[:100_000])
        object_id, head = put(server, LARGE)
        with Wire(server) as wire:
            wire.send(head + LARGE)
            assert wire.answer().status == 200
        assert staged(server, object_id) == whole(object_id, LARGE)
        for wire, _, _ in slow:
            wire.send(LARGE[100_000:])
        assert {wire.answer().status for wire, _, _ in slow} == {200}
    finally:
        for wire, _, _ in slow:
            wire.socket.close()


def test_on_a_slow_disk_threads_do_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SLOW_SECONDS", -1.0)
    with RunningServer(tmp_path) as server:
        object_id, head = put(server, SMALL)
        wrong, wrong_head = put(server, SMALL, lines="x-amz-checksum-crc32c: AAAAAA==\r\n")
        with Wire(server) as wire:
            wire.send(head + SMALL + wrong_head + SMALL + get(server, SMALL) + get(server, LARGE) + HEALTH)
            answers = [wire.answer() for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 400, 200, 200, 200]
        assert (answers[2].body, answers[3].body) == (SMALL, LARGE)
        assert (staged(server, object_id), staged(server, wrong)) == (whole(object_id, SMALL), [])


def test_a_failure_of_the_server_is_told_without_its_reason_and_logged_without_the_query(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("the secret inside")

    object_id, head = put(server, SMALL)
    monkeypatch.setattr(QuickStaging, "stage", broken)
    with Wire(server) as wire:
        wire.send(head + SMALL + HEALTH)
        answer = wire.answer()
        assert (answer.status, answer.code) == (500, "internal_error")
        assert b"secret" not in answer.body
        assert wire.answer().status == 200
    (record,) = [record for record in caplog.records if record.name == "asyncsdk.server"]
    assert answer.headers["x-request-id"] in record.getMessage()
    assert object_id in record.getMessage()
    assert "signature" not in caplog.text


# --- the end ---


def test_a_shutdown_lets_replies_out_and_takes_no_more(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        data = LARGE * 5
        object_id, head = put(server, data)
        reading, writing, idle = Wire(server), Wire(server), Wire(server)
        with reading, writing, idle:
            idle.send(HEALTH)
            assert idle.answer().status == 200
            writing.send(head + data[: MIB // 2])
            reading.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            reading.send(get(server, data))
            eventually(lambda: staged(server, object_id), what="the server never began")
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            assert idle.rest() == b""
            writing.send(data[MIB // 2 :])
            answer = writing.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert writing.rest() == b""
            assert reading.answer().body == data
            writing.socket.close()
            reading.socket.close()
            stopping.join(30)
        assert staged(server, object_id) == whole(object_id, data)


def test_a_shutdown_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "SHUTDOWN_SECONDS", 0.2)
    with RunningServer(tmp_path) as server:
        object_id, head = put(server, LARGE)
        small_id, small_head = put(server, SMALL)
        with Wire(server) as wire, Wire(server) as other:
            wire.send(head + LARGE[:-1])
            other.send(small_head + SMALL[:-1])
            eventually(lambda: staged(server, object_id), what="the server never began")
            server.stop()
            assert (wire.rest(), other.rest()) == (b"", b"")
        assert (staged(server, object_id), staged(server, small_id)) == ([], [])
