"""Parts and ranges cover an object exactly once, whatever its size."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsdk.checksums import combine_crc32c, crc32c
from asyncsdk.engine import Engine, Upload
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.parted.sending import part_count
from asyncsdk.engine.replies import content_range
from asyncsdk.engine.sources import MemorySource
from asyncsdk.engine.spans import spans
from asyncsdk.engine.streams import StreamSource
from asyncsdk.engine.work import Work
from asyncsdk.targets import PutTarget


@settings(deadline=None)
@given(st.integers(0, 10**12), st.integers(10**9, 5 * 10**9))
def test_ranges_cover_every_byte_once(size: int, part_size: int) -> None:
    covered = spans(size, part_size)
    assert [span.number for span in covered] == list(range(1, len(covered) + 1))
    assert sum(span.size_bytes for span in covered) == size
    assert all(left.stop == right.start for left, right in pairwise(covered))
    assert all(0 < span.size_bytes <= part_size for span in covered)
    if covered:
        assert (covered[0].start, covered[-1].stop) == (0, size)
        assert all(span.size_bytes == part_size for span in covered[:-1])
        start, stop = covered[-1].header.removeprefix("bytes=").split("-")
        assert content_range({"content-range": f"bytes {start}-{stop}/{size}"}) == (
            covered[-1].start,
            covered[-1].stop,
            size,
        )
    assert part_count(size, part_size) == max(1, len(covered))


@given(st.binary(max_size=2000), st.integers(1, 500))
def test_parts_of_memory_join_to_the_whole(data: bytes, part_size: int) -> None:
    async def read() -> list[bytes]:
        source, parts = MemorySource(data), []
        while (part := await source.next_part(part_size)) is not None:
            parts.append(bytes(part.body().data))  # type: ignore[union-attr]
        return parts

    _check(asyncio.run(read()), data, part_size)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=700), max_size=20), st.integers(1, 500))
def test_parts_of_a_stream_join_to_the_whole_and_give_their_memory_back(pieces: list[bytes], part_size: int) -> None:
    async def stream() -> object:  # type: ignore[misc]
        for piece in pieces:
            yield piece

    async def read() -> list[bytes]:
        engine = Engine()
        upload = Upload(stream(), PutTarget("http://h/"))  # type: ignore[arg-type]
        source = StreamSource(Work(engine._open(), upload, None, Meter()), "s", pieces=upload.source)  # type: ignore[arg-type]
        parts = []
        while (part := await source.next_part(part_size)) is not None:
            assert process_budget().leased_bytes == part.size_bytes
            parts.append(bytes(part.body().data))  # type: ignore[union-attr]
            part.release()
        await source.aclose()
        await engine.aclose()
        return parts

    _check(asyncio.run(read()), b"".join(pieces), part_size)
    assert process_budget().leased_bytes == 0


def _check(parts: list[bytes], data: bytes, part_size: int) -> None:
    assert b"".join(parts) == data
    assert all(len(part) == part_size for part in parts[:-1])
    assert all(0 < len(part) <= part_size for part in parts)
    checksum = 0
    for part in parts:
        checksum = combine_crc32c(checksum, crc32c(part), len(part))
    assert checksum == crc32c(data)
