"""Reading zips of strangers: limits before and while bytes are written, dangerous entries refused one by one.

Nothing is ever written under a name that an archive gives, so no name can lead outside. Entries are read by
`zipfile`, which never gives more bytes of an entry than its announcement says, and compares the checksum of those: an
archive that announces less than it holds is damaged, one that announces much is refused before anything is written.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from asyncsdk.domain.archives import check_entry_name, is_ignored
from asyncsdk.errors import AsyncSDKError, InvalidArchive, InvalidName
from asyncsdk.os_errors import os_errors

__all__ = ["ArchiveEntry", "ArchiveLimits", "ZipReader"]

_MiB = 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Those whose output is bounded while it is made; bzip2 and lzma make gigabytes of one block."""
_ENCRYPTED = 0x1

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises for archives that are damaged, on purpose or not, or made in a way that it does not know."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much an archive may hold. What is over a limit fails the archive as a whole.

    Args:
        entries: Entries, folders included.
        directory_bytes: Bytes of the list of entries, which is read into memory: about 0.6 KB for each.
        ratio: How many times the size of the archive all of it may have unpacked...
        always_bytes: ...or this many bytes, if that is more: small archives of text shrink a lot.
    """

    entries: int = 1_000_000
    directory_bytes: int = 64 * _MiB
    ratio: int = 200
    always_bytes: int = 256 * _MiB


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One file in an archive.

    Attributes:
        name: As the archive has it; checked, and the first of that name.
        size_bytes: Bytes it announces.
    """

    name: str
    size_bytes: int
    info: zipfile.ZipInfo


class ZipReader:
    """A zip that is open for reading; everything about it blocks. A context manager.

    Attributes:
        entries: The files that may be read, in order.
        refused: The name of every entry that may not, and why.
        ignored: How many entries are no data.
        size_bytes: Bytes that all entries announce together, refused ones included.

    Args:
        path: The file.
        limits: How much it may hold.
        check: Called now and then while bytes are read; what it raises ends that.

    Raises:
        InvalidArchive: It is no zip, is damaged, or holds more than *limits* allow.
        SourceNotFound, SourceUnreadable: It is not there or cannot be read.
    """

    def __init__(
        self, path: Path, limits: ArchiveLimits | None = None, *, check: Callable[[], None] = lambda: None
    ) -> None:
        self.entries: list[ArchiveEntry] = []
        self.refused: list[tuple[str, AsyncSDKError]] = []
        self.ignored = 0
        limits = ArchiveLimits() if limits is None else limits
        self._check = check
        with os_errors("source", source=str(path)):
            self._file = _Wary(path, limits.directory_bytes)
            total = self._file.seek(0, io.SEEK_END)
        try:
            self._zip = self._opened()
            self._file.limit = -1
            infos = self._zip.infolist()
            if len(infos) > limits.entries:
                raise InvalidArchive(f"has {len(infos):,} entries; {limits.entries:,} are allowed")
            self.size_bytes = sum(info.file_size for info in infos)
            allowed = max(limits.always_bytes, limits.ratio * total)
            if self.size_bytes > allowed:
                raise InvalidArchive(
                    f"{total:,} bytes would become {self.size_bytes:,}; at most {allowed:,} are unpacked of it"
                )
            self._sort(infos)
        except BaseException:  # closed whatever ended it, cancelling too, then raised again
            self._file.close()
            raise

    def _opened(self) -> zipfile.ZipFile:
        with _damage_told("no zip archive, or a damaged one"):
            return zipfile.ZipFile(self._file)

    def _sort(self, infos: list[zipfile.ZipInfo]) -> None:
        seen: set[str] = set()
        for info in infos:
            if is_ignored(info.filename):
                self.ignored += 1
            elif info.filename.endswith("/") and info.file_size == 0:  # folders come with the files in them
                continue
            else:
                try:
                    self.entries.append(_checked(info, seen))
                except (InvalidArchive, InvalidName) as error:
                    self.refused.append((info.filename, error))

    def extract(self, entry: ArchiveEntry, destination: Path) -> None:
        """Write the bytes of an entry into a new file. Memory: 256 KiB.

        Raises:
            InvalidArchive: It is damaged.
            DestinationFull, DestinationUnwritable: The file cannot be written.
        """
        with os_errors("destination", destination=str(destination)), destination.open("xb") as file:
            for data in self._chunks(entry):
                file.write(data)

    def read(self, entry: ArchiveEntry, *, max_bytes: int) -> bytes:
        """Return the bytes of a small entry.

        Raises:
            InvalidArchive: It is damaged, or has more than *max_bytes*.
        """
        if entry.size_bytes > max_bytes:
            raise InvalidArchive(f"has {entry.size_bytes:,} bytes; {max_bytes:,} are allowed for such a file")
        return b"".join(self._chunks(entry))

    def _chunks(self, entry: ArchiveEntry) -> Iterator[bytes]:
        size_bytes = 0
        with _damage_told("damaged"), self._zip.open(entry.info) as file:
            while True:
                self._check()
                data = file.read(_CHUNK_BYTES)
                if not data:
                    break
                size_bytes += len(data)
                if size_bytes > entry.size_bytes:  # what is announced is what all of them were allowed by
                    break
                yield data
        if size_bytes != entry.size_bytes:
            raise InvalidArchive(f"is damaged: it announces {entry.size_bytes:,} bytes and has others")

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _TooMuch(ValueError):
    """The list of entries is larger than is allowed."""


class _Wary(io.FileIO):
    """A file that gives no more than *limit* bytes at once: `zipfile` reads the list of entries by one call.

    So it is the real size that is looked at, not one that is announced somewhere.
    """

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(path, "rb")
        self.limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        if self.limit >= 0:
            wanted = size if size is not None and size >= 0 else os.fstat(self.fileno()).st_size - self.tell()
            if wanted > self.limit:
                raise _TooMuch(f"its list of entries has more than {self.limit:,} bytes")
        return super().read(-1 if size is None else size) or b""


@contextmanager
def _damage_told(what: str) -> Iterator[None]:
    """Translate what `zipfile` raises into an error that says the archive, or an entry of it, is *what*."""
    try:
        yield
    except AsyncSDKError:
        raise
    except _TooMuch as error:
        raise InvalidArchive(str(error)) from error
    except _DAMAGE as error:
        raise InvalidArchive(f"is {what}: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the beginning of the file
            raise
        raise InvalidArchive(f"is {what}: {error}") from error


def _checked(info: zipfile.ZipInfo, seen: set[str]) -> ArchiveEntry:
    """Return the entry when it may be read.

    Raises:
        InvalidName: Its name is dangerous, or was there before.
        InvalidArchive: It is encrypted, a link, or packed in a way that is not read.
    """
    if info.filename != info.orig_filename:
        raise InvalidName(info.orig_filename, "holds a NUL character; remove it")
    name = check_entry_name(info.filename)
    if name in seen:
        raise InvalidName(name, "stands twice in the archive; the first one counts")
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        what = "a link" if stat.S_ISLNK(mode) else "a folder with bytes" if stat.S_ISDIR(mode) else "no regular file"
        raise InvalidArchive(f"is {what}; only files become items")
    if info.flag_bits & _ENCRYPTED:
        raise InvalidArchive("is encrypted; pack it without a password")
    if info.compress_type not in _METHODS:
        raise InvalidArchive(f"is packed by method {info.compress_type}; 'store' and 'deflate' are read")
    seen.add(name)
    return ArchiveEntry(name, info.file_size, info)
