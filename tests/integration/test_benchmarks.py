"""The programs behind the published figures run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nginx import Nginx

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_quick_run_measures_both_servers(tmp_path: Path, nginx: Nginx) -> None:
    """A quick run verifies every byte, keeps each run with its conditions, and leaves nothing but its results."""
    results = tmp_path / "results.json"
    data = tmp_path / "data"
    data.mkdir()
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--case", "1", "--parent", str(data)]
    reply = subprocess.run(
        [*command, "--output", str(results)], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert reply.returncode == 0, reply.stderr
    found = json.loads(results.read_text())
    assert found["conditions"].keys() >= {"cpu", "kernel", "python", "packages", "data"}
    assert [(run["server"], run["workload"], run["objects"], run["size_bytes"]) for run in found["runs"]] == [
        (server, workload, 1000, 1000 * 20 * 1024)
        for server in ("nginx", "platform")
        for workload in ("upload", "download")
    ]
    assert all(
        run["client_cpu_seconds"] > 0 and run["rss_peak_bytes"] >= run["rss_start_bytes"] for run in found["runs"]
    )
    assert list(data.iterdir()) == []
