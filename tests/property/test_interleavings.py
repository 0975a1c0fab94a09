"""Any interleaving of parts, replies, journal writes and kills gives the same object.

Nothing here waits for a clock, a socket or a thread: replies are given and journal pages are written one by one, when
the machine says so, so that hypothesis can play a failure again and make it small.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asyncsdk.engine import Engine, MultipartTarget, Outcome, RetryPolicy, Target, TransferConfig, Upload
from asyncsdk.engine.journal import Finished, Identity, Journal, RunRecord, digest_of, journal_folder
from asyncsdk.engine.journal.large import LargeState
from asyncsdk.engine.journal.owners import Owner
from asyncsdk.errors import ConnectionFailed
from asyncsdk.transport.base import BytesBody, FileBody, Headers, Reply, ReplyHead, Request
from asyncsdk.transport.threads import Threads
from tests.support.feeds import RecordingFeed

pytestmark = pytest.mark.timeout(300)

RUN = RunRecord("upload", {"place": "x"}, {"place": "x"})
NAME = "large"
PART = 1000
QUIET_SECONDS, QUIET_TURNS = 0.03, 4
"""So many looks without another request or page, so far apart by the clock of `Clockless`: what could be begun was."""

CONFIG = TransferConfig(
    concurrency=3,
    concurrency_max=3,
    hedge=False,
    retry=RetryPolicy(max_attempts=200, wait_initial_seconds=1e-9, wait_max_seconds=1e-9, budget_least=10_000),
    cleanup_seconds=0.1,
)


class Clockless(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when there is nothing else to do."""

    _now = 1000.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Inline(Threads):
    """What threads would do, done at once."""

    def submit(self, function: Callable[..., Any], *args: object) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
            future.set_exception(error)
        return future


class Pages(Threads):
    """The journal's thread, which does one thing when it is told to."""

    def __init__(self) -> None:
        super().__init__(1)
        self.waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[object, ...]]] = deque()

    def submit(self, function: Callable[..., Any], *args: object) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, function, args))
        return future

    def write(self, count: int) -> None:
        for _ in range(min(count, len(self.waiting))):
            future, function, args = self.waiting.popleft()
            try:
                future.set_result(function(*args))
            except Exception as error:  # noqa: BLE001 - as above
                future.set_exception(error)


@dataclass
class Asked:
    """A request that waits for its reply."""

    request: Request
    body: bytes
    future: asyncio.Future[Reply]


class Store:
    """S3 with one object, and the transport that leads to it."""

    def __init__(self) -> None:
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.object: bytes | None = None
        self.made = 0
        self.pending: list[Asked] = []
        self.sent: list[tuple[str, int]] = []
        self.is_cut_off = False  # whoever was killed sends nothing any more

    async def send(self, request: Request) -> Reply:
        if self.is_cut_off:
            await asyncio.get_running_loop().create_future()
        body = request.body
        data = b""
        if isinstance(body, FileBody):
            data = body.read(0, body.size_bytes)
        elif isinstance(body, BytesBody):
            data = bytes(body.data)
        if request.on_sent is not None:
            request.on_sent(len(data))
        asked = Asked(request, data, asyncio.get_running_loop().create_future())
        words = _words(request.url)
        if request.method == "PUT":
            self.sent.append((words["uploadId"], int(words["partNumber"])))
        self.pending.append(asked)
        try:
            reply = await asked.future
            sink = None if request.on_head is None else request.on_head(ReplyHead(reply.status, reply.headers))
            if sink is None:
                return reply
            sink.write(reply.body)
            return Reply(reply.status, reply.headers, size_bytes=len(reply.body))
        finally:
            if asked in self.pending:
                self.pending.remove(asked)

    async def aclose(self) -> None:
        """It holds nothing."""

    def answer(self, asked: Asked, how: Literal["reply", "lost", "refused", "broken"]) -> None:
        """Act on a request, unless it is *refused* or *broken*, and reply, unless that is *lost*."""
        self.pending.remove(asked)
        if asked.future.done():
            return
        gone = ConnectionFailed(asked.request.url, "it broke")
        if how == "refused":
            asked.future.set_result(Reply(503, Headers([])))
        elif how == "broken":
            asked.future.set_exception(gone)
        else:
            reply = self._act(asked)
            if how == "lost":
                asked.future.set_exception(gone)
            else:
                asked.future.set_result(reply)

    def _act(self, asked: Asked) -> Reply:
        words, method = _words(asked.request.url), asked.request.method
        if "uploadId" not in words:
            assert method == "GET"
            if self.object is None:
                return Reply(404, Headers([]))
            return Reply(200, Headers([("ETag", self.etag)]))
        parts = self.uploads.get(words["uploadId"])
        if parts is None:
            return Reply(404, Headers([]), b"<Error><Code>NoSuchUpload</Code></Error>")
        if method == "PUT":
            parts[int(words["partNumber"])] = asked.body
            return Reply(200, Headers([("ETag", _etag(asked.body))]))
        if method == "GET":
            listed = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{_etag(data)}</ETag><Size>{len(data)}</Size></Part>"
                for number, data in sorted(parts.items())
            )
            text = f"<ListPartsResult><IsTruncated>false</IsTruncated>{listed}</ListPartsResult>"
            return Reply(200, Headers([]), text.encode())
        if method == "DELETE":
            del self.uploads[words["uploadId"]]
            return Reply(204, Headers([]))
        named = re.findall(r"<PartNumber>(\d+)</PartNumber>\s*<ETag>(?:&quot;|\")?([0-9a-f]+)", asked.body.decode())
        if not named or any(_etag(parts.get(int(n), b"?")).strip('"') != etag for n, etag in named):
            return Reply(400, Headers([]), b"<Error><Code>InvalidPart</Code></Error>")
        chosen = [parts[int(number)] for number, _ in named]
        self.object = b"".join(chosen)
        self.etag = f'"{hashlib.md5(b"".join(hashlib.md5(one).digest() for one in chosen)).hexdigest()}-{len(chosen)}"'
        self.made += 1
        del self.uploads[words["uploadId"]]
        return Reply(200, Headers([]), b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")


class Interleavings(RuleBasedStateMachine):
    """One client after the other uploads one file; each is killed at some moment but the last."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="interleavings-"))
        self.patches = [
            # A kill leaves the owner written in the file; here that is this process, which still is.
            mock.patch.object(Owner, "is_gone", return_value=True),
            mock.patch.object(Threads, "submit", Inline.submit),
        ]
        for patch in self.patches:
            patch.start()
        self.loop = Clockless()
        self.store = Store()
        self.homes = 0
        self.begun = 0
        self.small: dict[str, Finished] = {}
        self.told: dict[str, Finished] = {}
        self.task: asyncio.Task[None] | None = None
        self.outcome: Outcome | None = None

    @initialize(parts=st.integers(2, 6), last=st.integers(1, PART))
    def begin(self, parts: int, last: int) -> None:
        self.source = self.folder / "source"
        self.size = (parts - 1) * PART + last
        self.version = 0
        self._write_source()
        self.home = self.folder / "home0"
        self._start()

    def _write_source(self) -> None:
        self.version += 1
        self.data = hashlib.shake_128(str(self.version).encode()).digest(self.size)
        self.source.write_bytes(self.data)
        os.utime(self.source, (self.version, self.version))

    # --- a client ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.loop.run_until_complete(self._start_client())
        self._settle()

    async def _start_client(self) -> None:
        self.journal = await Journal.open(self.home, RUN)
        for name, entry in (await self.journal.find(list(self.small))).items():
            assert (entry.identity, entry.crc32c, entry.receipt) == self.small[name][1:]
            assert entry.is_settled
        if self.journal.has_entries:
            found = await self.journal.find(list(self.small))
            assert set(found) == set(self.small), "what was written is lost"
            state = await self.journal.recall_large(NAME)
        else:
            assert not self.small
            state = self.journal.new_large(NAME, {})
        identity = list(Identity.of(self.source.stat()))
        if state.facts.get("identity") != identity:  # as `UploadBooks` does: another file, another upload
            state.forget()
            state = self.journal.new_large(NAME, {"identity": identity})
        self.state: LargeState = state
        self.pages = Pages()
        self.journal._threads.close()
        self.journal._threads = self.pages
        upload_id = str(state.facts.get("upload_id") or "") or self._new_upload()
        there = self.store.uploads.get(upload_id, {})
        self.known = {
            (upload_id, part.number)
            for part in state.parts.values()
            if part.number in there and part.etag == _etag(there[part.number])
        }
        self.store.sent.clear()
        self.outcome = None
        upload = Upload(self.source, self._target(upload_id), size_bytes=self.size, resume=state.resume())
        self.task = asyncio.create_task(self._move(RecordingFeed([upload], on_renew=self._renew)))

    async def _move(self, feed: RecordingFeed) -> None:
        async with Engine(CONFIG, transport=self.store) as engine, engine.run(feed) as outcomes:
            async for outcome in outcomes:
                self.outcome = outcome

    def _new_upload(self) -> str:
        self.begun += 1
        self.store.uploads[f"U{self.begun}"] = {}
        return f"U{self.begun}"

    def _renew(self, transfer: Any, first_part: int) -> Target:
        return self._target(self._new_upload())

    def _target(self, upload_id: str) -> MultipartTarget:
        whole = f"http://store.invalid/m?uploadId={upload_id}"
        urls = tuple(f"{whole}&partNumber={number}" for number in range(1, 10))
        return MultipartTarget(upload_id, PART, urls, whole, whole, (whole,), object_url="http://store.invalid/m")

    def _settle(self) -> None:
        self.loop.run_until_complete(self._until_quiet())

    async def _until_quiet(self) -> None:
        quiet, before = 0, (0, 0)
        while quiet < QUIET_TURNS:
            await asyncio.sleep(QUIET_SECONDS)
            now = len(self.store.sent), len(self.pages.waiting)
            quiet, before = (quiet + 1 if now == before else 0), now

    # --- what may happen, in any order ---------------------------------------------------------------------------

    @property
    def is_under_way(self) -> bool:
        return self.task is not None and not self.task.done()

    @precondition(lambda self: self.is_under_way and self.store.pending)
    @rule(which=st.integers(0, 5), how=st.sampled_from(["reply", "reply", "reply", "lost", "refused", "broken"]))
    def answer(self, which: int, how: Literal["reply", "lost", "refused", "broken"]) -> None:
        """One of the requests under way gets its answer, or none."""
        self.store.answer(self.store.pending[which % len(self.store.pending)], how)
        self._settle()

    @precondition(lambda self: self.is_under_way and self.pages.waiting)
    @rule(count=st.integers(1, 4))
    def write(self, count: int) -> None:
        """The journal gets some of what it was told to the disk."""
        self.pages.write(count)
        if not self.pages.waiting:
            self.small |= self.told
            self.told.clear()
        self._settle()

    @precondition(lambda self: self.is_under_way)
    @rule(number=st.integers(0, 9))
    def finish_a_small_one(self, number: int) -> None:
        """A small object of the same run is there, and its entry goes to the same journal."""
        entry = (digest_of(f"{number}"), Identity(number, number, number), number, b"")
        self.told[f"{number}"] = entry
        self.journal.add_settled([entry])

    @precondition(lambda self: self.is_under_way)
    @rule(which=st.integers(1, 6))
    def lose_a_part(self, which: int) -> None:
        """The server has it no more: its list is what counts, on the next taking up."""
        for upload_id, parts in self.store.uploads.items():
            if parts.pop(which, None) is not None:
                self.known.discard((upload_id, which))

    @precondition(lambda self: self.is_under_way)
    @rule()
    def lose_the_upload(self) -> None:
        """The server swept it."""
        self.store.uploads.clear()
        self.known.clear()

    @precondition(lambda self: self.task is not None)
    @rule(changes=st.sampled_from([False, False, False, True]))
    def kill(self, changes: bool) -> None:
        """Only what is on the disk is left; another client goes on, perhaps with another file under that name."""
        self.homes += 1
        left = self.folder / f"home{self.homes}"
        if journal_folder(self.home).exists():
            shutil.copytree(journal_folder(self.home), journal_folder(left))
        self._end_client(is_complete=False)
        self.home = left
        self.told.clear()
        if changes:
            self._write_source()
        self._start()

    def _end_client(self, *, is_complete: bool) -> None:
        async def end() -> None:
            assert self.task is not None
            self.store.is_cut_off = True
            self.task.cancel()
            self.pages.write(10_000)
            await asyncio.wait([self.task])
            self.pages.write(10_000)
            ending = asyncio.create_task(self.journal.end(is_complete=is_complete))
            while not ending.done():
                await asyncio.sleep(0)
                self.pages.write(10_000)
            await ending

        self.loop.run_until_complete(end())
        self.store.pending.clear()
        self.store.is_cut_off = False

    # --- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def nothing_known_is_sent_again(self) -> None:
        if self.task is not None:
            assert not self.known & set(self.store.sent), "the journal and the server had it"

    @invariant()
    def what_is_there_is_right(self) -> None:
        if self.outcome is not None and self.outcome.ok:
            assert self.store.object == self.data

    def teardown(self) -> None:
        try:
            if self.task is not None:
                self._run_to_the_end()
        finally:
            if self.is_under_way:
                self._end_client(is_complete=False)
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            for patch in self.patches:
                patch.stop()
            shutil.rmtree(self.folder)

    def _run_to_the_end(self) -> None:
        """Everything is answered and written: then it is there, and nothing of the run is left."""
        self._answer_all()
        if self.outcome is not None and not self.outcome.ok:
            # A part that is lost under way shows when they are joined, and an upload that is lost again and again is
            # given up: both are told in the server's words, and the same call goes on.
            assert getattr(self.outcome.error, "server_code", "") in {"InvalidPart", "NoSuchUpload"}
            self._end_client(is_complete=False)
            self._start()
            self._answer_all()
        assert self.outcome is not None
        assert self.outcome.error is None
        assert self.store.object == self.data
        self.state.forget()
        self._end_client(is_complete=True)
        assert not list(journal_folder(self.home).glob("*.sqlite3"))

    def _answer_all(self) -> None:
        for _ in range(3000):
            if not self.is_under_way:
                break
            self.pages.write(10_000)
            for asked in list(self.store.pending):
                self.store.answer(asked, "reply")
            self._settle()
        assert not self.is_under_way, "it waits for something that never comes"
        assert self.task is not None
        self.task.result()


def _words(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(url.partition("?")[2]).items()}


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


_FEW = settings(deadline=None, max_examples=30, stateful_step_count=25, suppress_health_check=list(HealthCheck))
_MANY = settings(_FEW, max_examples=200, stateful_step_count=50)


def test_any_interleaving_gives_the_same_object() -> None:
    """Parts, replies, pages of the journal and kills in any order."""
    run_state_machine_as_test(Interleavings, settings=_FEW)  # type: ignore[no-untyped-call]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_interleavings_give_the_same_object() -> None:
    """At length."""
    run_state_machine_as_test(Interleavings, settings=_MANY)  # type: ignore[no-untyped-call]
