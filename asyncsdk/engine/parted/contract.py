"""What a protocol must do so that objects go over it in parts. The loop that uses it is `sending`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from asyncsdk.engine.parted.state import SentPart
from asyncsdk.engine.parts import Part
from asyncsdk.engine.transfers import Upload, describe_target
from asyncsdk.engine.work import Count
from asyncsdk.errors import AsyncSDKError, CompletionUnknown
from asyncsdk.transport.base import Reply

__all__ = ["Finished", "Limits", "PartedUpload", "Piece", "Standing", "UploadLost", "unknown_completion"]


class UploadLost(Exception):
    """The server has no such upload any more (or what it has is void): holds what it said.

    Everything must be sent again, in another upload.
    """

    def __init__(self, error: AsyncSDKError) -> None:
        super().__init__(str(error))
        self.error = error


def unknown_completion(upload: Upload, error: AsyncSDKError) -> CompletionUnknown:
    """Return the error of an object that may have been made before *error*, with nobody who could say so."""
    return CompletionUnknown(
        f"{upload.name}: making it of its parts may have been asked for without hearing the reply, and now the server "
        f"has no such upload; look whether it is there before it is sent again ({error})",
        source=upload.name,
        destination=describe_target(upload.target),
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """How an object may be cut.

    Attributes:
        part_size: Bytes of each part but the last.
        max_parts: The most parts an object may have; None: any number.
        in_order: Whether one part goes after the other; else several go at once, in any order.
        may_repeat: Whether a part that is late may be sent by a second request at the same time: not where it would
            matter which of them the server had last, and it cannot be asked.
    """

    part_size: int
    max_parts: int | None = None
    in_order: bool = False
    may_repeat: bool = True


@dataclass(slots=True)
class Piece:
    """A part at its place in the object.

    Attributes:
        number: From 1.
        start: Its first byte in the object.
        part: Its bytes.
        is_last: Whether nothing follows; told only where parts go in order.
        remembered: What an earlier process knew of it, if it was the same upload.
    """

    number: int
    start: int
    part: Part
    is_last: bool = False
    remembered: SentPart | None = None

    @property
    def stop(self) -> int:
        """One past its last byte in the object."""
        return self.start + self.part.size_bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """One part that the server has, as it says itself.

    Attributes:
        size_bytes: Its size.
        etag: Validator; empty where the protocol has none.
        digests: What the server states of its bytes, by algorithm.
    """

    size_bytes: int
    etag: str
    digests: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of the whole object.

    Attributes:
        etag: Its validator.
        is_verified: Whether the server stated a digest of the whole, and the right one.
        body: What the server said.
    """

    etag: str | None = None
    is_verified: bool = False
    body: bytes = b""


class PartedUpload(Protocol):
    """One upload in parts. Made for a target that is in force; `UploadLost` ends it.

    The loop calls `what_stands` at most once, before anything else; `send` for every part, several at once unless the
    limits say otherwise; then `finish`, once, or `abort`.
    """

    limits: Limits
    upload_id: str

    async def what_stands(self) -> Mapping[int, Standing]:
        """Return the parts that the server has, by number. Nothing when it cannot be asked.

        Where the server only says how far it got, `send` leaves out what it has, and this returns nothing.

        Raises:
            UploadLost: There is no such upload.
        """

    async def send(self, piece: Piece, count: Count) -> SentPart:
        """Send *piece* once, or what is missing of it, and return when the server has it.

        Args:
            count: Told of bytes that count as moved; taken back when this raises.

        Raises:
            UploadLost: There is no such upload any more.
            UrlExpired: A fresh URL is needed.
            AsyncSDKError: It did not arrive; whether another attempt may help is the error's property.
        """

    async def renew(self, piece: Piece | None) -> bool:
        """Get fresh URLs after one has expired, for *piece* or (None) for finishing; False: there are none."""

    async def finish(self, parts: Sequence[SentPart], checksum: int, size_bytes: int) -> Finished:
        """Make the object from all of its parts, in order. Called again for nothing: it tries again by itself.

        Args:
            checksum: The crc32c of the whole.

        Raises:
            ChecksumMismatch: The server states another digest of the whole.
            UploadLost: There is no such upload any more.
        """

    async def is_made(self, parts: Sequence[SentPart]) -> bool | None:
        """Whether the object is there and made of these very parts, though the upload is gone; None: nobody can say.

        Asked when somebody else may have finished it: the parts are those that were remembered.
        """

    async def abort(self) -> Reply | None:
        """Remove what the server has of it; None: there is nothing to ask, the service sweeps by itself."""
