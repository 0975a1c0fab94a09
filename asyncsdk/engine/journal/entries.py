"""What a journal keeps of small objects: fixed records in pages, each page with a checksum.

A page is written by one statement for up to a thousand objects: a row of its own for each costs twice as much CPU, and
an index over names that grow at random four times (figures in the design note). On resume pages are turned into rows
ordered by key, with a checksum each, so that they can be looked up in batches without ever being in memory together.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import google_crc32c

__all__ = [
    "Entry",
    "Finished",
    "Identity",
    "digest_of",
    "is_final_page",
    "key_of",
    "key_of_digest",
    "pack_digests",
    "pack_page",
    "read_row",
    "records_of_page",
    "row_of_record",
    "unpack_digests",
]

_MAGIC = b"AJP1"
_FINAL_MAGIC = b"AJF1"
_HEAD = struct.Struct("<4sHI")
"""Magic, bytes of each receipt, number of records."""
_SUM = struct.Struct("<I")
_KEY = struct.Struct("<q")
_MAX_RECEIPT = 1024
_EMPTY = blake2b(digest_size=8)


class Identity(NamedTuple):
    """What tells whether a file is still the one that was looked at: a change of its bytes changes one of these.

    Attributes:
        size_bytes: Its size.
        mtime_ns: When its bytes changed last, nanoseconds since 1970 UTC.
        inode: Its number in its file system.
    """

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, facts: os.stat_result) -> Identity:
        """Return the identity of a file that was looked at."""
        # As its constructor does it, in two thirds of the time: one is made for every file.
        return tuple.__new__(cls, (facts.st_size, facts.st_mtime_ns, facts.st_ino))


Finished = tuple[bytes, tuple[int, int, int], int, bytes]
"""An object whose bytes arrived, as it is handed to a journal: digest of its name (`digest_of`), `Identity` of the file
at this end (the source of an upload, the file that a download became), crc32c of its bytes, and a receipt: what the
platform needs to hear of it again, at most 1,024 bytes, opaque here. Plain tuples: making one that has names costs as
much as packing it."""


class Entry(NamedTuple):
    """What a journal knows of a finished object.

    Attributes:
        identity: Of the file at this end, when it was finished.
        crc32c: Of its bytes.
        boot: Which start of the machine it was finished in, see `owners.boot_number`.
        receipt: As it was given.
        is_settled: Whether it was made final with the platform; else nobody knows.
    """

    identity: Identity
    crc32c: int
    boot: int
    receipt: bytes
    is_settled: bool


def digest_of(name: str) -> bytes:
    """Return what a journal keeps of the name of an object: 64 bits.

    Two of ten million names have the same ones with a probability of 3 in a million; the later one then counts, and its
    identity does not fit the other.
    """
    digest = _EMPTY.copy()  # a third cheaper than making one with its size
    digest.update(name.encode("utf-8", "surrogateescape"))
    return digest.digest()


def key_of(name: str) -> int:
    """Return `digest_of` as SQLite keeps integers."""
    return int.from_bytes(digest_of(name), "little", signed=True)


@lru_cache(maxsize=16)
def _record(receipt_bytes: int) -> struct.Struct:
    # key | size, mtime, inode, crc32c, boot, length, receipt: what follows the key goes into a row as it is.
    return struct.Struct(f"<8sQqQIIH{receipt_bytes}s")


def pack_page(finished: Sequence[Finished], boot: int, *, is_final: bool = False) -> bytes:
    """Return the page that holds *finished*. Receipts are kept in the length of the longest, filled with zeros.

    Args:
        is_final: Whether all of them are final already, so that nothing else has to say so.
    """
    receipt_bytes = max((len(receipt) for _, _, _, receipt in finished), default=0)
    if receipt_bytes > _MAX_RECEIPT:
        raise ValueError(f"a receipt has at most {_MAX_RECEIPT} bytes, not {receipt_bytes}")
    pack = _record(receipt_bytes).pack
    try:
        records = [
            pack(digest, size_bytes, mtime_ns, inode, crc32c, boot, len(receipt), receipt)
            for digest, (size_bytes, mtime_ns, inode), crc32c, receipt in finished
        ]
    except struct.error:  # a time after the year 2262, which a page has no room for: that object is not kept
        fitting = [one for one in finished if -(2**63) <= one[1][1] < 2**63]
        if len(fitting) == len(finished):
            raise
        return pack_page(fitting, boot, is_final=is_final)
    head = _HEAD.pack(_FINAL_MAGIC if is_final else _MAGIC, receipt_bytes, len(finished))
    data = head + b"".join(records)
    return data + _SUM.pack(_crc(data))


def is_final_page(page: bytes) -> bool:
    """Whether all that *page* holds is final."""
    return page.startswith(_FINAL_MAGIC)


def records_of_page(page: bytes) -> Iterator[bytes]:
    """Yield the records of *page*, each of which begins with a digest; nothing when it is damaged."""
    if len(page) < _HEAD.size + _SUM.size:
        return
    magic, receipt_bytes, count = _HEAD.unpack_from(page)
    if magic not in {_MAGIC, _FINAL_MAGIC} or receipt_bytes > _MAX_RECEIPT:
        return
    record = _record(receipt_bytes)
    end = len(page) - _SUM.size
    if end != _HEAD.size + count * record.size or not _is_sound(page):
        return
    for start in range(_HEAD.size, end, record.size):
        yield page[start : start + record.size]


def row_of_record(record: bytes) -> bytes:
    """Return what is kept of a record beside its key."""
    return record[_KEY.size :] + _SUM.pack(_crc(record))


def key_of_digest(digest: bytes) -> int:
    """Return a digest as SQLite keeps integers."""
    return int.from_bytes(digest, "little", signed=True)


def pack_digests(digests: Iterable[bytes]) -> bytes:
    """Return the list of *digests* as it is kept."""
    data = b"".join(digests)
    return data + _SUM.pack(_crc(data))


def unpack_digests(data: bytes) -> Iterator[bytes]:
    """Yield the digests in *data*; none when it is damaged."""
    if len(data) % _KEY.size == _SUM.size and _is_sound(data):
        for start in range(0, len(data) - _SUM.size, _KEY.size):
            yield data[start : start + _KEY.size]


def read_row(key: int, row: bytes, *, is_settled: bool) -> Entry | None:
    """Return the entry in *row*; None when it is damaged, or another key's."""
    data = _KEY.pack(key) + row
    receipt_bytes = len(data) - _record(0).size - _SUM.size
    if not 0 <= receipt_bytes <= _MAX_RECEIPT or not _is_sound(data):
        return None
    _, size_bytes, mtime_ns, inode, crc32c, boot, length, receipt = _record(receipt_bytes).unpack(data[: -_SUM.size])
    return Entry(Identity(size_bytes, mtime_ns, inode), crc32c, boot, receipt[:length], is_settled)


def _is_sound(data: bytes) -> bool:
    """Whether *data* ends with the checksum of what comes before."""
    end = len(data) - _SUM.size
    return bool(_SUM.unpack_from(data, end)[0] == _crc(data[:end]))


def _crc(data: bytes) -> int:
    return int(google_crc32c.extend(0, data))
