"""The SDK's client of a cloud, one for each process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["ClientOfProcess"]


class ClientOfProcess:
    """Makes the client when it is first asked for, and anew after a fork. Safe to share between threads.

    Its sockets must not be used on both sides of a fork: two processes would read each other's replies.

    Args:
        make: Makes a client, with a ``close`` of its own.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[int, Any] | None = None

    def __call__(self) -> Any:
        """Return the client of this process."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), self._make())
            return self._made[1]

    def close(self) -> None:
        """Close its connections; those of a fork's other side are not touched. Asked again, it makes another."""
        with self._lock:
            if self._made is not None and self._made[0] == os.getpid():
                self._made[1].close()
            self._made = None
