"""Training programs that are stopped: real processes, real signals; what the platform knows of them afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from asyncsdk import AsyncClient

TIMEOUT_SECONDS = 60

ASYNC = """
import asyncio, os, signal, sys, time
from asyncsdk import AsyncClient

def handler(number, frame):
    print("handled", flush=True)
    {on_signal}

async def main():
    {before}
    async with AsyncClient(data=sys.argv[1]) as client:
        model = await client.models.create("m")
        async with model.heartbeat(interval=600):
            print("ready", flush=True)
            {train}
    print("ended", flush=True)

{run}
"""

BLOCKING = """
import os, signal, sys, time
from asyncsdk import Client

def handler(number, frame):
    print("handled", flush=True)
    {on_signal}

{before}
with Client(data=sys.argv[1]) as client:
    model = client.models.create("m")
    with model.heartbeat(interval=600):
        print("ready", flush=True)
        {train}
print("ended", flush=True)
"""

WAIT_ASYNC = "await asyncio.sleep(30)"
WAIT = "time.sleep(30)"
RUN = "asyncio.run(main())"
OWN = "signal.signal(signal.SIGTERM, handler)"
OF_LOOP = "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, handler, 15, None)"


class Program:
    """A training program on a data folder; ``said`` is what it printed after it was ready."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", source, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", line + self._process.communicate(timeout=TIMEOUT_SECONDS)[1]

    def stop(self, number: signal.Signals) -> tuple[int, list[str]]:
        """Send a signal; returns how the program ended and what it said."""
        self._process.send_signal(number)
        return self.end()

    def end(self) -> tuple[int, list[str]]:
        try:
            said, self.complaints = self._process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        return self._process.returncode, said.split()


def program(folder: Path, template: str, **parts: str) -> Program:
    given = {"on_signal": "pass", "before": "pass", "train": WAIT_ASYNC, "run": RUN, **parts}
    return Program(folder, textwrap.dedent(template).format(**given))


async def agents(folder: Path) -> list[tuple[str, int]]:
    """Return status and number of beats of every agent."""
    async with AsyncClient(data=folder) as client:
        (model,) = await client.models.list().to_list()
        return [(agent.status, agent.beats) async for agent in model.agents.list()]


FORMS = {"async": (ASYNC, WAIT_ASYNC), "blocking": (BLOCKING, WAIT)}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> tuple[str, str]:
    return FORMS[request.param]


async def test_sigterm_ends_the_program_after_a_last_beat(tmp_path: Path, form: tuple[str, str]) -> None:
    """By the signal itself, as without a heartbeat."""
    template, wait = form
    status, said = program(tmp_path, template, train=wait).stop(signal.SIGTERM)
    assert (status, said) == (-signal.SIGTERM, [])
    assert await agents(tmp_path) == [("stopped", 2)]


async def test_the_programs_own_handler_runs_too(tmp_path: Path, form: tuple[str, str]) -> None:
    """Once, after the last beat; what it raises unwinds the block."""
    template, wait = form
    running = program(tmp_path, template, train=wait, before=OWN, on_signal="sys.exit(7)")
    status, said = running.stop(signal.SIGTERM)
    assert (status, said) == (7, ["handled"]), running.complaints
    assert [status for status, _ in await agents(tmp_path)] == ["stopped"]


async def test_a_handler_that_kills_at_once_comes_after_the_last_beat(tmp_path: Path, form: tuple[str, str]) -> None:
    template, wait = form
    running = program(tmp_path, template, train=wait, before=OWN, on_signal="os._exit(9)")
    assert running.stop(signal.SIGTERM) == (9, ["handled"])
    assert await agents(tmp_path) == [("stopped", 2)]


@pytest.mark.parametrize("run", [RUN, "import uvloop\nuvloop.run(main())"], ids=["asyncio", "uvloop"])
async def test_a_handler_of_the_event_loop_runs_once(tmp_path: Path, run: str) -> None:
    """It sets an event, the program goes on for a while and ends by itself."""
    if "uvloop" in run:
        pytest.importorskip("uvloop")
    parts = {
        "before": f"global done; done = asyncio.Event(); {OF_LOOP}",
        "on_signal": "done.set()",
        "train": "await done.wait(); await asyncio.sleep(0.5)",
    }
    running = program(tmp_path, ASYNC, run=run, **parts)
    assert running.stop(signal.SIGTERM) == (0, ["handled", "ended"]), running.complaints
    assert [status for status, _ in await agents(tmp_path)] == ["stopped"]


async def test_ctrl_c_is_what_it_always_was(tmp_path: Path, form: tuple[str, str]) -> None:
    """A `KeyboardInterrupt` that unwinds the block, whose end sends the last beat."""
    template, wait = form
    running = program(tmp_path, template, train=wait)
    status, said = running.stop(signal.SIGINT)
    assert (status, said) == (-signal.SIGINT, [])
    assert "KeyboardInterrupt" in running.complaints
    assert await agents(tmp_path) == [("stopped", 2)]


async def test_an_ignored_signal_stays_ignored(tmp_path: Path, form: tuple[str, str]) -> None:
    template, wait = form
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    running = program(tmp_path, template, before=ignore, train=wait.replace("30", "1"))
    assert running.stop(signal.SIGTERM) == (0, ["ended"])
    assert await agents(tmp_path) == [("stopped", 2)]


async def test_a_loop_that_is_held_up_delays_the_end_by_seconds_only(tmp_path: Path) -> None:
    """The beat cannot be sent; the signal is not lost for that, and the platform will see the silence."""
    running = program(tmp_path, ASYNC, train="time.sleep(50)")
    assert running.stop(signal.SIGTERM) == (-signal.SIGTERM, [])
    assert await agents(tmp_path) == [("alive", 1)]


async def test_a_second_signal_ends_the_program_at_once(tmp_path: Path) -> None:
    """While the first one still waits for the beat that nobody can send."""
    twice = "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM); print('alive')"
    running = program(tmp_path, ASYNC, train=twice)
    assert running.end() == (-signal.SIGTERM, [])


async def test_a_forked_child_ends_by_the_signal_and_stops_nothing(tmp_path: Path, form: tuple[str, str]) -> None:
    """A worker process inherits the handler: it ends as it would have, and the parent's agent lives on."""
    template, _ = form
    fork = (
        # Python forgets signals that come while it forks: the child says when it is there.
        "ear, mouth = os.pipe(); child = os.fork(); "
        "child or (os.write(mouth, b'x'), time.sleep(30), os._exit(3)); "
        "os.read(ear, 1); os.kill(child, signal.SIGTERM); "
        "print('child', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)"
    )
    # A child that waited for a beat that nobody sends would outlast the test.
    waits = "from asyncsdk.entities import heartbeat; heartbeat.SIGTERM_SECONDS = 1000"
    running = program(tmp_path, template, train=fork, before=waits)
    status, said = running.end()
    assert (status, said) == (0, ["child", "-15", "ended"]), running.complaints
    assert await agents(tmp_path) == [("stopped", 2)]


async def test_a_forked_child_that_leaves_the_block_stops_nothing(tmp_path: Path) -> None:
    fork = "child = os.fork(); child and os.waitpid(child, 0); child and print('parent', flush=True)"
    parts = {"before": "from multiprocessing import util", "train": fork}
    source = BLOCKING.replace('print("ended", flush=True)', "child or os._exit(0)")
    running = program(tmp_path, source, **parts)
    status, said = running.end()
    assert (status, said) == (0, ["parent"]), running.complaints
    assert await agents(tmp_path) == [("stopped", 2)]


async def test_a_blocking_program_that_forgets_to_stop_says_goodbye_at_its_exit(tmp_path: Path) -> None:
    source = """
    import sys
    from asyncsdk import Client
    client = Client(data=sys.argv[1])
    beating = client.models.create("m").heartbeat(interval=600)
    beating.start()
    print("ready", flush=True)
    """
    running = Program(tmp_path, textwrap.dedent(source))
    status, said = running.end()
    assert (status, said) == (0, []), running.complaints
    assert await agents(tmp_path) == [("stopped", 2)]


async def test_a_program_that_is_killed_is_lost(tmp_path: Path) -> None:
    """Nobody says goodbye; after three intervals the platform says so of the model."""
    template = ASYNC.replace("interval=600", "interval=0.1")
    status, _ = program(tmp_path, template).stop(signal.SIGKILL)
    assert status == -signal.SIGKILL
    async with AsyncClient(data=tmp_path) as client:
        while True:  # the test's own time limit ends it
            (model,) = await client.models.list().to_list()
            if model.status == "lost":
                break
            assert model.status == "training"
        assert [agent.status async for agent in model.agents.list()] == ["lost"]
