"""Azurite, Microsoft's own emulator of Azure's blobs: signatures, block blobs, block lists, preconditions.

It wants node. About a second to start. ``x-ms-content-crc64`` is not implemented (500).
"""

from __future__ import annotations

import base64
import secrets
import shutil
from pathlib import Path

import httpx

from tests.support.real.azure_sas import VERSION, account_url
from tests.support.real.running import Processes, RealServer, start_on_free_ports
from tests.support.real.tools import TOOLS

__all__ = ["start", "unavailable"]

_TOOL = TOOLS["azurite"]


def unavailable() -> str | None:
    """Return why it cannot be started here, None when it can."""
    if shutil.which("node") is None:
        return "node is not installed, which Azurite wants (on Debian: apt-get install nodejs)"
    return _TOOL.unavailable()


def start(folder: Path) -> RealServer:
    """Start it with its data in *folder*, which must exist; the account is ``access_key``, with a key of its own."""
    return start_on_free_ports(1, lambda ports: _start(folder, ports[0]))


def _start(folder: Path, port: int) -> RealServer:
    account, key = "asyncsdktests", base64.b64encode(secrets.token_bytes(64)).decode()
    data = folder / "data"
    data.mkdir(exist_ok=True)
    command = [str(_TOOL.program("azurite-blob")), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--location", str(data), "--disableTelemetry", "--silent", "--disableProductStyleUrl"]
    processes = Processes(folder)
    try:
        processes.start("azurite", command, environment={"AZURITE_ACCOUNTS": f"{account}:{key}"})
        processes.wait_for("azurite", port)
        url = f"http://127.0.0.1:{port}/{account}"
        server = RealServer(url, "tests", account, key, "", data, processes.stop)
        made = httpx.put(
            account_url(server, server.bucket, {"restype": "container"}),
            headers={"x-ms-version": VERSION},
            trust_env=False,
            timeout=30,
        )
        made.raise_for_status()
    except BaseException:  # an interrupt leaves no process behind either
        processes.stop()
        raise
    return server
