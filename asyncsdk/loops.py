"""Event loops that this package makes itself: uvloop's when it is installed (extra ``fast``), else asyncio's own.

Used where a process is ours from start to end: the command line. Your own code decides for itself, everything here
runs on either. The loop of the blocking calls stays asyncio's: a forked child must let go of the sockets of its parent,
and uvloop names them to nobody.
"""

from __future__ import annotations

import asyncio

__all__ = ["new_event_loop"]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, the fastest kind that is installed; whoever asked closes it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
