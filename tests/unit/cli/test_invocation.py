"""Options, environment and profile: which one a command goes by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.output import Output
from asyncsdk.cli.parser import parse
from asyncsdk.config import write_profile
from asyncsdk.engine import TransferConfig
from asyncsdk.errors import ConfigError


def invocation(*arguments: str) -> Invocation:
    return Invocation(parse(["whoami", *arguments]), Output())


async def test_part_size_option_is_stronger_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client and the engine alone get it, and the environment is left as it was."""
    monkeypatch.setenv("ASYNCSDK_PART_SIZE", str(4 * 1024**2))
    given = Invocation(parse(["transfer", "m", "--part-size", "2MiB"]), Output())
    async with given.client() as client:
        assert client.engine.config.part_size == 2 * 1024**2
    async with given.engine() as engine:
        assert engine.config.part_size == 2 * 1024**2
    assert os.environ["ASYNCSDK_PART_SIZE"] == str(4 * 1024**2)
    async with invocation().client() as client:
        assert client.engine.config.part_size == 4 * 1024**2
    monkeypatch.delenv("ASYNCSDK_PART_SIZE")
    async with given.client() as client:
        assert client.engine.config.part_size == 2 * 1024**2
    assert "ASYNCSDK_PART_SIZE" not in os.environ


def test_data_option_is_stronger_than_the_profile(home: Path, tmp_path: Path) -> None:
    """Who is logged in still gets the embedded platform when a folder is named; both together are refused."""
    write_profile(home, url="http://server:1", token="t")
    assert invocation().settings().url == "http://server:1"
    settings = invocation("--data", str(tmp_path)).settings()
    assert (settings.url, settings.data, settings.token) == (None, tmp_path, None)
    with pytest.raises(ConfigError, match="without --url"):
        invocation("--data", str(tmp_path), "--url", "http://server:1").settings()


def test_concurrency_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCSDK_CONCURRENCY", "5")
    assert invocation("--concurrency", "3").settings().concurrency == 3
    assert invocation().settings().concurrency == 5
    with pytest.raises(ConfigError, match="concurrency"):
        invocation("--concurrency", "0").settings()


async def test_limits_are_those_of_the_options() -> None:
    """Where an option is not given, the engine's own default counts."""
    plain = TransferConfig()
    given = Invocation(parse(["transfer", "m", "--outage", "2h", "--max-failures", "7", "--deadline", "30m"]), Output())
    async with given.engine() as engine:
        config = engine.config
        assert (config.outage_seconds, config.max_failures, config.deadline_seconds) == (7200, 7, 1800)
    async with Invocation(parse(["transfer", "m"]), Output()).engine() as engine:
        config = engine.config
        assert (config.outage_seconds, config.max_failures) == (plain.outage_seconds, None)
    with pytest.raises(ConfigError, match="max_failures"):
        Invocation(parse(["transfer", "m", "--max-failures", "0"]), Output()).engine()
