"""Packing rows: from objects or a JSONL file to NDJSON parts of about 4 MiB, with the line every part begins at.

Nothing here knows what a row means. Lines of a file go as they are, byte for byte, and are counted as an editor
counts them; the platform reports bad ones by that number.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import anyio.to_thread
import orjson

from asyncsdk.errors import ConfigError, InvalidRow
from asyncsdk.os_errors import os_errors
from asyncsdk.protocol.predictions import MAX_ROW_PART_BYTES

__all__ = ["PART_BYTES", "PackedPart", "RowSource", "decode_part", "pack_rows"]

RowSource = str | PathLike[str] | Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
"""A JSONL file, or an (asynchronous) iterable of rows."""

PART_BYTES = 4 * 1024 * 1024
_MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class PackedPart:
    """Rows on their way.

    Attributes:
        data: NDJSON; a line that could not be packed is blank, so that the others keep their numbers.
        first_line: Number of its first line, from 1.
        lines: Lines in it.
        rows: Lines in it that hold a row.
        problems: Lines that could not be packed.
    """

    data: bytes
    first_line: int
    lines: int
    rows: int
    problems: list[InvalidRow] = field(default_factory=list)


def pack_rows(rows: RowSource, *, part_bytes: int = PART_BYTES) -> AsyncIterator[PackedPart]:
    """Return the parts of *rows*, made as they are asked for. Memory: one part and one row.

    Raises:
        ConfigError: *rows* is nothing that holds rows.
        SourceNotFound, SourceUnreadable: The file is not there or cannot be read (when the first part is asked for).
    """
    if isinstance(rows, (str, PathLike)):
        return _in_thread(_pack_file(Path(rows), part_bytes))
    if isinstance(rows, (bytes, bytearray, Mapping)):
        raise ConfigError(f"rows are an iterable of objects or the path of a JSONL file, not {type(rows).__name__}")
    if isinstance(rows, AsyncIterable):
        return _pack_asynchronous(rows, part_bytes)
    if isinstance(rows, Iterable):
        return _in_loop(_pack_objects(rows, part_bytes))
    raise ConfigError(f"rows are an iterable of objects or the path of a JSONL file, not {type(rows).__name__}")


class _Packer:
    """Collects lines until a part is full."""

    def __init__(self, part_bytes: int, file: str = "") -> None:
        self._part_bytes = min(part_bytes, MAX_ROW_PART_BYTES - _MAX_LINE_BYTES)
        self._file = file
        self._first_line = 1
        self._clear()

    def _clear(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._rows = 0
        self._problems: list[InvalidRow] = []

    @property
    def next_line(self) -> int:
        return self._first_line + len(self._lines)

    def add_object(self, row: Any) -> PackedPart | None:
        try:
            line = orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
        except (TypeError, ValueError) as error:
            return self._refuse(f"cannot be written as JSON: {error}")
        return self.add_line(line)

    def add_line(self, line: bytes) -> PackedPart | None:
        """Take one line without its end; returns the part it filled."""
        if len(line) > _MAX_LINE_BYTES:
            return self._refuse(f"has {len(line)} bytes; {_MAX_LINE_BYTES} are allowed")
        self._lines.append(line)
        self._size += len(line) + 1
        self._rows += not (not line or line.isspace())
        return self.flush() if self._size >= self._part_bytes else None

    def _refuse(self, reason: str) -> PackedPart | None:
        self._problems.append(InvalidRow(reason, line=self.next_line, file=self._file))
        self._lines.append(b"")
        self._size += 1
        return self.flush() if self._size >= self._part_bytes else None

    def flush(self) -> PackedPart | None:
        """Return what was collected, None when that is nothing."""
        if not self._lines:
            return None
        part = PackedPart(
            b"\n".join(self._lines) + b"\n", self._first_line, len(self._lines), self._rows, self._problems
        )
        self._first_line += part.lines
        self._clear()
        return part


def _pack_file(path: Path, part_bytes: int) -> Iterator[PackedPart]:
    packer = _Packer(part_bytes, str(path))
    with os_errors("source", source=str(path)), path.open("rb") as file:
        for line in file:
            if part := packer.add_line(line.rstrip(b"\r\n")):
                yield part
        if part := packer.flush():
            yield part


def _pack_objects(rows: Iterable[Any], part_bytes: int) -> Iterator[PackedPart]:
    packer = _Packer(part_bytes)
    for row in rows:
        if part := packer.add_object(row):
            yield part
    if part := packer.flush():
        yield part


async def _pack_asynchronous(rows: AsyncIterable[Any], part_bytes: int) -> AsyncIterator[PackedPart]:
    packer = _Packer(part_bytes)
    async for row in rows:
        if part := packer.add_object(row):
            yield part
    if part := packer.flush():
        yield part


async def _in_loop(parts: Iterator[PackedPart]) -> AsyncIterator[PackedPart]:
    for part in parts:
        yield part


async def _in_thread(parts: Iterator[PackedPart]) -> AsyncIterator[PackedPart]:
    try:
        while (part := await anyio.to_thread.run_sync(next, parts, None)) is not None:
            yield part
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()


def decode_part(part: PackedPart, file: str = "") -> tuple[list[Any], list[InvalidRow]]:
    """Return the rows of *part* to send inside a message, None for blank lines, and what is wrong with those that are
    no rows; *file* is what the problems call the file."""
    rows: list[Any] = []
    problems: list[InvalidRow] = []
    for number, line in enumerate(part.data[:-1].split(b"\n"), start=part.first_line):
        if not line or line.isspace():
            rows.append(None)
            continue
        row = None
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            problems.append(InvalidRow(f"no JSON: {error}", line=number, file=file))
        else:
            if row is None:
                problems.append(InvalidRow("a row is an object, not null", line=number, file=file))
        rows.append(row)
    return rows, problems
