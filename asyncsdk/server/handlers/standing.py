"""What stands at the paths of a batch and around them: items, and files or folders in the way.

An item ``a`` and an item ``a/b`` cannot stand side by side: they could not both come back as files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import orjson
from sqlalchemy import Row

from asyncsdk.errors import Conflict
from asyncsdk.server.handlers.registry import Context

__all__ = ["Standing"]

# Lists of paths go as one JSON parameter: a thousand deep ones have more folders than a statement takes parameters,
# and to bind one text costs less than to bind a thousand.

_LAST = "SELECT max(path) FROM items WHERE dataset_id = ?"
# "0" is the character after "/": from the path up to there lie the item of that path, all items below it, and little
# else ("a.b" when the path is "a"). One step in the index says that none of all that is there, as for most new paths.
_TOUCHED = """
    SELECT value FROM json_each(?)
    WHERE EXISTS (SELECT 1 FROM items WHERE dataset_id = ? AND path >= value AND path < value || '0')
"""
_ITEMS = """
    SELECT items.path AS path, items.id AS id, items.position AS position, items.updated_at AS updated_at,
           items.blob_id AS blob_id, blobs.size_bytes AS size_bytes, blobs.crc32c AS crc32c, blobs.etag AS etag
    FROM items JOIN blobs ON blobs.id = items.blob_id
    WHERE items.dataset_id = ? AND items.path IN (SELECT value FROM json_each(?))
"""
_AT = "SELECT path FROM items WHERE dataset_id = ? AND path IN (SELECT value FROM json_each(?))"
_BELOW = """
    SELECT value FROM json_each(?)
    WHERE EXISTS (SELECT 1 FROM items WHERE dataset_id = ? AND path > value || '/' AND path < value || '0')
"""


class Standing:
    """What stands in a dataset where the items of a batch shall be, and judges new paths, also against each other.

    At most five indexed queries, whatever the number of paths; none for a dataset without items.

    Args:
        context: Of the message.
        dataset: Row of the dataset.
        paths: Valid paths.

    Attributes:
        items: The items of these paths, by path: ids, position, times, and size, checksum and validator of their bytes.
    """

    def __init__(self, context: Context, dataset: Row[Any], paths: Collection[str]) -> None:
        self.items: dict[str, Row[Any]] = {}
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._passed: set[str] = set()
        if dataset.item_count and paths:
            self._look(context, dataset.id, paths)

    def _look(self, context: Context, dataset_id: str, paths: Collection[str]) -> None:
        execute = context.connection.exec_driver_sql
        last = execute(_LAST, (dataset_id,)).scalar() or ""
        # Text compares here as it does there. A folder is uploaded in the order of its paths: most come after the last.
        among = [path for path in paths if path <= last]
        touched = [row[0] for row in execute(_TOUCHED, (_json(among), dataset_id))] if among else []
        if touched:
            self.items = {row.path: row for row in execute(_ITEMS, (dataset_id, _json(touched)))}
            new = [path for path in touched if path not in self.items]
            self._folders.update(row[0] for row in execute(_BELOW, (_json(new), dataset_id)))
        parents = {parent for folder in {_folder(path) for path in paths} for parent in _and_parents(folder)}
        if parents:
            self._files.update(row[0] for row in execute(_AT, (dataset_id, _json(parents))))

    def take(self, path: str) -> None:
        """Let a new path stand; later ones are judged against it too.

        Raises:
            Conflict: It is the folder of another path, or lies below another.
        """
        if path in self._folders:
            raise Conflict(f"{path!r} is a folder already: other items lie below it; choose another path")
        folder = _folder(path)
        if folder not in self._passed:  # what passed stays a folder: no file can take its place any more
            parents = list(_and_parents(folder))
            for parent in parents:
                if parent in self._files:
                    raise Conflict(
                        f"{parent!r} is an item already, so that nothing can lie below it; choose another path"
                    )
            self._folders.update(parents)
            self._passed.add(folder)
        self._files.add(path)


def _json(texts: Collection[str]) -> str:
    return orjson.dumps(list(texts)).decode()


def _folder(path: str) -> str:
    """Return the folder that a path lies in; empty for none."""
    return path.rpartition("/")[0]


def _and_parents(folder: str) -> Iterator[str]:
    """Yield a folder and those that it lies in; nothing for the empty one."""
    end = folder.find("/")
    while end >= 0:
        yield folder[:end]
        end = folder.find("/", end + 1)
    if folder:
        yield folder
