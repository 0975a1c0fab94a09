"""Clients that would take all there is, of threads, connections, memory or time: others are served all the same."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from asyncsdk.server.http import bodies
from asyncsdk.server.http import server as http_server
from asyncsdk.server.http.front import pumps
from tests.integration.test_front import HEALTH, LARGE, SMALL, Wire, eventually, get, put, staged, whole
from tests.support.server import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("data")) as running:
        yield running


def test_uploads_that_trickle_in_hold_no_threads(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than threads, each sending its next byte sooner than a thread gives up."""
    monkeypatch.setattr(pumps, "GRACE_MS", 300.0)  # the clients here are no faster
    stop = threading.Event()
    with ExitStack() as stack:
        slow = [stack.enter_context(Wire(server)) for _ in range(40)]
        for wire in slow:
            wire.send(put(server, LARGE)[1])

        def trickle() -> None:
            while not stop.wait(0.002):
                for wire in slow:
                    wire.send(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            time.sleep(0.5)  # until each thread there is has met one of them
            for _ in range(3):
                object_id, head = put(server, LARGE)
                with Wire(server) as wire:
                    wire.socket.settimeout(10)
                    wire.send(head + LARGE)
                    assert wire.answer().status == 200
                assert staged(server, object_id) == whole(object_id, LARGE)
        finally:
            stop.set()
            thread.join()


def test_connections_that_only_stay_open_make_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for nothing longest are closed; what is under way goes on."""
    monkeypatch.setattr(http_server, "connection_limit", lambda: 32)
    with RunningServer(tmp_path) as server, ExitStack() as stack:
        object_id, head = put(server, LARGE)
        busy = stack.enter_context(Wire(server))
        busy.send(head + LARGE[:-1])
        eventually(lambda: staged(server, object_id), what="the server never began")
        idle = [stack.enter_context(Wire(server)) for _ in range(100)]
        with Wire(server) as wire:
            wire.send(HEALTH)
            assert wire.answer().status == 200
        assert idle[0].rest() == b""
        busy.send(LARGE[-1:])
        assert busy.answer().status == 200


def test_when_all_connections_are_busy_new_ones_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "connection_limit", lambda: 8)
    with RunningServer(tmp_path) as server, ExitStack() as stack:
        busy = [(stack.enter_context(Wire(server)), *put(server, LARGE)) for _ in range(8)]
        for wire, object_id, head in busy:
            wire.send(head + LARGE[:-1])
            eventually(lambda: staged(server, object_id), what="the server never began")  # noqa: B023  # called at once
        late = stack.enter_context(Wire(server))
        late.send(HEALTH)
        late.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.answer()
        late.socket.settimeout(30)
        for wire, _, _ in busy:
            wire.send(LARGE[-1:])
            assert wire.answer().status == 200
        assert late.answer().status == 200


def test_a_message_that_trickles_in_is_given_up(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes soon enough, the body as a whole does not."""
    monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.3)
    head = f"POST /v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
    with Wire(server) as wire:
        wire.send(f"{head}Content-Length: 100000\r\n\r\n".encode())
        wire.socket.settimeout(0.02)
        for _ in range(500):
            wire.send(b" ")
            try:
                first = wire.socket.recv(12)
            except TimeoutError:
                continue
            assert first == b"HTTP/1.1 408"
            break
        else:
            pytest.fail("the server waited for ever")


def test_a_message_in_many_pieces_is_read(server: RunningServer) -> None:
    content = json.dumps({"name": "pieces", "description": "x" * 3000}).encode()
    head = f"POST /v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
    with Wire(server) as wire:
        wire.send(f"{head}Content-Length: {len(content)}\r\n\r\n".encode())
        for at in range(0, len(content), 7):
            wire.send(content[at : at + 7])
        assert wire.answer().status == 200


def test_a_small_object_in_many_pieces_is_whole(server: RunningServer) -> None:
    object_id, head = put(server, SMALL)
    with Wire(server) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.send(head)
        for at in range(0, len(SMALL), 16):
            wire.send(SMALL[at : at + 16])
        assert wire.answer().status == 200
    assert staged(server, object_id) == whole(object_id, SMALL)


@pytest.mark.parametrize(
    ("soft", "connections"), [(1024, 298), (100, 16), (10**9, 21_802), (resource.RLIM_INFINITY, 21_802)]
)
def test_connections_leave_descriptors_for_files(monkeypatch: pytest.MonkeyPatch, soft: int, connections: int) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (soft, soft))
    assert http_server.connection_limit() == connections


def test_a_shutdown_ends_connections_whose_last_reply_was_taken_late(tmp_path: Path) -> None:
    """The reply had promised that the connection goes on; nobody has to wait for requests that never come."""
    data = LARGE * 5
    with RunningServer(tmp_path) as server, Wire(server) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        wire.send(get(server, data))
        time.sleep(0.3)  # the socket's buffers are full
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.2)
        assert wire.answer().body == data
        wire.socket.settimeout(4)  # the server's own limit is 10 s
        assert wire.rest() == b""
        stopping.join(30)
