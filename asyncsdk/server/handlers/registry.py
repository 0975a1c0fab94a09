"""How a function becomes the handler of a message, and what it is given.

A handler runs in one transaction, in a worker thread, after the principal's role was checked. Bytes must be durable
before a transaction makes them part of something; so a message that does that also registers its *arrivals*: the
objects it counts on, looked for in a read transaction of their own and synced before the handler runs. The sync of the
file system, which takes as long as the disk needs, thus never holds the write lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from asyncsdk.protocol.base import Message
from asyncsdk.protocol.users import Role
from asyncsdk.server.objects.minting import Minter
from asyncsdk.server.objects.signing import Signer
from asyncsdk.server.objects.store import ObjectStore
from asyncsdk.server.principals import Principal

__all__ = ["Arrivals", "Context", "Registration", "StagedObject", "handles", "registrations"]

M = TypeVar("M", bound=Message[Any])

StagedObject = tuple[str, str]
"""Object id and crc32c."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What a message counts on.

    Attributes:
        objects: Objects that are there, and their sizes in bytes.
        keys: Upload keys that were checked on the way, and their object ids.
    """

    objects: Mapping[StagedObject, int]
    keys: Mapping[str, str] = field(default_factory=dict)


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
        published: Arrivals that are durable, and there as long as this transaction lasts, with their sizes in bytes.
        keys: Upload keys of the message that were checked with the arrivals, and their object ids.
    """

    connection: Connection
    principal: Principal
    minter: Minter
    objects: ObjectStore
    signer: Signer
    now_ms: int
    published: Mapping[StagedObject, int] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registration:
    """A handler and the conditions it runs under.

    Attributes:
        handler: Takes the context and the message, returns the reply.
        role: What the principal must at least be.
        writes: Whether it needs a write transaction.
        arrivals: Names the objects that must be durable before.
    """

    handler: Callable[[Context, Any], Any]
    role: Role
    writes: bool
    arrivals: Callable[[Context, Any], Arrivals] | None = None


registrations: dict[type[Message[Any]], Registration] = {}


def handles(
    message_type: type[M],
    *,
    role: Role,
    writes: bool = False,
    arrivals: Callable[[Context, M], Arrivals] | None = None,
) -> Callable[[Callable[[Context, M], Any]], Callable[[Context, M], Any]]:
    """Register the decorated function as the handler of *message_type*."""

    def register(handler: Callable[[Context, M], Any]) -> Callable[[Context, M], Any]:
        if message_type in registrations:
            raise TypeError(f"{message_type.__name__} has a handler already")
        registrations[message_type] = Registration(handler, role, writes, arrivals)
        return handler

    return register
