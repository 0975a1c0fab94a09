"""How a function becomes the handler of a message, and what it is given.

A handler runs in one transaction, in a worker thread, after the principal's role was checked. Bytes must be durable
before a transaction makes them part of something; so a message that does that also registers its *arrivals*: the
staged objects it counts on, named in a read transaction of their own and published before the handler runs. The sync
of the file system, which takes as long as the disk needs, thus never holds the write lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from asyncsdk.errors import AsyncSDKError
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.users import Role
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.minting import Minter
from asyncsdk.server.objects.signing import Signer
from asyncsdk.server.principals import Principal

__all__ = ["Context", "Registration", "StagedObject", "handles", "registrations"]

M = TypeVar("M", bound=Message[Any])

StagedObject = tuple[str, str]
"""Object id and crc32c."""


@dataclass(slots=True)
class Context:
    """What a handler is given beside the message.

    Attributes:
        connection: In this message's transaction.
        principal: On whose behalf; its role was checked.
        minter: Makes targets and origins as the caller can reach them.
        objects: The object store.
        signer: Makes and checks upload keys.
        now_ms: The message's time, milliseconds since 1970 UTC.
        published: Arrivals that were made durable before this transaction began; they may be gone again.
        unpublished: Arrivals that could not be published, and why.
    """

    connection: Connection
    principal: Principal
    minter: Minter
    objects: LocalObjects
    signer: Signer
    now_ms: int
    published: frozenset[StagedObject] = frozenset()
    unpublished: Mapping[str, AsyncSDKError] = field(default_factory=dict)
    hooks: list[Callable[[], None]] = field(default_factory=list)

    def after_commit(self, hook: Callable[[], None]) -> None:
        """Have *hook* called once the transaction is durable; never when it failed."""
        self.hooks.append(hook)


@dataclass(frozen=True, slots=True)
class Registration:
    """A handler and the conditions it runs under.

    Attributes:
        handler: Takes the context and the message, returns the reply.
        role: What the principal must at least be.
        writes: Whether it needs a write transaction.
        arrivals: Names the staged objects that must be durable before.
    """

    handler: Callable[[Context, Any], Any]
    role: Role
    writes: bool
    arrivals: Callable[[Context, Any], Sequence[StagedObject]] | None = None


registrations: dict[type[Message[Any]], Registration] = {}


def handles(
    message_type: type[M],
    *,
    role: Role,
    writes: bool = False,
    arrivals: Callable[[Context, M], Sequence[StagedObject]] | None = None,
) -> Callable[[Callable[[Context, M], Any]], Callable[[Context, M], Any]]:
    """Register the decorated function as the handler of *message_type*."""

    def register(handler: Callable[[Context, M], Any]) -> Callable[[Context, M], Any]:
        if message_type in registrations:
            raise TypeError(f"{message_type.__name__} has a handler already")
        registrations[message_type] = Registration(handler, role, writes, arrivals)
        return handler

    return register
