"""What figures depend on: the machine, its load, the programs and their versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.contenders import contender

__all__ = ["conditions"]

PACKAGES = ("asyncsdk", "httpx", "httptools", "uvloop", "google-crc32c", "sqlalchemy")


def conditions(folder: Path, modules: Iterable[str]) -> dict[str, str]:
    """Return what the figures of a run in *folder* with the contenders *modules* depend on."""
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1024**3:.0f} GiB",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "tls": _tls(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "commit": _said(["git", "describe", "--always", "--dirty"]),
        "server": f"{_said(['nginx', '-v']).removeprefix('nginx version: ')}, one worker, TLS 1.3 AES-128-GCM",
        "data": f"{_said(['stat', '-f', '-c', '%T', str(folder)])}, loopback, client and server on the same machine",
    }
    for module in dict.fromkeys(modules):
        found[f"contender {module}"] = contender(module).version()
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _tls() -> str:
    import ssl

    return ssl.OPENSSL_VERSION


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    search = {**os.environ, **(environment or {}), "PATH": os.environ.get("PATH", "") + ":/usr/sbin"}
    try:
        reply = subprocess.run(command, capture_output=True, text=True, env=search, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return "unknown"
    return (reply.stdout or reply.stderr).strip() or "unknown"
