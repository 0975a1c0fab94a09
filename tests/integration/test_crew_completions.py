"""Worker processes that end after they made an object of its parts and before they could say so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Outcome, Resume, SentPart, Upload
from asyncsdk.engine.config import MiB
from asyncsdk.errors import ChecksumMismatch, CompletionUnknown, Conflict, NotFound
from asyncsdk.targets import BlobTarget, PutTarget, ResumableTarget
from tests.integration.test_crew_crashes import CREW, worker_of
from tests.support.clouds.kinds import PART_BYTES, Scripted
from tests.support.clouds.s3 import S3Server
from tests.support.crew import crew_of, engine_with_workers
from tests.support.faults.exchange import Exchange
from tests.support.faults.fault import Fault, end
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import Action, Connection, Received

PARTS = 3
pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True, slots=True)
class Killing(Fault):
    """It was done; whoever asked is killed before it hears of it, and something changes."""

    pid: int
    change: Callable[[], None]

    async def on_answer(self, exchange: Exchange) -> None:
        self.change()
        os.kill(self.pid, signal.SIGKILL)
        end(exchange, "close")


class Platform(RecordingFeed):
    """Compares what is there with what was sent, when it is to make something of it."""

    judges_uploads = True

    def __init__(self, upload: Upload, server: S3Server) -> None:
        super().__init__([upload], on_settle=self._judge)
        self._server = server

    def _judge(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if outcome.ok and crc32c_hex(crc32c(self._server.objects.get("/m", b""))) != outcome.crc32c:
                outcome.status, outcome.error = "failed", NotFound(f"{outcome.name}: never arrived")
        return outcomes


class Plain(RecordingFeed):
    """Judges nothing."""

    def __init__(self, upload: Upload, server: S3Server) -> None:
        super().__init__([upload])


@pytest.mark.parametrize(
    ("who", "changes", "error", "remembers"),
    [
        ("object", "", None, False),
        ("object", "", None, True),
        ("platform", "", None, False),
        ("nobody", "", CompletionUnknown, False),
        ("object", "object", NotFound, False),
        ("platform", "object", NotFound, False),
        ("object", "source", NotFound, False),
    ],
)
async def test_an_object_whose_worker_was_killed_after_it_made_it(
    tmp_path: Path, who: str, changes: str, error: type[Exception] | None, remembers: bool
) -> None:
    """The next worker finds the upload gone, and says what is true: it is there, it is not, or nobody knows.

    Nothing is made twice. Who has a journal has seen to it that the source is the same; else its bytes are compared.
    """
    data = os.urandom(PARTS * MiB - 5)
    path = tmp_path / "source"
    path.write_bytes(data)
    told: list[SentPart] = []
    async with S3Server() as server, engine_with_workers(CREW) as engine:
        crew = crew_of(engine)

        def change() -> None:
            if changes == "object":
                server.etags["/m"] = f'"{"0" * 32}-{PARTS}"'
                server.objects["/m"] = b"another"
            elif changes == "source":
                path.write_bytes(data[::-1])

        async def kill_after(connection: Connection, request: Received) -> bool | Fault:
            if request.method != "POST":
                return False
            pid = await asyncio.to_thread(worker_of, connection, crew.pids)
            assert pid is not None
            return Killing(pid, change)

        async def let_pass(connection: Connection, request: Received) -> bool:
            return False

        actions: list[Action] = [let_pass] * PARTS
        server.script("/m", *actions, kill_after)
        target = multipart_target(server, PARTS)
        if who == "object":
            target = replace(target, object_url=server.url("/m"))
        resume = Resume(on_part=told.append) if remembers else None
        upload = Upload(path, target, size_bytes=len(data), key="it", resume=resume)
        feed = (Platform if who == "platform" else Plain)(upload, server)
        async with engine.run(feed) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        made = len(server.of("POST", "/m"))
        assert not crew.is_alone
    assert type(outcome.error) is error if error else outcome.error is None
    if not changes:
        assert server.objects["/m"] == data
    assert made == 1
    assert outcome.error is not None or outcome.crc32c == crc32c_hex(crc32c(data))
    assert outcome.error is not None or outcome.size_bytes == len(data)


@pytest.mark.parametrize("kind", ["put", "blob", "blocks"])
@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "another's"])
async def test_a_conditional_upload_whose_worker_was_killed_when_it_was_stored(
    tmp_path: Path, kind: str, is_ours: bool
) -> None:
    """The next worker is refused because of what the first one made: no conflict, unless it is somebody else's."""
    data = os.urandom(3 * PART_BYTES if kind == "blocks" else 1000)
    path = tmp_path / "source"
    path.write_bytes(data)
    made = Scripted(kind)
    killed: list[int] = []
    async with made.server as server, engine_with_workers(CREW) as engine:
        crew = crew_of(engine)

        def change() -> None:
            if not is_ours:
                server.objects["/o"] = b"another"
                getattr(server, "committed", {}).pop("/o", None)

        async def kill_after(connection: Connection, request: Received) -> bool | Fault:
            is_made = request.method == "PUT" and request.query.get("comp") != "block"
            if not is_made or killed:
                return False
            pid = await asyncio.to_thread(worker_of, connection, crew.pids)
            assert pid is not None
            killed.append(pid)
            return Killing(pid, change)

        actions: list[Action] = [kill_after] * 20
        server.script("/o", *actions)
        target = made.target("o")
        assert isinstance(target, (PutTarget, BlobTarget))
        target = replace(target, headers={**target.headers, "If-None-Match": "*"})
        async with engine.run([Upload(path, target)]) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        assert not crew.is_alone
    assert killed
    assert server.objects["/o"] == (data if is_ours else b"another")
    assert type(outcome.error) is (type(None) if is_ours else Conflict)


@pytest.mark.parametrize("nth", [1, 2, PARTS])
@pytest.mark.parametrize("changes", [False, True], ids=["same source", "another source"])
async def test_a_session_goes_on_when_its_worker_was_killed(tmp_path: Path, nth: int, changes: bool) -> None:
    """What it has cannot be sent again: the next worker asks how far it got. Of another source nothing is claimed."""
    data = os.urandom(PARTS * PART_BYTES)
    path = tmp_path / "source"
    path.write_bytes(data)
    made = Scripted("session")
    seen: list[int | None] = []
    async with made.server as server, engine_with_workers(CREW) as engine:
        crew = crew_of(engine)

        async def kill_after(connection: Connection, request: Received) -> bool | Fault:
            if request.method != "PUT":
                return False
            seen.append(pid := await asyncio.to_thread(worker_of, connection, crew.pids))
            if len(seen) != nth:
                return False
            assert pid is not None
            return Killing(pid, (lambda: path.write_bytes(data[::-1])) if changes else (lambda: None))

        target = made.target("o")
        assert isinstance(target, ResumableTarget)
        actions: list[Action] = [kill_after] * 20
        server.script(urlsplit(target.url).path, *actions)
        async with engine.run([Upload(path, target)]) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        assert not crew.is_alone
    assert seen[nth - 1] not in seen[nth:], "the second worker was never asked for anything"
    if changes:
        assert isinstance(outcome.error, ChecksumMismatch)
    else:
        assert outcome.error is None
        assert made.stored("o") == data
        assert len(seen) == PARTS + 1, "of parts each goes once, and there is one question"
