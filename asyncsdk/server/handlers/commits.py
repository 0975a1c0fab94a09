"""Commit of uploads: sent objects become items, up to 1,000 in one transaction.

Order of events, so that a crash anywhere loses nothing and leaves nothing for good: objects are linked into their
final place and synced (arrivals), then the rows are committed, then the staged names go. An object without a row still
has its staged name, by which the sweep finds both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, case, select, update
from sqlalchemy.dialects.sqlite import insert

from asyncsdk.domain.paths import check_item_path
from asyncsdk.errors import AsyncSDKError, Conflict
from asyncsdk.protocol.base import Problem
from asyncsdk.protocol.uploads import CommitEntry, CommittedUpload, CommittedUploads, CommitUploads, OnExisting
from asyncsdk.server.handlers.datasets import fetch_writable_dataset
from asyncsdk.server.handlers.folders import FolderCheck
from asyncsdk.server.handlers.keys import check_key, is_too_old, never_arrived
from asyncsdk.server.handlers.registry import Context, StagedObject, handles
from asyncsdk.server.handlers.uploads import items_at, taken
from asyncsdk.server.objects.signing import object_etag
from asyncsdk.server.schema import blobs, datasets, items

__all__ = ["add_blobs", "drop_references", "has_arrived", "is_published"]


def has_arrived(context: Context, object_id: str, *, size_bytes: int, crc32c: str) -> bool:
    """Whether an object lies staged with this size and checksum, young enough that no sweep is near."""
    return not is_too_old(context, object_id) and context.objects.staged_size(object_id, crc32c) == size_bytes


def is_published(context: Context, object_id: str, *, size_bytes: int, crc32c: str) -> bool:
    """Whether an arrival of this message is durable and still there. Ask under the write lock.

    What was published before the lock was taken may be gone: a repetition of the message committed it, somebody deleted
    the item, and the object with it.
    """
    return (object_id, crc32c) in context.published and context.objects.size(object_id) == size_bytes


def add_blobs(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Add a reference to each blob, made when it is new. Rows: ``id, size_bytes, crc32c, etag, created_at``."""
    if not rows:
        return
    statement = insert(blobs).values({**{name: bindparam(name) for name in rows[0]}, "references_count": 1})
    counted = {"references_count": blobs.c.references_count + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=counted), rows)


def drop_references(connection: Connection, blob_ids: Iterable[str]) -> None:
    """Take one reference from each blob, once for each time it is named."""
    rows = [{"blob": blob_id} for blob_id in blob_ids]
    if rows:
        connection.execute(
            update(blobs).where(blobs.c.id == bindparam("blob")).values(references_count=blobs.c.references_count - 1),
            rows,
        )


def _arrivals(context: Context, message: CommitUploads) -> list[StagedObject]:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    existing = items_at(context, dataset.id, {e.path for e in message.entries}) if dataset.item_count else {}
    arrived: dict[str, str] = {}
    for entry in message.entries:
        item = existing.get(entry.path)
        if item is not None and _stands(entry, item, message.on_existing):
            continue
        try:
            object_id = check_key(context, entry.key, dataset.id)
        except AsyncSDKError:  # told by the handler, entry by entry
            continue
        if object_id not in arrived and has_arrived(
            context, object_id, size_bytes=entry.size_bytes, crc32c=entry.crc32c
        ):
            arrived[object_id] = entry.crc32c
    return list(arrived.items())


def _stands(entry: CommitEntry, item: Any, on_existing: OnExisting) -> bool:
    """Whether the entry's bytes are not needed: its item stays as it is."""
    is_same = item.size_bytes == entry.size_bytes and item.crc32c == entry.crc32c
    return on_existing == "fail" or (is_same and (on_existing == "skip_same" or entry.key.startswith(item.blob_id)))


@handles(CommitUploads, role="editor", writes=True, arrivals=_arrivals)
def commit_uploads(context: Context, message: CommitUploads) -> CommittedUploads:
    commit = _Commit(context, message)
    replies = tuple(commit.judge(entry) for entry in message.entries)
    commit.write()
    return CommittedUploads(entries=replies)


@dataclass(slots=True)
class _Item:
    """An item as it will be when the batch is done."""

    id: str
    path: str
    position: int
    blob_id: str
    size_bytes: int
    crc32c: str
    etag: str
    updated_at: int
    is_new: bool = False
    is_changed: bool = False
    metadata: dict[str, Any] | None = None


class _Commit:
    """One batch: judged entry by entry as if each were alone, then written in a few statements."""

    def __init__(self, context: Context, message: CommitUploads) -> None:
        self._context = context
        self._on_existing = message.on_existing
        self._dataset = dataset = fetch_writable_dataset(context, message.dataset_id)
        paths = {entry.path for entry in message.entries}
        found = items_at(context, dataset.id, paths) if dataset.item_count else {}
        self._items = {
            path: _Item(row.id, path, row.position, row.blob_id, row.size_bytes, row.crc32c, row.etag, row.updated_at)
            for path, row in found.items()
        }
        by_id = select(items.c.id, items.c.path, items.c.dataset_id).where(
            items.c.id.in_({entry.item_id for entry in message.entries})
        )
        self._owners = {row.id: (row.dataset_id, row.path) for row in context.connection.execute(by_id)}
        new = [path for path in paths - found.keys() if _is_path(path)]
        self._folders = FolderCheck(context, dataset.id, new, is_empty=not dataset.item_count)
        self._stored = self._find_stored(message.entries)
        self._next_position: int = dataset.next_position
        self._size_change = 0
        self._added: list[dict[str, Any]] = []
        self._dropped: list[str] = []
        self._settled: list[StagedObject] = []

    def _find_stored(self, entries: Sequence[CommitEntry]) -> dict[str, tuple[int, str]]:
        """Return size and checksum of the objects that something points to already."""
        unpublished = {e.key[:24] for e in entries if (e.key[:24], e.crc32c) not in self._context.published}
        if not unpublished:
            return {}
        statement = select(blobs.c.id, blobs.c.size_bytes, blobs.c.crc32c).where(
            blobs.c.id.in_(unpublished), blobs.c.references_count > 0
        )
        return {row.id: (row.size_bytes, row.crc32c) for row in self._context.connection.execute(statement)}

    def judge(self, entry: CommitEntry) -> CommittedUpload:
        item = None
        try:
            check_item_path(entry.path)
            object_id = check_key(self._context, entry.key, self._dataset.id)
            item = self._items.get(entry.path)
            if item is not None:
                return self._meet(entry, object_id, item)
            return self._create(entry, object_id)
        except AsyncSDKError as error:  # of this entry alone: the others go on
            item_id = item.id if item is not None else None
            return CommittedUpload(verdict="refused", item_id=item_id, problem=Problem.of(error))

    def _meet(self, entry: CommitEntry, object_id: str, item: _Item) -> CommittedUpload:
        """Judge an entry whose path is taken."""
        is_same = (item.size_bytes, item.crc32c) == (entry.size_bytes, entry.crc32c)
        if item.blob_id == object_id:
            if not is_same:
                raise Conflict("other bytes were committed under this key; prepare the upload again")
            return self._unchanged(entry, item)
        if self._on_existing == "fail":
            raise taken(item.path, item.id)
        if self._on_existing == "skip_same" and is_same:
            return self._unchanged(entry, item)
        self._require(entry, object_id)
        self._take_object(entry, object_id)
        self._dropped.append(item.blob_id)
        self._size_change += entry.size_bytes - item.size_bytes
        item.blob_id, item.size_bytes, item.crc32c = object_id, entry.size_bytes, entry.crc32c
        item.etag = object_etag(object_id, entry.crc32c)
        item.updated_at = max(self._context.now_ms, item.updated_at + 1)
        item.is_changed = True
        if entry.metadata is not None:
            item.metadata = entry.metadata
        return CommittedUpload(verdict="replaced", item_id=item.id, etag=item.etag)

    def _unchanged(self, entry: CommitEntry, item: _Item) -> CommittedUpload:
        self._settled.append((entry.key[:24], entry.crc32c))
        return CommittedUpload(verdict="unchanged", item_id=item.id, etag=item.etag)

    def _create(self, entry: CommitEntry, object_id: str) -> CommittedUpload:
        if entry.item_id in self._owners:
            raise Conflict(f"the id {entry.item_id} belongs to another item", ids=(entry.item_id,))
        self._require(entry, object_id)
        self._folders.take(entry.path)
        self._take_object(entry, object_id)
        item = _Item(
            entry.item_id,
            entry.path,
            self._next_position,
            object_id,
            entry.size_bytes,
            entry.crc32c,
            object_etag(object_id, entry.crc32c),
            self._context.now_ms,
            is_new=True,
            metadata=entry.metadata,
        )
        self._next_position += 1
        self._size_change += entry.size_bytes
        self._items[entry.path] = item
        self._owners[item.id] = (self._dataset.id, item.path)
        return CommittedUpload(verdict="created", item_id=item.id, etag=item.etag)

    def _require(self, entry: CommitEntry, object_id: str) -> None:
        """Refuse an entry whose object is not durable here with this size and checksum."""
        if is_published(self._context, object_id, size_bytes=entry.size_bytes, crc32c=entry.crc32c):
            return
        if self._stored.get(object_id) == (entry.size_bytes, entry.crc32c):
            return
        raise self._context.unpublished.get(object_id) or never_arrived()

    def _take_object(self, entry: CommitEntry, object_id: str) -> None:
        self._settled.append((object_id, entry.crc32c))
        self._added.append(
            {
                "id": object_id,
                "size_bytes": entry.size_bytes,
                "crc32c": entry.crc32c,
                "etag": object_etag(object_id, entry.crc32c),
                "created_at": self._context.now_ms,
            }
        )

    def write(self) -> None:
        """Write what was judged; staged names go once it is durable."""
        connection = self._context.connection
        if self._added:
            add_blobs(connection, self._added)
            self._insert_items(connection)
            self._update_items(connection)
            drop_references(connection, self._dropped)
            created = self._next_position - self._dataset.next_position
            connection.execute(
                update(datasets)
                .where(datasets.c.id == self._dataset.id)
                .values(
                    next_position=self._next_position,
                    item_count=datasets.c.item_count + created,
                    size_bytes=datasets.c.size_bytes + self._size_change,
                )
            )
        if self._settled:
            self._context.after_commit(partial(self._context.objects.unstage, self._settled))

    def _insert_items(self, connection: Connection) -> None:
        rows = [
            {
                "id": item.id,
                "dataset_id": self._dataset.id,
                "position": item.position,
                "path": item.path,
                "blob_id": item.blob_id,
                "created_at": self._context.now_ms,
                "updated_at": item.updated_at,
                "created_by": self._context.principal.user_id,
                "metadata": item.metadata or {},
                "extra": {},
            }
            for item in self._items.values()
            if item.is_new
        ]
        if rows:
            connection.execute(insert(items), rows)

    def _update_items(self, connection: Connection) -> None:
        rows = [
            {"item": i.id, "blob": i.blob_id, "time": i.updated_at, "given": i.metadata}
            for i in self._items.values()
            if i.is_changed and not i.is_new
        ]
        if rows:
            given = bindparam("given", type_=items.c.metadata.type)
            connection.execute(
                update(items)
                .where(items.c.id == bindparam("item"))
                .values(
                    blob_id=bindparam("blob"),
                    updated_at=bindparam("time"),
                    metadata=case((given.is_not(None), given), else_=items.c.metadata),
                ),
                rows,
            )


def _is_path(path: str) -> bool:
    try:
        check_item_path(path)
    except AsyncSDKError:  # told by `judge`
        return False
    return True
