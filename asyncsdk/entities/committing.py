"""Making items of what was sent: commit, in as many messages as it takes."""

from __future__ import annotations

from collections.abc import Sequence

from asyncsdk.engine import Outcome
from asyncsdk.entities.examining import PreparedItem, metadata_bytes
from asyncsdk.entities.session import Session
from asyncsdk.entities.upload_books import new_item_id
from asyncsdk.errors import BadRequest, MalformedResponse, RequestError
from asyncsdk.protocol.uploads import CommitEntry, CommitUploads, OnExisting

__all__ = ["ItemCommits"]

_BATCH_BYTES = 8 * 1024 * 1024
_TOO_LARGE = 413


class ItemCommits:
    """Commits uploads of a dataset.

    Args:
        session: Where messages go.
        dataset_id: The dataset.
        on_existing: What happens to items whose path is taken.
    """

    def __init__(self, session: Session, dataset_id: str, on_existing: OnExisting) -> None:
        self._session = session
        self._dataset_id = dataset_id
        self._on_existing = on_existing

    async def commit(self, outcomes: Sequence[Outcome]) -> None:
        """Commit up to 1,000 *outcomes*, in as many messages as it takes for none to be too large.

        What is wrong with one fails it alone: its outcome says so, and otherwise holds the platform's reply.
        """
        batch: list[tuple[Outcome, CommitEntry]] = []
        size_bytes = 0
        for outcome in outcomes:
            known: PreparedItem = outcome.transfer.key
            added = metadata_bytes(known.item)
            if batch and size_bytes + added > _BATCH_BYTES:
                await self._send_commit(batch)
                batch, size_bytes = [], 0
            size_bytes += added
            entry = CommitEntry(
                item_id=new_item_id(known),
                path=known.path,
                key=known.key,
                size_bytes=outcome.size_bytes,
                crc32c=outcome.crc32c or "",
                metadata=None if known.item.metadata is None else dict(known.item.metadata),
            )
            batch.append((outcome, entry))
        if batch:
            await self._send_commit(batch)

    async def _send_commit(self, batch: list[tuple[Outcome, CommitEntry]]) -> None:
        entries = tuple(entry for _, entry in batch)
        message = CommitUploads(dataset_id=self._dataset_id, entries=entries, on_existing=self._on_existing)
        try:
            reply = await self._session.send(message)
        except RequestError as error:
            # The bytes arrived and nobody knows whether they were committed: recorded for each of them. Running the
            # upload again finds out and repeats nothing.
            for outcome, _ in batch:
                outcome.status, outcome.error = "failed", error
            return
        except BadRequest as error:
            if error.status != _TOO_LARGE:
                raise
            if len(batch) == 1:
                batch[0][0].status, batch[0][0].error = "failed", error
                return
            middle = len(batch) // 2
            await self._send_commit(batch[:middle])
            await self._send_commit(batch[middle:])
            return
        if len(reply.entries) != len(batch):
            raise MalformedResponse(f"{len(batch)} uploads were committed, {len(reply.entries)} answers came")
        for (outcome, _), answer in zip(batch, reply.entries, strict=True):
            outcome.reply = answer
            outcome.etag = answer.etag or outcome.etag
            if answer.verdict == "refused":
                name = outcome.name
                problem = answer.problem
                outcome.status = "failed"
                outcome.error = problem.to_error(name=name) if problem else BadRequest(f"{name}: refused")
