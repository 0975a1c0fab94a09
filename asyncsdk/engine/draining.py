"""What waits in the queues of a run when it ends before its feed does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.express import Express
from asyncsdk.engine.lanes import Lane
from asyncsdk.engine.transfers import Download, Upload
from asyncsdk.engine.work import Work
from asyncsdk.errors import AsyncSDKError

if TYPE_CHECKING:
    from asyncsdk.engine.crew.shift import Shift

__all__ = ["drop_waiting", "take_waiting"]

_Item = Work | Upload | Download


def drop_waiting(
    express: Express | None,
    shift: Shift | None,
    small: Lane[_Item],
    large: Lane[tuple[_Item, LargeObject | None]],
) -> int:
    """Forget every transfer that nobody has begun; returns how many. What was begun and waits to go on stays."""
    dropped = 0 if express is None else express.drop_waiting()
    dropped += 0 if shift is None else shift.drop_waiting()
    dropped += small.drop(lambda item: not isinstance(item, Work))
    return dropped + large.drop(lambda item: not isinstance(item[0], Work))


def take_waiting(
    express: Express | None,
    small: Lane[_Item],
    large: Lane[tuple[_Item, LargeObject | None]],
    on_failure: Callable[[Exception], None],
) -> list[_Item]:
    """Take everything out that is with no worker, begun or not, and close what belongs to it.

    Args:
        on_failure: Told what could not be removed; the others are removed all the same.
    """
    waiting = [] if express is None else express.left()
    waiting += small.drain()
    for item, found in large.drain():
        waiting.append(item)
        if found is not None:
            try:
                found.discard()
            except AsyncSDKError as error:
                on_failure(error)
    for item in waiting:
        if isinstance(item, Work):
            item.discard()
    return waiting
