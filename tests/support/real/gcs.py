"""An emulator of Google Cloud Storage that has resumable sessions: status queries, 308 with ``Range``.

It asks nobody who they are and checks no precondition. About a second to start; everything is in its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import httpx

from tests.support.real.running import Processes, RealServer, start_on_free_ports
from tests.support.real.tools import TOOLS

__all__ = ["begin_session", "media_url", "read", "start", "unavailable"]

_TOOL = TOOLS["gcp-storage-emulator"]


def unavailable() -> str | None:
    """Return why it cannot be started here, None when it can."""
    return _TOOL.unavailable()


def start(folder: Path) -> RealServer:
    """Start it; *folder*, which must exist, takes its log."""
    return start_on_free_ports(1, lambda ports: _start(folder, ports[0]))


def begin_session(server: RealServer, name: str, *, metadata: Mapping[str, str] | None = None) -> str:
    """Begin a resumable upload; returns the URI of the session, which needs no signature."""
    url = f"{server.url}/upload/storage/v1/b/{server.bucket}/o"
    reply = httpx.post(
        url,
        params={"uploadType": "resumable", "name": name},
        json={"name": name, **(metadata or {})},
        trust_env=False,
        timeout=30,
    )
    return reply.raise_for_status().headers["location"]


def media_url(server: RealServer, name: str) -> str:
    """Return where the bytes of an object come from."""
    return f"{server.url}/download/storage/v1/b/{server.bucket}/o/{quote(name, safe='')}?alt=media"


def read(server: RealServer, name: str) -> bytes | None:
    """Return the object as the server has it, None when it is not there."""
    reply = httpx.get(media_url(server, name), trust_env=False, timeout=30)
    return None if reply.status_code == 404 else reply.raise_for_status().content


def _start(folder: Path, port: int) -> RealServer:
    command = [str(_TOOL.program("gcp-storage-emulator")), "start", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--default-bucket", "tests", "--in-memory"]
    processes = Processes(folder)
    try:
        processes.start("gcs", command)
        processes.wait_for("gcs", port)
    except BaseException:  # an interrupt leaves no process behind either
        processes.stop()
        raise
    return RealServer(f"http://127.0.0.1:{port}", "tests", "", "", "", folder, processes.stop)
