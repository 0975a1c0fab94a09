"""Who takes part, in what, and why not."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from benchmarks import contenders, servers
from benchmarks.contenders import NAMES, Entry, contender, entries
from benchmarks.jobs import KINDS
from benchmarks.run import skipped
from benchmarks.workloads import WORKLOADS, Workload

BY_NAME = {workload.name: workload for workload in WORKLOADS}


def test_every_module_is_listed() -> None:
    """A contender that nobody lists is never measured."""
    files = {path.stem for path in Path(contenders.__file__).parent.glob("*.py")}
    assert files - {"__init__", "base", "ours"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_contender_can_do_what_it_says(name: str) -> None:
    """Kinds are known ones, the verb of each is its own (a program has its command), its share is a part."""
    found = contender(name)
    assert found.kinds <= set(KINDS)
    assert found.kinds
    assert 0 < found.share <= 1
    assert found.loops[0] == "asyncio"
    assert any(found.cannot(workload) is None for workload in WORKLOADS)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["curl"], ["curl"]),
        (["aiohttp"], ["aiohttp", "aiohttp:uvloop"]),
        (["aiohttp:uvloop", "curl", "curl"], ["aiohttp:uvloop", "curl"]),
        (["aiohttp:asyncio"], ["aiohttp"]),
    ],
)
def test_names_with_and_without_event_loop(asked: list[str], expected: list[str]) -> None:
    """A bare name is every event loop of it, each once."""
    assert [entry.name for entry in entries(asked)] == expected


@pytest.mark.parametrize("name", ["wget", "curl:uvloop", "base"])
def test_unknown_names_are_refused(name: str) -> None:
    """Nobody is measured under a name that is none, nor on an event loop it does not have."""
    with pytest.raises(KeyError):
        entries([name])


def test_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package a contender is skipped, and the package is named."""

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    reason = skipped(Entry("pyreqwest", "asyncio"), BY_NAME["small-up-plain"])
    assert reason is not None
    assert "pyreqwest is not installed" in reason


def test_missing_program_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without its program a contender is skipped, and the program is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = skipped(Entry("aria2c", "asyncio"), BY_NAME["small-down-plain"])
    assert reason is not None
    assert "aria2c is not installed" in reason


def test_missing_server_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an S3 server the workloads that need one are skipped, with the reason; others are not."""
    monkeypatch.setattr(servers.S3Server, "program", staticmethod(lambda: None))
    entry = Entry("ours_httpx", "asyncio")
    reason = skipped(entry, BY_NAME["s3-small-up"])
    assert reason is not None
    assert "rclone is not installed" in reason
    assert skipped(entry, BY_NAME["small-up-plain"]) is None


@pytest.mark.parametrize(
    ("name", "workload", "reason"),
    [
        ("aria2c", "small-up-plain", "has no way to do put"),
        ("curl", "s3-small-up", "does not speak to s3"),
        ("ours_httpx", "platform-small-up", "does not speak to platform"),
        ("boto3_crt", "s3-large-up", "CreateMultipartUpload"),
    ],
)
def test_inability_is_a_reason(name: str, workload: str, reason: str) -> None:
    """What a contender cannot do is told, not tried."""
    found: Workload = BY_NAME[workload]
    assert reason in str(contender(name).cannot(found))
