"""What may be remembered of a download in ranges, or of a copy of a file, so that another process can go on with it.

No URL, no header and no token is part of it. And it only saves work: a range counts when its bytes in the file have the
checksum that was remembered, and the object is still the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["COPIED_BYTES", "Received", "Unfinished"]

COPIED_BYTES = 16 * 1024 * 1024
"""Size of the ranges in which a file of this machine is copied; of one that is no larger nothing is remembered."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A half-received file, and the object it is of.

    Attributes:
        temporary: Its path.
        size_bytes: Size of the object.
        part_size: Of its ranges, but the last.
        etag: Validator of the object; None when the server gave none.
        crc32c: Checksum of the object, eight hexadecimal digits; None when it is not known.
    """

    temporary: str
    size_bytes: int
    part_size: int
    etag: str | None
    crc32c: str | None

    def is_like(self, other: Unfinished) -> bool:
        """Whether both are of one object: equal in size, and in what names its version, of which one is needed.

        Its ranges may be of another size now: the file goes on with those that it was begun with.
        """
        if self.size_bytes != other.size_bytes or self.part_size < 1:
            return False
        pairs = [(self.etag, other.etag), (self.crc32c, other.crc32c)]
        known = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
        return bool(known) and all(mine == theirs for mine, theirs in known)


@dataclass(slots=True)
class Received:
    """Asks that a download to a file can be gone on with, and says what is there of it already.

    A download that has one keeps its half-received file when it fails or is cancelled, unless it is known to be wrong,
    or nobody would know of it.

    Args:
        unfinished: The file that was begun before; None: none was.
        ranges: Size and crc32c of the ranges in it, by number from 1.
        on_begin: Told when a file is begun: what was remembered is void then.
        on_range: Told number, size and crc32c of every range when it is in the file.
        on_end: Told when there is nothing to go on with any more: the file is whole, or was removed. All three are
            called in the event loop and must neither block nor raise.
        is_kept: Whether what it tells is really kept, asked when a file is to be left; None: it is.
        identity: Of a copy: size in bytes, time of the last change (ns) and inode of the file whose ranges these are,
            and are to be told; compared with the file when it is open. None: whoever gives it has made sure of that.
    """

    unfinished: Unfinished | None = None
    ranges: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    on_begin: Callable[[Unfinished], None] | None = None
    on_range: Callable[[int, int, int], None] | None = None
    on_end: Callable[[], None] | None = None
    is_kept: Callable[[], bool] | None = None
    identity: tuple[int, int, int] | None = None

    @property
    def may_leave(self) -> bool:
        """Whether a file that is left can be found again, once it was told of."""
        return self.is_kept is None or self.is_kept()

    @property
    def is_left(self) -> bool:
        """Whether the file is to be left as it is now: who goes on knows of it, and can find it again."""
        return self.unfinished is not None and self.may_leave

    def begin(self, unfinished: Unfinished) -> None:
        """Tell that a file is begun."""
        self.unfinished, self.ranges = unfinished, {}
        if self.on_begin is not None:
            self.on_begin(unfinished)

    def add(self, number: int, size_bytes: int, crc32c: int) -> None:
        """Tell that a range is in the file."""
        if self.on_range is not None:
            self.on_range(number, size_bytes, crc32c)

    def end(self) -> None:
        """Tell that there is nothing to go on with any more."""
        if self.unfinished is not None:
            self.unfinished = None
            if self.on_end is not None:
                self.on_end()
