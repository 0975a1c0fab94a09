"""Upload keys of messages, and how long they are good for."""

from __future__ import annotations

from asyncsdk.domain.ids import make_id, time_of_id
from asyncsdk.errors import NotFound
from asyncsdk.server.handlers.registry import Context

__all__ = ["KEY_LIFETIME_MS", "SWEEP_AGE_MS", "check_key", "is_too_old", "never_arrived", "new_key", "oldest_id"]

_DAY_MS = 24 * 60 * 60 * 1000

KEY_LIFETIME_MS = 7 * _DAY_MS
"""How long after preparing an object can be committed: a job that stopped on Friday goes on the next week."""

SWEEP_AGE_MS = KEY_LIFETIME_MS + _DAY_MS
"""When bytes that nobody committed are removed. The day between makes sure that no commit counts on them meanwhile."""


def new_key(context: Context, scope_id: str) -> tuple[str, str]:
    """Return the id of a new object and the key that lets this principal commit it in *scope_id*."""
    object_id = make_id()
    return object_id, context.signer.make_key(object_id, scope_id=scope_id, user_id=context.principal.user_id)


def check_key(context: Context, key: str, scope_id: str) -> str:
    """Return the object id in *key*.

    Raises:
        PermissionDenied: It was not made for this scope and this principal.
    """
    return context.signer.check_key(key, scope_id=scope_id, user_id=context.principal.user_id)


def oldest_id(context: Context) -> str:
    """Return the least id that is not too old: ids sort by the time of their making."""
    ticks = -(-max(0, context.now_ms - KEY_LIFETIME_MS) * 65536 // 1000)  # rounded up, as `time_of_id` rounds down
    return f"{ticks:012x}".ljust(24, "0")


def is_too_old(context: Context, object_id: str) -> bool:
    """Whether the object may have been swept."""
    return context.now_ms - time_of_id(object_id) > KEY_LIFETIME_MS


def never_arrived() -> NotFound:
    """Return the error for bytes that are not there."""
    return NotFound("these bytes never arrived; upload again")
