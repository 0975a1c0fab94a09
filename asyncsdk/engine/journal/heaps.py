"""Records dealt out by their keys, in memory and in a file, so that any number of them can be sorted a heap at a time.

Keys are digests, so their first bits share them out evenly. The file has no name, so nothing is left of it by a kill,
and lies where the journal does, which is known to have room, or not to have it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

__all__ = ["Heaps"]

_IN_MEMORY = 20_000
"""So many objects are sorted as one heap, without a file."""

_MANY = 20_000_000
"""From here on there are 4,096 heaps instead of 256."""

_HELD_BYTES = 4 * 1024 * 1024
"""Of all heaps together, before they go to the file."""


class Heaps:
    """Records of up to 65,535 bytes, by the first bits of their keys: all of a heap come before all of the next.

    A context manager: leaving it gives the file back.

    Args:
        folder: Where the file goes.
        objects: How many there will be, about.

    Attributes:
        count: How many heaps there are.
    """

    def __init__(self, folder: Path, objects: int) -> None:
        bits = 0 if objects <= _IN_MEMORY else 8 if objects <= _MANY else 12
        self.count = 1 << bits
        self._shift = 16 - bits
        self._folder = folder
        self._heaps: list[list[bytes]] = [[] for _ in range(self.count)]
        self._chunks: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        self._held = 0
        self._written = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, records: Iterable[bytes], *, is_marked: bool) -> None:
        """Deal out *records*, each of which begins with the digest that its key is.

        Raises:
            OSError: There is no room.
        """
        heaps, shift, held, mark = self._heaps, self._shift, 0, b"\1" if is_marked else b"\0"
        for record in records:
            size = len(record)
            # The last byte of a digest is the first of its key, and the first bit of that its sign.
            heaps[((record[7] ^ 0x80) << 8 | record[6]) >> shift].append(size.to_bytes(2, "little") + mark + record)
            held += size
        self._held += held
        if self._held > _HELD_BYTES and self.count > 1:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  # closed with this
        parts: list[bytes] = []
        for heap, chunks in zip(self._heaps, self._chunks, strict=True):
            if heap:
                data = b"".join(heap)
                heap.clear()
                chunks.append((self._written, len(data)))
                self._written += len(data)
                parts.append(data)
        view = memoryview(b"".join(parts))
        while view:
            view = view[self._file.write(view) :]
        self._held = 0

    def take(self, number: int) -> Iterator[tuple[bytes, bool]]:
        """Yield what is in a heap in the order in which it was added, and whether it was marked; once."""
        heap, self._heaps[number] = self._heaps[number], []
        for start, size in self._chunks[number]:
            assert self._file is not None
            yield from _read(_at(self._file, start, size))
        yield from _read(b"".join(heap))


def _at(file: IO[bytes], start: int, size: int) -> bytes:
    file.seek(start)
    data = bytearray()
    while len(data) < size:
        read = file.read(size - len(data))
        if not read:
            raise OSError("the file that a journal is sorted in has become shorter")
        data += read
    return bytes(data)


def _read(data: bytes) -> Iterator[tuple[bytes, bool]]:
    position, end = 0, len(data)
    while position < end:
        begin = position + 3
        position = begin + int.from_bytes(data[position : position + 2], "little")
        yield data[begin:position], data[begin - 1] == 1
