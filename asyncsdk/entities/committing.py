"""Making items of what was sent: commit, in as many messages as it takes."""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Sequence
from time import monotonic

from asyncsdk.checksums import crc32c_hex
from asyncsdk.engine import Outcome, Skipped
from asyncsdk.entities.examining import PreparedItem, metadata_bytes
from asyncsdk.entities.session import Session
from asyncsdk.entities.upload_books import new_item_id
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ChecksumMismatch,
    MalformedResponse,
    RequestError,
    server_code_of,
)
from asyncsdk.protocol.uploads import (
    BAD_DIGEST,
    CHECKING_SECONDS,
    STILL_CHECKING,
    CommitEntry,
    CommitUploads,
    OnExisting,
)

__all__ = ["ItemCommits", "arrived_before", "as_damage"]

_BATCH_BYTES = 8 * 1024 * 1024
_TOO_LARGE = 413
_AGAIN_SECONDS = 1.0
"""Before objects are asked for again that the platform still reads; it waits some seconds for them itself."""

_Pair = tuple[Outcome, CommitEntry]


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
        batch: list[_Pair] = []
        size_bytes = 0
        for outcome in outcomes:
            known: PreparedItem = outcome.transfer.key
            added = metadata_bytes(known.item)
            if batch and size_bytes + added > _BATCH_BYTES:
                await self._commit(batch)
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
            await self._commit(batch)

    async def _commit(self, batch: list[_Pair]) -> None:
        """Commit a batch; what the platform still reads is asked for again, and keeps none of the others."""
        checked_until = monotonic() + CHECKING_SECONDS
        while left := await self._send_commit(batch):
            if monotonic() > checked_until:
                for outcome, _ in left:
                    outcome.status, outcome.error = "failed", outcome.reply.problem.to_error(name=outcome.name)
                return
            await sleep(_AGAIN_SECONDS)
            batch = left

    async def _send_commit(self, batch: list[_Pair]) -> list[_Pair]:
        """Commit a batch and return those of it that the platform still reads."""
        entries = tuple(entry for _, entry in batch)
        message = CommitUploads(dataset_id=self._dataset_id, entries=entries, on_existing=self._on_existing)
        try:
            reply = await self._session.send(message)
        except RequestError as error:
            # The bytes arrived and nobody knows whether they were committed: recorded for each of them. Running the
            # upload again finds out and repeats nothing.
            for outcome, _ in batch:
                outcome.status, outcome.error = "failed", error
            return []
        except BadRequest as error:
            if error.status != _TOO_LARGE:
                raise
            if len(batch) == 1:
                batch[0][0].status, batch[0][0].error = "failed", error
                return []
            middle = len(batch) // 2
            return [*await self._send_commit(batch[:middle]), *await self._send_commit(batch[middle:])]
        if len(reply.entries) != len(batch):
            raise MalformedResponse(f"{len(batch)} uploads were committed, {len(reply.entries)} answers came")
        left: list[_Pair] = []
        for pair, answer in zip(batch, reply.entries, strict=True):
            outcome, problem = pair[0], answer.problem
            outcome.reply = answer
            outcome.etag = answer.etag or outcome.etag
            if answer.verdict != "refused":
                continue
            if problem is not None and problem.code == STILL_CHECKING:
                left.append(pair)
                continue
            name = outcome.name
            refusal = problem.to_error(name=name) if problem else BadRequest(f"{name}: refused")
            outcome.status, outcome.error = "failed", as_damage(outcome, refusal)
        return left


def as_damage(outcome: Outcome, error: AsyncSDKError) -> AsyncSDKError:
    """Return *error*; the one for bytes that are wrong, when it says that others arrived than were sent."""
    if server_code_of(error) != BAD_DIGEST:
        return error
    found = "other bytes where they arrived"
    return ChecksumMismatch(outcome.crc32c or "", found, source=outcome.name, bytes_done=outcome.size_bytes)


def arrived_before(known: PreparedItem) -> Outcome:
    """Return the outcome of an item whose bytes arrived in an earlier run, as far as the journal knows."""
    size_bytes, crc32c = known.size_bytes or 0, known.crc32c
    if known.large is not None:
        crc32c = crc32c_hex(known.large.whole_crc32c(size_bytes) or 0)
    transfer = Skipped(known.path, size_bytes, known)
    return Outcome(transfer, "skipped", size_bytes=size_bytes, checksum=f"crc32c:{crc32c}")
