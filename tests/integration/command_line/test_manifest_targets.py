"""``asyncsdk transfer`` with lines that upload in parts, into sessions, to blobs and by forms."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.manifest_targets import TARGET_KINDS
from asyncsdk.engine import PutTarget, Target
from asyncsdk.engine.journal import journal_folder
from asyncsdk.engine.journal.schema import SUFFIX
from tests.support.clouds.kinds import PART_BYTES, PARTED, SCRIPTED, Scripted
from tests.support.commands import WAIT_SECONDS, command
from tests.support.faults.exchange import Exchange
from tests.support.faults.fault import Fault
from tests.support.faults.plan import Plan
from tests.support.faults.server import FaultServer
from tests.support.http_server import stall
from tests.support.real import s3
from tests.support.real.fixtures import rclone_server
from tests.support.real.running import RealServer

__all__ = ["rclone_server"]

PARTS = 5
SIZE = PARTS * PART_BYTES - 17
ARRIVED = 3
REAL_PART_BYTES = 5 * 1024 * 1024
SECRETS = ("upload_id=", "uploadId=", "Expires=", "sig=", "signature", "policy")
"""What stands in queries and fields of the targets, and in nothing that is written down."""


def line_of(source: Path, target: Target) -> dict[str, Any]:
    """Return the line that means *target*, with every field that has a value."""
    said = {field.name: value for field in fields(target) if (value := getattr(target, field.name)) not in (None, "")}
    if isinstance(target, PutTarget):
        return {"source": str(source), "url": said["url"], "headers": said["headers"]}
    (kind,) = (name for name, cls in TARGET_KINDS.items() if isinstance(target, cls))
    return {"source": str(source), kind: said}


def signed_anew(target: Target) -> Target:
    """Return *target* with other signatures, of the same upload."""
    changes: dict[str, Any] = {}
    for field in fields(target):
        value = getattr(target, field.name)
        if "url" in field.name:
            changes[field.name] = tuple(map(_anew, value)) if isinstance(value, tuple) else _anew(value)
    return replace(target, **changes)


def _anew(url: str) -> str:
    return url.replace("se=20", "skt=1&se=20").replace("Expires=", "X-Amz-Date=2&Expires=") if url else url


def write(manifest: Path, *lines: dict[str, Any]) -> None:
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


async def begin(*arguments: object) -> asyncio.subprocess.Process:
    """Start a command whose servers are in this event loop."""
    return await asyncio.create_subprocess_exec(
        *command(*arguments),
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end_of(process: asyncio.subprocess.Process, status: int = 0) -> str:
    """Return what a command said to its end."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = (out + errors).decode()
    assert process.returncode == status, said
    return said


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of five parts, the last one shorter."""
    made = tmp_path / "o.bin"
    made.write_bytes(os.urandom(SIZE))
    return made


@pytest.fixture
async def kinds(request: pytest.FixtureRequest) -> AsyncIterator[list[Scripted]]:
    """The kinds that were asked for, their servers running."""
    made = [Scripted(name) for name in request.param]
    async with AsyncExitStack() as stack:
        for kind in made:
            await stack.enter_async_context(kind.server)
        yield made


def bytes_sent(kind: Scripted, requests: int | None = None) -> int:
    """Return how many bytes of the object arrived, with the first so many requests; lists and completions aside."""
    asked = [r for r in kind.server.requests if r.method == "PUT" and "comp=blocklist" not in r.target]
    return sum(len(r.body) for r in asked[:requests])


def parts_kept(home: Path) -> int:
    """Return how many parts the journals of *home* know."""
    kept = 0
    for path in journal_folder(home).glob(f"*{SUFFIX}"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
            try:
                kept += journal.execute("SELECT count(*) FROM parts").fetchone()[0]
            except sqlite3.OperationalError:  # it is being made
                return 0
    return kept


def check_no_secrets(text: str) -> None:
    assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize("kinds", [SCRIPTED], indirect=True, ids=["all"])
async def test_every_kind_of_target_takes_its_line(kinds: list[Scripted], source: Path, tmp_path: Path) -> None:
    """Each object arrives at its server; a dry run asks none, and nothing that is told holds a signature."""
    manifest, report, events = tmp_path / "m.jsonl", tmp_path / "r.jsonl", tmp_path / "e.jsonl"
    write(manifest, *(line_of(source, kind.target("o")) for kind in kinds))
    dry = await end_of(await begin("transfer", manifest, "--dry-run", "--json"))
    assert [kind.server.requests for kind in kinds] == [[]] * len(kinds)
    assert dry.count('"message":"would_send"') + dry.count('"message": "would_send"') == len(kinds)
    said = await end_of(await begin("transfer", manifest, "--report", report, "--events", events))
    assert [kind.name for kind in kinds if kind.stored("o") != source.read_bytes()] == []
    entries = [json.loads(text) for text in report.read_text().splitlines()][:-1]
    assert [entry["status"] for entry in entries] == ["done"] * len(kinds)
    assert sorted(entry["destination"].partition("?")[0] for entry in entries) == sorted(
        kind.server.url("/o") for kind in kinds
    )
    check_no_secrets(dry + said + report.read_text() + events.read_text())


@pytest.mark.parametrize("kinds", [PARTED], indirect=True, ids=["parted"])
async def test_a_killed_transfer_goes_on_with_the_missing_parts(
    kinds: list[Scripted], source: Path, tmp_path: Path, home: Path
) -> None:
    """With the manifest signed anew; nothing of a URL is in the journal meanwhile."""
    manifest, report = tmp_path / "m.jsonl", tmp_path / "r.jsonl"
    targets = [kind.target("o") for kind in kinds]
    write(manifest, *(line_of(source, target) for target in targets))
    stalled = [asyncio.Event() for _ in kinds]
    for kind, event in zip(kinds, stalled, strict=True):
        kind.server.script("/o", *[Fault()] * ARRIVED, *[stall(event)] * 8)
    process = await begin("transfer", manifest, "--concurrency", "12")
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            for event in stalled:
                await event.wait()
            while parts_kept(home) < ARRIVED * len(kinds):
                await asyncio.sleep(0.02)
    finally:
        process.kill()
        await end_of(process, -9)
    assert [kind.server.aborted for kind in kinds] == [[]] * len(kinds)
    for path in journal_folder(home).iterdir():
        check_no_secrets(path.read_bytes().decode("latin-1"))
        assert b"http" not in path.read_bytes()
    missing = {kind.name: SIZE - bytes_sent(kind, ARRIVED) for kind in kinds}
    for kind in kinds:
        kind.server._scripts.clear()
        kind.server.requests.clear()
    write(manifest, *(line_of(source, signed_anew(target)) for target in targets))
    said = await end_of(await begin("transfer", manifest, "--report", report))
    assert [kind.name for kind in kinds if kind.stored("o") != source.read_bytes()] == []
    assert {kind.name: bytes_sent(kind) for kind in kinds} == missing
    check_no_secrets(said + report.read_text())
    assert list(journal_folder(home).glob(f"*{SUFFIX}")) == [], "a run that is complete is forgotten"


@pytest.mark.parametrize("kinds", [PARTED], indirect=True, ids=["parted"])
async def test_what_failed_in_the_middle_goes_on_with_retry(
    kinds: list[Scripted], source: Path, tmp_path: Path
) -> None:
    """What arrived stays at the servers, and the retry sends the rest."""
    manifest, report = tmp_path / "m.jsonl", tmp_path / "r.jsonl"
    targets = [kind.target("o") for kind in kinds]
    write(manifest, *(line_of(source, target) for target in targets))
    no = b"<Error><Code>AccessDenied</Code></Error>"
    for kind in kinds:
        kind.server.script("/o", *[Fault()] * ARRIVED, *[_refuse(no)] * 8)
    said = await end_of(
        await begin("transfer", manifest, "--report", report, "--concurrency", "1"), ExitCode.SOME_FAILED
    )
    entries = [json.loads(text) for text in report.read_text().splitlines()][:-1]
    assert [entry["code"] for entry in entries] == ["permission_denied"] * len(kinds)
    check_no_secrets(said + report.read_text())
    assert [kind.server.aborted for kind in kinds] == [[]] * len(kinds)
    missing = {kind.name: SIZE - bytes_sent(kind, ARRIVED) for kind in kinds}
    for kind in kinds:
        kind.server._scripts.clear()
        kind.server.requests.clear()
    write(manifest, *(line_of(source, signed_anew(target)) for target in targets))
    await end_of(await begin("transfer", manifest, "--retry", report))
    assert [kind.name for kind in kinds if kind.stored("o") != source.read_bytes()] == []
    assert {kind.name: bytes_sent(kind) for kind in kinds} == missing


@dataclass(frozen=True, slots=True)
class AfterParts(Fault):
    """So many parts are passed on; whoever brings another one finds nobody.

    Attributes:
        left: How many more, alone in its list.
        answered: Parts that were answered.
        stalled: Set when one was not.
    """

    left: list[int]
    answered: list[int]
    stalled: asyncio.Event

    async def on_head(self, exchange: Exchange) -> None:
        if "partNumber=" in exchange.seen.target and exchange.seen.method == "PUT":
            self.left[0] -= 1
            if self.left[0] < 0:
                self.stalled.set()
                await exchange.until_client_leaves()

    async def send(self, exchange: Exchange) -> None:
        await exchange.send()
        if found := re.search("partNumber=([0-9]+)", exchange.seen.target):
            self.answered.append(int(found[1]))


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False], ids=["listed", "believed"])
async def test_a_killed_transfer_goes_on_before_a_server_nobody_here_wrote(
    tmp_path: Path, home: Path, rclone_server: RealServer, lists: bool
) -> None:
    """Parts that rclone signed for go once, whether or not it is asked which it has."""
    source, manifest, key = tmp_path / "o.bin", tmp_path / "m.jsonl", f"manifest-{lists}"
    source.write_bytes(os.urandom(6 * REAL_PART_BYTES - 17))
    upload_id = s3.begin_multipart(rclone_server, key)
    after = AfterParts([3], [], asyncio.Event())
    async with FaultServer(Plan([after]), upstream=rclone_server.url, keeps_requests=False) as proxy:
        who = rclone_server.bucket, rclone_server.access_key, rclone_server.secret_key, rclone_server.region
        there = RealServer(proxy.url("").rstrip("/"), *who, rclone_server.data, lambda: None)

        def signed() -> dict[str, Any]:
            target = s3.multipart_target(there, key, part_size=REAL_PART_BYTES, parts=6, upload_id=upload_id)
            return line_of(source, target if lists else replace(target, list_urls=()))

        write(manifest, signed())
        process = await begin("transfer", manifest)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await after.stalled.wait()
                while len(after.answered) < 3 or parts_kept(home) < 3:
                    await asyncio.sleep(0.02)
        finally:
            process.kill()
            await end_of(process, -9)
        after.left[0] = 100
        write(manifest, signed())
        await end_of(await begin("transfer", manifest))
    assert sorted(after.answered) == [1, 2, 3, 4, 5, 6]
    assert s3.read(rclone_server, key) == source.read_bytes()


def _refuse(body: bytes) -> Any:
    async def action(connection: Any, request: Any) -> bool:
        await connection.reply(403, body)
        return True

    return action
