"""Labels of an archive become annotations: the same ones however often that is done, and those of before go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.formats.yolo import parse_labels
from asyncsdk.entities.annotations import send_annotations
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.errors import AsyncSDKError, InvalidArchive, InvalidRow
from asyncsdk.protocol.annotations import AnnotationEntry
from asyncsdk.protocol.archives import ArchiveProblem, UnpackedArchive
from asyncsdk.protocol.base import MAX_BULK_ENTRIES
from asyncsdk.worker.runners import Work
from asyncsdk.worker.yolo_layout import PackedFile, Plan
from asyncsdk.worker.zip_reader import ZipReader

__all__ = ["LabelWriter", "LabelledItem", "Tally"]

_PROBLEMS_KEPT = 100
_MAX_LABEL_BYTES = 16 * 1024 * 1024
_ITEMS_PER_FILTER = 100
"""A filter travels in the query of a URL."""
_MARK = "archive"
"""Key of the metadata that says that an annotation came of an archive: ``{"file": ..., "line": ...}``."""


class Tally:
    """What became of the archive so far."""

    def __init__(self) -> None:
        self.items = self.annotations = self.removed = self.ignored = self.refused = 0
        self.problems: list[ArchiveProblem] = []

    def refuse(self, path: str, error: AsyncSDKError, line: int | None = None) -> bool:
        """Count what was refused; returns whether it is kept in full."""
        self.refused += 1
        if len(self.problems) >= _PROBLEMS_KEPT:
            return False
        message = str(getattr(error, "reason", None) or error)
        self.problems.append(ArchiveProblem(path=path[:1024], line=line, code=error.code, message=message[:500]))
        return True

    def result(self) -> UnpackedArchive:
        """Return it as the result of the job."""
        return UnpackedArchive(
            items=self.items,
            annotations=self.annotations,
            removed=self.removed,
            ignored=self.ignored,
            refused=self.refused,
            problems=tuple(self.problems),
        )


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """An image that is an item now.

    Attributes:
        file: What it came of.
        item_id: The item.
        is_new: Whether it has no annotations yet, because it was made just now.
    """

    file: PackedFile
    item_id: str
    is_new: bool


class LabelWriter:
    """Makes annotations of the labels of images. Memory: those of one label file, and a thousand more.

    Args:
        work: The job.
        reader: The archive; used by one thread at a time.
        plan: What names the classes.
        dataset: Has the items.
        tally: Told what becomes of them.
    """

    def __init__(self, work: Work, reader: ZipReader, plan: Plan, dataset: AsyncDataset, tally: Tally) -> None:
        self._work = work
        self._reader = reader
        self._plan = plan
        self._dataset = dataset
        self._tally = tally

    async def write(self, items: Sequence[LabelledItem]) -> None:
        """Make the annotations of *items*; those that an earlier archive gave them, and this one does not, go."""
        if not self._plan.is_yolo:
            return
        waiting: list[tuple[AnnotationEntry, str]] = []
        for start in range(0, len(items), _ITEMS_PER_FILTER):
            chosen = items[start : start + _ITEMS_PER_FILTER]
            wanted: set[str] = set()
            for item in chosen:
                if item.file.labels is None:
                    continue
                found = await self._work.in_thread(self._read, item)
                wanted.update(entry.annotation_id for entry in found)
                waiting.extend((entry, item.file.labels.name) for entry in found)
                if len(waiting) >= MAX_BULK_ENTRIES:
                    await self._send(waiting)
                    waiting = []
            # First the new ones: in between an item has too many rather than none.
            await self._send(waiting)
            waiting = []
            await self._remove_others([item.item_id for item in chosen if not item.is_new], wanted)

    def _read(self, item: LabelledItem) -> list[AnnotationEntry]:
        """Return the annotations of one item. Blocking."""
        labels = item.file.labels
        assert labels is not None
        try:
            text = self._reader.read(labels, max_bytes=_MAX_LABEL_BYTES).decode("utf-8-sig")
        except (InvalidArchive, UnicodeDecodeError) as error:
            told = error if isinstance(error, InvalidArchive) else InvalidArchive("is no text in UTF-8")
            self._tally.refuse(labels.name, told)
            return []
        return list(self._entries(item.item_id, labels.name, text))

    def _entries(self, item_id: str, name: str, text: str) -> Iterator[AnnotationEntry]:
        names = self._plan.names
        for found in parse_labels(text, file=name, points=self._plan.points):
            if isinstance(found, InvalidRow):
                self._tally.refuse(name, found, found.line)
                continue
            label = str(found.class_id) if names is None else names.get(found.class_id)
            if label is None:
                error = InvalidRow(f"class {found.class_id} has no name in the YAML", line=found.line, file=name)
                self._tally.refuse(name, error, found.line)
                continue
            facts = (self._dataset.id, item_id, name, str(found.line), label, found.shape.model_dump_json())
            yield AnnotationEntry(
                annotation_id=hashlib.sha256("\0".join(facts).encode()).hexdigest()[:24],
                item_id=item_id,
                label=label,
                shape=found.shape,
                metadata={_MARK: {"file": name, "line": found.line}},
            )

    async def _send(self, waiting: Sequence[tuple[AnnotationEntry, str]]) -> None:
        entries = [entry for entry, _ in waiting]
        replies = await send_annotations(self._dataset._client, self._dataset.id, entries)
        for (_, name), reply in zip(waiting, replies, strict=True):
            if reply.problem is None:
                self._tally.annotations += 1
            else:
                self._tally.refuse(name, reply.problem.to_error())

    async def _remove_others(self, item_ids: Sequence[str], wanted: set[str]) -> None:
        if not item_ids:
            return
        of_items = Condition("item_id", "in", tuple(item_ids))
        found = self._dataset.annotations.list(filter=of_items)
        gone = [one.id async for one in found if _MARK in one.metadata and one.id not in wanted]
        self._tally.removed += await self._dataset.annotations.delete(gone)
