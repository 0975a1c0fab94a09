"""Programs with worker processes, killed with SIGKILL while they move things: the same call goes on, with all of it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.integration.test_killed_runs import MANY_KILLS, SMALL, Watch, download_killed, upload_killed
from tests.support.crew import until

PROCESSES = 2
KILLS = 3  # each costs the start of three processes
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A client of several processes under the knife."""
    watch = Watch(monkeypatch)
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


async def test_a_killed_upload_of_several_processes_goes_on(tmp_path: Path, home: Path, watch: Watch) -> None:
    """Nothing lost, nothing double, nothing sent again that was final; the workers end with their parent."""
    before = orphans()
    await upload_killed(tmp_path, home, watch, "upload", KILLS, SMALL)
    await until(lambda: set(orphans()) <= set(before))


@pytest.mark.slow
async def test_a_killed_download_of_several_processes_goes_on(tmp_path: Path, home: Path, watch: Watch) -> None:
    """The same the other way."""
    before = orphans()
    await download_killed(tmp_path, home, watch, KILLS, SMALL)
    await until(lambda: set(orphans()) <= set(before))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", [upload_killed, download_killed])
async def test_killed_fifty_times(tmp_path: Path, home: Path, watch: Watch, what: object) -> None:
    """At length."""
    if what is upload_killed:
        await upload_killed(tmp_path, home, watch, "upload", MANY_KILLS, 10 * SMALL)
    else:
        await download_killed(tmp_path, home, watch, MANY_KILLS, 10 * SMALL)
