"""What the process itself holds: with a small budget a run of many requests takes less memory than with a large one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyncsdk.engine.config import MiB
from benchmarks.nginx import Nginx, NginxUnavailable

ROOT = Path(__file__).resolve().parents[2]

CLIENT = """
import asyncio, gc, sys
from pathlib import Path
import psutil
from asyncsdk.engine import Download, Engine, PutTarget, TransferConfig, Upload, UrlOrigin
from asyncsdk.transport.tls import TlsConfig

url, ca, folder, memory = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
tls = TlsConfig(ca_file=Path(ca))

def transfers(count):
    for number in range(count):
        yield Upload(folder / "source", PutTarget(f"{url}/up{number % 8}"))
        yield Download(UrlOrigin(f"{url}/down", size_bytes=2 << 20), folder / f"down{number % 128}")

async def main():
    async with Engine(TransferConfig(concurrency=4, tls=tls, memory_bytes=memory)) as engine:
        (await engine.collect(transfers(8))).raise_for_failures()
    gc.collect()
    process = psutil.Process()
    before = highest = process.memory_info().rss
    async with Engine(TransferConfig(concurrency=128, tls=tls, memory_bytes=memory)) as engine:
        async with engine.run(transfers(200)) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok, outcome.error
                highest = max(highest, process.memory_info().rss)
    print(highest - before)

asyncio.run(main())
"""


def grown(nginx: Nginx, folder: Path, memory_bytes: int) -> int:
    """Return by how much the resident memory of a client grew."""
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}  # heaps of threads are no buffers
    said = subprocess.run(
        [sys.executable, "-c", CLIENT, nginx.tls_url, str(nginx.ca_file), str(folder), str(memory_bytes)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert said.returncode == 0, said.stderr
    return int(said.stdout)


def test_resident_memory_follows_the_budget(tmp_path: Path) -> None:
    """128 requests at once over TLS, of bodies of 2 MiB: with 8 MiB they share a few connections."""
    (tmp_path / "source").write_bytes(os.urandom(2 * MiB))
    try:
        nginx = Nginx(tls=True)
    except NginxUnavailable as error:
        pytest.skip(str(error))
    with nginx:
        (nginx.data / "down").write_bytes(os.urandom(2 * MiB))
        little, much = grown(nginx, tmp_path, 8 * MiB), grown(nginx, tmp_path, 256 * MiB)
    assert little < 1.5 * 8 * MiB
    assert much > 2 * little, (little, much)
