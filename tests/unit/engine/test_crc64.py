"""CRC-64/NVME by folding large integers, against its definition bit by bit."""

from __future__ import annotations

import random

import pytest

from asyncsdk.engine.crc64 import crc64nvme

SIZES = [0, 1, 7, 8, 9, 207, 208, 209, 210, 416, 417, 418, 1000, 4096, 20_011]
"""With those around where folding begins, and where it takes another level."""


def by_definition(data: bytes) -> int:
    value = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
    return value ^ 0xFFFFFFFFFFFFFFFF


def test_the_check_value_of_the_specification() -> None:
    assert crc64nvme(b"123456789") == 0xAE8B14860A799888
    assert crc64nvme(b"") == 0


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_folded_right(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc64nvme(data) == crc64nvme(memoryview(data)) == by_definition(data)
    assert crc64nvme(b"\xff" * size) == by_definition(b"\xff" * size)


@pytest.mark.parametrize("cut", [0, 1, 300, 1024 * 1024, 1024 * 1024 + 3])
def test_it_goes_on_where_it_was(cut: int) -> None:
    """Whatever the pieces: more than are folded at once, too."""
    data = random.Random(1).randbytes(1024 * 1024 + 300)
    assert crc64nvme(data[cut:], crc64nvme(data[:cut])) == crc64nvme(data)
