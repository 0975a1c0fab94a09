"""Commit of uploads: sent objects become items, up to 1,000 in one transaction.

Order of events, so that a crash anywhere loses nothing and leaves nothing for good: the objects are looked for and
synced (arrivals), then the rows are committed. No file is touched: an object lies where it arrived, and the row is what
makes it part of something. One without a row goes with the sweep of its day.

What is done for every entry here decides how many a second there are; statements go to the driver with their rows as
they are, and nothing is looked up that ids or one step in an index rule out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import Text, bindparam, case, type_coerce, update

from asyncsdk.errors import AsyncSDKError, Conflict, ResponseError
from asyncsdk.protocol.base import Problem
from asyncsdk.protocol.uploads import CommitEntry, CommittedUpload, CommittedUploads, CommitUploads
from asyncsdk.server.handlers.blobs import StoredBlobs, add_blobs, condemn, drop_references, new_blob
from asyncsdk.server.handlers.bulk import insert_rows
from asyncsdk.server.handlers.datasets import fetch_writable_dataset
from asyncsdk.server.handlers.keys import check_key, oldest_id
from asyncsdk.server.handlers.making import created
from asyncsdk.server.handlers.naming import bad_paths
from asyncsdk.server.handlers.registry import Arrivals, Context, handles
from asyncsdk.server.handlers.standing import Standing
from asyncsdk.server.handlers.uploads import taken
from asyncsdk.server.objects.signing import object_etag
from asyncsdk.server.schema import items, json_text

__all__: list[str] = []

_NEWEST_ITEM = "SELECT max(id) FROM items"
_OWNED = "SELECT id FROM items WHERE id IN (SELECT value FROM json_each(?))"
_INSERT = """
    INSERT INTO items (id, dataset_id, position, path, blob_id, created_at, updated_at, created_by, metadata, extra)
    VALUES
"""
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, '{}')"
_COUNT = """
    UPDATE datasets SET next_position = ?, item_count = item_count + ?, size_bytes = size_bytes + ? WHERE id = ?
"""


def _arrivals(context: Context, message: CommitUploads) -> Arrivals:
    """Name the objects that are there, of keys that are good and young enough that no sweep is near."""
    dataset = fetch_writable_dataset(context, message.dataset_id)
    entries = message.entries
    # Keys that are not good are told by the handler, entry by entry.
    keys = context.signer.check_keys(
        [entry.key for entry in entries], scope_id=dataset.id, user_id=context.principal.user_id
    )
    oldest = oldest_id(context)
    wanted = [(key[:24], entry.crc32c) for entry in entries if (key := entry.key) in keys and key >= oldest]
    context.end_reading()
    found = context.objects.sizes(wanted)
    objects = {staged: size for staged, size in zip(wanted, found, strict=True) if isinstance(size, int)}
    if len(objects) == len(wanted):
        return Arrivals(objects, keys)
    # Of one entry alone: what is wrong with an object, or not known yet, does not keep the others.
    wrong = zip(wanted, found, strict=True)
    return Arrivals(objects, keys, {staged: error for staged, error in wrong if isinstance(error, ResponseError)})


@handles(CommitUploads, role="editor", writes=True, arrivals=_arrivals)
def commit_uploads(context: Context, message: CommitUploads) -> CommittedUploads:
    commit = _Commit(context, message)
    replies = [commit.judge(entry) for entry in message.entries]
    commit.write()
    return CommittedUploads.model_construct(entries=tuple(replies))


@dataclass(slots=True)
class _Item:
    """An item as it will be when the batch is done: one that stands, or one that several entries are about."""

    id: str
    path: str
    position: int
    blob_id: str
    size_bytes: int
    crc32c: str
    etag: str
    updated_at: int
    metadata: str | None = None
    """JSON; None keeps what it has."""
    is_new: bool = False
    is_changed: bool = False


class _Commit:
    """One batch: judged entry by entry as if each were alone, then written in a few statements."""

    def __init__(self, context: Context, message: CommitUploads) -> None:
        self._context = context
        self._now_ms = context.now_ms
        self._user_id = context.principal.user_id
        self._keys = context.keys
        self._published = context.published
        self._on_existing = message.on_existing
        self._dataset = dataset = fetch_writable_dataset(context, message.dataset_id)
        self._dataset_id: str = dataset.id
        paths = [entry.path for entry in message.entries]
        different = set(paths)
        self._repeated = {path for path, n in Counter(paths).items() if n > 1} if len(different) < len(paths) else set()
        self._bad_paths = bad_paths(different)
        self._standing = Standing(context, dataset, different - self._bad_paths.keys())
        self._items = {
            path: _Item(row.id, path, row.position, row.blob_id, row.size_bytes, row.crc32c, row.etag, row.updated_at)
            for path, row in self._standing.items.items()
        }
        self._taken_ids = _taken_ids(context, message.entries)
        self._blobs = StoredBlobs(context, [entry.key[:24] for entry in message.entries])
        self._next_position: int = dataset.next_position
        self._size_change = 0
        # Values of rows, one row after the other: see `insert_rows`.
        self._rows: list[str | int] = []
        self._added: list[str | int] = []
        self._superfluous: list[str | int] = []
        self._dropped: list[str] = []

    def judge(self, entry: CommitEntry) -> CommittedUpload:
        item = None
        try:
            path = entry.path
            if path in self._bad_paths:
                raise self._bad_paths[path]
            object_id = self._keys.get(entry.key) or check_key(self._context, entry.key, self._dataset_id)
            item = self._items.get(path)
            return self._create(entry, path, object_id) if item is None else self._meet(entry, object_id, item)
        except AsyncSDKError as error:  # of this entry alone: the others go on
            item_id = item.id if item is not None else None
            return CommittedUpload(verdict="refused", item_id=item_id, problem=Problem.of(error))

    def _create(self, entry: CommitEntry, path: str, object_id: str) -> CommittedUpload:
        item_id, size_bytes, crc32c, now_ms = entry.item_id, entry.size_bytes, entry.crc32c, self._now_ms
        if item_id in self._taken_ids:
            raise Conflict(f"the id {item_id} belongs to another item", ids=(item_id,))
        metadata = json_text(entry.metadata) if entry.metadata else "{}"
        if object_id in self._blobs or self._published.get((object_id, crc32c)) != size_bytes:
            self._blobs.require(object_id, size_bytes, crc32c)
        self._standing.take(path)
        etag = object_etag(object_id, crc32c)
        self._taken_ids.add(item_id)
        self._added += (object_id, size_bytes, crc32c, etag, now_ms)
        self._size_change += size_bytes
        position = self._next_position
        self._next_position += 1
        if path in self._repeated:
            self._items[path] = _Item(
                item_id, path, position, object_id, size_bytes, crc32c, etag, now_ms, metadata, is_new=True
            )
        else:
            self._rows += (
                item_id,
                self._dataset_id,
                position,
                path,
                object_id,
                now_ms,
                now_ms,
                self._user_id,
                metadata,
            )
        return created(item_id, etag)

    def _meet(self, entry: CommitEntry, object_id: str, item: _Item) -> CommittedUpload:
        """Judge an entry whose path is taken."""
        is_same = (item.size_bytes, item.crc32c) == (entry.size_bytes, entry.crc32c)
        if item.blob_id == object_id:
            if not is_same:
                raise Conflict("other bytes were committed under this key; prepare the upload again")
            return CommittedUpload(verdict="unchanged", item_id=item.id, etag=item.etag)
        if self._on_existing == "fail":
            raise taken(item.path, item.id)
        if self._on_existing == "skip_same" and is_same:
            if (object_id, entry.crc32c) in self._context.published:
                self._superfluous += new_blob(self._context, object_id, entry.size_bytes, entry.crc32c)
            return CommittedUpload(verdict="unchanged", item_id=item.id, etag=item.etag)
        metadata = None if entry.metadata is None else json_text(entry.metadata)
        self._blobs.require(object_id, entry.size_bytes, entry.crc32c)
        blob = new_blob(self._context, object_id, entry.size_bytes, entry.crc32c)
        self._added += blob
        self._dropped.append(item.blob_id)
        self._size_change += entry.size_bytes - item.size_bytes
        item.blob_id, item.size_bytes, item.crc32c = object_id, entry.size_bytes, entry.crc32c
        item.etag = blob[3]
        item.updated_at = max(self._now_ms, item.updated_at + 1)
        item.is_changed = True
        if metadata is not None:
            item.metadata = metadata
        return CommittedUpload(verdict="replaced", item_id=item.id, etag=item.etag)

    def write(self) -> None:
        """Write what was judged."""
        connection = self._context.connection
        add_blobs(self._context, self._added)
        condemn(self._context, self._superfluous)
        if not self._added:
            return
        for i in self._items.values():
            if i.is_new:
                times, metadata = (self._now_ms, i.updated_at), i.metadata or "{}"
                self._rows += (i.id, self._dataset_id, i.position, i.path, i.blob_id, *times, self._user_id, metadata)
        insert_rows(connection, _INSERT, _ROW, self._rows)
        self._update_items()
        drop_references(connection, self._dropped)
        added = self._next_position - self._dataset.next_position
        connection.exec_driver_sql(_COUNT, (self._next_position, added, self._size_change, self._dataset_id))

    def _update_items(self) -> None:
        rows = [
            {"item": i.id, "blob": i.blob_id, "time": i.updated_at, "given": i.metadata}
            for i in self._items.values()
            if i.is_changed and not i.is_new
        ]
        if rows:
            given = bindparam("given", type_=Text)  # JSON already
            self._context.connection.execute(
                update(items)
                .where(items.c.id == bindparam("item"))
                .values(
                    blob_id=bindparam("blob"),
                    updated_at=bindparam("time"),
                    metadata=case((given.is_not(None), given), else_=type_coerce(items.c.metadata, Text)),
                ),
                rows,
            )


def _taken_ids(context: Context, entries: Sequence[CommitEntry]) -> set[str]:
    """Return those ids of *entries* that items have, in whatever dataset."""
    connection = context.connection
    newest = connection.exec_driver_sql(_NEWEST_ITEM).scalar() or ""
    # Ids sort by the time of their making: most commits are of items newer than all that there are.
    known = [entry.item_id for entry in entries if entry.item_id <= newest]
    if not known:
        return set()
    return {row[0] for row in connection.exec_driver_sql(_OWNED, (orjson.dumps(known).decode(),))}
