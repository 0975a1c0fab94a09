"""What goes wrong around uploads and downloads: a typed error that says what to do, and nothing left half-done."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from asyncsdk import AsyncClient, ItemUpload, Outcome
from asyncsdk.engine import TransferConfig
from asyncsdk.engine.budget import process_budget
from asyncsdk.errors import (
    ConnectionFailed,
    DestinationFull,
    IncompleteTransfer,
    NotFound,
    SourceChanged,
    Unauthenticated,
)
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.items import PrepareDownloads
from asyncsdk.protocol.uploads import PrepareUploads
from tests.support.server import RunningServer, ServedProcess

R = TypeVar("R")


class _Meddling:
    """A platform that does something right after it answered one kind of message."""

    def __init__(self, inner: Any, kind: type[Message[Any]], meddle: Any) -> None:
        self.inner, self.kind, self.meddle = inner, kind, meddle
        self.name = inner.name

    async def send(self, message: Message[R]) -> R:
        reply: R = await self.inner.send(message)
        if isinstance(message, self.kind):
            self.meddle()
        return reply

    def supports(self, message_type: type[Message[Any]]) -> bool:
        return bool(self.inner.supports(message_type))

    async def aclose(self) -> None:
        await self.inner.aclose()


def meddle(client: AsyncClient, kind: type[Message[Any]], action: Any) -> None:
    client._platform = _Meddling(client.platform, kind, action)


@pytest.fixture(params=["embedded", "rest"])
async def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    folder = tmp_path_factory.mktemp("platform")
    if request.param == "embedded":
        async with AsyncClient(data=folder) as client:
            yield client
        return
    with RunningServer(folder) as server:
        async with AsyncClient(server.url, token=server.token) as client:
            yield client


@pytest.mark.parametrize("size", [2_000_000, 40_000_000], ids=["one request", "parts"])
@pytest.mark.parametrize("change", ["shrinks", "grows"])
async def test_a_file_that_changes_after_it_was_looked_at_fails_alone(
    client: AsyncClient, tmp_path: Path, size: int, change: str
) -> None:
    (tmp_path / "changing").write_bytes(os.urandom(size))
    (tmp_path / "steady").write_bytes(b"x" * size)
    dataset = await client.datasets.create("d")
    meddle(
        client,
        PrepareUploads,
        lambda: os.truncate(tmp_path / "changing", size // 2 if change == "shrinks" else size + 7),
    )
    report = await dataset.upload(tmp_path)
    assert (report.done, report.failed) == (1, 1)
    assert isinstance(report.failures[0].error, SourceChanged)
    assert "upload it again" in str(report.failures[0].error)
    assert [item.path async for item in dataset.items.list()] == ["steady"]


async def test_an_item_deleted_while_it_is_downloaded_fails_alone_and_leaves_no_file(
    client: AsyncClient, tmp_path: Path
) -> None:
    dataset = await client.datasets.create("d")
    await dataset.upload([ItemUpload(b"1" * 100_000, "gone"), ItemUpload(b"2" * 100_000, "here")])
    gone = await dataset.items.get(path="gone")
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []
    inner = client.platform

    async def send(message: Message[R]) -> R:
        reply: R = await inner.send(message)
        if isinstance(message, PrepareDownloads) and not tasks:
            tasks.append(loop.create_task(gone.delete()))
            await tasks[0]
        return reply

    client._platform = _Meddling(inner, PrepareDownloads, lambda: None)
    client._platform.send = send  # type: ignore[method-assign]
    report = await dataset.download(tmp_path / "copy")
    assert (report.done, report.failed) == (1, 1)
    assert not isinstance(report.failures[0].error, IncompleteTransfer)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["here"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_fails_what_does_not_fit_and_leaves_nothing_half_written(
    client: AsyncClient, small_disk: Path
) -> None:
    dataset = await client.datasets.create("d")
    await dataset.upload([ItemUpload(os.urandom(3_000_000), "big"), ItemUpload(b"x" * 10_000, "small")])
    await dataset.upload([ItemUpload(os.urandom(30_000_000), "parts")])
    outcomes: dict[str, Outcome] = {}
    (await dataset.download(small_disk, include=["small"])).raise_for_failures()
    report = await dataset.download(small_disk, on_outcome=lambda outcome: outcomes.update({outcome.name: outcome}))
    assert (report.skipped, report.failures_by_code) == (1, {"destination_full": 2})
    assert isinstance(outcomes["parts"].error, DestinationFull)
    assert [path.name for path in small_disk.rglob("*")] == ["small"]


async def test_a_wrong_token_and_no_token_say_how_to_log_in(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        async with AsyncClient(server.url, token="wrong-token") as client:
            with pytest.raises(Unauthenticated) as caught:
                await client.datasets.list().to_list()
            assert "wrong-token" not in str(caught.value)
        async with AsyncClient(server.url) as client:
            with pytest.raises(Unauthenticated, match="asyncsdk login"):
                await client.whoami()


async def test_an_unknown_dataset_is_not_found(client: AsyncClient) -> None:
    with pytest.raises(NotFound, match="nope"):
        await client.datasets.get(name="nope")
    await client.datasets.create("d")
    with pytest.raises(NotFound, match="nope"):
        await client.datasets.get(name="nope")


async def test_no_server_says_how_to_start_one() -> None:
    async with AsyncClient("http://127.0.0.1:9", token="t") as client:
        with pytest.raises(ConnectionFailed, match="asyncsdk serve"):
            await client.whoami()


async def test_a_server_that_dies_half_way_ends_the_upload_and_running_it_again_completes_it(tmp_path: Path) -> None:
    """SIGKILL while items stream in; then the same call against a new server on the same folder."""
    folder = tmp_path / "platform"
    folder.mkdir()
    total = 400

    async def items(server: ServedProcess | None) -> AsyncIterator[ItemUpload]:
        for number in range(total):
            if number == total // 2 and server is not None:
                server.kill()
            yield ItemUpload(str(number).encode() * 5000, f"{number:03}")

    with ServedProcess(folder) as server:
        config = TransferConfig(concurrency=4, outage_seconds=1)
        async with AsyncClient(server.url, token=server.token, config=config) as client:
            dataset = await client.datasets.create("d")
            outcomes: list[Outcome] = []
            with pytest.raises(ConnectionFailed):
                await dataset.upload(items(server), on_outcome=outcomes.append)
    with ServedProcess(folder) as server:
        async with AsyncClient(server.url, token=server.token) as client:
            dataset = await client.datasets.get(name="d")
            before = {item.path async for item in dataset.items.list()}
            assert {outcome.name for outcome in outcomes if outcome.ok} <= before
            report = await dataset.upload(items(None))
            report.raise_for_failures()
            assert report.skipped == len(before)
            assert report.done == total - len(before)
            back = await dataset.download(tmp_path / "copy")
            assert back.done == total
    for number in range(total):
        assert (tmp_path / "copy" / f"{number:03}").read_bytes() == str(number).encode() * 5000


def open_descriptors() -> set[str]:
    folder = Path("/proc/self/fd")
    found = set()
    for entry in folder.iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


async def test_cancelling_an_upload_anywhere_leaves_no_task_no_descriptor_and_no_file(
    client: AsyncClient, tmp_path: Path
) -> None:
    """The upload is cancelled after 0, 3, 6 ... turns of the event loop, until it gets to its end."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "small").write_bytes(b"s" * 1000)
    (source / "middle").write_bytes(b"m" * 300_000)
    (source / "large").write_bytes(b"l" * 17_000_000)
    data = Path(str(client.settings.data))
    dataset = await client.datasets.create("d")
    await dataset.upload(source)  # everything that stays open is open now
    tasks_before = asyncio.all_tasks()
    cancelled = 0
    for turns in range(0, 100_000, 3):
        upload = asyncio.create_task(dataset.upload(source, on_existing="overwrite"))
        for _ in range(turns):
            if upload.done():
                break
            await asyncio.sleep(0)
        if upload.done():
            (await upload).raise_for_failures()
            break
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        cancelled += 1
        assert asyncio.all_tasks() == tasks_before
        assert process_budget().leased_bytes == 0
        assert not [name for name in open_descriptors() if str(source) in name]
        if turns > 300:  # the early ones one by one, the rest more coarsely
            await asyncio.sleep(0.001 * (turns % 7))
        if cancelled > 400:
            break
    assert cancelled > 10
    # A large object that was half there stays for the same call, which has not come to its end after too many turns.
    (await dataset.upload(source, on_existing="overwrite")).raise_for_failures()
    leftovers = [path for path in data.glob("objects/*/*") if not path.suffix[1:].isalnum() or len(path.suffix) != 9]
    assert leftovers == []
    assert {item.path async for item in dataset.items.list()} == {"small", "middle", "large"}
    (await dataset.download(tmp_path / "copy")).raise_for_failures()
    assert (tmp_path / "copy" / "large").read_bytes() == b"l" * 17_000_000
