# Generated from asyncsdk/entities/annotations.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Annotations: what is said of the items of a dataset, a label and a shape each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.entities.annotations import AnnotationDraft, AsyncAnnotation, AsyncAnnotations, AsyncItemAnnotations
from asyncsdk.protocol.annotations import AnnotationRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.iterables import caller_list
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Annotation", "Annotations", "ItemAnnotations"]


class Annotation(BlockingRecord, AnnotationRecord):
    """An annotation: its fields, and what can be done with it."""

    @property
    def _twin(self) -> AsyncAnnotation:
        return AsyncAnnotation._bind(self, self._client)

    def delete(self) -> None:
        """Delete the annotation. One that is gone already stays so."""
        run(self._twin.delete)


class Annotations(BlockingTwin[AsyncAnnotations]):
    """The annotations of all items of a dataset."""

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[Annotation]:
        """List the annotations, lazily, by id unless sorted otherwise.

        Args:
            filter: Which ones (``label``, ``kind`` of the shape, ``item_id``, ``metadata.KEY``...); None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), Annotation._of)

    def delete(self, annotations: AnnotationRecord | str | Sequence[AnnotationRecord | str]) -> int:
        """Delete one annotation or several; returns how many there were to delete."""
        return run(self._twin.delete, annotations)

    def from_json(self, data: Mapping[str, Any]) -> Annotation:
        """Return the annotation that ``to_json`` wrote, without a request."""
        return Annotation._of(self._twin.from_json(data))


class ItemAnnotations(BlockingTwin[AsyncItemAnnotations]):
    """The annotations of one item."""

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[Annotation]:
        """List the annotations, lazily, by id unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), Annotation._of)

    def create(self, annotations: AnnotationDraft | Iterable[AnnotationDraft]) -> int:
        """Make one annotation or several; returns how many were made.

        Durable when it returns. Making one again by the same id changes nothing and is not counted.

        Raises:
            BadRequest, ConfigError: A shape or a label is none; nothing was made.
            NotFound: The item is gone.
            Conflict: An id belongs to another annotation, or the dataset is read-only.
        """
        return run(self._twin.create, caller_list(annotations))
