"""The schema's version: new stores get the newest schema, older ones are upgraded after a backup, newer ones refused.

The version stands in the database's ``user_version``, what the file is in its ``application_id``. All steps of an
upgrade are one transaction: it is done, or the store is as it was. Steps are SQL of their own time, never made from
`schema`, which goes on changing.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from asyncsdk.errors import StoreError
from asyncsdk.server import schema
from asyncsdk.server.database import BUSY_TIMEOUT_SECONDS, store_errors

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "STEPS", "prepare"]

_log = logging.getLogger(__name__)

APPLICATION_ID = 0x6173796E
"""``asyn``: tells a database of asyncsdk from any other SQLite file."""

STEPS: Mapping[int, Sequence[str]] = {
    # 1 -> 2. Query plans showed whole-table reads when blobs and items are removed; checkpoints of one millisecond had
    # no order; a commit of row parts could not be repeated once the parts were gone.
    1: (
        "CREATE INDEX items_by_blob ON items (blob_id)",
        "CREATE INDEX checkpoints_by_blob ON checkpoints (blob_id)",
        "CREATE INDEX predictions_by_item ON predictions (item_id)",
        "ALTER TABLE checkpoints ADD COLUMN sequence BIGINT DEFAULT '0' NOT NULL",
        """UPDATE checkpoints SET sequence = numbered.sequence
           FROM (SELECT id, row_number() OVER (PARTITION BY model_id ORDER BY created_at, id) AS sequence
                 FROM checkpoints) AS numbered
           WHERE numbered.id = checkpoints.id""",
        "CREATE UNIQUE INDEX checkpoints_by_sequence ON checkpoints (model_id, sequence)",
        """CREATE TABLE ingested_parts (object_id TEXT NOT NULL, task_id TEXT NOT NULL, accepted INTEGER NOT NULL,
           refused INTEGER NOT NULL, problems TEXT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (object_id),
           FOREIGN KEY(task_id) REFERENCES prediction_tasks (id))""",
        "CREATE INDEX ix_ingested_parts_task_id ON ingested_parts (task_id)",
    ),
    # 2 -> 3. Objects stay where they arrive, in folders of days, and a commit touches no file: an earlier release would
    # not find them there. The tables are the same; objects of earlier releases stay where they are.
    2: (),
    # 3 -> 4. Soft deletes, links and retention of models; metrics, agents, annotations; jobs get logs, artifacts and
    # workers to do them.
    3: (
        "ALTER TABLE projects ADD COLUMN deleted_at BIGINT",
        "ALTER TABLE projects ADD COLUMN image_blob_id TEXT REFERENCES blobs (id)",
        "ALTER TABLE projects ADD COLUMN image_filename TEXT",
        "CREATE INDEX ix_projects_image_blob_id ON projects (image_blob_id)",
        "ALTER TABLE datasets ADD COLUMN deleted_at BIGINT",
        "ALTER TABLE datasets ADD COLUMN archive_blob_id TEXT REFERENCES blobs (id)",
        "ALTER TABLE datasets ADD COLUMN archive_filename TEXT",
        "CREATE INDEX ix_datasets_archive_blob_id ON datasets (archive_blob_id)",
        "ALTER TABLE models ADD COLUMN deleted_at BIGINT",
        "ALTER TABLE models ADD COLUMN dataset_id TEXT REFERENCES datasets (id)",
        "ALTER TABLE models ADD COLUMN retention TEXT",
        "CREATE INDEX ix_models_dataset_id ON models (dataset_id)",
        "CREATE INDEX models_by_time ON models (created_at, id)",
        "CREATE INDEX checkpoints_best ON checkpoints (model_id, is_best) WHERE is_best IS 1",
        "CREATE INDEX checkpoints_final ON checkpoints (model_id, is_final) WHERE is_final IS 1",
        "ALTER TABLE jobs ADD COLUMN subject_id TEXT",
        "ALTER TABLE jobs ADD COLUMN is_cancel_requested BOOLEAN DEFAULT '0' NOT NULL",
        "ALTER TABLE jobs ADD COLUMN started_at BIGINT",
        "ALTER TABLE jobs ADD COLUMN ended_at BIGINT",
        "ALTER TABLE jobs ADD COLUMN forgiven_attempts INTEGER DEFAULT '0' NOT NULL",
        "ALTER TABLE jobs ADD COLUMN claim_id TEXT",
        "DROP INDEX jobs_by_status",
        "CREATE INDEX jobs_in_order ON jobs (status, priority DESC, created_at, id)",
        "CREATE INDEX jobs_by_time ON jobs (created_at, id)",
        "CREATE INDEX jobs_by_subject ON jobs (subject_id, created_at)",
        """CREATE TABLE job_logs (job_id TEXT NOT NULL, sequence BIGINT NOT NULL, attempt INTEGER NOT NULL,
           level TEXT NOT NULL, text TEXT NOT NULL, logged_at BIGINT NOT NULL, PRIMARY KEY (job_id, sequence),
           FOREIGN KEY(job_id) REFERENCES jobs (id))""",
        """CREATE TABLE artifacts (id TEXT NOT NULL, job_id TEXT NOT NULL, direction TEXT NOT NULL, name TEXT NOT NULL,
           blob_id TEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, created_by TEXT,
           metadata TEXT DEFAULT '{}' NOT NULL, extra TEXT DEFAULT '{}' NOT NULL, PRIMARY KEY (id),
           UNIQUE (job_id, direction, name), FOREIGN KEY(job_id) REFERENCES jobs (id),
           FOREIGN KEY(blob_id) REFERENCES blobs (id))""",
        "CREATE INDEX ix_artifacts_blob_id ON artifacts (blob_id)",
        """CREATE TABLE workers (id TEXT NOT NULL, name TEXT NOT NULL, labels TEXT DEFAULT '[]' NOT NULL,
           offers TEXT DEFAULT '{}' NOT NULL, last_seen_at BIGINT NOT NULL, created_at BIGINT NOT NULL,
           updated_at BIGINT NOT NULL, created_by TEXT, metadata TEXT DEFAULT '{}' NOT NULL,
           extra TEXT DEFAULT '{}' NOT NULL, is_temporary BOOLEAN DEFAULT '0' NOT NULL, PRIMARY KEY (id),
           UNIQUE (name))""",
        """CREATE TABLE metrics (model_id TEXT NOT NULL, name TEXT NOT NULL, step BIGINT NOT NULL,
           value FLOAT NOT NULL, logged_at BIGINT NOT NULL, created_by TEXT, PRIMARY KEY (model_id, name, step),
           FOREIGN KEY(model_id) REFERENCES models (id))""",
        """CREATE TABLE agents (id TEXT NOT NULL, model_id TEXT NOT NULL, name TEXT NOT NULL,
           interval_seconds FLOAT NOT NULL, beats BIGINT DEFAULT '0' NOT NULL, last_beat_at BIGINT NOT NULL,
           stopped_at BIGINT, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, created_by TEXT,
           metadata TEXT DEFAULT '{}' NOT NULL, extra TEXT DEFAULT '{}' NOT NULL, PRIMARY KEY (id),
           FOREIGN KEY(model_id) REFERENCES models (id))""",
        "CREATE INDEX agents_by_model ON agents (model_id, last_beat_at)",
        """CREATE TABLE annotations (id TEXT NOT NULL, dataset_id TEXT NOT NULL, item_id TEXT NOT NULL,
           label TEXT NOT NULL, kind TEXT NOT NULL, shape TEXT NOT NULL, created_at BIGINT NOT NULL,
           updated_at BIGINT NOT NULL, created_by TEXT, metadata TEXT DEFAULT '{}' NOT NULL,
           extra TEXT DEFAULT '{}' NOT NULL, PRIMARY KEY (id), FOREIGN KEY(dataset_id) REFERENCES datasets (id),
           FOREIGN KEY(item_id) REFERENCES items (id))""",
        "CREATE INDEX annotations_by_dataset ON annotations (dataset_id, id)",
        "CREATE INDEX annotations_by_item ON annotations (item_id, id)",
        "CREATE INDEX blobs_dead ON blobs (id) WHERE references_count < 0",
        # An earlier release removed objects in the transaction that removed their rows. Broken off, it left rows of
        # which nobody knows whether the object is there; now a row at 0 is taken for one that is.
        "UPDATE blobs SET references_count = -1 WHERE references_count = 0",
    ),
}
"""What leads from each version to the next."""

SCHEMA_VERSION = max(STEPS) + 1


def prepare(path: Path, *, backups: Path) -> bool:
    """Make the database at *path* one of `SCHEMA_VERSION`. The caller holds the folder's lock.

    Args:
        path: The database; made when missing.
        backups: Folder that takes a copy before an upgrade; made when needed.

    Returns:
        Whether the database is new.

    Raises:
        StoreError: The file is damaged or something else, or a newer release made it. It is unchanged.
        ServerError: Another process keeps writing to it (retryable).
    """
    with store_errors(path), closing(_connect(path)) as connection:
        version = _read_version(connection, path)
        if version == SCHEMA_VERSION:
            return False
        if version > SCHEMA_VERSION:
            raise StoreError(
                path,
                f"it has schema version {version}, made by a newer asyncsdk; this release knows versions up to "
                f"{SCHEMA_VERSION}. Install a release that knows schema version {version}",
            )
        if version == 0:
            _run(connection, _newest_schema())
            return True
        copy = _back_up(connection, backups, version)
        _log.info("upgrading %s from schema version %d to %d; backup: %s", path, version, SCHEMA_VERSION, copy)
        _run(connection, [statement for step in range(version, SCHEMA_VERSION) for statement in STEPS[step]])
        return False


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)


def _read_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version, 0 for a database without anything in it."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == APPLICATION_ID and version >= 1:
        return int(version)
    if application == 0 and version == 0 and count == 0:
        return 0
    raise StoreError(path, "is a database of another program; give asyncsdk a folder of its own")


@cache
def _newest_schema() -> tuple[str, ...]:
    dialect = sqlite.dialect()
    statements = []
    for table in schema.tables.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements.extend(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes)
    return tuple(statements)


def _run(connection: sqlite3.Connection, statements: Sequence[str]) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:  # rolled back whatever ended it, then raised again
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _back_up(connection: sqlite3.Connection, backups: Path, version: int) -> Path:
    backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    final = backups / f"asyncsdk-v{version}-{moment}.db"
    unfinished = final.with_suffix(".partial")
    try:
        with closing(sqlite3.connect(unfinished)) as copy:
            connection.backup(copy)
        unfinished.replace(final)
    finally:
        unfinished.unlink(missing_ok=True)
    return final
