"""Uploads in parts that are gone on with: by another process, or after the server has lost them."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c
from asyncsdk.engine import Engine, ResumableTarget, Resume, SentPart, Target, Upload
from asyncsdk.errors import BadRequest, NotFound, PermissionDenied, SourceChanged
from tests.contract.targets.conftest import config
from tests.contract.targets.test_arriving import pieces
from tests.support.clouds.azure import AzureServer
from tests.support.clouds.gcs import GcsServer
from tests.support.clouds.kinds import PART_BYTES, Scripted
from tests.support.faults.breaks import Lost
from tests.support.faults.fault import Fault
from tests.support.feeds import RecordingFeed
from tests.support.http_server import Action, Connection, Received, answer, stall

PARTS = 5
SIZE = PARTS * PART_BYTES - 17


class Memory:
    """What a journal would keep of one upload."""

    def __init__(self) -> None:
        self.upload_id = ""
        self.part_size = 0
        self.parts: dict[int, SentPart] = {}
        self.begun: list[str] = []
        self.identity: tuple[int, int, int] | None = None
        self.flushed: list[list[int]] = []

    async def flush(self) -> None:
        self.flushed.append(sorted(self.parts))

    def begin(self, upload_id: str, part_size: int) -> None:
        self.upload_id, self.part_size = upload_id, part_size
        self.begun.append(upload_id)
        self.parts.clear()

    def resume(self) -> Resume:
        return Resume(
            self.upload_id,
            self.part_size,
            tuple(self.parts.values()),
            self.begin,
            lambda part: self.parts.update({part.number: part}),
            identity=self.identity,
            flush=self.flush,
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of five parts, the last one shorter."""
    made = tmp_path / "file"
    made.write_bytes(os.urandom(SIZE))
    return made


@pytest.fixture
async def multipart() -> AsyncIterator[Scripted]:
    """Parts of S3."""
    kind = Scripted("multipart")
    async with kind.server:
        yield kind


@pytest.fixture
async def blocks() -> AsyncIterator[Scripted]:
    """Blocks of Azure."""
    kind = Scripted("blocks")
    async with kind.server:
        yield kind


def bytes_sent(kind: Scripted) -> int:
    """Return how many bytes of the object arrived; lists and completions aside."""
    asked = [r for r in kind.server.requests if r.method == "PUT" and "comp=blocklist" not in r.target]
    return sum(len(r.body) for r in asked)


async def interrupted(
    kind: Scripted, path: Path, target: Target, memory: Memory, parts: int, *before: Action | Fault
) -> list[Received]:
    """Upload until *parts* have arrived; then the process dies, as far as the server can tell.

    Args:
        before: What those requests meet; nothing, if it is not said.

    Returns:
        What came, the last one the part that was under way.
    """
    started = asyncio.Event()
    kind.server.script("/o", *(before or [Fault()] * parts), *[stall(started)] * 8)
    async with Engine(config(concurrency=1)) as engine:
        feed = [Upload(path, target, resume=memory.resume())]
        task = asyncio.create_task(engine.collect(feed))
        await asyncio.wait_for(started.wait(), 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert kind.server.of("DELETE") == [], "what is to be resumed is not removed"
    kind.server._scripts.clear()
    came = list(kind.server.requests)
    kind.server.requests.clear()
    return came


async def go_on(path: Path | AsyncIterator[bytes], target: Target, memory: Memory, renew: object = None) -> object:
    feed = RecordingFeed([Upload(path, target, resume=memory.resume())], on_renew=renew)  # type: ignore[arg-type]
    async with Engine(config()) as engine:
        report = await engine.collect(feed)
    report.raise_for_failures()
    return feed


@pytest.mark.parametrize("arrived", range(PARTS))
async def test_what_has_arrived_is_not_sent_again(parted: Scripted, path: Path, arrived: int) -> None:
    """With k of n parts there, another process sends the n - k others, and the object is the file."""
    target, memory = parted.target("o"), Memory()
    await interrupted(parted, path, target, memory, arrived)
    assert len(memory.parts) == arrived
    assert parted.server.aborted == []
    await go_on(path, target, memory)
    assert parted.stored("o") == path.read_bytes()
    assert bytes_sent(parted) == SIZE - arrived * PART_BYTES
    assert sorted(memory.parts) == list(range(1, PARTS + 1))
    assert len(memory.begun) == 1
    assert memory.begun[0].startswith(target.upload_id)  # type: ignore[union-attr]


async def test_parts_of_a_file_that_are_there_are_not_even_read(parted: Scripted, path: Path) -> None:
    """What is remembered of a file counts: it is not read to find out what is known."""
    target, memory = parted.target("o"), Memory()
    whole = path.read_bytes()
    await interrupted(parted, path, target, memory, 3)
    facts = path.stat()
    path.write_bytes(bytes(3 * PART_BYTES) + whole[3 * PART_BYTES :])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    await go_on(path, target, memory)
    assert parted.stored("o") == whole


def identity_of(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


async def test_a_file_that_is_the_one_looked_at_is_gone_on_with(parted: Scripted, path: Path) -> None:
    """Size, time and inode are those that it had when it is opened: what is remembered counts."""
    target, memory = parted.target("o"), Memory()
    memory.identity = identity_of(path)
    await interrupted(parted, path, target, memory, 3)
    await go_on(path, target, memory)
    assert parted.stored("o") == path.read_bytes()
    assert bytes_sent(parted) == SIZE - 3 * PART_BYTES


@pytest.mark.parametrize("size", [SIZE, PART_BYTES // 2])
async def test_a_file_rewritten_after_it_was_looked_at_is_sent_whole(parted: Scripted, path: Path, size: int) -> None:
    """At equal size, between the look and the opening: no part of the old bytes is in the object."""
    path.write_bytes(os.urandom(size))
    target, memory = parted.target("o"), Memory()
    memory.identity = identity_of(path)
    await interrupted(parted, path, target, memory, min(3, -(-size // PART_BYTES) - 1))
    path.write_bytes(os.urandom(size))
    os.utime(path, (1, 1))
    await go_on(path, target, memory, lambda transfer, first: parted.target("o"))
    assert parted.stored("o") == path.read_bytes()
    assert bytes_sent(parted) == size
    assert not memory.parts, "nothing is kept of other bytes than those that were looked at"


async def test_a_part_known_from_another_file_does_not_stand_for_a_finished_object(
    multipart: Scripted, path: Path
) -> None:
    """The upload is gone because it was finished, with the bytes that the file had before."""
    target, memory = multipart.target("o"), Memory()
    memory.identity = identity_of(path)
    async with Engine(config()) as engine:
        (await engine.collect([Upload(path, target, resume=memory.resume())])).raise_for_failures()
    assert memory.flushed == [[1, 2, 3, 4, 5]], "what is known of the parts is kept before the object is made"
    await go_on(path, target, memory)  # recognised
    path.write_bytes(os.urandom(SIZE))
    os.utime(path, (1, 1))
    await go_on(path, target, memory, lambda transfer, first: multipart.target("o"))
    assert multipart.stored("o") == path.read_bytes()


@pytest.mark.parametrize("known", [0, PARTS - 1])
@pytest.mark.parametrize("condition", [{}, {"If-None-Match": "*"}])
async def test_a_blob_that_was_made_before_anybody_could_say_so_is_not_sent_again(
    blocks: Scripted, path: Path, known: int, condition: dict[str, str]
) -> None:
    """Killed between Put Block List and the news of its last blocks: what is known of it is not sent again."""
    target, memory = replace(blocks.target("o"), headers=condition), Memory()  # type: ignore[type-var]
    memory.identity = identity_of(path)
    async with Engine(config()) as engine:
        (await engine.collect([Upload(path, target, resume=memory.resume())])).raise_for_failures()
    blocks.server.requests.clear()
    memory.parts = {number: part for number, part in memory.parts.items() if number <= known}
    await go_on(path, target, memory)
    assert blocks.stored("o") == path.read_bytes()
    assert bytes_sent(blocks) == SIZE - known * PART_BYTES


async def test_blocks_of_an_earlier_blob_of_that_name_are_not_taken(blocks: Scripted, path: Path) -> None:
    """The service swept the blocks of an upload that was begun; the blob has those of the one before."""
    server, target = blocks.server, blocks.target("o")
    assert isinstance(server, AzureServer)
    async with Engine(config()) as engine:
        (await engine.collect([Upload(path, target)])).raise_for_failures()
    path.write_bytes(os.urandom(SIZE))
    memory = Memory()
    await interrupted(blocks, path, target, memory, 3)
    server.blocks.clear()
    await go_on(path, target, memory)
    assert blocks.stored("o") == path.read_bytes()


async def test_a_stream_that_gives_other_bytes_is_sent(parted: Scripted, path: Path) -> None:
    """Bytes in memory are summed: a part that is another one than before is sent, if it can be replaced."""
    if parted.name == "session":
        pytest.skip("what a session has cannot be replaced: its digest tells at the end")
    target, memory = parted.target("o"), Memory()
    await interrupted(parted, path, target, memory, 3)
    other = bytearray(path.read_bytes())
    other[PART_BYTES + 5] ^= 1  # in the second part
    await go_on(pieces(bytes(other)), target, memory)
    assert parted.stored("o") == bytes(other)
    assert bytes_sent(parted) == SIZE - 2 * PART_BYTES


async def test_the_servers_answer_counts_more_than_what_is_remembered(parted: Scripted, path: Path) -> None:
    """Parts that are remembered and not there any more are sent."""
    target, memory = parted.target("o"), Memory()
    await interrupted(parted, path, target, memory, 4)
    server = parted.server
    if isinstance(server, GcsServer):
        del next(iter(server.sessions.values())).data[PART_BYTES:]
        missing = SIZE - PART_BYTES
    elif isinstance(server, AzureServer):
        blocks = server.blocks["/o"]
        del blocks[sorted(blocks)[1]]
        missing = SIZE - 3 * PART_BYTES
    else:
        del server.uploads[target.upload_id].parts[2]  # type: ignore[union-attr]
        missing = SIZE - 3 * PART_BYTES
    await go_on(path, target, memory)
    assert parted.stored("o") == path.read_bytes()
    assert bytes_sent(parted) == missing


async def test_without_memory_what_the_server_states_is_compared(parted: Scripted, path: Path) -> None:
    """Nothing is remembered but the upload: parts whose digest the server states are compared with the file."""
    target, memory = parted.target("o"), Memory()
    await interrupted(parted, path, target, memory, 3)
    memory.parts.clear()
    await go_on(path, target, memory)
    assert parted.stored("o") == path.read_bytes()
    known = 0 if parted.name == "blocks" else 3  # Azure names no digest of a block
    assert bytes_sent(parted) == SIZE - known * PART_BYTES


async def test_parts_that_cannot_be_listed_are_believed_and_compared_at_the_end(
    multipart: Scripted, path: Path
) -> None:
    """Completing names the ETags that are remembered; nobody has to be asked before."""
    target, memory = multipart.target("o"), Memory()
    target = replace(target, list_urls=())  # type: ignore[arg-type]
    await interrupted(multipart, path, target, memory, 3)
    await go_on(path, target, memory)
    assert multipart.stored("o") == path.read_bytes()
    assert bytes_sent(multipart) == SIZE - 3 * PART_BYTES
    assert multipart.server.of("GET") == []


async def test_believed_parts_that_the_server_has_not_are_forgotten(multipart: Scripted, path: Path) -> None:
    """The first to go on fails with the server's word for it, the next sends everything."""
    target, memory = multipart.target("o"), Memory()
    target = replace(target, list_urls=())  # type: ignore[arg-type]
    await interrupted(multipart, path, target, memory, 3)
    del multipart.server.uploads[target.upload_id].parts[2]  # type: ignore[union-attr]
    with pytest.raises(ExceptionGroup) as failed:
        await go_on(path, target, memory)
    assert failed.group_contains(BadRequest, match="InvalidPart")
    assert not memory.parts
    multipart.server.requests.clear()
    await go_on(path, target, memory)
    assert multipart.stored("o") == path.read_bytes()
    assert bytes_sent(multipart) == SIZE


async def test_without_a_completion_nothing_is_believed(multipart: Scripted, path: Path) -> None:
    """Who joins the parts later may not compare them."""
    target, memory = multipart.target("o"), Memory()
    target = replace(target, list_urls=(), complete_url="")  # type: ignore[arg-type]
    await interrupted(multipart, path, target, memory, 3)
    await go_on(path, target, memory)
    assert bytes_sent(multipart) == SIZE


async def test_remembered_parts_of_another_upload_do_not_count(parted: Scripted, path: Path) -> None:
    """A memory of another upload is told to begin anew, and nothing of it is used."""
    old, memory = parted.target("x"), Memory()
    memory.begin("another", PART_BYTES)
    memory.parts = {1: SentPart(1, PART_BYTES, "00000000", '"x"', True)}
    await go_on(path, parted.target("o"), memory)
    assert parted.stored("o") == path.read_bytes()
    assert bytes_sent(parted) == SIZE
    assert memory.begun[0] == "another"
    assert len(memory.begun) == 2
    assert old


@pytest.mark.parametrize("arrived", [0, 2])
async def test_an_upload_that_the_server_lost_begins_anew(parted: Scripted, path: Path, arrived: int) -> None:
    """With a feed that has another one; the object is whole, and what was remembered is void."""
    if parted.name == "blocks":
        pytest.skip("blocks belong to their blob: there is no upload that could be lost")
    target, memory = parted.target("o"), Memory()

    async def let_pass(connection: Connection, request: Received) -> bool:
        return False

    async def lose(connection: Connection, request: Received) -> bool:
        if isinstance(parted.server, GcsServer):
            parted.server.sessions[request.query["upload_id"]].is_gone = True
        else:
            parted.server.uploads[request.query["uploadId"]].is_open = False
        return False

    parted.server.script("/o", *[let_pass] * arrived, lose)
    feed = await go_on(path, target, memory, lambda transfer, first: parted.target("o"))
    assert parted.stored("o") == path.read_bytes()
    assert feed.renewals == [1]  # type: ignore[attr-defined]
    assert len(memory.begun) == 2
    assert sorted(memory.parts) == list(range(1, PARTS + 1))


async def test_a_lost_upload_without_another_one_is_an_error(parted: Scripted, path: Path) -> None:
    """The server's own words are in it; a stream cannot be read again, so it fails even where there is another one."""
    if parted.name == "blocks":
        pytest.skip("blocks belong to their blob: there is no upload that could be lost")
    gone = b"<Error><Code>NoSuchUpload</Code><Message>it is gone</Message></Error>"
    for source, renew in ((path, None), (pieces(path.read_bytes()), lambda transfer, first: parted.target("o"))):
        parted.server.script("/o", *[answer(404, gone)] * 9)
        async with Engine(config()) as engine:
            report = await engine.collect(RecordingFeed([Upload(source, parted.target("o"))], on_renew=renew))
        error = report.failures[0].error
        assert isinstance(error, NotFound)
        assert "it is gone" in str(error)
        parted.server._scripts.clear()


async def test_a_failed_upload_keeps_its_parts_for_whoever_resumes_it(parted: Scripted, path: Path) -> None:
    """With a memory, a refusal removes nothing; what is known to be wrong is removed all the same."""
    target, memory = parted.target("o"), Memory()
    parted.server.script("/o", *[answer(403)] * 9)
    async with Engine(config()) as engine:
        report = await engine.collect([Upload(path, target, resume=memory.resume())])
    assert isinstance(report.failures[0].error, PermissionDenied)
    assert parted.server.of("DELETE") == []
    parted.server._scripts.clear()

    async def change(connection: Connection, request: Received) -> bool:
        os.utime(path, (1, 1))
        return False

    parted.server.script("/o", change)
    async with Engine(config()) as engine:
        report = await engine.collect([Upload(path, target, resume=memory.resume())])
    assert isinstance(report.failures[0].error, SourceChanged)
    assert len(parted.server.aborted) == (parted.name != "blocks")


@pytest.mark.parametrize("seed", range(6))
async def test_any_number_of_deaths(parted: Scripted, path: Path, seed: int) -> None:
    """Killed again and again at any request, with replies lost at random, it gets there.

    Bytes come again only where nobody could know that they had arrived: under way when it died, their reply lost, or
    forgotten and not known to the server by a digest.
    """
    chosen = random.Random(seed)
    target, memory = parted.target("o"), Memory()
    data = path.read_bytes()
    parts = [data[start : start + PART_BYTES] for start in range(0, SIZE, PART_BYTES)]
    allowed: Counter[bytes] = Counter(parts)
    came: list[Received] = []
    lost = 0

    async def lose(connection: Connection, request: Received) -> Fault:
        nonlocal lost
        lost += 1
        await connection.read_body(request)
        allowed[request.body] += 1
        return Lost("close")

    for _ in range(3):
        before = [chosen.choice([Fault(), Fault(), lose]) for _ in range(chosen.randrange(1, 4))]
        came += await interrupted(parted, path, target, memory, 0, *before)
        allowed[came[-1].body] += 1  # it was under way
        if chosen.random() < 0.5 and memory.parts:  # it died before it wrote that down
            _, part = memory.parts.popitem()
            allowed[parts[part.number - 1]] += parted.name == "blocks"  # Azure names no digest of a block
    await go_on(path, target, memory)
    came += parted.server.requests
    assert parted.stored("o") == data
    sent = Counter(request.body for request in came if request.body in set(parts))
    assert set(sent) == set(parts)
    assert not sent - allowed, "sent again, though it was known to be there"
    assert list(parted.server.objects) == ["/o"]


async def test_a_session_goes_on_in_parts_of_another_size(path: Path) -> None:
    """What it has is asked for whatever was remembered: it takes nothing twice. No checksum of another part is used."""
    kind = Scripted("session")
    async with kind.server:
        target = kind.target("o")
        assert isinstance(target, ResumableTarget)
        memory = Memory()
        await interrupted(kind, path, target, memory, 3)
        assert len(memory.parts) == 3
        upload = Upload(path, replace(target, part_size=2 * PART_BYTES), resume=memory.resume())
        async with Engine(config()) as engine, engine.run([upload]) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        assert outcome.error is None
        assert outcome.crc32c == f"{crc32c(path.read_bytes()):08x}"
        assert kind.stored("o") == path.read_bytes()
        assert bytes_sent(kind) == SIZE - 3 * PART_BYTES
