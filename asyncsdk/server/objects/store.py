"""What the platform asks of the place where its objects are kept, a folder or a cloud's bucket."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import BinaryIO, Protocol

from asyncsdk.errors import ResponseError
from asyncsdk.server.objects.discarding import Swept

__all__ = ["Found", "ObjectStore"]

Found = int | ResponseError | None
"""The size of an object that arrived; None when it is not there; why it cannot be said, or may not be committed."""


class ObjectStore(Protocol):
    """Keeps objects by their ids. Everything blocks; safe for several threads and several processes.

    Objects are given by id and crc32c (eight hexadecimal digits). An object is there when its bytes have that checksum:
    whoever keeps them is sure of it, or has read them.

    Raises:
        ServerError: A store elsewhere cannot be reached (code ``store_unavailable``), or refuses (``store_refused``).
    """

    def sizes(self, objects: Collection[tuple[str, str]]) -> Sequence[Found]:
        """Return what is there of each object.

        An error stands for one that is there with other bytes (`BadRequest`, code ``bad_digest``), or that is still
        being read for its checksum (`ServerError`, code ``still_checking``; that is not waited for longer than
        seconds), or that could not be read.
        """

    def open_staged(self, object_id: str, crc32c: str) -> BinaryIO:
        """Open an object that arrived; `NotFound` when it is not there."""

    def head(self, object_id: str, crc32c: str, count: int) -> bytes:
        """Return the first *count* bytes of an object that arrived, or all it has; `NotFound` when it is not there."""

    def publish(self, objects: Sequence[tuple[str, str]]) -> None:
        """Return when these objects are durable."""

    def remove(self, objects: Iterable[tuple[str, str]]) -> Mapping[str, str]:
        """Remove objects; those that are missing are passed over.

        Returns:
            The ids of those that stay because they cannot be removed, and why, in a word.
        """

    def discard_expired(
        self, *, before_ms: int, keep: Callable[[Sequence[str]], Mapping[str, str]], swept: Swept | None = None
    ) -> int:
        """Remove what arrived on days that ended before *before_ms* and is not committed; returns how many.

        Args:
            before_ms: Milliseconds since 1970 UTC; no commit may make anything of what was prepared before.
            keep: Given up to 1,000 ids, returns those that have a row, with the crc32c it tells.
            swept: The sweep before this one, which spares looking again at what it looked at.
        """
