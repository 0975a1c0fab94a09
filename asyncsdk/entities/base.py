"""What every entity has: a record's fields, a private way to its client, and the verbs all share.

Equality, hash and pickle go by the record: an entity that was pickled comes back without its client, and its verbs
then say how to get one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

import orjson
from pydantic import PrivateAttr

from asyncsdk.domain.ids import is_id
from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError
from asyncsdk.protocol.base import EntityRecord

__all__ = ["BoundRecord", "entity_id", "given", "optional_id"]


class BoundRecord(EntityRecord):
    """A record that can reach its client."""

    _session: Session | None = PrivateAttr(default=None)

    @classmethod
    def _bind(cls, record: Any, session: Session) -> Self:
        # Not validated again: a record of the same fields came from the platform, and listings make many of them.
        entity = cast("Self", cls.model_construct(**dict(record)))
        entity._session = session
        return entity

    @property
    def _client(self) -> Session:
        if self._session is None:
            kind = type(self).__name__.removeprefix("Async")
            raise ConfigError(
                f"this {kind} has no client (it was unpickled, copied or made by hand); "
                f"get it again by its id, {self.id!r}, from a client's collection"
            )
        return self._session

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values; the collection's ``from_json`` reads it."""
        result: dict[str, Any] = orjson.loads(self.model_dump_json())
        return result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EntityRecord):
            return NotImplemented
        return dict(self) == dict(other)

    def __hash__(self) -> int:
        return hash(self.id)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {"_session": None}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # The client is no data: a deep copy reaches the same one.
        return super().__deepcopy__({**({} if memo is None else memo), id(self._session): self._session})


def entity_id(value: EntityRecord | str, kind: str) -> str:
    """Return the id of an entity given as itself, as a record, or as an id.

    Raises:
        ConfigError: It is text, but no id.
    """
    if isinstance(value, EntityRecord):
        return value.id
    given_id: Any = value  # callers without a type checker give anything
    if isinstance(given_id, str) and is_id(given_id):
        return given_id
    raise ConfigError(f"{value!r} is no id of a {kind} (24 hexadecimal digits); to find one by name use get(name=...)")


def optional_id(value: EntityRecord | str | None, kind: str) -> str | None:
    """Return `entity_id`, or None for None."""
    return None if value is None else entity_id(value, kind)


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None, mappings as plain dicts: what a caller really gave."""
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
        if value is not None
    }
