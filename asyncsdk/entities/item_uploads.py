"""What users give a dataset to upload: one item, a table of items, or anything that yields them."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import IO, Any

import orjson

from asyncsdk.engine import Refused, Source
from asyncsdk.engine.transfers import describe_source
from asyncsdk.errors import ConfigError, InvalidName, InvalidRow
from asyncsdk.os_errors import os_errors

__all__ = ["ItemSource", "ItemTable", "ItemUpload", "as_item_upload", "is_file_object", "take_some"]


@dataclass(frozen=True, slots=True)
class ItemUpload:
    """One item to upload.

    Args:
        source: A path, bytes, an open binary file, or an asynchronous iterable of bytes.
        path: POSIX path of the item in the dataset; None takes the name of the file.
        metadata: JSON object kept with the item; None keeps that of an item which is replaced.
    """

    source: Source
    path: str | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def item_path(self) -> str:
        """The path in the dataset: the one given, else the name of the file."""
        return self.path if self.path is not None else Path(str(self.source)).name


class ItemTable:
    """A table of items: column ``source`` (a file), optionally ``path``, every other column becomes metadata.

    Args:
        table: A ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson`` file; a mapping of column name to values; or a data
            frame (anything whose ``to_dict("list")`` gives such a mapping).
        base: Folder that relative sources count from; None: the table's own folder, or the current one.
    """

    def __init__(
        self, table: str | PathLike[str] | Mapping[str, Sequence[Any]] | Any, *, base: Path | None = None
    ) -> None:
        self._file: Path | None = None
        self._columns: Mapping[str, Sequence[Any]] = {}
        if isinstance(table, (str, PathLike)):
            self._file = Path(table)
            if self._file.suffix.lower() not in {".csv", ".tsv", ".jsonl", ".ndjson"}:
                raise ConfigError(f"{self._file}: a table is a .csv, .tsv, .jsonl or .ndjson file")
        else:
            columns = table if isinstance(table, Mapping) else _columns_of(table)
            lengths = {name: len(values) for name, values in columns.items()}
            if len(set(lengths.values())) > 1:
                raise ConfigError(f"the columns of a table must be equally long, these are not: {lengths}")
            self._columns = columns
            if "source" not in columns:
                raise ConfigError(f"a table needs a column 'source', this one has {sorted(columns)}")
        self._base = base if base is not None else self._file.parent if self._file else Path()

    def rows(self) -> Iterator[ItemUpload | Refused]:
        """Yield the items of the table; a bad row is a `Refused` with its line. Blocking."""
        name = str(self._file) if self._file else "table"
        for line, row in self._raw_rows():
            if isinstance(row, InvalidRow):
                yield Refused(f"{name}:{line}", row)
                continue
            source = row.pop("source", None)
            path = row.pop("path", None)
            if not isinstance(source, (str, PathLike)) or not str(source):
                yield Refused(f"{name}:{line}", InvalidRow("'source' must name a file", line=line, file=name))
            elif path is not None and not isinstance(path, str):
                yield Refused(f"{name}:{line}", InvalidRow("'path' must be text", line=line, file=name))
            else:
                yield ItemUpload(self._base / source, path or None, row or None)

    def _raw_rows(self) -> Iterator[tuple[int, dict[str, Any] | InvalidRow]]:
        if self._file is None:
            names = list(self._columns)
            for number, values in enumerate(zip(*self._columns.values(), strict=True), start=1):
                yield number, dict(zip(names, map(_plain, values), strict=True))
            return
        name = str(self._file)
        with os_errors("source", source=name):
            if self._file.suffix.lower() in {".jsonl", ".ndjson"}:
                yield from _json_rows(self._file)
            else:
                yield from _csv_rows(self._file)


ItemSource = (
    str
    | PathLike[str]
    | ItemTable
    | Mapping[str, Sequence[Any]]
    | Iterable[ItemUpload | str | PathLike[str]]
    | AsyncIterable[ItemUpload | str | PathLike[str]]
)
"""A folder, a file, a table, or an (asynchronous) iterable of items or files."""


def _columns_of(table: Any) -> Mapping[str, Sequence[Any]]:
    to_dict = getattr(table, "to_dict", None)
    if to_dict is None:
        raise ConfigError(f"a table is a file, a mapping of columns or a data frame, not {type(table).__name__}")
    columns: Mapping[str, Sequence[Any]] = to_dict("list")
    return columns


def _plain(value: Any) -> Any:
    """Return the Python value of a scalar of an array library; others as they are."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "shape", None) == () else value


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | InvalidRow]]:
    with path.open("rb") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                yield line, InvalidRow(f"no JSON: {error}", line=line, file=str(path))
                continue
            if isinstance(row, dict):
                yield line, row
            else:
                yield line, InvalidRow("a row must be a JSON object", line=line, file=str(path))


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | InvalidRow]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            if reader.fieldnames is None or "source" not in reader.fieldnames:
                raise ConfigError(f"{path}: a table needs a column 'source' in its first line")
            for row in reader:
                if None in row or None in row.values():
                    reason = f"has not {len(reader.fieldnames)} columns as the first line"
                    yield reader.line_num, InvalidRow(reason, line=reader.line_num, file=str(path))
                else:
                    yield reader.line_num, row
        except UnicodeDecodeError:  # read in blocks: nothing after this place can be told apart
            reason = "the table is not UTF-8 from here on; save it as UTF-8"
            yield reader.line_num + 1, InvalidRow(reason, line=reader.line_num + 1, file=str(path))
        except csv.Error as error:
            yield (
                reader.line_num,
                InvalidRow(f"the table cannot be read further: {error}", line=reader.line_num, file=str(path)),
            )


Given = ItemUpload | Refused


def as_item_upload(value: Any) -> Given:
    """Return what one element of an iterable means."""
    if isinstance(value, Refused):
        return value
    if isinstance(value, ItemUpload):
        if value.path is not None and not isinstance(value.path, str):
            shown = str(value.path)
            return Refused(shown, InvalidName(shown, f"is {type(value.path).__name__}; the path of an item is text"))
        if value.path is None and not isinstance(value.source, (str, PathLike)):
            name = describe_source(value.source)
            return Refused(name, ConfigError(f"{name}: bytes and streams need a path: ItemUpload(source, path)"))
        return value
    if isinstance(value, (str, PathLike)):
        return ItemUpload(Path(value))
    raise ConfigError(f"items to upload are ItemUpload or paths, not {type(value).__name__}")


def take_some(iterator: Iterator[Any], want: int) -> list[Given]:
    """Return the next up to *want* elements. Blocking as the iterator is."""
    return [as_item_upload(value) for value in islice(iterator, want)]


def is_file_object(value: Any) -> bool:
    """Whether *value* is an open file (which is iterable by lines, and never meant so)."""
    return isinstance(value, IO) or (hasattr(value, "read") and not isinstance(value, (str, PathLike)))
