"""Who writes a journal, and whether that process is still there.

A process is known by host, number, when it started, and the start of the machine it runs in: a number alone comes back
within hours. Nothing is locked for it, so that nothing can stay locked by somebody who is gone.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Self

__all__ = ["FOREIGN_SECONDS", "Owner", "boot_number"]

FOREIGN_SECONDS = 600.0
"""A process of another machine cannot be looked for: it is taken for gone when it has said nothing for so long. While
it works it says something every minute."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process.

    Attributes:
        host: Name of its machine.
        pid: Its number there.
        started: When it started, in whatever its system counts; 0 when that cannot be told.
        boot: Names the start of its machine; empty when that cannot be told.
    """

    host: str
    pid: int
    started: int
    boot: str

    @classmethod
    def me(cls) -> Self:
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _started(pid), _boot_id())

    def is_gone(self, *, silent_seconds: float) -> bool:
        """Whether this owner works no more.

        Args:
            silent_seconds: How long ago it said something.
        """
        if self.host != socket.gethostname() or os.name != "posix":  # elsewhere, asking for a process may end it
            return silent_seconds > FOREIGN_SECONDS
        if self.boot != _boot_id():
            return True
        if not _exists(self.pid):
            return True
        return self.started != _started(self.pid)


def boot_number() -> int:
    """Return 32 bits that change when this machine starts anew (always the same where that cannot be told)."""
    return int.from_bytes(blake2b(_boot_id().encode(), digest_size=4).digest(), "little")


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux: a process is then known by host and number alone
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and somebody else's
        return True
    return True


def _started(pid: int) -> int:
    """Return when a process started, in ticks since the machine did; 0 when that cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or gone this moment
        return 0
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    # A process that has ended and was not waited for yet works no more.
    return int(fields[19]) if len(fields) > 19 and fields[0] != "Z" else 0
