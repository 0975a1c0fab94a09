"""The programs behind the published figures run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contenders import contender
from tests.support.nginx import Nginx

ROOT = Path(__file__).resolve().parents[2]


def bench(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the benchmarks with their data in *folder*, empty again afterwards; returns results and what was printed."""
    data, results = folder / "data", folder / "results.json"
    data.mkdir()
    command = [sys.executable, "-m", "benchmarks.run", "--parent", str(data), "--output", str(results), *arguments]
    reply = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert reply.returncode == 0, reply.stderr
    assert list(data.iterdir()) == []
    found: dict[str, Any] = json.loads(results.read_text())
    return found, reply.stdout


def test_smallest_run(tmp_path: Path, nginx: Nginx) -> None:
    """Ours and a program, a few files up and down: bytes verified, figures kept with their conditions, skips told."""
    if reason := contender("curl").unavailable():
        pytest.skip(reason)
    asked = ["--case", "small-up-plain,small-down-plain", "--contenders", "ours_httpx,curl,rclone"]
    found, said = bench(tmp_path, *asked, "--scale", "0.003", "--repeat", "2")
    assert found["conditions"].keys() >= {"cpu", "kernel", "python", "packages", "data", "load", "contender ours_httpx"}
    # Interleaved: everybody once, then everybody again. Ours does a quarter of the small objects.
    assert [(run["case"], run["run"], run["contender"], run["objects"]) for run in found["runs"]] == [
        (case, number, name, count)
        for case in ("small-up-plain", "small-down-plain")
        for number in (1, 2)
        for name, count in (("ours_httpx", 15), ("curl", 60))
    ]
    assert all(
        run["client_user_seconds"] + run["client_system_seconds"] > 0
        and run["server_cpu_seconds"] > 0
        and run["rss_peak_bytes"] >= run["rss_start_bytes"]
        for run in found["runs"]
    )
    assert {(skip["case"], skip["contender"]) for skip in found["skipped"]} == {
        ("small-up-plain", "rclone"),
        ("small-down-plain", "rclone"),
    }
    assert "small-up-plain: 20,000 files of 20 KiB up" in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kind_of_work_by_our_engine(tmp_path: Path, nginx: Nginx) -> None:
    """The engine does every workload, plain and TLS, against every server there is, with every byte verified."""
    pytest.importorskip("trustme", reason="trustme is missing (extra bench)")
    found, said = bench(tmp_path, "--scale", "0.01", "--repeat", "1", "--contenders", "ours_lean:asyncio")
    done = {run["case"] for run in found["runs"]}
    assert done >= {"small-up-tls", "large-down-plain", "large-up-parts-tls", "post-plain", "memory-down", "many-50k"}
    assert done >= {"platform-small-down", "platform-large-up"}
    assert "the bar" in said
