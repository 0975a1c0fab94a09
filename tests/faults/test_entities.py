"""The entity API against a served platform, with the fault server as a proxy in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import MiB
from asyncsdk.errors import AsyncSDKError, ConnectionFailed, MalformedResponse, RequestError, ServerError
from tests.support.faults.breaks import Flip, Lost, Overlong, Raw, Reset, Truncate
from tests.support.faults.data import noise
from tests.support.faults.fault import Fault
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Clock, Refuse, WrongDigest
from tests.support.faults.server import FaultServer
from tests.support.server import RunningServer

FILES = {f"{number % 3}/{number:02}.bin": noise(number * 997, number) for number in range(30)} | {
    "large.bin": noise(20 * MiB + 5, 99)
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A served platform."""
    with RunningServer(tmp_path_factory.mktemp("platform")) as running:
        yield running


@pytest.fixture
async def proxy(platform: RunningServer) -> AsyncIterator[FaultServer]:
    """What stands in front of it."""
    async with FaultServer(upstream=platform.url, keeps_requests=True) as running:
        yield running


@pytest.fixture
async def client(platform: RunningServer, proxy: FaultServer) -> AsyncIterator[AsyncClient]:
    """A client that knows the proxy alone."""
    async with AsyncClient(proxy.url("").rstrip("/"), token=platform.token) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files to send, one of them in parts."""
    for name, data in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "source"


def read(folder: Path) -> dict[str, bytes]:
    """Return every file below *folder*, hidden and unfinished ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EVERYWHERE: dict[str, list[Rule]] = {
    "503": [Rule(Refuse(503, retry_after=0), nth=[1], of_each=True)],
    "429": [Rule(Refuse(429, retry_after=0), nth=[1], of_each=True)],
    "reply lost": [Rule(Lost(), nth=[1], of_each=True)],
    "reset in the body": [Rule(Reset(-1, "up"), method="PUT", nth=[1], of_each=True)],
    "reset in the reply": [Rule(Reset(-1), nth=[1], of_each=True)],
    "truncated": [Rule(Truncate(-1), method="GET", nth=[1], of_each=True)],
    "no HTTP": [Rule(Raw(), nth=[1], of_each=True)],
    "bit flipped": [
        Rule(Flip("up"), method="PUT", path="/objects/*", nth=[1], of_each=True),
        Rule(Flip("down"), method="GET", path="/objects/*", nth=[1], of_each=True),
    ],
    "end cut off in good order": [
        Rule(Truncate(-1, direction="up"), method="PUT", path="/objects/*", nth=[1], of_each=True),
    ],
    "wrong digest": [Rule(WrongDigest(), method="PUT", path="/objects/*", nth=[1], of_each=True)],
    "bytes too many": [Rule(Overlong(9, declared=False), nth=[1], of_each=True)],
    "clock ahead": [Rule(Clock(900))],
    "clock behind": [Rule(Clock(-900))],
    # The first two tries alone, or one run in a hundred would lose an object to bad luck.
    "a bit of everything": [
        Rule(Refuse(503), nth=[1, 2], of_each=True, probability=0.2),
        Rule(Lost(), nth=[1, 2], of_each=True, probability=0.2),
        Rule(Reset(-1), method="GET", nth=[1, 2], of_each=True, probability=0.2),
        Rule(Reset(-1, "up"), method="PUT", nth=[1, 2], of_each=True, probability=0.2),
        # The ranges of a large object that turns out wrong are fetched once more, not twice.
        Rule(Flip("down"), method="GET", path="/objects/*", nth=[1], of_each=True, probability=0.2),
        Rule(Flip("up"), method="PUT", path="/objects/*", nth=[1, 2], of_each=True, probability=0.2),
    ],
}
"""Faults that go away, by name; the first request of each kind meets them, or a tenth of all."""


@pytest.mark.parametrize("name", sorted(EVERYWHERE))
async def test_a_folder_comes_back_byte_for_byte(
    proxy: FaultServer, client: AsyncClient, folder: Path, tmp_path: Path, name: str
) -> None:
    """Up and down through the fault: every item once, with its bytes; running it again sends nothing."""
    dataset = await client.datasets.create(f"faults {name}")
    proxy.plan = Plan(EVERYWHERE[name], seed=5)
    report = await dataset.upload(folder)
    report.raise_for_failures()
    assert report.done == len(FILES)
    again = await dataset.upload(folder)
    assert (again.done, again.skipped, again.failed) == (0, len(FILES), 0)
    back = await dataset.download(tmp_path / "copy")
    back.raise_for_failures()
    assert read(tmp_path / "copy") == FILES
    assert proxy.plan.met.total() > 0
    proxy.plan = Plan()
    assert sorted([item.path async for item in dataset.items.list()]) == sorted(FILES)


@pytest.mark.parametrize("fault", [Lost("reset"), Lost("close"), Refuse(503)], ids=["reset", "closed", "503"])
async def test_a_commit_whose_reply_is_lost_makes_each_item_once(
    proxy: FaultServer, client: AsyncClient, folder: Path, fault: Fault
) -> None:
    """The platform did it and nobody heard: asking again gives the same answer, and no second item."""
    dataset = await client.datasets.create(f"lost {fault}"[:80])
    proxy.plan = Plan([Rule(fault, method="POST", path="*commit*", nth=[1, 2])])
    report = await dataset.upload(folder)
    report.raise_for_failures()
    assert report.done == len(FILES)
    assert proxy.plan.met.total() == 2
    assert sorted([item.path async for item in dataset.items.list()]) == sorted(FILES)


async def test_a_checkpoint_comes_back(proxy: FaultServer, client: AsyncClient, tmp_path: Path) -> None:
    """The weights of a model, in parts, through a bit of everything."""
    model = await client.models.create("through faults")
    source = tmp_path / "model.pt"
    source.write_bytes(FILES["large.bin"])
    proxy.plan = Plan(EVERYWHERE["a bit of everything"], seed=11)
    await model.upload_checkpoint(source, epoch=1)
    await model.download_checkpoint(tmp_path / "back.pt", which=1)
    assert (tmp_path / "back.pt").read_bytes() == FILES["large.bin"]
    assert proxy.plan.met.total() > 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Refuse(503, retry_after=0), ServerError),
        (Lost(), RequestError),
        (Raw(), (RequestError, MalformedResponse)),
    ],
    ids=["503", "reply lost", "no HTTP"],
)
async def test_a_platform_that_never_answers_is_told_by_type(
    proxy: FaultServer, client: AsyncClient, fault: Fault, error: type[AsyncSDKError]
) -> None:
    """Calls of the entity API end in a typed error, after a bounded number of attempts."""
    dataset = await client.datasets.create(f"never {type(fault).__name__}")
    proxy.plan = Plan([fault])
    with pytest.raises(error):
        await client.datasets.get(dataset.id)
    assert 2 <= proxy.plan.met.total() <= 10


async def test_objects_that_never_arrive_fail_by_name(proxy: FaultServer, client: AsyncClient, folder: Path) -> None:
    """When the bytes of some objects cannot be moved, those fail, and the others become items."""
    dataset = await client.datasets.create("half")
    proxy.plan = Plan([Rule(Refuse(403), method="PUT", path="/objects/*", nth=[2, 5, 7])])
    report = await dataset.upload(folder)
    assert report.failed == 3
    assert report.done == len(FILES) - 3
    proxy.plan = Plan()
    assert len([item async for item in dataset.items.list()]) == len(FILES) - 3


async def test_a_server_that_is_gone_is_told(platform: RunningServer) -> None:
    """A client that finds nobody says so, and how to start a server."""
    async with FaultServer() as gone:
        url = gone.url("").rstrip("/")
    async with AsyncClient(url, token=platform.token) as client:
        with pytest.raises(ConnectionFailed, match="is the server running"):
            await client.datasets.get("0" * 24)
