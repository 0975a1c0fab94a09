"""What a cloud must do so that objects can be kept in it. `CloudObjects` builds the store on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from asyncsdk.errors import ServerError
from asyncsdk.server.objects.minting import Minter

__all__ = ["Bucket", "Facts", "ObjectGone", "is_passing", "store_refused", "store_unavailable"]


class ObjectGone(Exception):
    """The object is not there any more, or has other bytes than it had."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a cloud says of an object.

    Attributes:
        size_bytes: Its size.
        etag: Validator, another one for other bytes.
        crc32c: Checksum of all its bytes, eight hexadecimal digits; None when the cloud states none.
    """

    size_bytes: int
    etag: str
    crc32c: str | None


class Bucket(Protocol):
    """The server's own requests to a bucket. Everything blocks; safe for several threads, and again after a fork.

    Attributes:
        late_ms: How long after the last day on which an upload could be renewed its bytes may still arrive, in
            milliseconds: what was begun then is finished without the platform. 0: URLs end within the hour.

    Raises:
        ServerError: See `store_unavailable` and `store_refused`.
    """

    @property
    def late_ms(self) -> int:
        """See above."""

    def facts(self, name: str) -> Facts | None:
        """Return what the cloud says of an object; None when it is not there."""

    def listed_facts(self, names: Sequence[str]) -> Mapping[str, Facts]:
        """Return what a listing says of objects whose names are neighbours, as far as a few requests tell it.

        What it says nothing of may be there all the same. Empty where a listing says less than `facts`.
        """

    def read(self, name: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        """Yield the bytes of ``[start, stop)``; `ObjectGone` when the object of that ETag is not there."""

    def write(self, name: str, data: bytes) -> None:
        """Store a small object."""

    def write_file(self, name: str, file: BinaryIO, size_bytes: int, crc32c: str) -> None:
        """Store an object of any size in constant memory; whole or not at all.

        Args:
            name: Of the object.
            file: Can be read from its beginning, more than once; it may be closed afterwards.
            size_bytes: Its size.
            crc32c: Its checksum, eight hexadecimal digits: told where the store compares it.
        """

    def remove(self, names: Sequence[str]) -> Mapping[str, str]:
        """Remove up to 1,000 objects; those that are missing are passed over.

        Returns:
            Those that stay because the store refuses to remove them (a retention, a lease), and its word for why.

        Raises:
            ServerError: Some stay for a reason that may pass (``store_unavailable``); which of them, is not told.
        """

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with *prefix*, however many there are, in constant memory."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the parts of names between *prefix*, which ends with a slash, and the next slash; each once."""

    def verifies_checksums(self, name: str) -> bool:
        """Whether bytes that differ from the crc32c told with them are refused. Tries it under *name*."""

    def discard_uploads(self, prefix: str, before_ms: int) -> int:
        """Remove uploads in parts that were begun before a time and never completed; returns how many."""

    def close(self) -> None:
        """Close its connections. Calling it again does nothing."""

    def minter(self, name_of: Callable[[str], str]) -> Minter:
        """Return what mints signed URLs; *name_of* gives the name of an object by its id."""


def is_passing(status: int) -> bool:
    """Whether a status says that the store fails, or is asked too much: another attempt may do."""
    return status >= 500 or status in {0, 408, 429}


def store_unavailable(what: str) -> ServerError:
    """Return the error for a store that gives no answer, or fails; worth another attempt."""
    return ServerError(f"the object store gives no answer to {what}; try again", status=503, code="store_unavailable")


def store_refused(what: str, reason: str) -> ServerError:
    """Return the error for a store that says no to the server itself: its credentials, its rights, its settings."""
    error = ServerError(f"the object store refuses {what}: {reason}", status=502, code="store_refused")
    error.retryable = False
    return error
