"""Uploads through every fault: there in the end with the right bytes, or failed at once with the right error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Engine, KiB, MiB, MultipartTarget, Outcome, PutTarget, Upload
from asyncsdk.engine.budget import process_budget
from asyncsdk.errors import ChecksumMismatch, CompletionUnknown, NotFound
from tests.faults.cases import FINAL, UP, silence_is_slow
from tests.faults.conftest import ATTEMPTS
from tests.support.faults.breaks import Lost
from tests.support.faults.data import noise
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Refuse, WrongDigest
from tests.support.faults.server import FaultServer
from tests.support.feeds import RecordingFeed

SMALL = 6
PARTS = 3


def small_ones(folder: Path) -> dict[str, Path]:
    """Write files of several sizes, one of them empty; returns them by the path that they get."""
    made = {}
    for number in range(SMALL):
        path = folder / f"{number}.bin"
        path.write_bytes(noise((0, 1, 20 * KiB, 64 * KiB, 200 * KiB, 1_000_000)[number], number))
        made[f"/small/{number}"] = path
    return made


def in_parts(server: FaultServer, *, upload_id: str = "u1") -> MultipartTarget:
    """Return a multipart upload to ``/large`` that was begun."""
    server.store.uploads[upload_id] = {}
    url = server.url(f"/large?uploadId={upload_id}")
    urls = tuple(f"{url}&partNumber={number}" for number in range(1, PARTS + 1))
    return MultipartTarget(upload_id, MiB, urls, complete_url=url, abort_url=url, list_urls=(url,))


async def send_all(engine: Engine, uploads: list[Upload]) -> list[Outcome]:
    async with engine.run(uploads) as outcomes:
        return [outcome async for outcome in outcomes]


@pytest.mark.parametrize("name", sorted(UP))
async def test_small_objects_get_there(server: FaultServer, engine: Engine, tmp_path: Path, name: str) -> None:
    """The first try of every small object meets the fault; the second brings it there, with its bytes."""
    case = UP[name]
    sources = small_ones(tmp_path)
    if _needs_a_body(name):
        sources.pop("/small/0")
    server.plan = Plan([Rule(case.fault, method="PUT", nth=[1], of_each=True)], seed=1)
    outcomes = await send_all(engine, [Upload(path, PutTarget(server.url(to))) for to, path in sources.items()])
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert {outcome.attempts for outcome in outcomes} == {case.attempts}
    assert {to: server.store[to] for to in sources} == {to: path.read_bytes() for to, path in sources.items()}
    assert len(server.requests) == case.attempts * len(sources)
    assert server.plan.met.total() == len(sources)
    assert all(outcome.verified for outcome in outcomes)


@pytest.mark.parametrize("name", sorted(UP))
async def test_parts_get_there(server: FaultServer, engine: Engine, tmp_path: Path, name: str) -> None:
    """The first try of every part meets the fault, and so does completing; the object is whole in the end."""
    case = UP[name]
    data = noise(PARTS * MiB - 5)
    path = tmp_path / "large.bin"
    path.write_bytes(data)
    server.plan = Plan([Rule(case.fault, method="PUT", nth=[1], of_each=True)], seed=1)
    (outcome,) = await send_all(engine, [Upload(path, in_parts(server))])
    assert outcome.error is None
    assert outcome.attempts == case.attempts
    assert server.store["/large"] == data
    assert server.store.writes == {"/large": 1}
    assert server.store.uploads == {}
    assert server.plan.met.total() == PARTS


@pytest.mark.parametrize("name", silence_is_slow(name for name, case in UP.items() if case.attempts > 1))
async def test_what_never_gets_there_fails_with_its_error(
    server: FaultServer, engine: Engine, tmp_path: Path, name: str
) -> None:
    """A fault that stays costs all attempts, then is told by its type; the others get there meanwhile."""
    case = UP[name]
    sources = small_ones(tmp_path)
    server.plan = Plan([Rule(case.fault, method="PUT", path="/small/3")], seed=1)
    uploads = [Upload(path, PutTarget(server.url(to)), key=to) for to, path in sources.items()]
    outcomes = {outcome.transfer.key: outcome for outcome in await send_all(engine, uploads)}
    failed = outcomes.pop("/small/3")
    assert isinstance(failed.error, case.error)
    assert failed.attempts == ATTEMPTS
    assert all(outcome.ok and outcome.attempts == 1 for outcome in outcomes.values())


@pytest.mark.parametrize("name", sorted(FINAL))
async def test_a_refusal_that_is_final_is_not_repeated(
    server: FaultServer, engine: Engine, tmp_path: Path, name: str
) -> None:
    """One request for each object, one typed error for each, nothing stored."""
    fault, error = FINAL[name]
    sources = small_ones(tmp_path)
    server.plan = Plan([fault])
    outcomes = await send_all(engine, [Upload(path, PutTarget(server.url(to))) for to, path in sources.items()])
    assert {type(outcome.error) for outcome in outcomes} <= {error, *error.__subclasses__()}
    assert {outcome.attempts for outcome in outcomes} == {1}
    # The express lane leaves redirects to a worker, which asks anew.
    assert len(server.requests) == len(sources) * (2 if name.startswith("302") else 1)
    assert list(server.store) == []


@pytest.mark.parametrize("name", sorted(FINAL))
async def test_a_part_that_is_refused_aborts_the_upload(
    server: FaultServer, engine: Engine, tmp_path: Path, name: str
) -> None:
    """A part that is refused for good ends the upload: no object, no parts left at the server."""
    fault, error = FINAL[name]
    path = tmp_path / "large.bin"
    path.write_bytes(noise(PARTS * MiB))
    server.plan = Plan([Rule(fault, method="PUT", target="*partNumber=2*")])
    (outcome,) = await send_all(engine, [Upload(path, in_parts(server))])
    assert isinstance(outcome.error, error)
    assert server.store.uploads == {}
    assert list(server.store) == []
    assert process_budget().leased_bytes == 0


@pytest.mark.parametrize("digest", ["x-amz-checksum-crc32c", "x-goog-hash", "content-md5"])
@pytest.mark.parametrize("shape", ["small", "parts"])
async def test_a_digest_is_compared_whatever_header_states_it(
    server: FaultServer, engine: Engine, tmp_path: Path, digest: str, shape: str
) -> None:
    """In the manner of S3, Google and Azure: stated wrongly once, it is sent again; always, it is an error."""
    server.store.digest = digest  # type: ignore[assignment]
    path = tmp_path / "large.bin"
    path.write_bytes(noise(PARTS * MiB - 5))
    headers = {"Content-MD5": ""} if digest == "content-md5" else {}

    def target() -> PutTarget | MultipartTarget:
        if shape == "small":
            return PutTarget(server.url("/large"), headers)
        return replace(in_parts(server), headers=headers)

    server.plan = Plan([Rule(WrongDigest(), method="PUT", times=1)])
    (outcome,) = await send_all(engine, [Upload(path, target())])
    assert outcome.error is None
    assert outcome.verified
    assert outcome.attempts == 2
    assert server.plan.met.total() == 1
    server.plan = Plan([Rule(WrongDigest(), method="PUT")])
    (outcome,) = await send_all(engine, [Upload(path, target())])
    assert isinstance(outcome.error, ChecksumMismatch)


COMPLETING = {
    **{name: UP[name].fault for name in ("503", "429", "500", "no HTTP", "half a head")},
    "200 with an error in it": Refuse(200, body="<Error><Code>InternalError</Code><Message>Again.</Message></Error>"),
}


@pytest.mark.parametrize("name", sorted(COMPLETING))
async def test_completing_is_tried_again(server: FaultServer, engine: Engine, tmp_path: Path, name: str) -> None:
    """Completing that was refused for a moment is asked for again, and makes one object."""
    path = tmp_path / "large.bin"
    path.write_bytes(noise(PARTS * MiB))
    server.plan = Plan([Rule(COMPLETING[name], method="POST", nth=[1])])
    (outcome,) = await send_all(engine, [Upload(path, in_parts(server))])
    assert outcome.error is None
    assert server.store["/large"] == path.read_bytes()
    assert server.store.writes == {"/large": 1}


HOW = pytest.mark.parametrize("how", ["reset", "close"])


@HOW
async def test_completing_whose_reply_is_lost_is_told_as_unknown(
    server: FaultServer, engine: Engine, tmp_path: Path, how: Literal["reset", "close"]
) -> None:
    """The parts were joined and nobody heard: asked again, the service knows no such upload.

    Without a URL that reads the object, and without a platform that compares it, nobody can tell this from an upload
    that was swept before it was completed: neither success nor a plain failure would be true, and the error says so.
    """
    path = tmp_path / "large.bin"
    path.write_bytes(noise(PARTS * MiB))
    server.plan = Plan([Rule(Lost(how), method="POST", nth=[1])])
    (outcome,) = await send_all(engine, [Upload(path, in_parts(server))])
    assert isinstance(outcome.error, CompletionUnknown)
    assert outcome.error.code == "completion_unknown"
    assert not outcome.error.retryable
    assert "NoSuchUpload" in str(outcome.error)
    assert "uploadId" not in str(outcome.error)
    assert server.store["/large"] == path.read_bytes()
    assert server.store.writes == {"/large": 1}


class Platform(RecordingFeed):
    """Compares what is there with what was sent, when it is to make something of it."""

    judges_uploads = True

    def __init__(self, uploads: list[Upload], server: FaultServer) -> None:
        super().__init__(uploads, on_settle=self._judge)
        self._server = server

    def _judge(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            is_there = "/large" in self._server.store
            if outcome.ok and not (is_there and crc32c_hex(crc32c(self._server.store["/large"])) == outcome.crc32c):
                outcome.status, outcome.error = "failed", NotFound(f"{outcome.name}: never arrived")
        return outcomes


@HOW
@pytest.mark.parametrize("is_there", [True, False])
async def test_a_platform_judges_what_became_of_a_lost_reply(
    server: FaultServer, engine: Engine, tmp_path: Path, how: Literal["reset", "close"], is_there: bool
) -> None:
    """Handed to it as done, whatever became of it: what is there is made once, what is not fails by its word."""
    path = tmp_path / "large.bin"
    path.write_bytes(noise(PARTS * MiB))
    lost = Rule(Lost(how), method="POST", nth=[1])
    gone = Rule(Refuse(404, body="<Error><Code>NoSuchUpload</Code></Error>"), method="POST", nth=[2])
    unheard = Rule(Refuse(503), method="POST", nth=[1])
    server.plan = Plan([lost] if is_there else [unheard, gone])
    feed = Platform([Upload(path, in_parts(server))], server)
    async with engine.run(feed) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert len(feed.settled) == 1
    if is_there:
        assert outcome.error is None
        assert server.store["/large"] == path.read_bytes()
        assert server.store.writes == {"/large": 1}
    else:
        assert isinstance(outcome.error, NotFound)
        assert "never arrived" in str(outcome.error)


def _needs_a_body(name: str) -> bool:
    """Whether a fault does nothing to a request without a body."""
    return name == "bit flipped"
