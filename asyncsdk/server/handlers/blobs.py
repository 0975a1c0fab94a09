"""Rows of stored objects: what is known of them, who points to them, and that nobody does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, bindparam, update

from asyncsdk.errors import Conflict
from asyncsdk.server.handlers.bulk import insert_rows
from asyncsdk.server.handlers.keys import is_too_old, never_arrived
from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.objects.signing import object_etag
from asyncsdk.server.schema import blobs

__all__ = ["NewBlob", "StoredBlobs", "add_blobs", "condemn", "drop_references", "has_arrived", "new_blob"]

NewBlob = tuple[str, int, str, str, int]
"""Object id, size in bytes, crc32c, ETag, and when it was committed; rows are given one after the other in one list."""

_INSERT = "INSERT INTO blobs (id, size_bytes, crc32c, etag, created_at, references_count) VALUES"
_ONE_MORE = "ON CONFLICT (id) DO UPDATE SET references_count = references_count + 1"
_NEWEST = "SELECT max(id) FROM blobs"
_FIND = """
    SELECT id, size_bytes, crc32c, references_count FROM blobs WHERE id IN (SELECT value FROM json_each(?))
"""


@dataclass(frozen=True, slots=True)
class _Stored:
    size_bytes: int
    crc32c: str
    is_referenced: bool


class StoredBlobs:
    """What the store says of some objects, and whether they may be committed. Use it under the write lock.

    Args:
        context: Of the message.
        object_ids: The objects.
    """

    def __init__(self, context: Context, object_ids: Iterable[str]) -> None:
        self._context = context
        newest = context.connection.exec_driver_sql(_NEWEST).scalar() or ""
        # Ids sort by the time of their making: most commits are of objects newer than all that are stored.
        known = [object_id for object_id in object_ids if object_id <= newest]
        self._rows: dict[str, _Stored] = {}
        if known:
            found = context.connection.exec_driver_sql(_FIND, (orjson.dumps(known).decode(),))
            self._rows = {row[0]: _Stored(row[1], row[2], row[3] > 0) for row in found}

    def __contains__(self, object_id: str) -> bool:
        """Whether the store has a row of the object. One without may be committed once it has arrived."""
        return object_id in self._rows

    def require(self, object_id: str, size_bytes: int, crc32c: str) -> None:
        """Let an object pass that is durable, and there, with this size and checksum.

        Raises:
            Conflict: It was committed with other bytes.
            NotFound: It is not there.
        """
        has_arrived = self._context.published.get((object_id, crc32c)) == size_bytes
        row = self._rows.get(object_id)
        if row is None:
            if not has_arrived:
                raise never_arrived()
        elif (row.size_bytes, row.crc32c) != (size_bytes, crc32c):
            if not has_arrived:
                raise never_arrived()
            raise Conflict(f"object {object_id} was committed with other bytes; prepare the upload again")
        elif not row.is_referenced and (
            # Its file is to go, and may be gone: whoever removes files does so before the row.
            not has_arrived or self._context.objects.staged_size(object_id, crc32c) != size_bytes
        ):
            raise never_arrived()


def has_arrived(context: Context, object_id: str, *, size_bytes: int, crc32c: str) -> bool:
    """Whether an object is there with this size and checksum, young enough that no sweep is near."""
    return not is_too_old(context, object_id) and context.objects.staged_size(object_id, crc32c) == size_bytes


def new_blob(context: Context, object_id: str, size_bytes: int, crc32c: str) -> NewBlob:
    """Return the row of an object that this message commits."""
    return object_id, size_bytes, crc32c, object_etag(object_id, crc32c), context.now_ms


def add_blobs(context: Context, rows: Sequence[str | int]) -> None:
    """Add a reference to each object, once for each time it is named; a row is made where there is none.

    Args:
        context: Of the message.
        rows: The values of `NewBlob`, one row after the other.
    """
    insert_rows(context.connection, _INSERT, "(?, ?, ?, ?, ?, 1)", rows, ending=_ONE_MORE)


def condemn(context: Context, rows: Sequence[str | int]) -> None:
    """Note that the files of objects, given as to `add_blobs`, are to go unless something points to them."""
    insert_rows(context.connection, _INSERT, "(?, ?, ?, ?, ?, 0)", rows, ending="ON CONFLICT (id) DO NOTHING")


def drop_references(connection: Connection, blob_ids: Iterable[str]) -> None:
    """Take one reference from each blob, once for each time it is named."""
    rows = [{"blob": blob_id} for blob_id in blob_ids]
    if rows:
        connection.execute(
            update(blobs).where(blobs.c.id == bindparam("blob")).values(references_count=blobs.c.references_count - 1),
            rows,
        )
