"""Worker processes that end after they made an object of its parts and before they could say so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Outcome, Resume, SentPart, Upload
from asyncsdk.engine.config import MiB
from asyncsdk.errors import CompletionUnknown, NotFound
from tests.contract.targets.test_arriving import lose_reply
from tests.integration.test_crew_crashes import CREW, worker_of
from tests.support.clouds.s3 import S3Server
from tests.support.crew import crew_of, engine_with_workers
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import Action, Connection, Received

PARTS = 3
pytestmark = pytest.mark.timeout(60)


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
        done_once = lose_reply(method="POST")

        async def kill_after(connection: Connection, request: Received) -> bool:
            if request.method != "POST":
                return False
            pid = await asyncio.to_thread(worker_of, connection, crew.pids)
            assert pid is not None
            try:
                return await done_once(connection, request)
            finally:
                if changes == "object":
                    server.etags["/m"] = f'"{"0" * 32}-{PARTS}"'
                    server.objects["/m"] = b"another"
                elif changes == "source":
                    path.write_bytes(data[::-1])
                os.kill(pid, signal.SIGKILL)

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
