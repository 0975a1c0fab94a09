"""Checkpoints uploaded in the background of a training loop, which never waits for the network."""

from __future__ import annotations

import asyncio
import logging
import math
import operator
import os
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat, SupportsIndex, get_args

import anyio
import anyio.to_thread

from asyncsdk.entities.base import given
from asyncsdk.entities.checkpoint_reports import BackgroundCheckpoint, BackgroundReport, BackgroundStatus, outcome_of
from asyncsdk.entities.checkpoint_transfers import upload_checkpoint
from asyncsdk.entities.checkpoint_waiting import Snapshot, SnapshotKind, SubmittedCheckpoint, WaitingCheckpoints
from asyncsdk.entities.session import Session
from asyncsdk.errors import (
    AsyncSDKError,
    ConfigError,
    Conflict,
    ForkedProcessError,
    NotFound,
    ResponseError,
    UnsupportedOperation,
)
from asyncsdk.protocol.checkpoints import CheckpointRecord, GetCheckpoint

__all__ = ["AsyncBackgroundCheckpoints"]

_log = logging.getLogger(__name__)

RETRY_INITIAL_SECONDS = 1.0
RETRY_MAX_SECONDS = 60.0
CLOSE_ATTEMPTS = 3
"""How often a checkpoint is tried once the block has ended; before, as long as no newer one takes its place."""

CANCEL_GRACE_SECONDS = 10.0
"""How long an upload that is cancelled may clean up."""

MAX_OUTCOMES = 1000
"""Outcomes that a report names, of those that are lost and of the others; all are counted."""


class AsyncBackgroundCheckpoints:
    """Uploads submitted checkpoints one after the other; what ``submit`` takes never stops the program that trains.

    At most three kinds wait: final ones, one that is best, one that is neither. A newer one replaces the one of its
    kind that was not begun; a best or a final one also replaces one that is neither; a best one is replaced by a better
    one only, a final one never. An upload begins at the earliest ``min_interval`` after the one before; final ones do
    not wait for that. What failed in a way that may pass is tried again until a newer one takes its place.

    At the end of the block everything that waits is uploaded, each in up to three attempts, and ``report`` says what
    was lost. When the block was cancelled nothing more is begun, what is under way is cancelled, and both are lost.
    """

    def __init__(
        self,
        session: Session,
        model_id: str,
        *,
        min_interval: float,
        snapshot: SnapshotKind,
        close_timeout: float | None,
    ) -> None:
        value: Any  # callers without a type checker give anything
        for name, value in (("min_interval", min_interval), ("close_timeout", close_timeout or 0.0)):
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ConfigError(f"{name} is a number of seconds from 0, not {value!r}")
        if snapshot not in get_args(SnapshotKind):
            raise ConfigError(f"snapshot is 'copy' or 'open', not {snapshot!r}")
        self._session = session
        self._model_id = model_id
        self._min_interval = min_interval
        self._snapshot: SnapshotKind = snapshot
        self._close_timeout = close_timeout
        self._pid = os.getpid()
        self._submitting = threading.Lock()  # held while a snapshot is taken: the order is that of submission
        self._lock = threading.Lock()
        self._waiting = WaitingCheckpoints()
        self._under_way: SubmittedCheckpoint | None = None
        self._counts = dict.fromkeys(("submitted", "uploaded", "replaced", "lost"), 0)
        self._ended: deque[BackgroundCheckpoint] = deque(maxlen=MAX_OUTCOMES)
        self._lost: list[BackgroundCheckpoint] = []
        self._is_closing = False
        self._is_over = False
        self._begin_at = -math.inf
        self._retry_at = -math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Event

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
        if os.getpid() != self._pid:
            raise ForkedProcessError("these uploads belong to the process that this one was forked from; submit there")
        told: Any = metrics or {}
        numbers = {name: _as_float(value) for name, value in told.items()} if isinstance(told, Mapping) else {}
        finite = {
            name: value for name, value in numbers.items() if not isinstance(value, float) or math.isfinite(value)
        }
        sent = finite if isinstance(told, Mapping) else told
        facts = given(
            epoch=_as_int(epoch), is_best=is_best, is_final=is_final, metrics=sent or None, metadata=metadata
        )  # checked before the upload, when it is its turn
        one = SubmittedCheckpoint(Path(path), {"filename": Path(path).name, **facts})
        if left_out := sorted(numbers.keys() - finite.keys()):
            one.note = f"metrics that are not finite were left out: {', '.join(left_out)}"
            _log.warning("%s: %s", one.path, one.note)
        with self._submitting:
            loop = self._loop
            if loop is None or self._is_closing:
                raise ConfigError("checkpoints are submitted inside of the block, which was not entered or has ended")
            self._counts["submitted"] += 1
            try:
                one.snapshot = Snapshot.take(one.path, self._snapshot)
            except AsyncSDKError as error:
                self._end(one, "lost", error=error)
                return
            with self._lock:
                is_late = self._is_over  # the block was cancelled while the file was copied
                replaced = [] if is_late else self._waiting.put(one)
            if is_late:
                self._end(one, "lost", error=AsyncSDKError("the block ended before it was uploaded"))
                return
            for old in replaced:
                self._end(old, "replaced")
            # A loop that was closed meanwhile has nothing to be told: the end of the block saw what waited.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake.set)

    @property
    def report(self) -> BackgroundReport:
        """What became of the checkpoints up to now."""
        with self._lock:
            under_way = [] if self._under_way is None else [outcome_of(self._under_way, "uploading")]
            waiting = [*under_way, *(outcome_of(one, "waiting") for one in self._waiting)]
            outcomes = (*self._lost, *self._ended, *waiting)
            return BackgroundReport(**self._counts, waiting=len(waiting), outcomes=outcomes)

    # --- the block -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise ConfigError(
                "a block of background uploads is entered once; call model.background_checkpoints() again"
            )
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._work(), name=f"asyncsdk-checkpoints {self._model_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        try:
            if not isinstance(error, asyncio.CancelledError):
                await anyio.to_thread.run_sync(self._close)
                self._wake.set()
                with anyio.move_on_after(self._close_timeout):
                    await asyncio.wait({self._task})
        finally:
            self._is_closing = True
            self._task.cancel()
            try:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({self._task}, timeout=CANCEL_GRACE_SECONDS)
            finally:
                self._give_up()

    def _close(self) -> None:
        # A submit that copies just now is waited for: it was called before the end, and is uploaded too.
        with self._submitting:
            self._is_closing = True
        with self._lock:
            self._retry_at = -math.inf
            for one in (*self._waiting, *([] if self._under_way is None else [self._under_way])):
                one.attempts = 0

    def _give_up(self) -> None:
        with self._lock:
            self._is_over = True
            left = self._waiting.clear()
        for one in left:
            self._end(one, "lost", error=one.error or AsyncSDKError("the block ended before it was uploaded"))

    # --- in the event loop -----------------------------------------------------------------------------------

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            one = self._next(now)
            if one is not None:
                await self._upload(one, loop)
            elif self._is_closing and not len(self._waiting):
                return
            else:
                with anyio.move_on_after(self._seconds_to_wait(now)):
                    await self._wake.wait()

    def _next(self, now: float) -> SubmittedCheckpoint | None:
        with self._lock:
            if now < self._retry_at:
                return None
            only_final = not self._is_closing and now < self._begin_at
            self._under_way = self._waiting.first(only_final=only_final)
            return self._under_way

    def _seconds_to_wait(self, now: float) -> float | None:
        """Return when something that waits may begin; None when nothing waits."""
        with self._lock:
            if not len(self._waiting):
                return None
            is_held = not self._is_closing and not self._waiting.has_final()
        return max(0.0, self._retry_at - now, self._begin_at - now if is_held else 0.0)

    async def _upload(self, one: SubmittedCheckpoint, loop: asyncio.AbstractEventLoop) -> None:
        assert one.snapshot is not None
        self._begin_at = loop.time() + self._min_interval
        one.attempts += 1
        try:
            record = await self._arrived_before(one)
            if record is None:
                one.snapshot.check_unchanged()
                one.snapshot.file.seek(0)
                record = await self._send(one, one.snapshot)
        except Exception as error:  # noqa: BLE001  # whatever it was, the program that trains goes on, and the report tells it
            one.error = error
            if not self._tries_again(one, error, loop.time()):
                self._end(one, "lost", error=error)
        except BaseException:  # cancelled: the block is left at once
            self._end(one, "lost", error=one.error or AsyncSDKError("its upload was cancelled"))
            raise
        else:
            self._retry_at = -math.inf
            self._end(one, "uploaded", checkpoint=record)

    async def _send(self, one: SubmittedCheckpoint, snapshot: Snapshot) -> CheckpointRecord:
        try:
            return await upload_checkpoint(
                self._session,
                self._model_id,
                snapshot.file,
                one.facts,
                resume=False,
                on_progress=None,
                on_event=None,
                checkpoint_id=one.checkpoint_id,
                # Again: the engine notices changes while it reads, nobody those before it begins.
                check_source=snapshot.check_unchanged,
                is_patient=False,
            )
        except Conflict as error:
            if one.checkpoint_id not in error.ids or (record := await self._arrived_before(one)) is None:
                raise
            return record  # committed by an earlier attempt, after it was asked for

    async def _arrived_before(self, one: SubmittedCheckpoint) -> CheckpointRecord | None:
        """Return what an attempt made of it whose reply was lost: sent again, it would be there twice."""
        if one.error is None:
            return None
        try:
            return await self._session.send(GetCheckpoint(model_id=self._model_id, checkpoint_id=one.checkpoint_id))
        except (NotFound, UnsupportedOperation):  # a service that tells nothing of single checkpoints, too
            return None

    def _tries_again(self, one: SubmittedCheckpoint, error: Exception, now: float) -> bool:
        if not isinstance(error, AsyncSDKError) or not error.retryable:
            return False
        if self._is_closing and one.attempts >= CLOSE_ATTEMPTS:
            return False
        asked = (error.retry_after if isinstance(error, ResponseError) else None) or 0.0
        grown = RETRY_INITIAL_SECONDS * 2.0 ** min(one.attempts - 1, 20)
        self._retry_at = now + min(max(grown, asked), RETRY_MAX_SECONDS)
        with self._lock:
            self._begin_at = -math.inf  # nothing was uploaded that the next would have to keep its distance from
            is_back = self._waiting.put_back(one)
            if is_back:
                self._under_way = None
        if not is_back:
            self._end(one, "replaced")
        return True

    def _end(
        self,
        one: SubmittedCheckpoint,
        status: BackgroundStatus,
        *,
        checkpoint: CheckpointRecord | None = None,
        error: Exception | None = None,
    ) -> None:
        if one.snapshot is not None:
            one.snapshot.close()
        one.error = error
        with self._lock:
            self._counts[status] += 1
            if status != "lost":
                self._ended.append(outcome_of(one, status, checkpoint))
            elif len(self._lost) < MAX_OUTCOMES:
                self._lost.append(outcome_of(one, status))
            if self._under_way is one:
                self._under_way = None
        if status == "lost":
            _log.warning("%s (epoch %s) was not uploaded: %s", one.path, one.facts.get("epoch"), error)


def _as_float(value: Any) -> Any:
    try:
        return value if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # no number, a tensor of several; the commit says so
        return value


def _as_int(value: Any) -> Any:
    try:
        return None if value is None else operator.index(value)
    except TypeError:  # as above
        return value
