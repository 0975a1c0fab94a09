"""Which protocol a target speaks: the one place that knows."""

from __future__ import annotations

from asyncsdk.engine.parted.blocks import BlockUpload
from asyncsdk.engine.parted.contract import PartedUpload
from asyncsdk.engine.parted.s3 import MultipartUpload
from asyncsdk.engine.parted.sending import send_in_parts
from asyncsdk.engine.parted.sessions import SessionUpload
from asyncsdk.engine.sources import OpenSource
from asyncsdk.engine.streams import StreamSource
from asyncsdk.engine.transfers import Outcome
from asyncsdk.engine.uploads import put
from asyncsdk.engine.work import Work
from asyncsdk.targets import BlobTarget, MultipartTarget, ResumableTarget

__all__ = ["send_large"]


async def send_large(work: Work, source: OpenSource, may_again: bool) -> Outcome:
    """Send an object in parts, over the protocol of its target; a blob that turns out to be small, by one request."""
    target = work.end
    if isinstance(target, BlobTarget) and source.size_bytes is not None and source.size_bytes <= target.single_bytes:
        return await put(work, source)
    return await send_in_parts(work, source, _parted(work, source), may_again)


def _parted(work: Work, source: OpenSource) -> PartedUpload:
    target = work.end
    if isinstance(target, MultipartTarget):
        return MultipartUpload(work)
    if isinstance(target, ResumableTarget):
        return SessionUpload(work, is_stream=isinstance(source, StreamSource))
    return BlockUpload(work)
