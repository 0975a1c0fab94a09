"""What became of checkpoints that were submitted to be uploaded in the background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asyncsdk.entities.checkpoint_waiting import SubmittedCheckpoint
from asyncsdk.errors import AsyncSDKError
from asyncsdk.protocol.checkpoints import CheckpointRecord

__all__ = ["BackgroundCheckpoint", "BackgroundReport", "BackgroundStatus", "outcome_of"]

BackgroundStatus = Literal["waiting", "uploading", "uploaded", "replaced", "lost"]


@dataclass(frozen=True, slots=True)
class BackgroundCheckpoint:
    """What became of one that was submitted.

    Attributes:
        path: The file.
        epoch: As submitted.
        is_best: As submitted.
        is_final: As submitted.
        status: ``waiting``, ``uploading``, ``uploaded``; ``replaced``: a newer one came before it was begun; ``lost``:
            it is not at the platform.
        checkpoint: What it became.
        error: Why it is lost, or why it still waits.
        message: What was left out of it: metrics that are not finite.
    """

    path: Path
    epoch: int | None
    is_best: bool
    is_final: bool
    status: BackgroundStatus
    checkpoint: CheckpointRecord | None = None
    error: Exception | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class BackgroundReport:
    """What became of the checkpoints of one block.

    Attributes:
        submitted: How many were submitted.
        uploaded: How many are durable at the platform.
        replaced: How many a newer one replaced before they were begun.
        lost: How many could not be uploaded.
        waiting: How many wait or are under way.
        outcomes: The first 1,000 that were lost, the last 1,000 that were uploaded or replaced, those that wait.
    """

    submitted: int
    uploaded: int
    replaced: int
    lost: int
    waiting: int
    outcomes: tuple[BackgroundCheckpoint, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was lost."""
        return self.lost == 0

    def raise_for_failures(self) -> None:
        """Raise when checkpoints were lost.

        Raises:
            ExceptionGroup: Of the errors of those that are lost.
        """
        errors = [one.error for one in self.outcomes if one.status == "lost" and one.error is not None]
        if self.lost:
            raise ExceptionGroup(f"{self.lost} checkpoints were lost", errors or [AsyncSDKError("they are not named")])


def outcome_of(
    one: SubmittedCheckpoint, status: BackgroundStatus, checkpoint: CheckpointRecord | None = None
) -> BackgroundCheckpoint:
    """Return what is told of one."""
    return BackgroundCheckpoint(
        path=one.path,
        epoch=one.facts.get("epoch"),
        is_best=one.is_best,
        is_final=one.is_final,
        status=status,
        checkpoint=checkpoint,
        error=one.error,
        message=one.note,
    )
