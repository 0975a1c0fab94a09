"""How a function becomes the handler of a message, and what it is given.

A handler runs in one transaction, in a worker thread, after the principal's role was checked. Bytes must be durable
before a transaction makes them part of something; so a message that does that also registers its *arrivals*: the
objects it counts on, looked for in a read transaction of their own and synced before the handler runs. The sync of the
file system, which takes as long as the disk needs, and a bucket, which takes as long as the network, thus never hold
the write lock. A handler that writes asks the store for nothing; any other ends its transaction before it does
(`Context.end_reading`): one that stays open keeps the write-ahead log growing, and forks waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

from sqlalchemy import Connection

from asyncsdk.errors import ResponseError
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
        problems: Objects that may not be committed although something is there, and why.
        files: The bytes of objects that the handler reads; closed when the message is answered.
    """

    objects: Mapping[StagedObject, int]
    keys: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[StagedObject, ResponseError] = field(default_factory=dict)
    files: Mapping[StagedObject, BinaryIO] = field(default_factory=dict)


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
        arrivals: What was looked for before; its objects are durable now.
        end_reading: To be called when everything is read and the store is to be asked: ends a transaction that reads,
            whose connection cannot be used afterwards. Does nothing to one that writes, nor when called again.
    """

    connection: Connection
    principal: Principal
    minter: Minter
    objects: ObjectStore
    signer: Signer
    now_ms: int
    arrivals: Arrivals = field(default_factory=lambda: Arrivals({}))
    end_reading: Callable[[], None] = lambda: None

    @property
    def published(self) -> Mapping[StagedObject, int]:
        """Arrivals that are durable, and their sizes in bytes. They are there unless their row says that they go."""
        return self.arrivals.objects

    @property
    def keys(self) -> Mapping[str, str]:
        """Upload keys of the message that were checked with the arrivals, and their object ids."""
        return self.arrivals.keys


@dataclass(frozen=True, slots=True)
class Registration:
    """A handler and the conditions it runs under.

    Attributes:
        handler: Takes the context and the message, returns the reply.
        role: What the principal must at least be.
        writes: Whether it needs a write transaction.
        arrivals: Names the objects that must be durable before.
        asks_store: Whether it asks the store, which may take as long as a bucket does.
    """

    handler: Callable[[Context, Any], Any]
    role: Role
    writes: bool
    arrivals: Callable[[Context, Any], Arrivals] | None = None
    asks_store: bool = False


registrations: dict[type[Message[Any]], Registration] = {}


def handles(
    message_type: type[M],
    *,
    role: Role,
    writes: bool = False,
    arrivals: Callable[[Context, M], Arrivals] | None = None,
    asks_store: bool = False,
) -> Callable[[Callable[[Context, M], Any]], Callable[[Context, M], Any]]:
    """Register the decorated function as the handler of *message_type*.

    Args:
        message_type: The message.
        role: What the principal must at least be.
        writes: Whether the handler needs a write transaction; it asks the store for nothing then.
        arrivals: Names the objects that must be durable before; it may ask the store.
        asks_store: Whether the handler asks the store: where bytes go or come from may be a request to a bucket. It
            calls `Context.end_reading` before.
    """

    def register(handler: Callable[[Context, M], Any]) -> Callable[[Context, M], Any]:
        if message_type in registrations:
            raise TypeError(f"{message_type.__name__} has a handler already")
        asks = asks_store or arrivals is not None
        registrations[message_type] = Registration(handler, role, writes, arrivals, asks)
        return handler

    return register
