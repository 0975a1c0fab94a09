"""Who writes a journal, and whether that process is still there.

Who shares a kernel with the owner asks the lock of the journal (`locks`): hosts and numbers of processes mean nothing
between containers, one of which comes back under another name seconds after it was killed, while two others have the
same. Where the lock cannot tell (another machine, a system without), a process is known by host, number, when it
started, and the start of the machine it runs in: a number alone comes back within hours.
"""

from __future__ import annotations

import ctypes
import os
import socket
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import Any, Self

from asyncsdk.engine.temporaries import process_mark

__all__ = ["FOREIGN_SECONDS", "Owner", "boot_number"]

FOREIGN_SECONDS = 600.0
"""A process of another machine cannot be looked for: it is taken for gone when it has said nothing for so long. While
it works it says something every minute."""


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process.

    Attributes:
        host: Name of its machine.
        pid: Its number there.
        started: When it started, in whatever its system counts; 0 when that cannot be told.
        boot: Names the start of its machine; empty when that cannot be told.
        namespace: Within which its number means something; empty when that cannot be told.
        is_locked: Whether it holds the journal's lock as long as it works.
        mark: What the names of its temporary files hold; empty when that is not known.
    """

    host: str
    pid: int
    started: int
    boot: str
    namespace: str = ""
    is_locked: bool = False
    mark: str = ""

    @classmethod
    def me(cls, *, is_locked: bool = False) -> Self:
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _started(pid), _boot_id(), _namespace(), is_locked, process_mark())

    def is_me(self) -> bool:
        """Whether it is this process."""
        mine = self.me()
        return (self.pid, self.started, self.boot, self.namespace, self.host) == (
            mine.pid,
            mine.started,
            mine.boot,
            mine.namespace,
            mine.host,
        )

    @property
    def may_live(self) -> bool:
        """Whether this process may still be there, though it gave up what it owned."""
        if (self.boot, self.namespace, self.host) != (_boot_id(), _namespace(), socket.gethostname()):
            return False
        return _exists(self.pid) and self.started == _started(self.pid)

    def is_gone(self, *, silent_seconds: float, is_lock_free: bool | None = None) -> bool:
        """Whether this owner works no more.

        Args:
            silent_seconds: How long ago it said something.
            is_lock_free: Whether nobody holds the journal's lock; None: nobody can tell.
        """
        if is_lock_free is False:
            return False
        if self.boot and self.boot == _boot_id():
            if self.is_locked and is_lock_free:
                return True
            if self.namespace and self.namespace != _namespace():  # its number is another process's here, or nobody's
                return silent_seconds > FOREIGN_SECONDS
        if self.host != socket.gethostname() or os.name != "posix":  # elsewhere, asking for a process may end it
            return silent_seconds > FOREIGN_SECONDS
        if self.boot != _boot_id():
            return True
        if not _exists(self.pid):
            return True
        return self.started != _started(self.pid)


@cache
def boot_number() -> int:
    """Return 32 bits that change when this machine starts anew; where that cannot be told, with every process.

    What another start wrote is read before it is believed: too often costs time, too seldom files.
    """
    boot = _boot_id() or token_hex(16)
    return int.from_bytes(blake2b(boot.encode(), digest_size=4).digest(), "little")


@cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return _boot_session()


def _boot_session() -> str:
    """Return what macOS calls a start of the machine; empty elsewhere: a process is known by host and number then."""
    try:
        ask = _c_library().sysctlbyname
    except (OSError, TypeError, AttributeError):  # another system
        return ""
    value = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(value))
    # The time of the start would not do: it moves whenever the clock is set.
    failed = ask(b"kern.bootsessionuuid", value, ctypes.byref(size), None, 0)
    return "" if failed else value.value.decode("ascii", "replace")


def _c_library() -> Any:
    return ctypes.CDLL(None)


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # leads to no path
    except OSError:  # not Linux, or closed to us
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
