"""Housekeeping: bytes that nobody committed, and files of objects that nothing points to any more.

Safe beside running commits, in any number of processes at once: a key can no longer be committed a day before its bytes
are removed, and a file goes inside the transaction that takes its row.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from asyncsdk.server.database import Database
from asyncsdk.server.handlers.keys import SWEEP_AGE_MS
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.schema import blobs, ingested_parts, meta

__all__ = ["SWEEP_INTERVAL_MS", "SweepReport", "claim_sweep", "has_unreferenced", "reap", "sweep"]

SWEEP_INTERVAL_MS = 24 * 60 * 60 * 1000

_REAP_BATCH = 1000
_LAST_SWEEP = "last_sweep_at"


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep removed.

    Attributes:
        discarded_files: Files of uploads that were never committed.
        removed_objects: Objects that nothing pointed to any more.
        seconds: How long it took.
    """

    discarded_files: int
    removed_objects: int
    seconds: float


def sweep(database: Database, objects: LocalObjects, *, now_ms: int) -> SweepReport:
    """Remove what is left over; see the module's page for what that is."""
    started = time.monotonic()
    before_ms = now_ms - SWEEP_AGE_MS

    def committed(object_ids: Sequence[str]) -> set[str]:
        with database.read() as connection:
            return set(connection.execute(select(blobs.c.id).where(blobs.c.id.in_(object_ids))).scalars())

    discarded = objects.discard_expired(before_ms=before_ms, keep=committed)
    removed = reap(database, objects)
    with database.write() as connection:
        connection.execute(delete(ingested_parts).where(ingested_parts.c.created_at < before_ms))
        _note_sweep(connection, now_ms)
    return SweepReport(discarded, removed, time.monotonic() - started)


def claim_sweep(database: Database, *, now_ms: int) -> bool:
    """Whether a sweep is due; then the next one, in whatever process, is due an interval later."""
    with database.read() as connection:
        if not _is_due(connection, now_ms):
            return False
    with database.write() as connection:
        if not _is_due(connection, now_ms):
            return False
        _note_sweep(connection, now_ms)
        return True


def _is_due(connection: Connection, now_ms: int) -> bool:
    last = connection.execute(select(meta.c.value).where(meta.c.name == _LAST_SWEEP)).scalar()
    return last is None or now_ms - int(last) >= SWEEP_INTERVAL_MS


def _note_sweep(connection: Connection, now_ms: int) -> None:
    statement = insert(meta).values(name=_LAST_SWEEP, value=str(now_ms))
    changed = {"value": statement.excluded.value}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


def has_unreferenced(connection: Connection) -> bool:
    """Whether there is a blob that nothing points to."""
    return connection.execute(select(blobs.c.id).where(blobs.c.references_count == 0).limit(1)).first() is not None


def reap(database: Database, objects: LocalObjects, *, max_batches: int | None = None) -> int:
    """Remove the objects that nothing points to, and return how many.

    Args:
        database: The metadata.
        objects: The bytes.
        max_batches: Batches of 1,000 after which to leave the rest to the next call; None for all.
    """
    removed = 0
    batches = 0
    while max_batches is None or batches < max_batches:
        batches += 1
        with database.write() as connection:
            statement = select(blobs.c.id, blobs.c.crc32c).where(blobs.c.references_count == 0).limit(_REAP_BATCH)
            rows = connection.execute(statement).all()
            if not rows:
                break
            # Under the write lock, under which a commit also looks whether what it published before is still there:
            # nobody points to them again meanwhile. A crash before the end keeps the rows.
            objects.unstage([(row.id, row.crc32c) for row in rows])
            objects.remove([row.id for row in rows])
            connection.execute(delete(blobs).where(blobs.c.id.in_([row.id for row in rows])))
        removed += len(rows)
    return removed
