"""Keeps the debug logs of the HTTP library from quoting what signed URLs and tokens travel in.

At level DEBUG httpcore logs reply headers (a ``Location`` may be a signed URL), header values it refuses, and lines it
cannot read. Those records are dropped for requests of our transport only; the logs of other users of httpcore stay as
they are.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

__all__ = ["is_ours", "quieten"]

is_ours: ContextVar[bool] = ContextVar("asyncsdk_request", default=False)
"""Set while a request of our transport is under way in the current task."""

_LOGGERS = ("httpcore.connection", "httpcore.http11", "httpcore.proxy", "httpcore.socks")


class _DropOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not is_ours.get()


_filter = _DropOurs()


def quieten() -> None:
    """Install the filter. Calling it again does nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)
