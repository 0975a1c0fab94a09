"""Programs with worker processes, killed with SIGKILL while they move things: the same call goes on, with all of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.test_killed_runs import (
    MANY_KILLS,
    PARTS,
    SMALL,
    Watch,
    blows_for,
    download_killed,
    make_watch,
    upload_killed,
)
from tests.support.crew import until

PROCESSES = 2
KILLS = 3  # each costs the start of three processes
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A client of several processes under the knife."""
    watch = make_watch(monkeypatch)
    watch.processes = PROCESSES
    return watch


def orphans() -> list[int]:
    """Return worker processes that nobody is the parent of any more."""
    found = []
    for process in psutil.process_iter(["ppid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if process.info["ppid"] == 1 and "asyncsdk.engine.crew" in command:
            found.append(process.pid)
    return found


async def test_a_killed_upload_of_several_processes_goes_on(
    tmp_path: Path, home: Path, watch: Watch, record_property: Any
) -> None:
    """Nothing lost, nothing double, nothing sent again that was final; the workers end with their parent."""
    before = orphans()
    await upload_killed(tmp_path, home, watch, "upload", blows_for(random.Random(7), KILLS, SMALL + PARTS))
    await until(lambda: set(orphans()) <= set(before))
    record_property("kills survived", watch.kills)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["overwrite", "fail", "download"])
async def test_another_verb_of_several_processes_goes_on(
    tmp_path: Path, home: Path, watch: Watch, verb: str, record_property: Any
) -> None:
    """The same of the other verbs."""
    before, blows = orphans(), blows_for(random.Random(7), KILLS, SMALL + PARTS)
    if verb == "download":
        await download_killed(tmp_path, home, watch, blows)
    else:
        await upload_killed(tmp_path, home, watch, verb, blows)
    await until(lambda: set(orphans()) <= set(before))
    record_property("kills survived", watch.kills)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", ["upload", "download"])
async def test_killed_fifty_times(tmp_path: Path, home: Path, watch: Watch, what: str, record_property: Any) -> None:
    """At length."""
    blows = blows_for(random.Random(11), MANY_KILLS, 10 * SMALL + PARTS)
    if what == "upload":
        await upload_killed(tmp_path, home, watch, "upload", blows, 10 * SMALL)
    else:
        await download_killed(tmp_path, home, watch, blows, 10 * SMALL)
    record_property("kills survived", watch.kills)
