"""What one line of a manifest means.

``{"source": PATH, "url": URL, "headers": {...}}`` uploads by one PUT; in place of ``url`` and ``headers`` stands one of
``multipart``, ``resumable``, ``blob`` and ``form`` for other ways (see `manifest_targets`). ``{"url": URL,
"destination": PATH, "headers": {...}}`` downloads. ``crc32c`` and ``key`` may be added to each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from asyncsdk.cli.line_names import lasting_query
from asyncsdk.cli.manifest_targets import (
    TARGET_KINDS,
    LineTarget,
    address_of,
    check_parts,
    lasting_part,
    parse_target,
)
from asyncsdk.engine import Download, MultipartTarget, PutTarget, Refused, Skipped, Transfer, Upload, UrlOrigin
from asyncsdk.engine.journal import Identity
from asyncsdk.errors import AsyncSDKError, ConfigError, InvalidRow, SourceUnreadable, redact_url
from asyncsdk.os_errors import os_errors

__all__ = ["Line", "parse_line"]

_OF_ALL = {"source", "url", "headers", "destination", "crc32c", "key"}
_OF_OTHER_WAYS = {"source", "crc32c", "key"}
_OTHER_WAYS = ", ".join(map(repr, TARGET_KINDS))


class Line:
    """One line of the manifest; the ``key`` of its transfer.

    Attributes:
        number: From 1.
        source: What a report calls where the bytes come from.
        destination: What a report calls where they go.
        file: Identity of the file to upload, taken before it is opened, when a journal is kept.
        name: What the journal calls it: the same for a line whose URL was only signed again.
    """

    __slots__ = ("destination", "file", "name", "number", "source")

    def __init__(self, number: int, source: str | None = None, destination: str | None = None) -> None:
        self.number = number
        self.source = source
        self.destination = destination
        self.file: Identity | None = None
        self.name = ""

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        """The same for a line whose URL was only signed again; bad lines go by their number."""
        is_bad = self.source is None and self.destination is None
        return self.source, self.destination, self.number if is_bad else None


def parse_line(
    line: bytes, number: int, manifest: str, *, dry_run: bool = False, folder: Path | None = None
) -> Transfer:
    """Return what one line of a manifest means; `Refused` when it means nothing. Blocking.

    Paths count from *folder*; None: from the current one.
    """
    known = Line(number)
    name = f"{manifest}:{number}"
    try:
        transfer = _parse(line, known, folder or Path())
    except ConfigError as error:
        return Refused(name, InvalidRow(str(error), line=number, file=manifest), known)
    if not dry_run:
        return transfer
    if isinstance(transfer, Download):
        return Skipped(transfer.name, 0, known, "would_fetch")
    try:
        source = transfer.source
        assert isinstance(source, Path)
        with os_errors("source", source=str(source)):
            size = source.stat().st_size
        if source.is_dir():
            raise SourceUnreadable(f"{source}: is a folder; a line of a manifest moves one file", source=str(source))
    except AsyncSDKError as error:
        return Refused(transfer.name, error, known)
    return Skipped(transfer.name, size, known, "would_send")


def _parse(line: bytes, known: Line, folder: Path) -> Upload | Download:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise ConfigError("must be a JSON object")
    more = row.keys() - _OF_ALL
    target = _other_target(row, more) if more else None
    url, headers = row.get("url") if target is None else address_of(target), row.get("headers") or {}
    if not isinstance(url, str) or not url:
        raise ConfigError(f"'url' is missing (to upload otherwise than by one PUT: one of {_OTHER_WAYS})")
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ConfigError("'headers' must be an object of texts")
    crc32c = row.get("crc32c")
    if crc32c is not None and not isinstance(crc32c, str):
        raise ConfigError("'crc32c' must be a text of eight hexadecimal digits")
    key = row.get("key")
    if key is not None and not (isinstance(key, str) and key):
        raise ConfigError("'key' must be a text")
    source, destination = row.get("source"), row.get("destination")
    if (source is None) == (destination is None):
        raise ConfigError("give either 'source' (to upload) or 'destination' (to download)")
    path = source if source is not None else destination
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"{'source' if source is not None else 'destination'!r} must be a path")
    address = redact_url(url)
    if key is not None:
        known.name = f"{'to' if source is None else 'from'}\0{path}\0\0{key}"
    else:
        lasting = lasting_query(url) if target is None else lasting_part(target)
        known.name = f"{'to' if source is None else 'from'}\0{path}\0{address}\0{lasting}"
    if source is not None:
        file = folder / source
        if isinstance(target, MultipartTarget):
            _check_parts(target, file)
        known.source, known.destination = source, address
        return Upload(file, target or PutTarget(url, headers), crc32c=crc32c, key=known, name=source)
    origin = UrlOrigin(url, headers, crc32c=crc32c)
    known.source, known.destination = address, path
    return Download(origin, folder / path, key=known, name=path)


def _other_target(row: dict[str, Any], more: set[str]) -> LineTarget:
    """Return the target of a line that has keys beside those of every line."""
    kinds = sorted(more & TARGET_KINDS.keys())
    if unknown := more - TARGET_KINDS.keys():
        known = sorted({*_OF_ALL, *TARGET_KINDS})
        raise ConfigError(f"unknown key {min(unknown)!r}; known are {', '.join(known)}")
    kind = kinds[0]
    if len(kinds) > 1 or "url" in row:
        raise ConfigError(
            f"give one of 'url', {_OTHER_WAYS}, not {kinds[1] if len(kinds) > 1 else 'url'!r} beside {kind!r}"
        )
    if "destination" in row:
        raise ConfigError(f"{kind!r} is for uploads: give 'source'; to download, give 'url' and 'destination'")
    if other := row.keys() - _OF_OTHER_WAYS - {kind}:
        raise ConfigError(f"{min(other)!r} belongs into {kind!r}")
    return parse_target(kind, row[kind])


def _check_parts(target: MultipartTarget, file: Path) -> None:
    """Raise `ConfigError` when *target* has no URLs for all parts of *file*, before any of them is sent."""
    try:
        size_bytes = file.stat().st_size
    except (OSError, ValueError):  # opening it will say what is wrong with it
        return
    check_parts(target, size_bytes)
