"""Jobs of the kind ``unpack_archive``: the archive of a dataset becomes its items, YOLO labels their annotations.

Run again for the same archive, the end is the same: equal items stay as they are, and annotations have ids that follow
from what they say.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pydantic import JsonValue, ValidationError

from asyncsdk.domain.formats.yolo import is_image
from asyncsdk.engine import Outcome
from asyncsdk.entities.archive_transfers import fetch_archive
from asyncsdk.entities.datasets import AsyncDataset, AsyncDatasets
from asyncsdk.entities.examining import PreparedItem
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.errors import BadRequest, ConfigError, InvalidArchive, InvalidName, ResponseError, RunnerUnavailable
from asyncsdk.protocol.archives import UNPACK_KIND, UnpackPayload
from asyncsdk.worker.runners import Work
from asyncsdk.worker.unpacked_labels import LabelledItem, LabelWriter, Tally
from asyncsdk.worker.yolo_layout import PackedFile, plan_of
from asyncsdk.worker.zip_reader import ArchiveLimits, ZipReader

__all__ = ["UnpackRunner"]

_BATCH_FILES = 500
_BATCH_BYTES = 32 * 1024 * 1024
"""Files, and bytes of them, that are unpacked before they are uploaded; one that is larger goes by itself. There are
two batches at most, beside the archive."""
_SMALL_BYTES = 256 * 1024
"""Files up to this go through memory: making and removing a file costs more than what is in it."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Files that were unpacked."""

    folder: Path
    files: Sequence[tuple[PackedFile, Path | bytes]]
    refused: Sequence[tuple[PackedFile, InvalidArchive]]


class UnpackRunner:
    """Unpacks archives.

    Bounded in memory (about 0.8 KB per entry, and two batches of small files, 64 MiB) and on disk (the archive and two
    batches, or two files if they are larger than one).

    Args:
        limits: How much an archive may hold; None: as `ArchiveLimits` says.
    """

    kind = UNPACK_KIND

    def __init__(self, limits: ArchiveLimits | None = None) -> None:
        self._limits = limits

    def offers(self) -> Mapping[str, JsonValue]:
        """Return nothing special: zips are all there is.

        Raises:
            RunnerUnavailable: The extra ``archive`` is not installed.
        """
        if find_spec("yaml") is None:
            raise RunnerUnavailable(self.kind, "pyyaml not installed; pip install 'asyncsdk[archive]'")
        return {}

    async def run(self, work: Work) -> JsonValue:
        """Make items and annotations of the archive; returns an `UnpackedArchive` as JSON.

        Raises:
            NotFound: The dataset or its archive is gone.
            Conflict: It has another archive by now, or is read-only.
            InvalidArchive: It is damaged, or a bomb; nothing was made of it then.
            BadRequest: The payload makes no sense.
        """
        try:
            payload = UnpackPayload.model_validate(work.job.payload)
        except ValidationError as error:
            raise BadRequest(f"the payload makes no sense: {error.errors(include_url=False)[0]['msg']}") from error
        dataset = await AsyncDatasets(work.session).get(payload.dataset_id)
        path = work.folder / "archive.zip"
        await work.report(stage="downloading", progress=0.0)
        await fetch_archive(work.session, payload, path)
        await work.report(stage="unpacking")
        reader = await work.in_thread(lambda: ZipReader(path, self._limits, check=work.raise_if_cancelled))
        try:
            return await _unpack(work, reader, dataset)
        finally:
            await asyncio.to_thread(reader.close)


async def _unpack(work: Work, reader: ZipReader, dataset: AsyncDataset) -> JsonValue:
    tally = Tally()
    tally.ignored = reader.ignored
    for name, error in reader.refused:
        tally.refuse(name, error)
    plan = await work.in_thread(plan_of, reader)
    await work.log(
        f"{len(reader.entries):,} files, {reader.size_bytes:,} bytes; "
        + (f"labels of {sum(file.labels is not None for file in plan.files):,} images" if plan.is_yolo else "no labels")
    )
    if plan.lone_labels:
        await work.log(
            f"{plan.lone_labels:,} files look like labels, and no image is theirs: they are items", "warning"
        )
    labels = LabelWriter(work, reader, plan, dataset, tally)
    logged = await _log_problems(work, tally, 0)
    done_bytes = 0
    batches = _in_batches(plan.files)
    number = 0

    def next_batch() -> _Batch | None:
        nonlocal number
        files = next(batches, None)
        number += 1
        return None if files is None else _extract(reader, files, work.folder / f"batch-{number}")

    batch = await work.in_thread(next_batch)
    while batch is not None:
        # The next batch is unpacked while this one is on its way.
        following = asyncio.ensure_future(work.in_thread(next_batch))
        try:
            items = await _upload(dataset, batch, tally)
            done_bytes += sum(file.entry.size_bytes for file, _ in batch.files)
            await asyncio.to_thread(shutil.rmtree, batch.folder)
            batch = await following
        finally:
            await asyncio.wait({following})
            if not following.cancelled():
                following.exception()  # of work that the error of this batch ended
        await labels.write(items)
        logged = await _log_problems(work, tally, logged)
        await work.report(
            progress=done_bytes / max(1, reader.size_bytes),
            message=f"{tally.items:,} items, {tally.annotations:,} annotations, {tally.refused:,} refused",
        )
    result: JsonValue = tally.result().model_dump(mode="json")
    return result


async def _log_problems(work: Work, tally: Tally, logged: int) -> int:
    """Write those problems into the job's log that are not there yet; returns how many are there then."""
    for problem in tally.problems[logged:]:
        where = problem.path if problem.line is None else f"{problem.path}, line {problem.line}"
        await work.log(f"refused {where!r}: {problem.message}", "warning")
    return len(tally.problems)


def _in_batches(files: Sequence[PackedFile]) -> Iterator[list[PackedFile]]:
    batch: list[PackedFile] = []
    size_bytes = 0
    for file in files:
        if batch and (len(batch) == _BATCH_FILES or size_bytes + file.entry.size_bytes > _BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(file)
        size_bytes += file.entry.size_bytes
    if batch:
        yield batch


def _extract(reader: ZipReader, files: Sequence[PackedFile], folder: Path) -> _Batch:
    """Unpack *files* under numbers: no name that the archive gives is ever one of this machine. Blocking."""
    folder.mkdir()
    done: list[tuple[PackedFile, Path | bytes]] = []
    refused: list[tuple[PackedFile, InvalidArchive]] = []
    for number, file in enumerate(files):
        path = folder / str(number)
        try:
            if file.entry.size_bytes <= _SMALL_BYTES:
                done.append((file, reader.read(file.entry, max_bytes=_SMALL_BYTES)))
            else:
                reader.extract(file.entry, path)
                done.append((file, path))
        except InvalidArchive as error:
            path.unlink(missing_ok=True)
            refused.append((file, error))
    return _Batch(folder, done, refused)


async def _upload(dataset: AsyncDataset, batch: _Batch, tally: Tally) -> list[LabelledItem]:
    """Make the files of a batch items; returns those that may have labels."""
    for file, error in batch.refused:
        tally.refuse(file.entry.name, error)
    by_path = {file.path: file for file, _ in batch.files}
    uploads = [
        ItemUpload(path, file.path, None if file.split is None else {"split": file.split}) for file, path in batch.files
    ]
    outcomes: list[Outcome] = []
    await dataset.upload(uploads, resume=False, on_outcome=outcomes.append)
    if len(outcomes) < len(uploads):
        raise ConfigError("the client of this worker is being closed: nothing new is begun")
    items: list[LabelledItem] = []
    for outcome in outcomes:
        known: PreparedItem = outcome.transfer.key
        file = by_path[known.path]
        if outcome.error is None:
            tally.items += 1
            reply = outcome.reply  # of the commit, or of the platform that had it already
            if is_image(file.path):
                items.append(LabelledItem(file, reply.item_id, getattr(reply, "verdict", "") == "created"))
        elif isinstance(outcome.error, InvalidName) or (
            isinstance(outcome.error, ResponseError) and not outcome.error.retryable
        ):
            tally.refuse(file.entry.name, outcome.error)
        else:  # nothing about this file: the job cannot go on
            raise outcome.error
    return items
