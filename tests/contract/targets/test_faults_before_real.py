"""The fault server as a proxy before servers that nobody here wrote: what they do when a reply is lost is their own."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, MultipartTarget, RetryPolicy
from asyncsdk.errors import BadRequest, CompletionUnknown
from tests.contract.targets.conftest import config
from tests.support.clouds.kinds import Kind, real_kinds
from tests.support.faults.breaks import Flip, Lost, Raw, Reset
from tests.support.faults.fault import Fault
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Refuse
from tests.support.faults.server import FaultServer
from tests.support.real import s3
from tests.support.real.running import RealServer
from tests.support.real.sigv4 import presign

KINDS = real_kinds()
PATIENT = RetryPolicy(max_attempts=6, wait_initial_seconds=0.02, wait_max_seconds=0.2)
PARTS = 3
QUICK = ("rclone_server multipart", "azurite_server blocks", "azurite_server blob", "rclone_server put")
"""Of the servers that start within a second; the others in ``make test-all``."""


class Between:
    """A kind of target of a real server that is reached through the fault server."""

    def __init__(self, name: str, server: RealServer, proxy: FaultServer) -> None:
        url = proxy.url(server.url.partition("//")[2].partition("/")[1]).rstrip("/")
        path = server.url.partition("//")[2].partition("/")[2]
        self.server = replace(server, url=f"{url}/{path}".rstrip("/"))
        self.kind: Kind = KINDS[name](self.server)
        self.proxy = proxy
        self.key = uuid.uuid4().hex
        self.path = Path()

    @property
    def part_bytes(self) -> int:
        """Of its parts; of a whole object any number."""
        return {"rclone multipart": 5 << 20, "swift multipart": 5 << 20}.get(self.kind.name, 1 << 18)


@pytest.fixture
async def between(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Between]:
    """Each kind of each real server, with the proxy before it and a file to send."""
    server: RealServer = request.getfixturevalue(request.param.partition(" ")[0])
    async with FaultServer(upstream="http://" + server.url.partition("//")[2].partition("/")[0]) as proxy:
        made = Between(request.param, server, proxy)
        made.path = tmp_path / "file"
        made.path.write_bytes(os.urandom((PARTS - 1) * made.part_bytes + 17))
        yield made


@pytest.fixture
async def patient() -> AsyncIterator[Engine]:
    """An engine that gives a busy machine time."""
    async with Engine(config(retry=PATIENT)) as running:
        yield running


ALL = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in sorted(KINDS)]
FAULTS: dict[str, Fault] = {
    "reply lost": Lost(),
    "reset in the body": Reset(-1, "up"),
    "503": Refuse(503, retry_after=0),
    "no HTTP": Raw(""),
}


@pytest.mark.parametrize("between", ALL, indirect=True)
@pytest.mark.parametrize("name", sorted(FAULTS))
async def test_every_first_try_of_a_body_fails(patient: Engine, between: Between, name: str) -> None:
    """The first try of every part meets the fault: the object is whole all the same.

    The emulator of Google's forgets a session that has ended, where Google answers with the object: when the last reply
    is lost nobody can say what became of it, and that is said.
    """
    target = await asyncio.to_thread(between.kind.target, between.key)
    rule = Rule(FAULTS[name], method="PUT", nth=[1], of_each=True)
    between.proxy.plan = Plan([rule])
    if between.kind.name.startswith("gcs") and name == "reply lost":
        with pytest.raises(CompletionUnknown):
            await patient.upload(between.path, target)
    else:
        await patient.upload(between.path, target)
    assert between.proxy.plan.met.total() >= (PARTS if between.kind.is_parted else 1)
    between.proxy.plan = Plan()
    assert await asyncio.to_thread(between.kind.stored, between.key) == between.path.read_bytes()


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in sorted(KINDS)
        if "gcs" not in name
    ],
    indirect=True,
)
async def test_a_bit_that_flips_on_the_way_is_noticed(patient: Engine, between: Between) -> None:
    """By the server, which was told a digest: refused, and sent again. (A session tells at its end.)

    Azurite has a word of its own for it, where Azure says ``Md5Mismatch``: there it is an error, and nothing is stored.
    """
    target = await asyncio.to_thread(between.kind.target, between.key)
    if isinstance(target, MultipartTarget):
        target = replace(target, headers={"Content-MD5": ""})
    between.proxy.plan = Plan([Rule(Flip("up"), method="PUT", times=1)], seed=1)
    if "azurite" in between.kind.name:
        with pytest.raises(BadRequest, match="contentMD5 doesn't match"):
            await patient.upload(between.path, target)
        assert await asyncio.to_thread(between.kind.stored, between.key) is None
        return
    await patient.upload(between.path, target)
    assert between.proxy.plan.met.total() == 1
    assert await asyncio.to_thread(between.kind.stored, between.key) == between.path.read_bytes()


@pytest.mark.parametrize(
    "between",
    ["rclone_server multipart", pytest.param("swift_server multipart", marks=pytest.mark.slow)],
    indirect=True,
)
@pytest.mark.parametrize("can_ask", [True, False], ids=["can ask", "cannot ask"])
async def test_a_completion_whose_reply_is_lost(patient: Engine, between: Between, can_ask: bool) -> None:
    """Whatever that server says to the second call, the object is there once; who cannot find out says so."""
    target = await asyncio.to_thread(between.kind.target, between.key)
    assert isinstance(target, MultipartTarget)
    if can_ask:
        target = replace(target, object_url=presign(between.server, "GET", between.key))
    between.proxy.plan = Plan([Rule(Lost(), method="POST", nth=[1])])
    try:
        await patient.upload(between.path, target)
    except CompletionUnknown:
        # The ETag of rclone's objects is the MD5 of the whole: it does not tell of which parts they were made.
        assert not can_ask or "rclone" in between.kind.name
    assert between.proxy.plan.met.total() == 1
    posts = [seen for seen in between.proxy.requests if seen.method == "POST" and "uploadId" in seen.target]
    assert len(posts) >= 2, "it was not asked again"
    assert await asyncio.to_thread(s3.read, between.server, between.key) == between.path.read_bytes()
