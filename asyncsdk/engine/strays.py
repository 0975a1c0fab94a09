"""Cancellations that nobody asked for: the caller's code awaited something that was cancelled by itself.

Such an `asyncio.CancelledError` says nothing about the task it arrives in, yet task groups take it for a cancellation
and end without a word. So it becomes an ordinary exception where it arrives.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from asyncsdk.errors import TransferError

__all__ = ["StrayCancelledError", "is_stray", "no_strays", "stray_failure"]


class StrayCancelledError(Exception):
    """A cancellation that was not asked of the task it arrived in; the real one is its cause."""


def is_stray() -> bool:
    """Whether a `CancelledError` that was just caught was never asked of the current task.

    asyncio, its timeouts and anyio's scopes all cancel through ``Task.cancel``, which is counted until they take it
    back. Ask right where the caller's code was awaited: leaving a task group of anyio may take back more than was
    counted, if tasks of that group held scopes of their own. A task whose caller swallowed a cancellation counts as
    cancelled for ever; then the answer is no.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() == 0


class no_strays:  # noqa: N801  # read as a statement: with no_strays()
    """Raise `StrayCancelledError` instead of a cancellation that is none of the current task."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError) and is_stray():
            raise StrayCancelledError("cancelled by itself") from error


def stray_failure(error: BaseException) -> TransferError:
    """Return what ends a run when the cancellation came from what concerns more than one object."""
    failure = TransferError(
        "a feed or a callback raised CancelledError though nobody cancelled this run: it awaited something that was "
        "cancelled; what was done so far is settled"
    )
    failure.__cause__ = error.__cause__ if isinstance(error, StrayCancelledError) else error
    return failure
