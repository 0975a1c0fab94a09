"""Installs the real servers of the tests into ``.tools/``: ``python -m tests.support.real.install [NAME ...]``.

Never fails a build: what cannot be had is told, with the reason, and the tests that want it are skipped with one. What
is there already is left alone, so that running it again costs nothing. ``--system`` lets it install Debian's packages
as well (nginx, and node for Azurite), when this process is root or ``sudo`` asks for no password.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

from tests.support.nginx import NginxUnavailable, install_nginx
from tests.support.real.tools import FOLDER, TOOLS, Tool

__all__ = ["install", "main"]

_SECONDS = 120.0
"""What one package may take."""


class _Failed(Exception):
    """It could not be installed; the message is the reason."""


def install(tool: Tool) -> str | None:
    """Install *tool* unless it is there; returns the reason why that was not possible, None when it is there."""
    if tool.stamp.is_file():
        return None
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f".{tool.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs of one checkout
        if tool.stamp.is_file():
            return None
        shutil.rmtree(tool.folder, ignore_errors=True)
        try:
            (_by_pip if tool.kind == "pip" else _by_npm)(tool)
        except _Failed as failed:
            shutil.rmtree(tool.folder, ignore_errors=True)
            return str(failed)
        tool.stamp.touch()
    for other in FOLDER.glob(f"{tool.name}-*"):
        if other != tool.folder:
            shutil.rmtree(other, ignore_errors=True)
    return None


def _by_pip(tool: Tool) -> None:
    venv.create(tool.folder, with_pip=False, symlinks=True)
    python = tool.folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--retries", "1"]
    _run([*pip, f"{tool.name}=={tool.version}"])


def _by_npm(tool: Tool) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise _Failed("node and npm are not installed (on Debian: apt-get install nodejs npm)")
    quiet = ["--no-audit", "--no-fund", "--omit=dev", "--loglevel=error", "--fetch-retries=1"]
    _run([npm, "install", "--prefix", str(tool.folder), *quiet, f"{tool.name}@{tool.version}"])


def _run(command: list[str]) -> None:
    try:
        reply = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise _Failed(f"{Path(command[0]).name} took more than {_SECONDS:.0f} s") from None
    if reply.returncode:
        raise _Failed(_reason(reply.stderr) or f"{Path(command[0]).name} gave no reason")


def _reason(said: str) -> str:
    """Return the line that says most: the last error of pip, the first of npm that is no code."""
    errors = [line.strip() for line in said.splitlines() if "error" in line.lower() or "ERR!" in line]
    npm = [line for line in errors if line.startswith("npm") and " code " not in line]
    return npm[0] if npm else errors[-1] if errors else said.strip().splitlines()[-1] if said.strip() else ""


def _install_system() -> None:
    """Bring Debian's packages, where they are missing and may be installed; says so when not."""
    try:
        install_nginx()
    except NginxUnavailable as error:
        print(f"tests: {error}", file=sys.stderr)
    if shutil.which("npm") is not None or shutil.which("apt-get") is None:
        return
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    try:
        _run([*apt, "update"])
        _run([*apt, "install", "-y", "--no-install-recommends", "nodejs", "npm"])
    except (_Failed, FileNotFoundError) as error:
        print(f"tests: node cannot be installed: {error}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Install what is named, everything without a name; always 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.real.install", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(sorted(TOOLS)))
    parser.add_argument("--system", action="store_true", help="Debian's packages too")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(TOOLS):
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    if options.system:
        _install_system()
    for name in options.names or TOOLS:
        tool = TOOLS[name]
        known = tool.stamp.is_file()
        started = time.monotonic()
        if (reason := install(tool)) is not None:
            print(f"tests: {name} is missing, what needs it is skipped: {reason}", file=sys.stderr)
        elif not known:
            print(f"tests: installed {name} {tool.version} in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
