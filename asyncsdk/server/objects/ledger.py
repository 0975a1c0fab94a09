"""The list of receipts of an upload, as it stands in its file: lines that are only ever added.

::

    begun 3 7f21c09b-5d02a1f2...                        an attempt at part 3 begins: what was there counts no more
    done 3 7f21c09b-5d02a1f2... 8388608 1a2b3c4d        it is there: size and crc32c
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from functools import cache
from pathlib import Path

from asyncsdk.server.objects.parts import Receipt

__all__ = ["Ledger", "append_line", "begun_line", "done_line", "new_attempt"]

_LINE = re.compile(r"begun ([0-9]{1,5}) ([0-9a-f-]{25})|done ([0-9]{1,5}) ([0-9a-f-]{25}) ([0-9]{1,10}) ([0-9a-f]{8})")


def new_attempt() -> str:
    """Return a name for an attempt; its first half is that of the machine's start."""
    return f"{_machine_start()}-{secrets.token_hex(8)}"


def begun_line(part: int, attempt: str) -> str:
    """Return the line that begins an attempt at a part."""
    return f"begun {part} {attempt}"


def done_line(receipt: Receipt, attempt: str) -> str:
    """Return the line that gives a part its receipt."""
    return f"done {receipt.part} {attempt} {receipt.size_bytes} {receipt.crc32c}"


class Ledger:
    """What the lines of a list say. A line that is no whole one (a kill, a full disk) says nothing.

    Attributes:
        latest: The latest attempt at each part.
        receipts: The parts that are there.
    """

    def __init__(self, data: bytes) -> None:
        self.latest: dict[int, str] = {}
        self.receipts: dict[int, Receipt] = {}
        start = _machine_start()
        for line in data.decode("ascii", errors="replace").split("\n"):
            match = _LINE.fullmatch(line)
            if match is None:
                continue
            if match[1]:
                part = int(match[1])
                self.latest[part] = match[2]
                self.receipts.pop(part, None)
            elif self.latest.get(int(match[3])) == match[4] and match[4].startswith(start):
                part = int(match[3])
                self.receipts[part] = Receipt(part, int(match[5]), match[6])


def append_line(descriptor: int, line: str) -> int:
    """Add a line to the list; returns where it ends, at least. The line before it may be half a line."""
    data = f"\n{line}\n".encode()
    if os.write(descriptor, data) != len(data):
        # Only a full disk makes a short write of so few bytes.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return os.lseek(descriptor, 0, os.SEEK_CUR)


@cache
def _machine_start() -> str:
    """Return eight hexadecimal digits that change when the machine starts anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:  # not Linux: receipts then outlive a loss of power, and only completing makes bytes durable
        return "00000000"
