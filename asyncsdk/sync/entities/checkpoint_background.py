# Generated from asyncsdk/entities/checkpoint_background.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Checkpoints uploaded in the background of a training loop, which never waits for the network."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from types import TracebackType
from typing import Any, Self, SupportsFloat, SupportsIndex

from asyncsdk.entities.checkpoint_background import AsyncBackgroundCheckpoints
from asyncsdk.entities.checkpoint_reports import BackgroundReport
from asyncsdk.sync.bridge import run
from asyncsdk.sync.twins import BlockingTwin

__all__ = ["BackgroundCheckpoints"]


class BackgroundCheckpoints(BlockingTwin[AsyncBackgroundCheckpoints]):
    """Uploads submitted checkpoints one after the other; what ``submit`` takes never stops the program that trains.

    At most three kinds wait: final ones, one that is best, one that is neither. A newer one replaces the one of its
    kind that was not begun; a best or a final one also replaces one that is neither; a best one is replaced by a better
    one only, a final one never. An upload begins at the earliest ``min_interval`` after the one before; final ones do
    not wait for that. What failed in a way that may pass is tried again until a newer one takes its place.

    At the end of the block everything that waits is uploaded, each in up to three attempts, and ``report`` says what
    was lost. When the block was cancelled nothing more is begun, what is under way is cancelled, and both are lost.
    """

    def submit(
        self,
        path: str | PathLike[str],
        *,
        epoch: SupportsIndex | None = None,
        is_best: bool = False,
        is_final: bool = False,
        metrics: Mapping[str, SupportsFloat] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a checkpoint as the file is now, to be uploaded in the background. Callable from every thread.

        What goes wrong, here or later, is told by ``report`` and by a logged warning, and never raised. The file may be
        overwritten as soon as this returns: with ``snapshot="copy"`` it was copied, in the time that takes.

        Args:
            path: The file.
            epoch: Epoch it was saved after, from 0. A checkpoint of the same epoch is replaced.
            is_best: Whether it is the best so far.
            is_final: Whether it is the result.
            metrics: Numbers by name; those that are not finite are left out, and the report says so.
            metadata: JSON object of your own.

        Raises:
            ConfigError: The block was not entered, or has ended.
            ForkedProcessError: This process was forked inside of the block; the parent uploads, this one cannot.
        """
        self._twin.submit(path, epoch=epoch, is_best=is_best, is_final=is_final, metrics=metrics, metadata=metadata)

    @property
    def report(self) -> BackgroundReport:
        """What became of the checkpoints up to now."""
        return self._twin.report

    def __enter__(self) -> Self:
        run(self._twin.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self._twin.__aexit__, kind, error, trace)
