"""Listings of parts, which may be longer than what a reply keeps by itself: 10,000 parts are 2 MiB."""

from __future__ import annotations

from asyncsdk.errors import MalformedResponse
from asyncsdk.transport.base import ReplyHead

__all__ = ["Listing"]

_MOST_BYTES = 16 * 1024 * 1024


class Listing:
    """Takes the body of a reply that is a listing; good for one reply after the other."""

    def __init__(self) -> None:
        self._taken = bytearray()

    @property
    def text(self) -> bytes:
        """What came of the latest."""
        return bytes(self._taken)

    def take(self, head: ReplyHead) -> Listing | None:
        """Take the body if it is no refusal."""
        self._taken = bytearray()
        return self if head.status == 200 else None

    def write(self, data: bytes | memoryview) -> None:
        """Keep what came."""
        self._taken += data
        if len(self._taken) > _MOST_BYTES:
            raise MalformedResponse(f"a list of parts of more than {_MOST_BYTES} bytes is none", status=200)
