"""Housekeeping: bytes that nobody committed, and files of objects that nothing points to any more.

Safe beside running commits, in any number of processes at once: a key can no longer be committed a day before its bytes
are removed, and an object that nothing points to goes after a transaction has made its key a dead one (see
`asyncsdk.server.handlers.blobs`). The store is asked outside of transactions: it may take its time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
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

__all__ = ["SWEEP_INTERVAL_MS", "SweepReport", "claim_sweep", "has_unreferenced", "reap", "sweep"]

_log = logging.getLogger(__name__)

SWEEP_INTERVAL_MS = 24 * 60 * 60 * 1000

_REAP_BATCH = 1000
_FORGET_BATCH = 10_000
_LAST_SWEEP = "last_sweep_at"
_SWEPT = "swept"


# What the counts mean: `asyncsdk.server.handlers.blobs`.
_UNREFERENCED = "SELECT id, crc32c FROM blobs WHERE references_count = 0 LIMIT ?"
_TO_DYING = "UPDATE blobs SET references_count = -1 WHERE id IN (SELECT value FROM json_each(?))"
# These name the condition of the index of dead rows as it stands there: only then SQLite takes it.
_STILL_DYING = """
    SELECT id, crc32c FROM blobs WHERE references_count < 0 AND references_count = -1 AND id > ? ORDER BY id LIMIT ?
"""
_FORGET_GONE = """
    DELETE FROM blobs WHERE id IN (
        SELECT id FROM blobs WHERE references_count < 0 AND references_count = -2 AND id < ? LIMIT ?
    )
"""
_FORGET_THESE = """
    DELETE FROM blobs WHERE id IN (SELECT value FROM json_each(?)) AND references_count = -1 AND id < ?
"""
_TO_GONE = """
    UPDATE blobs SET references_count = -2 WHERE id IN (SELECT value FROM json_each(?)) AND references_count = -1
"""


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
            chosen = blobs.c.id.in_(object_ids) & (blobs.c.references_count >= 0)
            statement = select(blobs.c.id, blobs.c.crc32c).where(chosen)
            return {row.id: row.crc32c for row in connection.execute(statement)}

    with database.read() as connection:
        swept = _swept_before(connection)
    _prune(database, now_ms)
    discarded = objects.discard_expired(before_ms=before_ms, keep=committed, swept=swept)
    removed = reap(database, objects, now_ms=now_ms, again=True)
    _forget_gone(database, now_ms)
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


def _noted(connection: Connection, name: str) -> str | None:
    found: str | None = connection.exec_driver_sql("SELECT value FROM meta WHERE name = ?", (name,)).scalar()
    return found


def _note(connection: Connection, name: str, value: str) -> None:
    statement = insert(meta).values(name=name, value=value)
    changed = {"value": statement.excluded.value}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


def has_unreferenced(connection: Connection) -> bool:
    """Whether there is a blob that nothing points to and that nobody removes yet."""
    return connection.exec_driver_sql("SELECT 1 FROM blobs WHERE references_count = 0 LIMIT 1").first() is not None


def reap(
    database: Database,
    objects: ObjectStore,
    *,
    now_ms: int,
    again: bool = False,
    max_batches: int | None = None,
) -> int:
    """Remove the objects that nothing points to, and return how many.

    What the store does not let go stays behind for the next sweep, and keeps nothing else.

    Args:
        database: The metadata.
        objects: The bytes.
        now_ms: Milliseconds since 1970 UTC.
        again: Whether to try those too that stayed when they were to go, or whose removal somebody did not end.
        max_batches: Batches of 1,000 after which to leave the rest to the next call; None for all.

    Raises:
        ServerError: The store fails; what it was to remove is tried *again* later.
    """
    removed = batches = stayed = 0
    reasons: set[str] = set()
    last = ""
    while max_batches is None or batches < max_batches:
        batches += 1
        # First those that are newly due: what cannot be removed comes after all that can.
        dying = _begin_to_remove(database)
        comes_again = again and bool(dying)
        if not dying and again:
            dying = _dying_after(database, last, _REAP_BATCH)
            last = dying[-1][0] if dying else last
        if not dying:
            break
        kept = objects.remove(dying)
        gone = [object_id for object_id, _ in dying if object_id not in kept]
        _end_removing(database, gone, now_ms)
        reasons.update(kept.values())
        stayed += 0 if comes_again else len(kept)
        removed += len(gone)
    if stayed:
        _log.warning(
            "%d objects that are to go stay, for the store does not let them (%s); the next sweep tries them again",
            stayed,
            ", ".join(sorted(reasons)),
        )
    return removed


def _begin_to_remove(database: Database) -> list[tuple[str, str]]:
    """Make the keys of up to 1,000 objects that nothing points to dead ones; returns id and crc32c of each."""
    with database.write() as connection:
        found = [(row[0], row[1]) for row in connection.exec_driver_sql(_UNREFERENCED, (_REAP_BATCH,))]
        if found:
            connection.exec_driver_sql(_TO_DYING, (orjson.dumps([object_id for object_id, _ in found]).decode(),))
        return found


def _dying_after(database: Database, last: str, count: int) -> list[tuple[str, str]]:
    with database.read() as connection:
        return [(row[0], row[1]) for row in connection.exec_driver_sql(_STILL_DYING, (last, count))]


def _end_removing(database: Database, object_ids: Sequence[str], now_ms: int) -> None:
    """Note that objects went. The row of one whose key could still be committed stays, so that it is not."""
    if not object_ids:
        return
    ids = orjson.dumps(object_ids).decode()
    with database.write() as connection:
        connection.exec_driver_sql(_FORGET_THESE, (ids, _least_id(now_ms - SWEEP_AGE_MS)))
        connection.exec_driver_sql(_TO_GONE, (ids,))


def _forget_gone(database: Database, now_ms: int) -> None:
    """Remove the rows of objects that went, of keys that are too old to be committed."""
    is_left = True
    while is_left:  # in small transactions: whoever writes meanwhile does not wait for all of it
        with database.write() as connection:
            found = connection.exec_driver_sql(_FORGET_GONE, (_least_id(now_ms - SWEEP_AGE_MS), _FORGET_BATCH))
            is_left = found.rowcount == _FORGET_BATCH


def _least_id(time_ms: int) -> str:
    """Return the bound between ids made before a time, milliseconds since 1970 UTC, and those made since."""
    return f"{max(0, time_ms) * 65536 // 1000:012x}"
