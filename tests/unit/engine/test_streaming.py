"""Downloads as an asynchronous iterator of bytes."""

from __future__ import annotations

import asyncio
import os

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Engine, UrlOrigin
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from asyncsdk.errors import ChecksumMismatch, ConfigError, NotFound
from tests.support.http_server import HttpServer, cut_reply


@pytest.mark.parametrize("size", [0, 1, MiB, 5 * MiB + 17])
@pytest.mark.parametrize("known", [False, True])
async def test_the_pieces_joined_are_the_object(engine: Engine, server: HttpServer, size: int, known: bool) -> None:
    server.objects["/o"] = data = os.urandom(size)
    origin = UrlOrigin(server.url("/o"), size_bytes=size, crc32c=crc32c_hex(crc32c(data)))
    async with engine.stream(origin if known else server.url("/o")) as pieces:
        got = [piece async for piece in pieces]
    assert b"".join(got) == data
    assert all(len(piece) <= MiB for piece in got)
    assert pieces.outcome is not None
    assert pieces.outcome.size_bytes == size
    assert pieces.outcome.verified is known


async def test_wrong_bytes_end_the_iteration_with_an_error(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = b"x" * 3 * MiB
    origin = UrlOrigin(server.url("/o"), size_bytes=3 * MiB, crc32c="00000000")
    with pytest.raises(ChecksumMismatch):
        async with engine.stream(origin) as pieces:
            async for _ in pieces:
                pass
    assert pieces.outcome is None


async def test_a_missing_object_is_raised_where_it_is_iterated(engine: Engine, server: HttpServer) -> None:
    async with engine.stream(server.url("/gone")) as pieces:
        with pytest.raises(NotFound):
            await anext(pieces)


async def test_leaving_early_ends_the_download_and_gives_its_memory_back(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = bytes(40 * MiB)
    before = asyncio.all_tasks()
    async with engine.stream(UrlOrigin(server.url("/o"), size_bytes=40 * MiB)) as pieces:
        assert await anext(pieces)
    ours = [task for task in asyncio.all_tasks() - before if "_accept" not in repr(task.get_coro())]
    assert ours == []
    assert process_budget().leased_bytes == 0
    assert len(server.requests) < 40


async def test_an_error_of_the_block_comes_out_unchanged(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = bytes(4 * MiB)
    with pytest.raises(KeyError, match="mine"):
        async with engine.stream(server.url("/o")) as pieces:
            await anext(pieces)
            raise KeyError("mine")


async def test_cancelling_the_consumer_ends_the_download(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = bytes(4 * MiB)

    async def consume() -> None:
        async with engine.stream(server.url("/o")) as pieces:
            async for _ in pieces:
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process_budget().leased_bytes == 0


async def test_a_broken_reply_is_tried_again_unseen(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = data = os.urandom(300_000)
    server.script("/o", cut_reply(1000))
    async with engine.stream(server.url("/o")) as pieces:
        assert b"".join([piece async for piece in pieces]) == data


async def test_it_is_used_inside_of_a_block_and_once(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = b"x"
    stream = engine.stream(server.url("/o"))
    with pytest.raises(ConfigError, match="async with"):
        await anext(stream)
    async with stream as pieces:
        assert [piece async for piece in pieces] == [b"x"]
    with pytest.raises(ConfigError, match="once"):
        async with stream:
            pass
