"""What a download must be by its digest: the one that was announced, or else one that the reply states.

crc32c is known of all bytes anyway and settles it where it is announced or stated. Else the cheapest of the digests
that the reply states for the whole object is taken, too, and that one alone. ETags are not looked at: nothing in the
answer to a GET says that one is an MD5 (with keys of one's own, in directory buckets and of parts it is not), so one
that differs proves nothing, and to find one the same would cost an MD5 of every byte that comes from S3.

Source: Azure Storage REST reference, "Get Blob" (Content-MD5, x-ms-blob-content-md5) and "Put Page" (the MD5 of a page
blob is not kept up to date); Amazon S3 API reference, "GetObject"; Google Cloud Storage, "Hashes and ETags".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

from asyncsdk.checksums import crc32c_hex
from asyncsdk.engine.digests import Running, reply_crc32c, running, stated
from asyncsdk.engine.transfers import Download, parse_crc32c
from asyncsdk.engine.waits import WaitReason, waiting
from asyncsdk.engine.work import Work
from asyncsdk.errors import ChecksumMismatch
from asyncsdk.transport.base import Headers

__all__ = [
    "DOWNLOAD_DIGESTS",
    "StatedDigest",
    "cheapest",
    "check_crc32c",
    "check_others",
    "check_stored",
    "stated_besides",
]

_CHEAPEST_FIRST = ("crc32", "sha1", "sha256", "md5", "crc64")

_OF_BODY = frozenset({"content-md5", "x-ms-content-crc64"})
"""Of what came with them: in an answer to a range request, of the range."""

_OF_BLOB = frozenset({"content-md5", "x-ms-blob-content-md5"})

_OF_S3 = frozenset(f"x-amz-checksum-{name}" for name in ("crc32", "crc64nvme", "sha1", "sha256"))

_OTHERS = _OF_BODY | _OF_BLOB | _OF_S3 | {"x-goog-hash"}

DOWNLOAD_DIGESTS = _OTHERS | {"x-amz-checksum-crc32c"}
"""All headers that state a digest of what is downloaded."""

_STEP_BYTES = 1024 * 1024
_STEPS_PER_TURN = 16


@dataclass(frozen=True, slots=True)
class StatedDigest:
    """A digest that a reply states for all bytes of an object.

    Attributes:
        name: The algorithm; never crc32c.
        value: The digest.
    """

    name: str
    value: bytes

    def begin(self) -> Running:
        """Return what takes the same digest of bytes in order."""
        return running(self.name)

    def check(self, work: Work, taken: Running) -> None:
        """Raise `ChecksumMismatch` unless *taken*, which was handed all bytes, is the same."""
        ours = taken.digest()
        if ours != self.value:
            raise ChecksumMismatch(
                f"{self.name}:{self.value.hex()}", f"{self.name}:{ours.hex()}", source=work.transfer.name
            )


def stated_besides(headers: Headers, *, is_range: bool = False) -> StatedDigest | None:
    """Return the cheapest digest that a reply states for an object; None: none, or crc32c, which `reply_crc32c` reads.

    What cannot be read, or taken by this Python, is not stated.

    Args:
        is_range: The reply brings some bytes of the object only: what may be the digest of these does not count.
    """
    if not headers.has_any_of(_OTHERS) or reply_crc32c(headers) is not None:
        return None
    unfit: set[str] = set()
    if headers.get("x-ms-blob-type", "BlockBlob") != "BlockBlob":
        unfit |= _OF_BLOB  # not kept up to date when such a blob is written to
    if is_range:
        unfit |= _OF_BODY
    # S3 leaves the "-3" of a checksum of three checksums out where a range is asked for, be it all of the object.
    is_partial = is_range or "content-range" in headers
    if is_partial and headers.get("x-amz-checksum-type", "").upper() != "FULL_OBJECT":
        unfit |= _OF_S3
    fit = {name: value for name, value in headers.items() if name not in unfit} if unfit else headers
    found = stated(fit)
    known = (StatedDigest(name, found[name]) for name in _CHEAPEST_FIRST if name in found and _is_offered(name))
    return next(known, None)


@cache
def _is_offered(name: str) -> bool:
    """Whether this Python takes the digest: one built for FIPS may have no MD5, for whatever use."""
    try:
        running(name)
    except ValueError:
        return False
    return True


def check_crc32c(work: Work, checksum: int, theirs: int | None) -> None:
    """Raise unless *checksum* is what was announced, or else what the server says."""
    assert isinstance(work.transfer, Download)
    announced = work.transfer.origin.crc32c
    expected = theirs if announced is None else parse_crc32c(announced)
    if expected is not None and expected != checksum:
        raise ChecksumMismatch(
            f"crc32c:{crc32c_hex(expected)}", f"crc32c:{crc32c_hex(checksum)}", source=work.transfer.name
        )


def cheapest(said: Collection[StatedDigest]) -> StatedDigest | None:
    """Return the cheapest of what several replies state."""
    return min(said, key=lambda one: _CHEAPEST_FIRST.index(one.name), default=None)


def check_others(work: Work, said: Collection[StatedDigest], name: str, taken: Running) -> None:
    """Raise `ChecksumMismatch` unless all replies that state the digest *name* state what *taken* is."""
    for one in said:
        if one.name == name:
            one.check(work, taken)


async def check_stored(
    work: Work, said: Collection[StatedDigest], read: Callable[[int, int], bytes], size_bytes: int
) -> bool:
    """Compare a digest of what lies in a file or in memory with what the replies that brought it state.

    Args:
        read: Returns up to so many bytes, from so many on. Called in threads.
        size_bytes: Of the object.

    Returns:
        Whether a digest was stated.

    Raises:
        ChecksumMismatch: It is another one.
    """
    best = cheapest(said)
    if best is None:
        return False
    taken, offset = best.begin(), 0

    def step() -> bool:
        nonlocal offset
        for _ in range(_STEPS_PER_TURN):
            data = read(min(_STEP_BYTES, size_bytes - offset), offset)
            if not data:
                return False  # shorter than it was: another digest
            taken.update(data)
            offset += len(data)
        return True

    with waiting(WaitReason.DISK):
        await work.resources.threads.run_in_steps(step)
    check_others(work, said, best.name, taken)
    return True
