"""Uploads in parts that are gone on with: by another process, or after the server has lost them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, Resume, SentPart, Target, Upload
from asyncsdk.errors import NotFound, PermissionDenied, SourceChanged
from tests.contract.targets.conftest import config
from tests.contract.targets.test_arriving import pieces
from tests.support.clouds.azure import AzureServer
from tests.support.clouds.gcs import GcsServer
from tests.support.clouds.kinds import PART_BYTES, Scripted
from tests.support.clouds.s3 import S3Server
from tests.support.feeds import RecordingFeed
from tests.support.http_server import Connection, Received, answer, stall

PARTS = 5
SIZE = PARTS * PART_BYTES - 17


class Memory:
    """What a journal would keep of one upload."""

    def __init__(self) -> None:
        self.upload_id = ""
        self.part_size = 0
        self.parts: dict[int, SentPart] = {}
        self.begun: list[str] = []

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
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of five parts, the last one shorter."""
    made = tmp_path / "file"
    made.write_bytes(os.urandom(SIZE))
    return made


def bytes_sent(kind: Scripted) -> int:
    """Return how many bytes of the object arrived; lists and completions aside."""
    asked = [r for r in kind.server.requests if r.method == "PUT" and "comp=blocklist" not in r.target]
    return sum(len(r.body) for r in asked)


async def interrupted(kind: Scripted, path: Path, target: Target, memory: Memory, parts: int) -> None:
    """Upload until *parts* have arrived; then the process dies, as far as the server can tell."""
    started = asyncio.Event()

    async def let_pass(connection: Connection, request: Received) -> bool:
        return False

    kind.server.script("/o", *[let_pass] * parts, *[stall(started)] * 8)
    async with Engine(config(concurrency=1)) as engine:
        feed = [Upload(path, target, resume=memory.resume())]
        task = asyncio.create_task(engine.collect(feed))
        await asyncio.wait_for(started.wait(), 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert kind.server.of("DELETE") == [], "what is to be resumed is not removed"
    kind.server._scripts.clear()
    kind.server.requests.clear()


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
    assert memory.begun == [target.upload_id]  # type: ignore[union-attr]


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
    """Killed again and again at any request, with replies lost at random, it gets there; every byte at most twice."""
    chosen = random.Random(seed)
    target, memory = parted.target("o"), Memory()
    sent = 0
    for _ in range(3):
        await interrupted(parted, path, target, memory, chosen.randrange(0, 3))
        if chosen.random() < 0.5 and memory.parts:
            memory.parts.popitem()  # it died before it wrote that down
    await go_on(path, target, memory)
    sent += bytes_sent(parted)
    assert parted.stored("o") == path.read_bytes()
    assert sent <= SIZE
    assert isinstance(parted.server, (GcsServer, AzureServer, S3Server))
