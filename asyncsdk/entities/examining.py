"""Looking at what is to be uploaded: sources, sizes, small files' bytes and checksums, metadata. Blocking."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from time import time_ns
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.paths import check_item_path
from asyncsdk.engine import Refused
from asyncsdk.engine.journal import Identity, LargeState
from asyncsdk.engine.seen import SeenFile
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.entities.walking import printable
from asyncsdk.errors import AsyncSDKError, BadRequest, SourceUnreadable
from asyncsdk.os_errors import os_error
from asyncsdk.protocol.base import Metadata

__all__ = ["BATCH_BYTES", "SMALL_FILE_BYTES", "TICK_NS", "PreparedItem", "examine", "metadata_bytes"]

SMALL_FILE_BYTES = 64 * 1024
"""Files up to this size are read before they are prepared."""

BATCH_BYTES = 8 * 1024 * 1024
"""Read at once at most."""

TICK_NS = 20_000_000
"""A file that was changed this moment may change once more without another time: clocks of file systems tick every 4
to 10 ms. Such a file has no identity yet.

A time in the future is as good as one in the past: somebody set it (an archive, a time zone), or the clock of the file
server is ahead; whoever writes next gives the file the time of that moment, which is another one. Which files of a
server whose clock is off by more than this were changed this moment cannot be told here, whether it is ahead or behind.
What goes unseen then takes two changes within one tick of that clock, the second of which leaves the size as it was,
and this look with all of the reading in between them."""

_metadata = TypeAdapter(Metadata)


@dataclass(slots=True)
class PreparedItem:
    """What the feed knows of an upload; the ``key`` of its transfer and outcome.

    Attributes:
        item: As the user gave it.
        path: Path in the dataset.
        size_bytes: Size, when known before sending.
        crc32c: Checksum, when known before sending.
        key: What the platform calls the bytes until they are committed.
        held_bytes: Bytes of it that the feed keeps in memory.
        data: Those bytes, until they are handed to the engine.
        read_from: The file that ``data`` was read from, as it was then.
        number: Counts what was given to the feed.
        item_id: Id that the item gets if it is new; empty until its bytes were sent.
        identity: Of its file, taken before it was read; None for other sources.
        is_recalled: Whether the journal knows that its bytes arrived: it is neither read nor sent.
        is_settled: Whether the journal knows that it was committed, too.
        digest: What the journal calls it, when it knows it.
        large: Where its parts are told, when it goes out in parts and a journal is kept.
    """

    item: ItemUpload
    path: str
    size_bytes: int | None = None
    crc32c: str | None = None
    key: str = ""
    held_bytes: int = 0
    data: bytes | None = None
    read_from: SeenFile | None = None
    number: int = 0
    item_id: str = ""
    identity: Identity | None = None
    is_recalled: bool = False
    is_settled: bool = False
    digest: bytes = b""
    large: LargeState | None = None


def examine(
    items: list[PreparedItem], most_bytes: int = BATCH_BYTES
) -> tuple[list[PreparedItem | Refused], list[PreparedItem]]:
    """Look at sources, read and sum small files. Blocking.

    Args:
        items: What to look at.
        most_bytes: What may be read; at least one file is.

    Returns:
        What was found, and the items left for the next batch because this one holds enough bytes.
    """
    found: list[PreparedItem | Refused] = []
    held = 0
    for index, known in enumerate(items):
        if found and held > most_bytes - SMALL_FILE_BYTES:
            return found, items[index:]
        try:
            check_item_path(known.path)
            if known.item.metadata is not None:
                _check_metadata(known.item.metadata)
            if known.identity is None:  # else the journal knows it
                _examine_source(known, known.item.source)
        except _BadMetadata as error:
            reason = str(error)
            found.append(
                Refused(printable(known.path), BadRequest(f"{printable(known.path)}: metadata: {reason}"), known)
            )
            continue
        except AsyncSDKError as error:
            found.append(Refused(printable(known.path), error, known))
            continue
        except (OSError, ValueError) as error:  # a name with a NUL, or of no Unicode, is a ValueError
            shown = printable(str(known.item.source))
            found.append(Refused(printable(known.path), os_error(error, "source", source=shown), known))
            continue
        held += known.held_bytes
        found.append(known)
    return found, []


class _BadMetadata(Exception):
    """Metadata that cannot be kept; the message says why."""


def _check_metadata(metadata: Any) -> None:
    """Raise unless *metadata* can be written as it will be: refused here, it does not fail a batch at commit."""
    if not isinstance(metadata, Mapping):
        raise _BadMetadata(f"must be a JSON object, not {type(metadata).__name__}")
    plain = dict(metadata)
    try:
        _metadata.validate_python(plain)
        _dumped(plain)
    except ValidationError as error:
        raise _BadMetadata(error.errors(include_url=False, include_input=False)[0]["msg"]) from None
    except TypeError as error:  # orjson's encoding error: integers over 64 bits, text that is no Unicode
        raise _BadMetadata(str(error)) from None


def _examine_source(known: PreparedItem, source: Any) -> None:
    if isinstance(source, (bytes, bytearray, memoryview)):
        known.size_bytes = memoryview(source).nbytes
        known.crc32c = crc32c_hex(crc32c(bytes(source)))
        return
    if not isinstance(source, (str, PathLike)):
        return
    path = os.fspath(source)
    status = os.stat(path)  # noqa: PTH116  # pathlib's way costs 3 us more, for each of ten million files
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder; upload it with dataset.upload(folder)" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise SourceUnreadable(f"{printable(str(source))}: is {kind}", source=printable(str(source)))
    known.size_bytes = status.st_size
    identity = Identity.of(status)
    if abs(time_ns() - identity.mtime_ns) > TICK_NS:
        known.identity = identity
    if status.st_size <= SMALL_FILE_BYTES:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            data = os.read(descriptor, SMALL_FILE_BYTES + 1)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        # It is being written to, or was replaced: let the engine read it and judge.
        if (after.st_size, after.st_mtime_ns, after.st_ino) != identity or len(data) != status.st_size:
            known.identity = None
            return
        known.data = data
        known.read_from = (path, identity)
        known.held_bytes = len(data)
        known.crc32c = crc32c_hex(crc32c(data))


def metadata_bytes(item: ItemUpload) -> int:
    """Return what the metadata of an item that was examined adds to a message."""
    return 0 if item.metadata is None else len(_dumped(dict(item.metadata)))


def _dumped(metadata: dict[str, Any]) -> bytes:
    return orjson.dumps({"entries": [{"metadata": metadata}]})  # as deep as it will lie there: the depth is limited
