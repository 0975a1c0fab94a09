"""Items: the objects of a dataset."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from asyncsdk.domain.ids import Id
from asyncsdk.protocol.base import (
    MAX_BULK_ENTRIES,
    Crc32cHex,
    EntityRecord,
    Get,
    ListMessage,
    Message,
    Metadata,
    Patch,
    Post,
    Record,
    Timestamp,
)
from asyncsdk.protocol.uploads import OriginField

__all__ = [
    "DeleteItems",
    "DeletedItems",
    "GetItem",
    "ItemRecord",
    "ListItems",
    "PrepareDownloads",
    "PreparedDownloads",
    "UpdateItem",
]


class ItemRecord(EntityRecord):
    """An item.

    Attributes:
        dataset_id: The dataset it belongs to.
        position: Its number in the dataset, from 0, in order of first commit; never reused.
        path: POSIX path, unique within the dataset, byte for byte as it was given.
        size_bytes: Size of its object.
        crc32c: Checksum of its object, eight hexadecimal digits.
        etag: Validator of its object; changes whenever the object is replaced.
    """

    dataset_id: Id
    position: int
    path: str
    size_bytes: int
    crc32c: Crc32cHex
    etag: str


class ListItems(ListMessage[ItemRecord]):
    """List the items of a dataset, by position unless sorted otherwise."""

    route: ClassVar = Get("/datasets/{dataset_id}/items")
    dataset_id: Id


class GetItem(Message[ItemRecord]):
    """Return one item."""

    route: ClassVar = Get("/datasets/{dataset_id}/items/{item_id}")
    dataset_id: Id
    item_id: Id


class UpdateItem(Message[ItemRecord]):
    """Change the fields that are given; refused when the item changed since ``if_updated_at``."""

    route: ClassVar = Patch("/datasets/{dataset_id}/items/{item_id}")
    dataset_id: Id
    item_id: Id
    if_updated_at: Timestamp | None = None
    metadata: Metadata | None = None


class DeletedItems(Record):
    """How many items were deleted; ids that were unknown are not counted."""

    count: int


class DeleteItems(Message[DeletedItems]):
    """Delete up to 1,000 items with their predictions and annotations. Unknown ids are passed over.

    Repeating it deletes nothing more; the repetition of a call whose reply was lost therefore counts fewer items than
    the two together deleted.
    """

    route: ClassVar = Post("/datasets/{dataset_id}/items/delete")
    dataset_id: Id
    item_ids: Annotated[tuple[Id, ...], Field(min_length=1, max_length=MAX_BULK_ENTRIES)]


class PreparedDownloads(Record):
    """Where the objects of items can be read, in the order asked for; None for an unknown item."""

    origins: tuple[OriginField | None, ...]


class PrepareDownloads(Message[PreparedDownloads]):
    """Return where the objects of up to 1,000 items can be read for a while."""

    route: ClassVar = Post("/datasets/{dataset_id}/items/prepare-downloads")
    dataset_id: Id
    item_ids: Annotated[tuple[Id, ...], Field(min_length=1, max_length=MAX_BULK_ENTRIES)]
