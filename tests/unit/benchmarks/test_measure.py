"""What a run of a contender costs, and what becomes of one that fails or hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import run
from benchmarks.contenders import Entry
from benchmarks.jobs import Batch, Job
from benchmarks.measure import Section, ToolFailed, ToolUsage, run_tool, server_seconds

MIB = 1024**2
BUSY = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def job(folder: Path) -> Job:
    batch = Batch(1, 1, 1, 1, folder, "http://127.0.0.1:1", folder, folder)
    return Job("case", "put", "nginx", batch, batch, "http://127.0.0.1:1", (), 1, 1)


def test_section_measures_this_process() -> None:
    """CPU, wall time and memory of what happens inside, nothing of what was before."""
    # In an interpreter of its own: here, other tests have left memory free for the block to be made in.
    code = f"""
import json
from dataclasses import asdict
from benchmarks.measure import Section

before = bytearray({64 * MIB})
del before
section = Section(())
with section:
    block = b"x" * {32 * MIB}
    assert sum(block[:500_000]) > 0
print(json.dumps(asdict(section.figures)))
"""
    figures = json.loads(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout)
    assert figures["client_user_seconds"] + figures["client_system_seconds"] > 0
    assert figures["wall_seconds"] > 0
    assert 32 * MIB <= figures["rss_peak_bytes"] - figures["rss_start_bytes"] <= 60 * MIB


def test_programs_count_instead_of_who_waits_for_them() -> None:
    """With a program, the CPU is the program's, and so is the memory."""
    usage = ToolUsage()
    section = Section((), usage)
    with section:
        run_tool([sys.executable, "-S", "-c", f"block = bytearray(b'x' * {64 * MIB})\n{BUSY}"], usage)
    assert section.figures.client_user_seconds + section.figures.client_system_seconds >= 0.3
    assert section.figures.rss_peak_bytes >= 64 * MIB
    assert section.figures.rss_start_bytes == 0


def test_failing_program_tells_what_it_said() -> None:
    """An exit status that is not 0 is an error with the program's last words."""
    with pytest.raises(ToolFailed, match=r"ended with 3: .*no such host"):
        run_tool(
            [sys.executable, "-S", "-c", "import sys; print('no such host', file=sys.stderr); sys.exit(3)"], ToolUsage()
        )


def test_server_cpu_includes_children() -> None:
    """The master of a server may sleep while its worker works: both count."""
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', '''{BUSY}\\ninput()'''])"
    process = psutil.Popen([sys.executable, "-S", "-c", code], stdin=-1)
    try:
        used = 0.0
        while used < 0.3:  # the test's own time limit ends this
            assert process.is_running()
            used = server_seconds([process.pid])
    finally:
        process.communicate(b"\n")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder whose ``benchmarks/contenders/fake.py`` is run instead of ours."""
    package = tmp_path / "benchmarks" / "contenders"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    monkeypatch.setattr(run, "ROOT", tmp_path)
    return package / "fake.py"


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("raise SystemExit('it broke')", "it broke"),
        ("print('hello')", "printed no figures"),
        ("import sys; sys.exit(4)", "exit status 4"),
    ],
)
def test_contender_that_fails_is_reported(fake: Path, tmp_path: Path, code: str, failure: str) -> None:
    """What it said last is the result of its run; the benchmark goes on."""
    fake.write_text(code)
    assert failure in run.run_job(Entry("fake", "asyncio"), job(tmp_path), 60, tmp_path)["failure"]


def test_contender_that_hangs_is_ended_with_what_it_started(fake: Path, tmp_path: Path) -> None:
    """After the deadline neither it nor its program is there any more, and the run says so."""
    child = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    fake.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', {child!r}])")
    found = run.run_job(Entry("fake", "asyncio"), job(tmp_path), 5, tmp_path)
    assert found == {"failure": "no result within 5 s"}
    pid = int((tmp_path / "pid").read_text())
    if psutil.pid_exists(pid):
        psutil.Process(pid).wait(10)
    assert not psutil.pid_exists(pid)
