"""The verbs of a model that move its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from os import PathLike
from typing import Any

from asyncsdk.engine import EventCallback, ProgressCallback, Source
from asyncsdk.entities.base import BoundRecord, given
from asyncsdk.entities.checkpoint_background import AsyncBackgroundCheckpoints
from asyncsdk.entities.checkpoint_transfers import download_checkpoint, upload_checkpoint, verify_checkpoint
from asyncsdk.entities.checkpoint_waiting import SnapshotKind
from asyncsdk.entities.checkpoints import AsyncCheckpoint, AsyncCheckpoints
from asyncsdk.entities.read_urls import checkpoint_url
from asyncsdk.entities.verifying import ComparisonCallback, Verification
from asyncsdk.protocol.checkpoints import WhichCheckpoint
from asyncsdk.protocol.models import ModelRecord

__all__ = ["AsyncModelCheckpoints"]


class AsyncModelCheckpoints(BoundRecord, ModelRecord):
    """What can be done with the checkpoints of a model; a part of `AsyncModel`."""

    @property
    def checkpoints(self) -> AsyncCheckpoints:
        """The checkpoints of this model."""
        return AsyncCheckpoints(self._client, self.id)

    async def weights_url(self, which: WhichCheckpoint | int = "best") -> str:
        """Return a URL under which anybody can read the weights for a while, without a token.

        On a server it is signed and works for an hour (a bucket's own may say otherwise); on the embedded platform it
        is the ``file://`` URL of the stored object, which must not be changed and goes when the checkpoint is deleted.

        Args:
            which: ``best``, ``last`` (committed last), ``final``, or the number of an epoch.

        Raises:
            NotFound: There is no such checkpoint.
        """
        return await checkpoint_url(self._client, await self.checkpoints.get(which=which))

    def background_checkpoints(
        self, *, min_interval: float = 900.0, snapshot: SnapshotKind = "copy", close_timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncBackgroundCheckpoints]:
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
        return AsyncBackgroundCheckpoints(
            self._client, self.id, min_interval=min_interval, snapshot=snapshot, close_timeout=close_timeout
        )

    async def upload_checkpoint(
        self,
        source: Source,
        *,
        epoch: int | None = None,
        is_best: bool = False,
        is_final: bool = False,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> AsyncCheckpoint:
        """Upload weights and make them a checkpoint of this model.

        Streamed in bounded memory, large ones in several parts at once; the checksum of what was sent is compared with
        what the platform stored. Nothing is visible before all of it arrived. Durable when it returns.

        Args:
            source: A path, bytes, an open binary file or an asynchronous iterable of bytes.
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
        record = await upload_checkpoint(
            self._client,
            self.id,
            source,
            given(epoch=epoch, is_best=is_best, is_final=is_final, metrics=metrics, metadata=metadata),
            resume=resume,
            on_progress=on_progress,
            on_event=on_event,
        )
        return AsyncCheckpoint._bind(record, self._client)

    async def download_checkpoint(
        self,
        destination: str | PathLike[str],
        *,
        which: WhichCheckpoint | int = "best",
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> AsyncCheckpoint:
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
        record = await self.checkpoints.get(which=which)
        await download_checkpoint(
            self._client, record, destination, resume=resume, on_progress=on_progress, on_event=on_event
        )
        return record

    async def verify_checkpoint(
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
        record = await self.checkpoints.get(which=which)
        return await verify_checkpoint(record, file, on_progress=on_progress, on_comparison=on_comparison)
