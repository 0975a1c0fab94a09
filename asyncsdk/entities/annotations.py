"""Annotations: what is said of the items of a dataset, a label and a shape each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.ids import make_id
from asyncsdk.domain.shapes import Box, Polygon, UnknownShape, to_shape
from asyncsdk.entities.base import BoundRecord, entity_id
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError, MalformedResponse
from asyncsdk.protocol.annotations import (
    MAX_LABEL_CHARACTERS,
    AnnotationEntry,
    AnnotationRecord,
    CreateAnnotations,
    CreatedAnnotation,
    DeleteAnnotations,
    ListAnnotations,
)
from asyncsdk.protocol.base import MAX_BULK_ENTRIES

__all__ = ["AnnotationDraft", "AsyncAnnotation", "AsyncAnnotations", "AsyncItemAnnotations", "send_annotations"]

ShapeSource = Box | Polygon | UnknownShape | Mapping[str, Any]
"""A shape, or the JSON of one: ``{"kind": "box", "x": ...}``."""

_MAX_POINTS_PER_MESSAGE = 100_000
"""Of all outlines of one message: about 4 MB, which every server takes."""


@dataclass(frozen=True, slots=True)
class AnnotationDraft:
    """An annotation to make.

    Args:
        label: Name of the class, 1 to 255 characters.
        shape: What part of the item.
        metadata: JSON object of your own.
        annotation_id: Its id, 24 hexadecimal digits; giving one of your own makes the call repeatable.
    """

    label: str
    shape: ShapeSource
    metadata: Mapping[str, Any] = field(default_factory=dict)
    annotation_id: str = field(default_factory=make_id)

    def entry(self, item_id: str) -> AnnotationEntry:
        """Return what makes it of an item.

        Raises:
            BadRequest: The shape is none.
            ConfigError: The label is empty or too long.
        """
        label: Any = self.label  # callers without a type checker give anything
        if not isinstance(label, str) or not 1 <= len(label) <= MAX_LABEL_CHARACTERS:
            raise ConfigError(f"a label has 1 to {MAX_LABEL_CHARACTERS} characters, not {label!r}")
        return AnnotationEntry(
            annotation_id=entity_id(self.annotation_id, "annotation"),
            item_id=item_id,
            label=self.label,
            shape=to_shape(self.shape),
            metadata=dict(self.metadata),
        )


class AsyncAnnotation(BoundRecord, AnnotationRecord):
    """An annotation: its fields, and what can be done with it."""

    async def delete(self) -> None:
        """Delete the annotation. One that is gone already stays so."""
        await self._client.send(DeleteAnnotations(dataset_id=self.dataset_id, annotation_ids=(self.id,)))


class AsyncAnnotations:
    """The annotations of all items of a dataset."""

    def __init__(self, session: Session, dataset_id: str) -> None:
        self._session = session
        self._dataset_id = dataset_id

    def _bind(self, record: AnnotationRecord) -> AsyncAnnotation:
        return AsyncAnnotation._bind(record, self._session)

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[AsyncAnnotation]:
        """List the annotations, lazily, by id unless sorted otherwise.

        Args:
            filter: Which ones (``label``, ``kind`` of the shape, ``item_id``, ``metadata.KEY``...); None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListAnnotations(dataset_id=self._dataset_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)

    async def delete(self, annotations: AnnotationRecord | str | Sequence[AnnotationRecord | str]) -> int:
        """Delete one annotation or several; returns how many there were to delete."""
        several = [annotations] if isinstance(annotations, (str, AnnotationRecord)) else annotations
        ids = [entity_id(annotation, "annotation") for annotation in several]
        count = 0
        for start in range(0, len(ids), MAX_BULK_ENTRIES):
            chosen = tuple(ids[start : start + MAX_BULK_ENTRIES])
            message = DeleteAnnotations(dataset_id=self._dataset_id, annotation_ids=chosen)
            count += (await self._session.send(message)).count
        return count

    def from_json(self, data: Mapping[str, Any]) -> AsyncAnnotation:
        """Return the annotation that ``to_json`` wrote, without a request."""
        return self._bind(AnnotationRecord.model_validate(data))


class AsyncItemAnnotations:
    """The annotations of one item."""

    def __init__(self, session: Session, dataset_id: str, item_id: str) -> None:
        self._session = session
        self._dataset_id = dataset_id
        self._item_id = item_id

    def _bind(self, record: AnnotationRecord) -> AsyncAnnotation:
        return AsyncAnnotation._bind(record, self._session)

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[AsyncAnnotation]:
        """List the annotations, lazily, by id unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListAnnotations(dataset_id=self._dataset_id, item_id=self._item_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)

    async def create(self, annotations: AnnotationDraft | Iterable[AnnotationDraft]) -> int:
        """Make one annotation or several; returns how many were made.

        Durable when it returns. Making one again by the same id changes nothing and is not counted.

        Raises:
            BadRequest, ConfigError: A shape or a label is none; nothing was made.
            NotFound: The item is gone.
            Conflict: An id belongs to another annotation, or the dataset is read-only.
        """
        several = [annotations] if isinstance(annotations, AnnotationDraft) else annotations
        entries = [draft.entry(self._item_id) for draft in several]
        replies = await send_annotations(self._session, self._dataset_id, entries)
        for reply in replies:
            if reply.problem is not None:
                raise reply.problem.to_error()
        return sum(reply.verdict == "created" for reply in replies)


async def send_annotations(
    session: Session, dataset_id: str, entries: Sequence[AnnotationEntry]
) -> list[CreatedAnnotation]:
    """Make annotations of a dataset, in as many messages as it takes; returns one answer per entry, in order.

    Raises:
        NotFound: The dataset is gone.
        Conflict: It is read-only.
    """
    replies: list[CreatedAnnotation] = []
    for batch in _batches(entries):
        reply = await session.send(CreateAnnotations(dataset_id=dataset_id, entries=tuple(batch)))
        if len(reply.entries) != len(batch):
            raise MalformedResponse(f"{len(batch)} annotations were sent, {len(reply.entries)} answers came")
        replies.extend(reply.entries)
    return replies


def _batches(entries: Sequence[AnnotationEntry]) -> Iterable[list[AnnotationEntry]]:
    batch: list[AnnotationEntry] = []
    points = 0
    for entry in entries:
        added = len(entry.shape.points) if isinstance(entry.shape, Polygon) else 1
        if batch and (len(batch) == MAX_BULK_ENTRIES or points + added > _MAX_POINTS_PER_MESSAGE):
            yield batch
            batch, points = [], 0
        batch.append(entry)
        points += added
    if batch:
        yield batch
