"""Housekeeping: bytes that nobody committed, and files of objects that nothing points to any more.

Safe beside running commits, in any number of processes at once: a key can no longer be committed a day before its bytes
are removed, and a file goes inside the transaction that takes its row.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from asyncsdk.server.database import Database
from asyncsdk.server.handlers.jobs import prune_jobs
from asyncsdk.server.handlers.keys import SWEEP_AGE_MS
from asyncsdk.server.handlers.outbox import prune_events
from asyncsdk.server.handlers.workers import prune_workers
from asyncsdk.server.objects.discarding import Swept
from asyncsdk.server.objects.store import ObjectStore
from asyncsdk.server.schema import blobs, ingested_parts, meta

__all__ = ["SWEEP_INTERVAL_MS", "SweepReport", "claim_sweep", "count_removals", "has_unreferenced", "reap", "sweep"]

SWEEP_INTERVAL_MS = 24 * 60 * 60 * 1000

_REAP_BATCH = 1000
_LAST_SWEEP = "last_sweep_at"
_SWEPT = "swept"
_REMOVALS = "removals"


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


def sweep(database: Database, objects: ObjectStore, *, now_ms: int) -> SweepReport:
    """Remove what is left over; see the module's page for what that is."""
    started, started_at = time.monotonic(), time.time()
    before_ms = now_ms - SWEEP_AGE_MS

    def committed(object_ids: Sequence[str]) -> Mapping[str, str]:
        with database.read() as connection:
            statement = select(blobs.c.id, blobs.c.crc32c).where(blobs.c.id.in_(object_ids))
            return {row.id: row.crc32c for row in connection.execute(statement)}

    with database.read() as connection:
        swept = _swept_before(connection)
    _prune(database, now_ms)
    discarded = objects.discard_expired(before_ms=before_ms, keep=committed, swept=swept)
    removed = reap(database, objects)
    with database.write() as connection:
        connection.execute(delete(ingested_parts).where(ingested_parts.c.created_at < before_ms))
        _note(connection, _SWEPT, f"{before_ms} {started_at:.3f}")
        _note(connection, _LAST_SWEEP, str(now_ms))
    return SweepReport(discarded, removed, time.monotonic() - started)


def _prune(database: Database, now_ms: int) -> None:
    """Remove what is kept for a time only: old jobs, workers that are gone, events."""
    is_left = True
    while is_left:  # in small transactions: whoever writes meanwhile does not wait for all of it
        with database.write() as connection:
            is_left = prune_jobs(connection, now_ms=now_ms) > 0
    with database.write() as connection:
        prune_workers(connection, now_ms=now_ms)
        prune_events(connection, now_ms=now_ms)


def claim_sweep(database: Database, *, now_ms: int) -> bool:
    """Whether a sweep is due; then the next one, in whatever process, is due an interval later."""
    with database.read() as connection:
        if not _is_due(connection, now_ms):
            return False
    with database.write() as connection:
        if not _is_due(connection, now_ms):
            return False
        _note(connection, _LAST_SWEEP, str(now_ms))
        return True


def _is_due(connection: Connection, now_ms: int) -> bool:
    last = _noted(connection, _LAST_SWEEP)
    return last is None or now_ms - int(last) >= SWEEP_INTERVAL_MS


def _swept_before(connection: Connection) -> Swept | None:
    noted = _noted(connection, _SWEPT)
    if noted is None:
        return None
    before_ms, started_at = noted.split()
    return Swept(int(before_ms), float(started_at))


def count_removals(connection: Connection) -> int:
    """Return how often files of committed objects were removed.

    As long as the number is the same, whatever was seen to be there is there, but for objects whose row has no
    references: files go before the transaction that counts them ends, and it may not come to its end.
    """
    return int(_noted(connection, _REMOVALS) or 0)


def _noted(connection: Connection, name: str) -> str | None:
    found: str | None = connection.exec_driver_sql("SELECT value FROM meta WHERE name = ?", (name,)).scalar()
    return found


def _note(connection: Connection, name: str, value: str) -> None:
    statement = insert(meta).values(name=name, value=value)
    changed = {"value": statement.excluded.value}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


def has_unreferenced(connection: Connection) -> bool:
    """Whether there is a blob that nothing points to."""
    return connection.exec_driver_sql("SELECT 1 FROM blobs WHERE references_count = 0 LIMIT 1").first() is not None


def reap(database: Database, objects: ObjectStore, *, max_batches: int | None = None) -> int:
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
            # Under the write lock: nobody points to them again meanwhile, and a commit that looked for its objects
            # before learns by the count that it has to look again. A crash before the end keeps the rows.
            objects.remove([(row.id, row.crc32c) for row in rows])
            _note(connection, _REMOVALS, str(count_removals(connection) + 1))
            connection.execute(delete(blobs).where(blobs.c.id.in_([row.id for row in rows])))
        removed += len(rows)
    return removed
