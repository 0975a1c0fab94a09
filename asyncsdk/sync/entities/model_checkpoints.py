# Generated from asyncsdk/entities/model_checkpoints.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""The verbs of a model that move its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any

from asyncsdk.engine import EventCallback, ProgressCallback, Source
from asyncsdk.entities.checkpoint_waiting import SnapshotKind
from asyncsdk.entities.model_checkpoints import AsyncModelCheckpoints
from asyncsdk.entities.verifying import ComparisonCallback, Verification
from asyncsdk.protocol.checkpoints import WhichCheckpoint
from asyncsdk.protocol.models import ModelRecord
from asyncsdk.sync.bridge import on_caller, run
from asyncsdk.sync.entities.checkpoint_background import BackgroundCheckpoints
from asyncsdk.sync.entities.checkpoints import Checkpoint, Checkpoints
from asyncsdk.sync.iterables import caller_stream
from asyncsdk.sync.iteration import context
from asyncsdk.sync.twins import BlockingRecord

__all__ = ["ModelCheckpoints"]


class ModelCheckpoints(BlockingRecord, ModelRecord):
    """What can be done with the checkpoints of a model; a part of `Model`."""

    @property
    def _twin(self) -> AsyncModelCheckpoints:
        return AsyncModelCheckpoints._bind(self, self._client)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of this model."""
        return Checkpoints._of(self._twin.checkpoints)

    def weights_url(self, which: WhichCheckpoint | int = "best") -> str:
        """Return a URL under which anybody can read the weights for a while, without a token.

        On a server it is signed and works for an hour (a bucket's own may say otherwise); on the embedded platform it
        is the ``file://`` URL of the stored object, which must not be changed and goes when the checkpoint is deleted.

        Args:
            which: ``best``, ``last`` (committed last), ``final``, or the number of an epoch.

        Raises:
            NotFound: There is no such checkpoint.
        """
        return run(self._twin.weights_url, which)

    def background_checkpoints(
        self, *, min_interval: float = 900.0, snapshot: SnapshotKind = "copy", close_timeout: float | None = None
    ) -> AbstractContextManager[BackgroundCheckpoints]:
        """Upload checkpoints while training goes on: what ``submit`` of the block takes is uploaded in the background.

        Args:
            min_interval: Seconds between the beginnings of two uploads at least; final ones do not wait for it.
            snapshot: ``copy``: a submitted file is copied, without a name in its folder, and may be overwritten as
                soon as ``submit`` returns; costs the time and the room of a copy, or none where the file system shares
                blocks (btrfs, XFS). ``open``: it is held open; costs nothing, and is right for programs that save under
                another name and rename; a file that is written in place after all is noticed and counts as lost.
            close_timeout: Seconds that the end of the block may take to upload what waits; None: as long as it takes,
                with three attempts for each.

        Returns:
            The block; at its end ``report`` says what was uploaded, replaced and lost.

        Raises:
            ConfigError: A number or *snapshot* makes no sense.
        """
        return context(
            self._twin.background_checkpoints(
                min_interval=min_interval, snapshot=snapshot, close_timeout=close_timeout
            ),
            BackgroundCheckpoints._of,
        )

    def upload_checkpoint(
        self,
        source: Source | Iterable[bytes],
        *,
        epoch: int | None = None,
        is_best: bool = False,
        is_final: bool = False,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Checkpoint:
        """Upload weights and make them a checkpoint of this model.

        Streamed in bounded memory, large ones in several parts at once; the checksum of what was sent is compared with
        what the platform stored. Nothing is visible before all of it arrived. Durable when it returns.

        Args:
            source: A path, bytes, an open binary file or an iterable of bytes.
            epoch: Epoch they were saved after, from 0. A checkpoint of the same epoch is replaced.
            is_best: Whether they are the best so far; no other checkpoint is best any more.
            is_final: Whether they are the result; no other checkpoint is final any more.
            metrics: Finite numbers by name.
            metadata: JSON object of your own.
            resume: Keep a journal below ``ASYNCSDK_HOME``: the same call after a kill sends the parts that are missing,
                and makes no second checkpoint when only the reply was lost. For a path; for other sources nothing is
                kept. False: keep none.
            on_progress: Told how far it is, at most every 0.1 s.
            on_event: Told everything that happens: retries, renewals... (see `Event`).

        Raises:
            SourceNotFound, SourceUnreadable, SourceChanged: The file is not there, is a folder, changed meanwhile.
            NotFound: The model is gone.
        """
        return Checkpoint._of(
            run(
                self._twin.upload_checkpoint,
                caller_stream(source),
                epoch=epoch,
                is_best=is_best,
                is_final=is_final,
                metrics=metrics,
                metadata=metadata,
                resume=resume,
                on_progress=on_caller(on_progress),
                on_event=on_caller(on_event),
            )
        )

    def download_checkpoint(
        self,
        destination: str | PathLike[str],
        *,
        which: WhichCheckpoint | int = "best",
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Checkpoint:
        """Download weights into a file, large ones in several ranges at once.

        The file appears under its name only when all bytes are there and their checksum is right. A file that stands
        there is replaced.

        Args:
            destination: The file; in a folder that exists, the file takes the name it was uploaded under.
            which: ``best``, ``last`` (committed last), ``final``, or the number of an epoch.
            resume: Keep a journal below ``ASYNCSDK_HOME``, and the half-received file, when it is stopped: the same
                call fetches the ranges that are missing. False: keep none, and nothing of a failed download.
            on_progress: Told how far it is, at most every 0.1 s.
            on_event: Told everything that happens: retries, renewals... (see `Event`).

        Returns:
            The checkpoint that was downloaded.

        Raises:
            NotFound: There is no such checkpoint.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        return Checkpoint._of(
            run(
                self._twin.download_checkpoint,
                destination,
                which=which,
                resume=resume,
                on_progress=on_caller(on_progress),
                on_event=on_caller(on_event),
            )
        )

    def verify_checkpoint(
        self,
        file: str | PathLike[str],
        *,
        which: WhichCheckpoint | int = "best",
        on_progress: ProgressCallback | None = None,
        on_comparison: ComparisonCallback | None = None,
    ) -> Verification:
        """Compare a file with a checkpoint by size and crc32c, without moving or changing anything.

        Args:
            file: The file; in a folder that exists, the one with the name the checkpoint was uploaded under.
            which: ``best``, ``last`` (committed last), ``final``, or the number of an epoch.
            on_progress: Told how far it is, at most every 0.1 s.
            on_comparison: Told what was found.

        Returns:
            One object: the same, or the difference; ``ok``, ``raise_for_differences()``.

        Raises:
            NotFound: There is no such checkpoint.
        """
        return run(
            self._twin.verify_checkpoint,
            file,
            which=which,
            on_progress=on_caller(on_progress),
            on_comparison=on_caller(on_comparison),
        )
