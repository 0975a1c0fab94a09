"""``asyncsdk serve --objects``: a process of its own, and a client that knows neither bucket nor credentials."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from tests.support.real.buckets import CloudHome


async def test_a_served_folder_keeps_its_objects_in_a_bucket(home: CloudHome, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asyncsdk", "serve", "--no-worker", "--port", "0"]
    command += ["--data", str(data), "--objects", str(home.location), "--objects-endpoint", home.location.endpoint]
    source = tmp_path / "source"
    source.mkdir()
    files = {f"{number}.bin": os.urandom(1000 * number) for number in range(5)}
    for name, content in files.items():
        (source / name).write_bytes(content)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as served:
        try:
            assert served.stdout is not None
            url = served.stdout.readline().split()[-1]
            token = (data / "token").read_text(encoding="ascii").strip()
            async with AsyncClient(url, token=token, home=tmp_path / "home") as client:
                dataset = await client.datasets.create("photos")
                (await dataset.upload(source)).raise_for_failures()
                (await dataset.download(tmp_path / "copy")).raise_for_failures()
        finally:
            served.send_signal(signal.SIGTERM)
            _, errors = served.communicate(timeout=30)
    assert (served.returncode, errors) == (0, "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == files
    assert home.count() == len(files)


@pytest.mark.parametrize("home", ["rclone"], indirect=True)
def test_a_bucket_that_is_none_is_refused(home: CloudHome, data: Path) -> None:
    command = [sys.executable, "-m", "asyncsdk", "serve", "--port", "0", "--data", str(data), "--objects", "ftp://x"]
    reply = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert reply.returncode != 0
    assert "s3://bucket/prefix" in reply.stderr
    assert "Traceback" not in reply.stderr
