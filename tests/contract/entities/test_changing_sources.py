"""Files that change after they were looked at: what ``source_changed`` promises, where sizes were announced."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, AsyncDataset, AsyncModel, ItemUpload, TransferConfig
from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Outcome, RetryPolicy, second_look
from asyncsdk.engine.journal import Identity
from asyncsdk.entities import examining, single_objects, uploading
from asyncsdk.errors import SourceChanged
from tests.support.server import RunningServer

SIZES = [1000, 200_000, 20 * 1024 * 1024]
"""Read when it is examined, sent by one request, sent in parts (on the served platform)."""

RETRY = RetryPolicy(max_attempts=4, wait_initial_seconds=0.001)

Change = Callable[[Path], None]


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def rewrite(path: Path) -> None:
    """As many bytes as before, in another file system's tick."""
    path.write_bytes(os.urandom(path.stat().st_size))
    os.utime(path, ns=(10**18, 10**18))


@pytest.fixture(params=["embedded", "rest"])
async def open_client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Callable[..., AsyncClient]]:
    """Makes clients of an empty platform, by their policy."""
    folder: Path = tmp_path_factory.mktemp("platform")

    def config(policy: str, **more: Any) -> TransferConfig:
        return TransferConfig(source_changed=policy, retry=RETRY, **more)  # type: ignore[arg-type]

    if request.param == "embedded":
        yield lambda policy, **more: AsyncClient(data=folder, home=folder / "home", config=config(policy, **more))
        return
    with RunningServer(folder) as server:
        yield lambda policy, **more: AsyncClient(
            server.url, token=server.token, home=folder / "home", config=config(policy, **more)
        )


def change_after_the_look(monkeypatch: pytest.MonkeyPatch, path: Path, change: Change, times: int = 1) -> None:
    """Change *path* right after it was looked at, be it as an item or as a checkpoint."""
    left = times
    examine, known_size = uploading.examine, single_objects.known_size

    def once() -> None:
        nonlocal left
        if left:
            left -= 1
            change(path)

    def examine_and_change(items: Any, *most_bytes: int) -> Any:
        found = examine(items, *most_bytes)
        once()
        return found

    async def size_and_change(source: Any) -> int | None:
        size = await known_size(source)
        once()
        return size

    monkeypatch.setattr(uploading, "examine", examine_and_change)
    monkeypatch.setattr(single_objects, "known_size", size_and_change)


async def send(client: AsyncClient, path: Path, kind: str) -> AsyncDataset | AsyncModel:
    if kind == "item":
        dataset = await client.datasets.create("d")
        (await dataset.upload(path)).raise_for_failures()
        return dataset
    model = await client.models.create("m", project=await client.projects.create("p"))
    await model.upload_checkpoint(path, is_best=True)
    return model


async def stored(sent: AsyncDataset | AsyncModel, path: Path, folder: Path) -> bytes:
    folder.mkdir()
    if isinstance(sent, AsyncDataset):
        (await sent.download(folder)).raise_for_failures()
    else:
        await sent.download_checkpoint(folder / path.name)
    return (folder / path.name).read_bytes()


@pytest.mark.parametrize(
    ("kind", "size", "change"),
    [
        *((kind, size, change) for kind in ("item", "checkpoint") for size in SIZES for change in (grow, shrink)),
        ("item", SIZES[0], rewrite),
    ],
)
async def test_retry_sends_the_file_as_it_is_now(
    open_client: Callable[..., AsyncClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    size: int,
    change: Change,
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(os.urandom(size))
    change_after_the_look(monkeypatch, path, change)
    async with open_client("retry") as client:
        sent = await send(client, path, kind)
        assert await stored(sent, path, tmp_path / "back") == path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "size", "change"),
    [
        *((kind, size, grow) for kind in ("item", "checkpoint") for size in SIZES),
        ("item", SIZES[0], shrink),  # it was read before
        ("item", SIZES[0], rewrite),
    ],
)
async def test_accept_sends_what_a_file_had(
    open_client: Callable[..., AsyncClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    size: int,
    change: Change,
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(data := os.urandom(size))
    change_after_the_look(monkeypatch, path, change)
    async with open_client("accept") as client:
        sent = await send(client, path, kind)
        assert await stored(sent, path, tmp_path / "back") == data


@pytest.mark.parametrize(
    ("kind", "size", "policy", "change"),
    [
        *(
            (kind, size, "fail", change)
            for kind in ("item", "checkpoint")
            for size in SIZES
            for change in (grow, shrink)
        ),
        *((kind, size, "accept", shrink) for kind in ("item", "checkpoint") for size in SIZES[kind == "item" :]),
        ("item", SIZES[0], "fail", rewrite),  # of the others nobody has read anything yet
        ("item", SIZES[0], "fail", Path.unlink),
    ],
)
async def test_what_cannot_be_sent_as_announced_is_said(
    open_client: Callable[..., AsyncClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    size: int,
    policy: str,
    change: Change,
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(os.urandom(size))
    change_after_the_look(monkeypatch, path, change)
    async with open_client(policy) as client:
        with pytest.raises((SourceChanged, ExceptionGroup)) as caught:
            await send(client, path, kind)
    error = caught.value.exceptions[0] if isinstance(caught.value, ExceptionGroup) else caught.value
    assert isinstance(error, SourceChanged)


async def test_a_file_that_never_rests_fails_after_so_many_looks(
    open_client: Callable[..., AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(os.urandom(200_000))
    change_after_the_look(monkeypatch, path, grow, times=1000)
    async with open_client("retry") as client:
        with pytest.raises(SourceChanged):
            await send(client, path, "checkpoint")
    assert path.stat().st_size == 200_000 + RETRY.max_attempts


@pytest.mark.parametrize("how", ["cancelled", "too late"])
async def test_nothing_is_left_of_a_look_that_is_not_waited_for(
    open_client: Callable[..., AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Cancelled, it ends; at the deadline the file has failed because it changed."""
    path = tmp_path / "file.bin"
    path.write_bytes(os.urandom(200_000))
    change_after_the_look(monkeypatch, path, grow)
    waits = asyncio.Event()

    def wait_long(*facts: object) -> float:
        waits.set()
        return 3600.0

    monkeypatch.setattr(second_look, "wait_before_next", wait_long)
    async with open_client("retry", deadline_seconds=None if how == "cancelled" else 1.0) as client:
        dataset = await client.datasets.create("d")
        sending = asyncio.create_task(dataset.upload(path))
        await asyncio.wait_for(waits.wait(), 60)
        if how == "cancelled":
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        else:
            report = await asyncio.wait_for(sending, 60)
            assert [type(failure.error) for failure in report.failures] == [SourceChanged]
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "asyncsdk second look"]


@pytest.mark.parametrize("how", ["retry", "accept"])
async def test_what_is_kept_of_a_file_is_what_it_was_when_its_bytes_were_read(
    open_client: Callable[..., AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Going on compares it with the file: other bytes are never taken for those that were sent."""
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(1000))
    os.utime(path, ns=(10**17, 10**17))
    before = Identity.of(path.stat())
    change_after_the_look(monkeypatch, path, rewrite)
    found: list[Outcome] = []
    async with open_client(how) as client:
        dataset = await client.datasets.create("d")
        await dataset.upload(path, on_outcome=found.append)
    (outcome,) = found
    assert outcome.ok
    assert outcome.transfer.key.identity == (before if how == "accept" else Identity.of(path.stat()))
    assert outcome.crc32c == crc32c_hex(crc32c(bytes(1000) if how == "accept" else path.read_bytes()))


@pytest.mark.parametrize(
    ("seconds", "is_known"), [(-3600, True), (-1, True), (-0.005, False), (0.01, False), (1, True), (10 * 3600, True)]
)
@pytest.mark.parametrize("size", [1000, 100_000])
def test_only_a_file_that_was_changed_this_moment_has_no_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, is_known: bool, size: int
) -> None:
    """It may change once more without another time. One with a time in the future, of a server's clock, may not."""
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(size))
    now = path.stat().st_mtime_ns
    os.utime(path, ns=(now, now + int(seconds * 1e9)))
    monkeypatch.setattr(examining, "time_ns", lambda: now)
    (known,), _ = examining.examine([examining.PreparedItem(ItemUpload(path, "file.bin"), "file.bin")])
    assert isinstance(known, examining.PreparedItem)
    assert known.identity == (Identity.of(path.stat()) if is_known else None)


def test_a_small_file_that_changes_while_it_is_examined_is_left_to_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is old, half new: such bytes are never kept, though they are as many as there were."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"old" * 1000)
    os.utime(path, ns=(10**18, 10**18))
    read = os.read

    def read_and_change(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        path.write_bytes(b"new" * 1000)
        return data

    monkeypatch.setattr(examining.os, "read", read_and_change)
    (known,), _ = examining.examine([examining.PreparedItem(ItemUpload(path, "file.bin"), "file.bin")])
    assert isinstance(known, examining.PreparedItem)
    assert (known.data, known.crc32c, known.identity, known.size_bytes) == (None, None, None, 3000)
