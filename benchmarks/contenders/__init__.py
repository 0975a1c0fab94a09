"""Who is measured: one module each, found by name; each says what it can do and what keeps it from running here.

A contender runs in a process of its own: ``python -m benchmarks.contenders.NAME``, a job as JSON on standard input, the
figures as JSON on standard output.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass

from benchmarks.contenders.base import Contender

__all__ = ["NAMES", "Entry", "contender", "entries"]

NAMES = (
    "ours_lean",
    "ours_auto",
    "ours_httpx",
    "aiohttp",
    "httpx",
    "requests_threads",
    "pyreqwest",
    "obstore",
    "curl",
    "aria2c",
    "boto3",
    "boto3_crt",
    "s5cmd",
    "rclone",
)
"""Modules of this package, in the order of the tables."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender with the event loop it runs on.

    Attributes:
        module: Its name in `NAMES`.
        loop: ``asyncio`` or ``uvloop``; programs that have no event loop say ``asyncio`` too.
    """

    module: str
    loop: str

    @property
    def name(self) -> str:
        """What tables call it: the loop is told when it is not asyncio's own."""
        return self.module if self.loop == "asyncio" else f"{self.module}:{self.loop}"


def contender(module: str) -> type[Contender]:
    """Return the contender that *module* holds.

    Raises:
        KeyError: There is none of this name.
    """
    if module not in NAMES:
        raise KeyError(module)
    found = importlib.import_module(f"benchmarks.contenders.{module}")
    classes = [
        value
        for _, value in inspect.getmembers(found, inspect.isclass)
        if issubclass(value, Contender) and value.__module__ == found.__name__
    ]
    assert len(classes) == 1, f"{module} must hold exactly one contender"
    return classes[0]


def entries(names: list[str] | None = None) -> list[Entry]:
    """Return the entries behind *names*: ``aiohttp`` is all its loops, ``aiohttp:uvloop`` one; None: everybody.

    Raises:
        KeyError: Nobody is called so.
    """
    found: list[Entry] = []
    for name in names or NAMES:
        module, _, loop = name.partition(":")
        known = contender(module).loops
        if loop and loop not in known:
            raise KeyError(name)
        found += [Entry(module, one) for one in ([loop] if loop else known)]
    return list(dict.fromkeys(found))
