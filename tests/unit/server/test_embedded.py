"""The platform in this process, cancelled: nothing goes on and nothing stays open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import ConfigError, NotFound, ServerError
from asyncsdk.platforms import embedded
from asyncsdk.platforms.embedded import EmbeddedPlatform
from asyncsdk.protocol.projects import CreateProject, GetProject
from asyncsdk.protocol.users import WhoAmI
from asyncsdk.server.backend import Backend
from asyncsdk.worker.local import LocalWorkers


def open_in(folder: Path) -> list[str]:
    """Return what of *folder* this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            where = str(descriptor.readlink())
            if where.startswith(str(folder)):
                found.append(where)
    return found


@pytest.mark.parametrize("cancel", ["task", "timeout"])
@pytest.mark.parametrize("milliseconds", [0, 1, 2, 5, 10, 20, 40, 80])
async def test_a_first_message_that_is_cancelled_leaves_nothing_open(
    tmp_path: Path, milliseconds: int, cancel: str
) -> None:
    """At whatever moment: the folder is being made, opened, swept, or asked."""
    platform = EmbeddedPlatform(tmp_path)
    if cancel == "task":
        task = asyncio.create_task(platform.send(WhoAmI()))
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    else:
        with suppress(TimeoutError):
            async with asyncio.timeout(milliseconds / 1000):
                await platform.send(WhoAmI())
    await platform.aclose()
    assert open_in(tmp_path) == []
    with pytest.raises(ConfigError, match="closed"):
        await platform.send(WhoAmI())


@pytest.mark.parametrize("milliseconds", [0, 1, 5, 20])
async def test_closing_while_the_folder_is_being_opened(tmp_path: Path, milliseconds: int) -> None:
    platform = EmbeddedPlatform(tmp_path)
    task = asyncio.create_task(platform.send(WhoAmI()))
    await asyncio.sleep(milliseconds / 1000)
    await platform.aclose()
    assert open_in(tmp_path) == []
    with suppress(ConfigError):
        await task
    assert open_in(tmp_path) == []


async def test_opening_that_is_cancelled_leaves_nothing_open(tmp_path: Path) -> None:
    task = asyncio.create_task(EmbeddedPlatform.open(tmp_path))
    await asyncio.sleep(0.001)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert open_in(tmp_path) == []


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Hold up projects that are created: told when one is, and when to go on."""
    begun, go_on = threading.Event(), threading.Event()
    real: Callable[..., Any] = Backend.handle

    def handle(self: Backend, message: Any, *rest: Any) -> Any:
        if isinstance(message, CreateProject):
            begun.set()
            assert go_on.wait(20)
        return real(self, message, *rest)

    monkeypatch.setattr(Backend, "handle", handle)
    return begun, go_on


async def test_a_message_that_is_cancelled_is_handled_to_its_end_and_waited_for(
    tmp_path: Path, slow: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = slow
    platform = await EmbeddedPlatform.open(tmp_path)
    project_id = make_id()
    task = asyncio.create_task(platform.send(CreateProject(name="streets", project_id=project_id)))
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done(), "its thread is still in the folder"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await platform.send(GetProject(project_id=project_id))).name == "streets"
    await platform.aclose()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_closing_waits_for_what_is_under_way(
    tmp_path: Path, slow: tuple[threading.Event, threading.Event], cancelled: bool
) -> None:
    """Also when it is cancelled itself: the folder is closed then all the same."""
    begun, go_on = slow
    platform = await EmbeddedPlatform.open(tmp_path)
    task = asyncio.create_task(platform.send(CreateProject(name="streets")))
    await asyncio.to_thread(begun.wait, 20)
    closing = asyncio.create_task(platform.aclose())
    await asyncio.sleep(0.05)
    assert not closing.done()
    if cancelled:
        closing.cancel()
        await asyncio.sleep(0.05)
        assert not closing.done()
    go_on.set()
    if cancelled:
        with pytest.raises(asyncio.CancelledError):
            await closing
    else:
        await closing
    assert (await task).name == "streets"
    assert open_in(tmp_path) == []


async def test_who_closes_again_waits_as_well(tmp_path: Path, slow: tuple[threading.Event, threading.Event]) -> None:
    """And does not close the folder under a message that is still in it."""
    begun, go_on = slow
    platform = await EmbeddedPlatform.open(tmp_path)
    task = asyncio.create_task(platform.send(CreateProject(name="streets")))
    await asyncio.to_thread(begun.wait, 20)
    closings = [asyncio.create_task(platform.aclose()) for _ in range(2)]
    done, _ = await asyncio.wait(closings, timeout=0.1)
    assert not done
    go_on.set()
    await asyncio.gather(*closings)
    assert (await task).name == "streets"
    assert open_in(tmp_path) == []


async def test_a_commit_that_is_still_being_checked_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    waits: list[float] = []

    def handle(*_: Any) -> Any:
        asked.append("")
        if len(asked) < 4:
            raise ServerError("reading", status=503, code="still_checking", retry_after=2)
        raise NotFound("never arrived")

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    platform = await EmbeddedPlatform.open(tmp_path)
    monkeypatch.setattr(Backend, "handle", handle)
    monkeypatch.setattr(embedded, "sleep", sleep)
    with pytest.raises(NotFound):
        await platform.send(WhoAmI())
    assert waits == [2, 2, 2]
    await platform.aclose()


async def test_a_client_whose_closing_is_cancelled_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its workers take their leave, which may take as long as their jobs do."""
    leaving = asyncio.Event()

    async def never(self: LocalWorkers) -> None:
        leaving.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(LocalWorkers, "aclose", never)
    client = AsyncClient(data=tmp_path)
    await client.whoami()
    client._local_workers = LocalWorkers(client)
    assert open_in(tmp_path)
    task = asyncio.create_task(client.aclose())
    await leaving.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_in(tmp_path) == []
    with pytest.raises(ConfigError, match="closed"):
        await client.whoami()
