"""Rows of stored objects: what is known of them, who points to them, and that nobody does.

::

    references_count
      1 and more      so many rows point to the object
      0               none does: it is to go. It is there, and may still be committed
      -1              it goes this moment, in some process; or that process died, or the store does not let it go
      -2              it went

From -1 on the object's key is dead for good: nothing is committed under it any more, so whoever removes it late, or a
second time, removes nothing that anybody has. Its row goes when the key is too old to be committed anyhow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, bindparam, update

from asyncsdk.errors import Conflict, ResponseError
from asyncsdk.server.handlers.bulk import insert_rows
from asyncsdk.server.handlers.keys import is_too_old, never_arrived
from asyncsdk.server.handlers.registry import Arrivals, Context
from asyncsdk.server.objects.signing import object_etag
from asyncsdk.server.schema import blobs

__all__ = [
    "NewBlob",
    "Sent",
    "StoredBlobs",
    "add_blobs",
    "arrived",
    "condemn",
    "drop_references",
    "new_blob",
]

Sent = tuple[str, int, str]
"""What a message says of an object: id, size in bytes, crc32c."""

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
    is_dead: bool


class StoredBlobs:
    """What rows say of some objects, and whether they may be committed. That is sure under the write lock.

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
            self._rows = {row[0]: _Stored(row[1], row[2], row[3] < 0) for row in found}

    def __contains__(self, object_id: str) -> bool:
        """Whether there is a row of the object. One without may be committed once it has arrived."""
        return object_id in self._rows

    def is_dead(self, object_id: str) -> bool:
        """Whether the object went or is going: its key can never be committed again."""
        row = self._rows.get(object_id)
        return row is not None and row.is_dead

    def require(self, object_id: str, size_bytes: int, crc32c: str) -> None:
        """Let an object pass that is durable, and there, with this size and checksum.

        Raises:
            Conflict: It was committed with other bytes.
            NotFound: It is not there.
        """
        staged = object_id, crc32c
        has_arrived = self._context.published.get(staged) == size_bytes
        row = self._rows.get(object_id)
        if row is not None and (row.is_dead or (row.size_bytes, row.crc32c) != (size_bytes, crc32c)):
            if row.is_dead or not has_arrived:
                raise self._problem(staged)
            raise Conflict(f"object {object_id} was committed with other bytes; prepare the upload again")
        if row is None and not has_arrived:
            raise self._problem(staged)

    def _problem(self, staged: tuple[str, str]) -> ResponseError:
        return self._context.arrivals.problems.get(staged) or never_arrived()


def arrived(context: Context, *sent: Sent) -> Arrivals:
    """Return which objects are there with these sizes and checksums, young enough that no sweep is near.

    Ends the transaction: called when everything is read.

    Raises:
        BadRequest: One is there with other bytes (code ``bad_digest``).
        ServerError: One is still being read for its checksum (code ``still_checking``), or could not be.
    """
    wanted = [(object_id, crc32c) for object_id, _, crc32c in sent if not is_too_old(context, object_id)]
    context.end_reading()
    found = dict(zip(wanted, context.objects.sizes(wanted), strict=True))
    objects = {}
    for object_id, size_bytes, crc32c in sent:
        size = found.get((object_id, crc32c))
        if isinstance(size, ResponseError):
            raise size
        if size == size_bytes:
            objects[object_id, crc32c] = size_bytes
    return Arrivals(objects)


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
    """Note that objects, given as to `add_blobs`, are to go unless something points to them."""
    insert_rows(context.connection, _INSERT, "(?, ?, ?, ?, ?, 0)", rows, ending="ON CONFLICT (id) DO NOTHING")


def drop_references(connection: Connection, blob_ids: Iterable[str]) -> None:
    """Take one reference from each blob, once for each time it is named."""
    rows = [{"blob": blob_id} for blob_id in blob_ids]
    if rows:
        connection.execute(
            update(blobs).where(blobs.c.id == bindparam("blob")).values(references_count=blobs.c.references_count - 1),
            rows,
        )
