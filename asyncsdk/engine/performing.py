"""What each kind of transfer needs: which lane it belongs to, and who moves it."""

from __future__ import annotations

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.downloads import LargeObject, download_whole
from asyncsdk.engine.files import copy_in, copy_out
from asyncsdk.engine.parted.protocols import send_large
from asyncsdk.engine.ranges import download_in_ranges
from asyncsdk.engine.transfers import Download, Outcome, StreamSink, Upload
from asyncsdk.engine.uploads import put, start_over, upload
from asyncsdk.engine.waits import WaitReason, waiting
from asyncsdk.engine.work import Work
from asyncsdk.errors import AsyncSDKError
from asyncsdk.targets import BlobTarget, FileOrigin, FileTarget, MultipartTarget, ResumableTarget

__all__ = ["is_large", "perform", "perform_large"]


def is_large(transfer: Upload | Download, config: TransferConfig) -> bool:
    """Whether *transfer* is known to need several requests, or may hold its place for long."""
    if isinstance(transfer, Upload):
        return _is_parted(transfer)
    if isinstance(transfer.origin, FileOrigin):
        return False
    size = transfer.origin.size_bytes
    if size is None:
        return isinstance(transfer.sink, StreamSink)  # somebody else sets its speed
    return size > config.multipart_threshold


def _is_parted(upload: Upload) -> bool:
    target = upload.target
    if isinstance(target, BlobTarget):
        source, size = upload.source, upload.size_bytes
        if size is None and isinstance(source, (bytes, bytearray, memoryview)):
            size = memoryview(source).nbytes
        return size is None or size > target.single_bytes
    return isinstance(target, (MultipartTarget, ResumableTarget))


async def perform(work: Work) -> Outcome | LargeObject:
    """Move a transfer of the small lane; a download may turn out to belong to the other one.

    Errors of this package become a failed outcome; anything else (a mistake in the caller's feed, or here) is raised.
    """
    with work.counted():
        try:
            return await _perform(work)
        except AsyncSDKError as error:
            return work.failed(error)


async def _perform(work: Work) -> Outcome | LargeObject:
    transfer = work.transfer
    if isinstance(transfer, Upload):
        if isinstance(transfer.target, FileTarget):
            with waiting(WaitReason.DISK):
                return await start_over(work, lambda may_again: copy_in(work))
        return await upload(work, put)
    if isinstance(transfer.origin, FileOrigin):
        with waiting(WaitReason.DISK):
            return await copy_out(work)
    return await download_whole(work)


async def perform_large(work: Work, found: LargeObject | None = None) -> Outcome:
    """Move a transfer of the large lane, see `perform`.

    Args:
        found: What the small lane found out about a download of unknown size.
    """
    with work.counted():
        try:
            return await _perform_large(work, found)
        except AsyncSDKError as error:
            return work.failed(error)


async def _perform_large(work: Work, found: LargeObject | None) -> Outcome:
    transfer = work.transfer
    if isinstance(transfer, Upload):
        return await upload(work, send_large)
    if found is None:
        size = transfer.origin.size_bytes
        if size is None:
            result = await download_whole(work)
            if isinstance(result, Outcome):
                return result
            found = result
        else:
            found = LargeObject(size, transfer.origin.etag)
    return await download_in_ranges(work, found)
