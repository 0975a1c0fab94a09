"""Items: get, list, update, delete, and where their objects can be read."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Row, Select, delete, select, update

from asyncsdk.errors import NotFound
from asyncsdk.protocol.base import Page
from asyncsdk.protocol.items import (
    DeletedItems,
    DeleteItems,
    GetItem,
    ItemRecord,
    ListItems,
    PreparedDownloads,
    PrepareDownloads,
    UpdateItem,
)
from asyncsdk.server.handlers import removal
from asyncsdk.server.handlers.datasets import fetch_dataset, fetch_writable_dataset
from asyncsdk.server.handlers.entities import change, to_record
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import blobs, datasets, item_annotations, items, predictions

__all__: list[str] = []

_record = partial(to_record, ItemRecord)

_LISTING = Listing(
    fields={
        "id": Field(items.c.id, is_unique=True),
        "position": Field(items.c.position, "number", is_unique=True),
        "path": Field(items.c.path, is_unique=True),
        "size_bytes": Field(blobs.c.size_bytes, "number"),
        "crc32c": Field(blobs.c.crc32c),
        "etag": Field(blobs.c.etag),
        "created_at": Field(items.c.created_at, "number"),
        "updated_at": Field(items.c.updated_at, "number"),
        "created_by": Field(items.c.created_by, is_nullable=True),
    },
    metadata=items.c.metadata,
    default_sort=("position",),
)


def _of_dataset(dataset_id: str) -> Select[Any]:
    return (
        select(items, blobs.c.size_bytes, blobs.c.crc32c, blobs.c.etag)
        .join_from(items, blobs, items.c.blob_id == blobs.c.id)
        .where(items.c.dataset_id == dataset_id)
    )


def _fetch(context: Context, dataset_id: str, item_id: str) -> Row[Any]:
    fetch_dataset(context, dataset_id)
    row = context.connection.execute(_of_dataset(dataset_id).where(items.c.id == item_id)).first()
    if row is None:
        raise NotFound(f"dataset {dataset_id} has no item {item_id}")
    return row


@handles(ListItems, role="viewer")
def list_items(context: Context, message: ListItems) -> Page[ItemRecord]:
    fetch_dataset(context, message.dataset_id)
    return list_page(context.connection, _LISTING, _of_dataset(message.dataset_id), message, _record)


@handles(GetItem, role="viewer")
def get_item(context: Context, message: GetItem) -> ItemRecord:
    return _record(_fetch(context, message.dataset_id, message.item_id))


@handles(UpdateItem, role="editor", writes=True)
def update_item(context: Context, message: UpdateItem) -> ItemRecord:
    row = _fetch(context, message.dataset_id, message.item_id)
    fetch_writable_dataset(context, message.dataset_id)
    change(context, items, row, message, ("metadata",))
    return _record(_fetch(context, message.dataset_id, message.item_id))


@handles(DeleteItems, role="editor", writes=True)
def delete_items(context: Context, message: DeleteItems) -> DeletedItems:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    chosen = (items.c.id.in_(set(message.item_ids))) & (items.c.dataset_id == dataset.id)
    found = context.connection.execute(
        select(items.c.id, blobs.c.size_bytes).join_from(items, blobs, items.c.blob_id == blobs.c.id).where(chosen)
    ).all()
    if not found:
        return DeletedItems(count=0)
    removal.release(context, items, items.c.blob_id, chosen)
    ids = [row.id for row in found]
    context.connection.execute(delete(predictions).where(predictions.c.item_id.in_(ids)))
    context.connection.execute(delete(item_annotations).where(item_annotations.c.item_id.in_(ids)))
    context.connection.execute(delete(items).where(chosen))
    context.connection.execute(
        update(datasets)
        .where(datasets.c.id == dataset.id)
        .values(
            item_count=datasets.c.item_count - len(found),
            size_bytes=datasets.c.size_bytes - sum(row.size_bytes for row in found),
        )
    )
    return DeletedItems(count=len(found))


@handles(PrepareDownloads, role="viewer")
def prepare_downloads(context: Context, message: PrepareDownloads) -> PreparedDownloads:
    fetch_dataset(context, message.dataset_id)
    statement = (
        select(items.c.id, blobs)
        .join_from(items, blobs, items.c.blob_id == blobs.c.id)
        .where(items.c.dataset_id == message.dataset_id, items.c.id.in_(set(message.item_ids)))
    )
    found = {row[0]: row for row in context.connection.execute(statement)}
    context.end_reading()  # to sign a URL may be a request, too
    origins = []
    for item_id in message.item_ids:
        row = found.get(item_id)
        origins.append(
            None
            if row is None
            else context.minter.origin(row[1], size_bytes=row.size_bytes, crc32c=row.crc32c, etag=row.etag)
        )
    return PreparedDownloads(origins=tuple(origins))
