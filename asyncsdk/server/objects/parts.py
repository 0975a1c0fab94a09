"""Parts of an upload: what its id says, how large they are, and the receipts for those that arrived."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Self

from asyncsdk.errors import BadRequest

__all__ = ["MAX_PARTS", "Completed", "Receipt", "UploadId", "part_size_for"]

MAX_PARTS = 10_000
"""As S3."""

MIN_PART_SIZE = 8 * 1024 * 1024

STREAM_PART_SIZE = 32 * 1024 * 1024
"""Of an object of unknown size, which ends at 10,000 of them: 312.5 GiB. Parts of equal size, for not every store that
speaks S3 takes others; larger ones would leave too few in the memory of a client."""

MAX_PART_SIZE = 5 * 1024**3

_UPLOAD_ID = re.compile(r"([0-9a-f]{16})-([1-9][0-9]{0,9})-([0-9]{1,14}|x)")
_ETAG = re.compile(r'"?([0-9a-f]{8})-([0-9]{1,10})"?')


def part_size_for(size_bytes: int | None) -> int:
    """Return the part size for an object: 8 MiB, doubled until 10,000 parts are enough; 32 MiB when its size is not
    known."""
    if size_bytes is None:
        return STREAM_PART_SIZE
    part_size = MIN_PART_SIZE
    while part_size * MAX_PARTS < size_bytes:
        part_size *= 2
    return part_size


@dataclass(frozen=True, slots=True)
class UploadId:
    """Names an upload and says all that must be known of it: there is no row for it anywhere.

    Args:
        token: 16 random hexadecimal digits.
        part_size: Bytes of every part but the last.
        size_bytes: Bytes of the whole object; None when not known beforehand.
    """

    token: str
    part_size: int
    size_bytes: int | None

    @classmethod
    def make(cls, size_bytes: int | None) -> Self:
        """Return a new id; `BadRequest` when the object is too large for 10,000 parts of 5 GiB."""
        if size_bytes is not None and size_bytes > MAX_PARTS * MAX_PART_SIZE:
            raise BadRequest(f"objects have at most {MAX_PARTS * MAX_PART_SIZE} bytes, not {size_bytes}")
        return cls(secrets.token_hex(8), part_size_for(size_bytes), size_bytes)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote; `BadRequest` when it is no upload id."""
        match = _UPLOAD_ID.fullmatch(text)
        if match is None or int(match[2]) > MAX_PART_SIZE:
            raise BadRequest("this is no upload id of this platform; use the one that was given")
        return cls(match[1], int(match[2]), None if match[3] == "x" else int(match[3]))

    def __str__(self) -> str:
        return f"{self.token}-{self.part_size}-{'x' if self.size_bytes is None else self.size_bytes}"

    @property
    def parts(self) -> int:
        """How many parts there are at most."""
        if self.size_bytes is None:
            return MAX_PARTS
        return max(1, -(-self.size_bytes // self.part_size))

    def check_part(self, part: int, size_bytes: int) -> None:
        """Raise `BadRequest` when a part of that number and size has no place in the object."""
        if not 1 <= part <= self.parts:
            raise BadRequest(f"this object has parts 1 to {self.parts}, not {part}", code="invalid_part")
        if self.size_bytes is None:
            if size_bytes > self.part_size:
                raise BadRequest(
                    f"part {part} has {size_bytes} bytes; parts of this upload have {self.part_size}, the last may be "
                    "smaller",
                    code="invalid_part",
                )
            return
        expected = self.part_size if part < self.parts else self.size_bytes - (part - 1) * self.part_size
        if size_bytes != expected:
            raise BadRequest(f"part {part} must have {expected} bytes, not {size_bytes}", code="incomplete")


@dataclass(frozen=True, slots=True)
class Receipt:
    """A part that arrived."""

    part: int
    size_bytes: int
    crc32c: str

    @property
    def etag(self) -> str:
        """What the client gives back to complete, with its quotes."""
        return f'"{self.crc32c}-{self.size_bytes}"'

    @classmethod
    def from_etag(cls, part: int, etag: str) -> Self | None:
        """Return the receipt that *etag* stands for; None when it is no etag of ours."""
        match = _ETAG.fullmatch(etag.strip())
        return None if match is None else cls(part, int(match[2]), match[1])


@dataclass(frozen=True, slots=True)
class Completed:
    """The object that parts became."""

    size_bytes: int
    crc32c: str
