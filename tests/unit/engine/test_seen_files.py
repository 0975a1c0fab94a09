"""Small files are read before they are sent: they are looked at again when they were, by whatever way they went."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncsdk.engine import BlobTarget, Engine, FileTarget, FormTarget, PutTarget, Target, Upload, seen, sources
from asyncsdk.engine.seen import SeenFile, check_seen
from asyncsdk.errors import PermissionDenied, SourceChanged
from asyncsdk.transport.base import Transport
from asyncsdk.transport.httpx_transport import HttpxTransport
from asyncsdk.transport.lean import LeanTransport
from asyncsdk.transport.threads import Threads
from tests.support.feeds import RecordingFeed
from tests.support.http_server import Connection, HttpServer, Received, answer
from tests.unit.engine.conftest import config

Action = Callable[[Connection, Received], Awaitable[bool]]

SIZE = 1000
OLD, NEW = b"o" * SIZE, b"n" * SIZE

TARGETS: dict[str, Callable[[str], Target]] = {
    "put": PutTarget,
    "form": lambda url: FormTarget(url, is_repeatable=True),
    "blob": BlobTarget,
}


@asynccontextmanager
async def running(make: Callable[[], Transport], **changes: object) -> AsyncIterator[Engine]:
    transport = make()
    try:
        async with Engine(config(**changes), transport=transport) as engine:
            yield engine
    finally:
        await transport.aclose()


def seen_now(path: Path) -> SeenFile:
    facts = path.stat()
    return str(path), (facts.st_size, facts.st_mtime_ns, facts.st_ino)


def rewrite(path: Path) -> None:
    path.write_bytes(NEW)
    os.utime(path, ns=(10**18, 10**18))


def touch(path: Path) -> None:
    os.utime(path, ns=(10**18, 10**18))


def replace(path: Path) -> None:
    facts = path.stat()
    other = path.with_name("other")
    other.write_bytes(NEW)
    os.utime(other, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    other.replace(path)


def changing(path: Path, change: Callable[[Path], None], status: int | None = None) -> Action:
    """Change *path* when everything has arrived, before the answer."""

    async def meanwhile(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        change(path)
        if status is not None:
            await connection.reply(status)
        return status is not None

    return meanwhile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


@pytest.mark.parametrize("make", [LeanTransport, HttpxTransport])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("is_read", [False, True], ids=["path", "bytes"])
@pytest.mark.parametrize("change", [rewrite, touch, replace, Path.unlink])
async def test_a_small_file_that_changes_while_it_is_sent_is_reported(
    server: HttpServer, path: Path, make: Callable[[], Transport], kind: str, is_read: bool, change: Callable[..., None]
) -> None:
    """Be it read by the engine or by whoever gave its bytes."""
    target = TARGETS[kind](server.url("/o"))
    upload = Upload(OLD, target, read_from=seen_now(path)) if is_read else Upload(path, target)
    server.script("/o", changing(path, change, 201))
    async with running(make) as engine:
        report = await engine.collect(RecordingFeed([upload]))
    (failure,) = report.failures
    assert isinstance(failure.error, SourceChanged)
    assert str(path) in str(failure.error)


@pytest.mark.parametrize("policy", ["fail", "accept"])
async def test_a_copy_appears_of_a_file_as_it_is(path: Path, tmp_path: Path, policy: str) -> None:
    """Nothing is put in place of bytes whose file is another by then, unless nobody looks."""
    upload = Upload(OLD, FileTarget(tmp_path / "out", "name"), read_from=seen_now(path))
    rewrite(path)
    async with Engine(config(source_changed=policy)) as engine:
        report = await engine.collect(RecordingFeed([upload]))
    there = [file.read_bytes() for file in (tmp_path / "out").iterdir()]
    if policy == "fail":
        assert isinstance(report.failures[0].error, SourceChanged)
        assert there == []
    else:
        report.raise_for_failures()
        assert there == [OLD]


@pytest.mark.parametrize("make", [LeanTransport, HttpxTransport])
@pytest.mark.parametrize("is_read", [False, True], ids=["path", "bytes"])
@pytest.mark.parametrize("policy", ["retry", "accept"])
async def test_the_policy_holds(
    server: HttpServer, path: Path, make: Callable[[], Transport], policy: str, is_read: bool
) -> None:
    """A path is sent again as it is now. Bytes are what they are: sending those again would not help."""
    target = PutTarget(server.url("/o"))
    upload = Upload(OLD, target, read_from=seen_now(path)) if is_read else Upload(path, target)
    server.script("/o", changing(path, rewrite))
    async with running(make, source_changed=policy) as engine:
        report = await engine.collect(RecordingFeed([upload]))
    if policy == "retry" and is_read:
        assert isinstance(report.failures[0].error, SourceChanged)
    else:
        report.raise_for_failures()
        assert server.objects["/o"] == (NEW if policy == "retry" else OLD)
    assert len(server.requests) == (2 if policy == "retry" and not is_read else 1)


@pytest.mark.parametrize("is_read", [False, True], ids=["path", "bytes"])
async def test_a_retried_one_is_looked_at_too(server: HttpServer, path: Path, is_read: bool) -> None:
    """What the express lane leaves to a worker: it has the bytes, and the look at their file is still to come."""
    target = PutTarget(server.url("/o"))
    upload = Upload(OLD, target, read_from=seen_now(path)) if is_read else Upload(path, target)
    server.script("/o", answer(503), changing(path, rewrite))
    async with Engine(config()) as engine:
        report = await engine.collect(RecordingFeed([upload]))
    assert isinstance(report.failures[0].error, SourceChanged)
    assert [len(request.body) for request in server.requests] == [SIZE, SIZE]


@pytest.mark.parametrize("make", [LeanTransport, HttpxTransport])
async def test_a_refusal_stays_what_it_is(server: HttpServer, path: Path, make: Callable[[], Transport]) -> None:
    """The bytes were whole whatever became of the file."""
    server.script("/o", changing(path, rewrite, 403))
    async with running(make) as engine:
        with pytest.raises(PermissionDenied):
            await engine.upload(path, PutTarget(server.url("/o")))


@pytest.mark.parametrize("make", [LeanTransport, HttpxTransport])
async def test_looks_at_a_slow_disk_leave_the_event_loop(
    server: HttpServer, path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Transport]
) -> None:
    """After some, threads do it."""
    looks: list[bool] = []

    def slow(file: SeenFile) -> None:
        looks.append(threading.current_thread() is threading.main_thread())
        time.sleep(0.02)
        check_seen(file)

    for module in (sources, seen):
        monkeypatch.setattr(module, "check_seen", slow)
    monkeypatch.setattr("asyncsdk.engine.small_uploads.check_seen", slow)
    uploads = [Upload(OLD, PutTarget(server.url(f"/{n}")), read_from=seen_now(path)) for n in range(60)]
    async with running(make) as engine:
        (await engine.collect(RecordingFeed(uploads))).raise_for_failures()
    assert len(looks) == 60
    assert looks.count(False) > 20


async def test_a_glance_is_taken_here_until_one_takes_long() -> None:
    threads = Threads(1)
    try:
        assert await threads.glance(threading.current_thread) is threading.main_thread()
        await threads.glance(time.sleep, 0.01)
        assert await threads.glance(threading.current_thread) is not threading.main_thread()
    finally:
        threads.close(wait=True)
