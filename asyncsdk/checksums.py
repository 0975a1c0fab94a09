"""Checksums: crc32c, the one the platform keeps for every object, and joining those of parts.

A checksum is written ``crc32c:e3069283`` with eight lower-case hexadecimal digits (algorithm and value together
never get separated); records, whose field is named ``crc32c``, hold the digits alone.

Source: RFC 3720 appendix B.4 (CRC-32C, Castagnoli).
"""

from __future__ import annotations

import base64
import binascii
import ctypes
from functools import lru_cache

import google_crc32c

__all__ = ["Crc32c", "combine_crc32c", "crc32c", "crc32c_base64", "crc32c_from_base64", "crc32c_hex"]

_COPY_BYTES = 64 * 1024
_BLOCKS = (ctypes.c_char * (256 * 1024), ctypes.c_char * (32 * 1024))
"""Sizes taken without a copy; a type for every size would never be forgotten."""

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def crc32c(data: bytes, value: int = 0) -> int:
    """Return the crc32c of *data*, continuing from *value*."""
    return int(google_crc32c.extend(value, data))


def crc32c_hex(value: int) -> str:
    """Return *value* as eight lower-case hexadecimal digits, the form records and messages hold."""
    return f"{value:08x}"


def crc32c_base64(value: int) -> str:
    """Return *value* as ``x-amz-checksum-crc32c`` and ``x-goog-hash`` write it."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def crc32c_from_base64(text: str) -> int:
    """Read the form that `crc32c_base64` writes; `ValueError` when it is not one."""
    raw = binascii.a2b_base64(text, strict_mode=True)
    if len(raw) != 4:
        raise ValueError(f"a crc32c has 4 bytes, not {len(raw)}")
    return int.from_bytes(raw, "big")


class Crc32c:
    """Running crc32c of bytes given in order.

    Attributes:
        value: The checksum so far.
        size_bytes: How many bytes it covers.
    """

    __slots__ = ("size_bytes", "value")

    def __init__(self) -> None:
        self.value = 0
        self.size_bytes = 0

    def update(self, data: bytes | memoryview) -> None:
        """Continue with *data* (a view of single bytes)."""
        self.size_bytes += len(data)
        if isinstance(data, bytes):
            self.value = google_crc32c.extend(self.value, data)
            return
        self.value = _extend(self.value, data)

    def hex(self) -> str:
        """Return the checksum as eight lower-case hexadecimal digits."""
        return crc32c_hex(self.value)


def _extend(value: int, data: memoryview) -> int:
    """Continue *value* with a view. The library takes no views, but arrays of ctypes that share their memory."""
    start, size = 0, len(data)
    if not data.readonly:
        for block in _BLOCKS:
            step = ctypes.sizeof(block)
            while size - start >= step:
                value = google_crc32c.extend(value, block.from_buffer(data, start))
                start += step
    for at in range(start, size, _COPY_BYTES):
        value = google_crc32c.extend(value, bytes(data[at : at + _COPY_BYTES]))
    return int(value)


def combine_crc32c(first: int, second: int, second_size_bytes: int) -> int:
    """Return the crc32c of two runs of bytes from the checksum of each and the size of the second.

    Appending n zero bytes to a message is a linear map of its checksum over GF(2); the map for n is built from
    its powers of two. Costs about 20 us, once a size: the map of a part size is kept.
    """
    if second_size_bytes == 0:
        return first
    return _apply(_zeros(second_size_bytes), first) ^ second


def _apply(matrix: tuple[int, ...], vector: int) -> int:
    total = 0
    index = 0
    while vector:
        if vector & 1:
            total ^= matrix[index]
        vector >>= 1
        index += 1
    return total


def _multiply(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_apply(left, column) for column in right)


@lru_cache(maxsize=64)
def _power(exponent: int) -> tuple[int, ...]:
    """Return the map that appends 2**exponent zero bytes."""
    if exponent == 0:
        one_bit = (_POLYNOMIAL, *(1 << bit for bit in range(31)))
        result = one_bit
        for _ in range(3):  # 8 bits
            result = _multiply(result, result)
        return result
    half = _power(exponent - 1)
    return _multiply(half, half)


@lru_cache(maxsize=256)
def _zeros(size_bytes: int) -> tuple[int, ...]:
    result: tuple[int, ...] | None = None
    exponent = 0
    while size_bytes:
        if size_bytes & 1:
            result = _power(exponent) if result is None else _multiply(_power(exponent), result)
        size_bytes >>= 1
        exponent += 1
    assert result is not None
    return result
