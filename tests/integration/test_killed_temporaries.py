"""Unfinished files of clients killed with SIGKILL: no data in between, and gone when the call went on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine.temporaries import is_temporary
from tests.support.server import RunningServer

pytestmark = pytest.mark.timeout(300)

FILES = 12
FILE_BYTES = 1024 * 1024
WAIT_SECONDS = 60.0


def unfinished(folder: Path) -> list[Path]:
    """Return the unfinished files of objects: their names begin with a digit, those of looks at the disk do not."""
    return [path for path in folder.rglob(".[0-9]*") if is_temporary(path.name)]


def kill_amid_files(served: RunningServer, command: list[str], folder: Path, known: set[Path]) -> None:
    """Run a client that may take 1 MB/s until a file of its own is unfinished, and kill it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncsdk", *command, "--bandwidth", "1M", "--quiet"],
        env={**os.environ, "ASYNCSDK_TOKEN": served.token, "PYTHONWARNINGS": "error"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + WAIT_SECONDS
        while not set(unfinished(folder)) - known:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()


async def test_a_killed_download_leaves_nothing_behind_when_it_went_on(tmp_path: Path, home: Path) -> None:
    """Two clients are killed, one after the other; the second has removed what the first one left."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    files = {f"{number % 3}/{number:02d}.bin": os.urandom(FILE_BYTES) for number in range(FILES)}
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    with RunningServer(tmp_path / "platform") as served:
        async with AsyncClient(served.url, token=served.token) as client:
            dataset = await client.datasets.create("d")
            (await dataset.upload(source, resume=False)).raise_for_failures()
            command = ["download", dataset.id, str(copy), "--url", served.url]
            left: set[Path] = set()
            for _ in range(2):
                kill_amid_files(served, command, copy, left)
                assert set(unfinished(copy)) - left
                assert left - set(unfinished(copy)) == left, "what the client before it left is there still"
                left = set(unfinished(copy))
            verification = await dataset.verify(copy)
            assert verification.missing_remotely == 0
            assert verification.missing_locally > 0
            other = await client.datasets.create("other")
            (copy / "mine").touch()
            await other.upload(copy, resume=False)
            assert not [item.path async for item in other.items.list() if is_temporary(Path(item.path).name)]
            (copy / "mine").unlink()
            (await dataset.download(copy)).raise_for_failures()
            assert (await dataset.verify(copy)).ok
    assert {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()} == files


async def test_a_killed_transfer_of_a_manifest_leaves_nothing_behind(tmp_path: Path, home: Path) -> None:
    """Without a platform the journal alone knows what was left; where a file goes does not matter."""
    copy = tmp_path / "copy"
    files = {str(number): os.urandom(FILE_BYTES) for number in range(FILES)}
    with RunningServer(tmp_path / "platform") as served:
        async with AsyncClient(served.url, token=served.token) as client:
            model = await client.models.create("m")
            for name, data in files.items():
                await model.upload_checkpoint(data, epoch=int(name))
            urls = {name: await model.weights_url(int(name)) for name in files}
        manifest = tmp_path / "m.jsonl"
        lines = [f'{{"url": "{url}", "destination": "{copy}/{name}"}}' for name, url in urls.items()]
        manifest.write_text("\n".join(lines))
        kill_amid_files(served, ["transfer", str(manifest)], copy, set())
        assert unfinished(copy)
        ended = subprocess.run(
            [sys.executable, "-m", "asyncsdk", "transfer", str(manifest), "--quiet"], capture_output=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == files
