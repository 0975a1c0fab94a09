"""Questions asked by one message: who goes along, who does not wait, and what becomes of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncsdk.engine import Download, PutTarget, Upload, UrlOrigin
from asyncsdk.entities.downloading import ItemDownloadFeed
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.together import Together
from asyncsdk.entities.uploading import ItemUploadFeed
from asyncsdk.errors import MalformedResponse, NotFound, ServerError
from asyncsdk.protocol.items import PreparedDownloads
from asyncsdk.protocol.uploads import RenewedUploads, RenewUploads


class Platform:
    """Doubles what it is asked."""

    def __init__(self) -> None:
        self.messages: list[list[int]] = []
        self.errors: list[Exception] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def ask(self, questions: Sequence[int]) -> Sequence[int]:
        self.messages.append(list(questions))
        await self.go_on.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [2 * question for question in questions]


@pytest.mark.parametrize(("count", "messages"), [(1, 1), (7, 1), (10, 1), (25, 3)])
async def test_what_is_asked_in_one_turn_is_one_message(count: int, messages: int) -> None:
    """As many as a message holds; everybody gets its own answer."""
    platform = Platform()
    together = Together(platform.ask, 10)
    assert await asyncio.gather(*(together(number) for number in range(count))) == [2 * n for n in range(count)]
    assert len(platform.messages) == messages


async def test_nobody_waits_for_a_message_that_is_under_way() -> None:
    """Who asks later has a message of its own."""
    platform = Platform()
    platform.go_on.clear()
    together = Together(platform.ask, 10)
    first = asyncio.create_task(together(1))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(together(2))
    await asyncio.sleep(0.01)
    assert platform.messages == [[1], [2]]
    platform.go_on.set()
    assert await asyncio.gather(first, second) == [2, 4]


async def test_a_failure_that_may_pass_is_everybodys() -> None:
    """Each tries again by itself, later."""
    platform = Platform()
    platform.errors = [ServerError("busy", status=503)]
    together = Together(platform.ask, 10)
    found = await asyncio.gather(*(together(number) for number in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [ServerError] * 3
    assert len(platform.messages) == 1


async def test_a_refusal_of_one_is_not_that_of_the_others() -> None:
    """Each is asked alone then: the one that is gone fails, the others do not."""
    platform = Platform()

    async def ask(questions: Sequence[int]) -> Sequence[int]:
        if 1 in questions:
            platform.messages.append(list(questions))
            raise NotFound("that one is gone", status=404)
        return await platform.ask(questions)

    together = Together(ask, 10)
    found = await asyncio.gather(*(together(number) for number in range(3)), return_exceptions=True)
    assert [found[0], type(found[1]), found[2]] == [0, NotFound, 4]
    assert sorted(platform.messages) == [[0], [0, 1, 2], [1], [2]]


async def test_a_question_alone_is_asked_once() -> None:
    """Its refusal is final."""
    platform = Platform()
    platform.errors = [NotFound("gone", status=404)]
    with pytest.raises(NotFound):
        await Together(platform.ask, 10)(1)
    assert platform.messages == [[1]]


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
@pytest.mark.parametrize("who", [0, 1, 2])
async def test_who_is_cancelled_takes_nobody_along(who: int, turns: int) -> None:
    """Not even the one that sent the message."""
    platform = Platform()
    platform.go_on.clear()
    together = Together(platform.ask, 10)
    tasks = [asyncio.create_task(together(number)) for number in range(3)]
    for _ in range(turns):
        await asyncio.sleep(0)
    tasks[who].cancel()
    await asyncio.sleep(0.01)
    platform.go_on.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for number, one in enumerate(found):
        assert isinstance(one, asyncio.CancelledError) if number == who else one == 2 * number


async def test_answers_that_do_not_fit_are_an_error() -> None:
    async def ask(questions: Sequence[int]) -> Sequence[int]:
        return [1]

    together = Together(ask, 10)
    found = await asyncio.gather(together(1), together(2), return_exceptions=True)
    assert [type(one) for one in found] == [MalformedResponse] * 2


class CountingSession:
    """Answers `RenewUploads` and `PrepareDownloads`, and keeps them."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def send(self, message: Any) -> Any:
        self.messages.append(message)
        if isinstance(message, RenewUploads):
            return RenewedUploads(targets=tuple(PutTarget(f"http://h/{entry.key}") for entry in message.entries))
        return PreparedDownloads(origins=tuple(UrlOrigin(f"http://h/{item_id}") for item_id in message.item_ids))


async def test_uploads_of_a_dataset_are_renewed_together() -> None:
    """Whatever is asked for in one turn: after a pause that is everything under way."""
    session = CountingSession()
    feed = ItemUploadFeed(session, "d" * 24, SimpleNamespace(can_repeat=False), on_existing="overwrite")  # type: ignore[arg-type]
    known = [SimpleNamespace(key=f"{n:024x}-{n:032x}", size_bytes=n, crc32c=None) for n in range(5)]
    uploads = [Upload(b"", PutTarget("http://h/old"), key=one) for one in known]
    fresh = await asyncio.gather(*(feed.renew(upload) for upload in uploads))
    assert [target.url for target in fresh if isinstance(target, PutTarget)] == [f"http://h/{one.key}" for one in known]
    assert len(session.messages) == 1


async def test_downloads_of_a_dataset_are_renewed_together(tmp_path: Path) -> None:
    """As uploads are."""
    session = CountingSession()
    feed = ItemDownloadFeed(
        session,  # type: ignore[arg-type]
        "d" * 24,
        tmp_path,
        filter=None,
        paths=PathFilter(),
        on_existing="overwrite",
    )
    downloads = [
        Download(UrlOrigin("http://h/old"), tmp_path / str(n), key=SimpleNamespace(id=f"{n:024x}")) for n in range(5)
    ]
    fresh = await asyncio.gather(*(feed.renew(download) for download in downloads))
    assert [origin.url for origin in fresh if isinstance(origin, UrlOrigin)] == [f"http://h/{n:024x}" for n in range(5)]
    assert len(session.messages) == 1
