"""A platform's whole state as lines of text, so that two platforms can be compared.

Ids become names (``model-1``) in the order in which they are met, times become their order within a row's history,
objects become the digest of their bytes. What only says how a thing came about (tokens, workers, the outbox) is left
out.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

__all__ = ["dump"]

_TABLES = {
    "projects": "name",
    "datasets": "name",
    "models": "name, created_at",
    "checkpoints": "sequence",
    "metrics": "model_id, name, step",
    "agents": "created_at",
    "items": "path",
    "annotations": "id",
    "jobs": "created_at",
    "artifacts": "direction, name",
}
_LEFT_OUT = re.compile(
    r".*_at$|created_by|lease_.*|attempts|beats|interval_seconds|message|stage|progress|sequence|worker_id|result|etag"
)
_ID = re.compile(r"[0-9a-f]{24}")


def dump(folder: Path, *tables: str) -> list[str]:
    """Return the state in a data folder, a line for each row.

    Args:
        folder: The data folder.
        tables: Which tables; none for all.
    """
    names: dict[str, str] = {}
    lines = []
    path = folder / "asyncsdk.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        for table, order in _TABLES.items():
            if tables and table not in tables:
                continue
            for row in map(dict, database.execute(f"SELECT * FROM {table} ORDER BY {order}")):
                values = {key: _plain(row[key]) for key in row if not _LEFT_OUT.fullmatch(key)}
                values["is_deleted"] = "deleted_at" in row and row["deleted_at"] is not None
                lines.append(f"{table}: {json.dumps(_named(values, table, names, folder), sort_keys=True)}")
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in {"{", "["}:
        return json.loads(value)
    return value


def _named(values: dict[str, Any], table: str, names: dict[str, str], folder: Path) -> dict[str, Any]:
    result = {}
    for key, value in values.items():
        if key.endswith("blob_id") and value is not None:
            value = _digest(folder, value)
        elif isinstance(value, str) and _ID.fullmatch(value):
            kind = table if key == "id" else key.removesuffix("_id") + "s"
            value = names.setdefault(value, f"{kind}-{len(names)}")
        result[key] = value
    return result


def _digest(folder: Path, object_id: str) -> str:
    (path,) = (folder / "objects").rglob(f"{object_id}.*")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
