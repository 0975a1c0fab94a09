"""A served platform with its doors open, and the official clients that know no better than to use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.official.client import OfficialClient
from tests.support.real.required import missing
from tests.support.real.tools import TOOLS
from tests.support.server import RunningServer

HUB = "ultralytics"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[RunningServer]:
    """A platform whose door for HUB is open."""
    with RunningServer(tmp_path / "data", doors=[HUB]) as server:
        yield server


@pytest.fixture
def door(served: RunningServer) -> str:
    """Root of the API that HUB's client is pointed at."""
    return served.door_urls[HUB]


@pytest.fixture
def official(served: RunningServer, door: str, tmp_path: Path) -> Iterator[OfficialClient]:
    """``hub-sdk``, unmodified, logged in as ``client``; its working folder is the test's."""
    if (reason := TOOLS["hub-sdk"].unavailable()) is not None:
        missing("hub-sdk", reason)
    with OfficialClient("hub-sdk", {"ULTRALYTICS_HUB_API": door}, folder=tmp_path) as process:
        process.run(
            f"import json, time\nfrom hub_sdk import HUBClient\nclient = HUBClient({{'api_key': {served.token!r}}})"
        )
        yield process
