"""Annotations: what is said of an item, a label and the shape it stands for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from asyncsdk.domain.ids import Id
from asyncsdk.domain.shapes import Shape
from asyncsdk.protocol.base import (
    MAX_BULK_ENTRIES,
    EntityRecord,
    Get,
    ListMessage,
    Message,
    Metadata,
    Post,
    Problem,
    Record,
    Value,
)

__all__ = [
    "AnnotationEntry",
    "AnnotationRecord",
    "CreateAnnotations",
    "CreatedAnnotation",
    "CreatedAnnotations",
    "DeleteAnnotations",
    "DeletedAnnotations",
    "ListAnnotations",
]

MAX_LABEL_CHARACTERS = 255

Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARACTERS)]
"""Name of a class as its dataset writes it: any text, slashes too (``Desk/Table``)."""


class AnnotationRecord(EntityRecord):
    """An annotation.

    Attributes:
        dataset_id: The dataset of its item.
        item_id: The item it is of.
        label: Name of the class.
        shape: What part of the item; its ``kind`` says of what form.
    """

    dataset_id: Id
    item_id: Id
    label: str
    shape: Shape


class AnnotationEntry(Value):
    """One annotation to make.

    Attributes:
        annotation_id: Its id; the same entry again changes nothing.
        item_id: The item it is of.
        label: Name of the class.
        shape: What part of the item.
        metadata: JSON object of the user's own.
    """

    annotation_id: Id
    item_id: Id
    label: Label
    shape: Shape
    metadata: Metadata = {}


class CreatedAnnotation(Record):
    """What became of one entry.

    Attributes:
        verdict: ``created``; ``exists``: an earlier call made it; ``refused``: see ``problem``.
        problem: Why it was refused: there is no such item, or the id belongs to another annotation.
    """

    verdict: Literal["created", "exists", "refused"]
    problem: Problem | None = None


class CreatedAnnotations(Record):
    """One answer per entry, in order."""

    entries: tuple[CreatedAnnotation, ...]


class CreateAnnotations(Message[CreatedAnnotations]):
    """Make up to 1,000 annotations of items of a dataset. Idempotent by ``annotation_id``."""

    route: ClassVar = Post("/datasets/{dataset_id}/annotations")
    dataset_id: Id
    entries: Annotated[tuple[AnnotationEntry, ...], Field(min_length=1, max_length=MAX_BULK_ENTRIES)]


class ListAnnotations(ListMessage[AnnotationRecord]):
    """List the annotations of a dataset, or of one of its items, by id unless sorted otherwise."""

    route: ClassVar = Get("/datasets/{dataset_id}/annotations")
    dataset_id: Id
    item_id: Id | None = None


class DeletedAnnotations(Record):
    """How many annotations were deleted; ids that were unknown are not counted."""

    count: int


class DeleteAnnotations(Message[DeletedAnnotations]):
    """Delete up to 1,000 annotations. Unknown ids are passed over."""

    route: ClassVar = Post("/datasets/{dataset_id}/annotations/delete")
    dataset_id: Id
    annotation_ids: Annotated[tuple[Id, ...], Field(min_length=1, max_length=MAX_BULK_ENTRIES)]
