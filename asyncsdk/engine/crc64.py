"""CRC-64/NVME, which S3 calls ``crc64nvme``; Azure's crc64 is the same. Python brings none.

The bytes are taken as one large integer, which is a polynomial over GF(2), and folded: x^865 is congruent to a sum of
19 powers below x^60 modulo the CRC's polynomial, and so is x^(865 * 2^k) to the same powers times 2^k (squaring is
linear there). Each fold takes a shift and an XOR of large integers for each of the powers and halves what is left; the
last bytes go through tables. A MiB costs about 10 ms, a tenth of what tables alone cost.

Source: NVM Express NVM Command Set specification 1.0, section 5.2.1.3.4 (64-bit CRC).
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["crc64nvme"]

_POLYNOMIAL = 0x9A6C9329AC4BC9B5  # reflected
_ONES = 0xFFFFFFFFFFFFFFFF

_DEGREE = 865
_POWERS = (0, 2, 3, 4, 6, 7, 13, 16, 18, 20, 29, 30, 31, 33, 37, 40, 41, 43, 59)
"""What x to the power of `_DEGREE` is congruent to: of all degrees below 30,000 the one with the fewest."""

_CUT = 800
"""Bits that one fold takes away, a multiple of 8: below the distance of the largest power from the degree."""

_STEP_BYTES = 1024 * 1024


def crc64nvme(data: bytes | memoryview, value: int = 0) -> int:
    """Return the CRC-64/NVME of *data* (single bytes), continuing from *value*."""
    state = value ^ _ONES
    for start in range(0, len(data), _STEP_BYTES):
        piece = data[start : start + _STEP_BYTES]
        if len(piece) * 8 >= _CUT + _DEGREE:
            piece, state = _folded(piece, state), 0
        state = _by_tables(piece, state)
    return state ^ _ONES


def _folded(data: bytes | memoryview, state: int) -> bytes:
    """Return fewer bytes that lead from 0 to where *data* leads from *state*."""
    # Reflected: the lowest bit is the highest power, so the head of the bytes is folded into what follows it.
    number, bits = int.from_bytes(data, "little") ^ state, len(data) * 8
    for level in range((bits // (_CUT + _DEGREE)).bit_length() - 1, -1, -1):
        cut = _CUT << level
        while bits >= (_CUT + _DEGREE) << level:
            head = number & ((1 << cut) - 1)
            number >>= cut
            bits -= cut
            for power in _POWERS:
                number ^= head << (((_DEGREE - power) << level) - cut)
    return number.to_bytes(bits // 8, "little")


def _by_tables(data: bytes | memoryview, value: int) -> int:
    t0, t1, t2, t3, t4, t5, t6, t7 = _tables()
    whole = len(data) & ~7
    for start in range(0, whole, 8):  # eight bytes a step: a fifth of the time that single bytes take
        value ^= int.from_bytes(data[start : start + 8], "little")
        value = (
            t7[value & 255]
            ^ t6[value >> 8 & 255]
            ^ t5[value >> 16 & 255]
            ^ t4[value >> 24 & 255]
            ^ t3[value >> 32 & 255]
            ^ t2[value >> 40 & 255]
            ^ t1[value >> 48 & 255]
            ^ t0[value >> 56]
        )
    for byte in data[whole:]:
        value = t0[(value ^ byte) & 255] ^ value >> 8
    return value


@lru_cache(maxsize=1)
def _tables() -> tuple[list[int], ...]:
    first = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        first.append(value)
    tables = [first]
    for _ in range(7):
        tables.append([first[value & 255] ^ value >> 8 for value in tables[-1]])
    return tuple(tables)
