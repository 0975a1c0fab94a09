"""The tables of the metadata store, as they are in the newest schema.

Times are integer milliseconds since 1970 UTC. Text compares byte by byte (SQLite's BINARY collation), so that NFC and
NFD spellings of a path are different items. How an older store becomes one of these: `asyncsdk.server.migrations`; a
change here needs a step there.
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from asyncsdk.errors import BadRequest

__all__ = [
    "JsonText",
    "agents",
    "artifacts",
    "blobs",
    "checkpoints",
    "datasets",
    "ingested_parts",
    "item_annotations",
    "items",
    "job_logs",
    "jobs",
    "json_text",
    "meta",
    "metrics",
    "models",
    "outbox",
    "prediction_tasks",
    "predictions",
    "projects",
    "tables",
    "tokens",
    "users",
    "workers",
]


def json_text(value: Any) -> str:
    """Return *value* as the text that is kept; `BadRequest` when JSON has no form for it."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:  # integers over 64 bits, nesting over 254 levels, broken text
        raise BadRequest(f"a value cannot be kept as JSON: {error}") from error


class JsonText(TypeDecorator[Any]):
    """JSON kept as text; SQLite's JSON functions read it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return *value* as text; `BadRequest` when JSON has no form for it."""
        return None if value is None else json_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the value that was stored."""
        return None if value is None else orjson.loads(value)


tables = MetaData()


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _history() -> list[Column[Any]]:
    """Return what every entity has; nothing is shared between tables."""
    return [
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        Column("created_by", Text),
        Column("metadata", JsonText, nullable=False, server_default="{}"),
        Column("extra", JsonText, nullable=False, server_default="{}"),
    ]


meta = Table(
    "meta",
    tables,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

users = Table(
    "users",
    tables,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    *_history(),
)

tokens = Table(
    "tokens",
    tables,
    _id(),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False, unique=True),  # the token itself is never kept
    *_history(),
)

projects = Table(
    "projects",
    tables,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
    *_history(),
    Column("deleted_at", BigInteger),  # a soft delete: out of sight, restorable, its name still taken
    Column("image_blob_id", Text, ForeignKey("blobs.id"), index=True),
    Column("image_filename", Text),
)

datasets = Table(
    "datasets",
    tables,
    _id(),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("is_readonly", Boolean, nullable=False, server_default="0"),
    Column("next_position", BigInteger, nullable=False, server_default="0"),
    Column("item_count", BigInteger, nullable=False, server_default="0"),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    *_history(),
    Column("deleted_at", BigInteger),
    Column("archive_blob_id", Text, ForeignKey("blobs.id"), index=True),
    Column("archive_filename", Text),
    UniqueConstraint("project_id", "name"),
)

# One row per stored object, whoever points to it. What counts of less than 1 mean: `asyncsdk.server.handlers.blobs`.
blobs = Table(
    "blobs",
    tables,
    _id(),
    Column("size_bytes", BigInteger, nullable=False),
    Column("crc32c", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("sha256", Text),
    Column("references_count", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
Index("blobs_by_sha256", blobs.c.sha256, sqlite_where=blobs.c.sha256.is_not(None))
Index("blobs_unreferenced", blobs.c.id, sqlite_where=blobs.c.references_count == 0)
Index("blobs_dead", blobs.c.id, sqlite_where=blobs.c.references_count < 0)

items = Table(
    "items",
    tables,
    _id(),
    Column("dataset_id", Text, ForeignKey("datasets.id"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("blob_id", Text, ForeignKey("blobs.id"), nullable=False),
    *_history(),
    UniqueConstraint("dataset_id", "path"),
    UniqueConstraint("dataset_id", "position"),
)
# Without these three, removing a blob or an item reads the whole table that could point to it.
Index("items_by_blob", items.c.blob_id)

models = Table(
    "models",
    tables,
    _id(),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("framework", Text, nullable=False, server_default=""),
    Column("labels", JsonText, nullable=False, server_default="{}"),
    Column("config", JsonText, nullable=False, server_default="{}"),
    *_history(),
    Column("deleted_at", BigInteger),
    Column("dataset_id", Text, ForeignKey("datasets.id"), index=True),  # what it is trained on
    Column("retention", JsonText),  # which checkpoints of older epochs stay; none: all
)
Index("models_by_name", models.c.project_id, models.c.name)
Index("models_by_time", models.c.created_at, models.c.id)  # as for jobs: their configurations are not sorted

checkpoints = Table(
    "checkpoints",
    tables,
    _id(),
    Column("model_id", Text, ForeignKey("models.id"), nullable=False),
    Column("blob_id", Text, ForeignKey("blobs.id"), nullable=False),
    Column("filename", Text, nullable=False, server_default=""),
    Column("epoch", Integer),
    Column("is_best", Boolean, nullable=False, server_default="0"),
    Column("is_final", Boolean, nullable=False, server_default="0"),
    Column("metrics", JsonText, nullable=False, server_default="{}"),
    *_history(),
    # Order of commit: times repeat within a millisecond, ids are made by clients.
    Column("sequence", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("model_id", "epoch"),
)
Index("checkpoints_by_sequence", checkpoints.c.model_id, checkpoints.c.sequence, unique=True)
Index("checkpoints_by_blob", checkpoints.c.blob_id)
# Whether a model has one is asked for each of a listing; without these its checkpoints would be read.
Index("checkpoints_best", checkpoints.c.model_id, checkpoints.c.is_best, sqlite_where=checkpoints.c.is_best.is_(True))
Index(
    "checkpoints_final", checkpoints.c.model_id, checkpoints.c.is_final, sqlite_where=checkpoints.c.is_final.is_(True)
)

# One row per series and step: a value sent again replaces the one before. NO_STEP is the step of a single value.
metrics = Table(
    "metrics",
    tables,
    Column("model_id", Text, ForeignKey("models.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("value", Float, nullable=False),
    Column("logged_at", BigInteger, nullable=False),
    Column("created_by", Text),
    PrimaryKeyConstraint("model_id", "name", "step"),
)

# Programs that train a model and say so now and then. Whether one is lost is told by the time of its last beat.
agents = Table(
    "agents",
    tables,
    _id(),
    Column("model_id", Text, ForeignKey("models.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("interval_seconds", Float, nullable=False),
    Column("beats", BigInteger, nullable=False, server_default="0"),
    Column("last_beat_at", BigInteger, nullable=False),
    Column("stopped_at", BigInteger),
    *_history(),
)
Index("agents_by_model", agents.c.model_id, agents.c.last_beat_at)

# What people or programs say of an item: a label and a shape.
item_annotations = Table(
    "annotations",
    tables,
    _id(),
    Column("dataset_id", Text, ForeignKey("datasets.id"), nullable=False),
    Column("item_id", Text, ForeignKey("items.id"), nullable=False),
    Column("label", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("shape", JsonText, nullable=False),
    *_history(),
)
Index("annotations_by_item", item_annotations.c.item_id, item_annotations.c.id)
Index("annotations_by_dataset", item_annotations.c.dataset_id, item_annotations.c.id)

prediction_tasks = Table(
    "prediction_tasks",
    tables,
    _id(),
    Column("dataset_id", Text, ForeignKey("datasets.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("categories", JsonText, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    *_history(),
    UniqueConstraint("dataset_id", "name"),
)

# Keyed by position, not by item id: the listing goes by position, and the position of an item never changes.
predictions = Table(
    "predictions",
    tables,
    Column("task_id", Text, ForeignKey("prediction_tasks.id"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("item_id", Text, ForeignKey("items.id"), nullable=False),
    Column("predictions", JsonText, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("created_by", Text),
    PrimaryKeyConstraint("task_id", "position"),
)
Index("predictions_by_item", predictions.c.item_id)

# What became of committed row parts, so that a commit whose reply was lost can be repeated after the part is gone.
ingested_parts = Table(
    "ingested_parts",
    tables,
    Column("object_id", Text, primary_key=True),
    Column("task_id", Text, ForeignKey("prediction_tasks.id"), nullable=False, index=True),
    Column("accepted", Integer, nullable=False),
    Column("refused", Integer, nullable=False),
    Column("problems", JsonText, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

# Events, written in the transaction of the change they tell of; delivered at least once, in this order.
outbox = Table(
    "outbox",
    tables,
    Column("sequence", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("entity_id", Text, nullable=False),
    Column("payload", JsonText, nullable=False, server_default="{}"),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),
    sqlite_autoincrement=True,  # a number is never given twice, even when delivered events are removed
)

# Long work of the platform: one queue. A lease that ran out puts the job back until its attempts are used up.
jobs = Table(
    "jobs",
    tables,
    _id(),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("payload", JsonText, nullable=False, server_default="{}"),
    Column("result", JsonText),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("labels", JsonText, nullable=False, server_default="[]"),
    Column("lease_owner", Text),
    Column("lease_expires_at", BigInteger),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False, server_default="3"),
    Column("stage", Text, nullable=False, server_default=""),
    Column("progress", Float),
    Column("message", Text, nullable=False, server_default=""),
    Column("error", JsonText),
    *_history(),
    Column("subject_id", Text),  # the model or dataset it is about
    Column("is_cancel_requested", Boolean, nullable=False, server_default="0"),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("forgiven_attempts", Integer, nullable=False, server_default="0"),  # given back, or before a retry
    Column("claim_id", Text),  # of the attempt that runs: a claim whose reply was lost can be repeated
)
# The order in which queued jobs are taken: without it, each claim sorts the whole queue.
Index("jobs_in_order", jobs.c.status, jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id)
Index("jobs_by_time", jobs.c.created_at, jobs.c.id)  # rows are large: a listing must not sort them
Index("jobs_by_subject", jobs.c.subject_id, jobs.c.created_at)

job_logs = Table(
    "job_logs",
    tables,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("level", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("logged_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_id", "sequence"),
)

# Objects that go into a job or come out of it.
artifacts = Table(
    "artifacts",
    tables,
    _id(),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("direction", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("blob_id", Text, ForeignKey("blobs.id"), nullable=False, index=True),
    *_history(),
    UniqueConstraint("job_id", "direction", "name"),
)

# Programs that take jobs, and what they offer: kind of job -> what they can do of it.
workers = Table(
    "workers",
    tables,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("labels", JsonText, nullable=False, server_default="[]"),
    Column("offers", JsonText, nullable=False, server_default="{}"),
    Column("last_seen_at", BigInteger, nullable=False),  # 0: never
    *_history(),
    Column("is_temporary", Boolean, nullable=False, server_default="0"),
)
