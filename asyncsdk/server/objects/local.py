"""Objects in a folder of this machine.

::

    folder/objects/ab/<id>                      published: never changed again
    folder/objects/ab/<id>.<crc32c>.tmp         being copied there, on file systems without hard links
    folder/staging/YYYY-MM-DD/<id>.<crc32c>     arrived, not committed; the date is that of the id, in UTC
    folder/staging/YYYY-MM-DD/<id>.*            on its way: `arrivals`, `multipart`, and the engine's own temporaries

``ab`` are the last two digits of the id: the first ones are the time and would fill one folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from asyncsdk.checksums import Crc32c
from asyncsdk.domain.ids import is_id, time_of_id
from asyncsdk.errors import BadRequest, Conflict, NotFound, os_errors
from asyncsdk.server.objects.locks import locked
from asyncsdk.server.objects.syncing import make_durable

__all__ = ["LocalObjects", "check_crc32c", "check_object_id", "crc32c_of_file"]

_CRC32C = re.compile(r"[0-9a-f]{8}")
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
_DAY = timedelta(days=1)
_SWEEP_BATCH = 1000


def check_object_id(object_id: str) -> str:
    """Return *object_id*; `BadRequest` when it is none, so that no other text ever becomes a file name."""
    if not is_id(object_id):
        raise BadRequest("an object id has 24 lower-case hexadecimal digits")
    return object_id


def check_crc32c(crc32c: str) -> str:
    """Return *crc32c*; `BadRequest` when it is none."""
    if not _CRC32C.fullmatch(crc32c):
        raise BadRequest("a crc32c has eight lower-case hexadecimal digits")
    return crc32c


class LocalObjects:
    """The object store of one data folder.

    All methods block: call them in worker threads. Safe for several threads and several processes on one folder.

    Args:
        folder: Data folder; ``objects`` and ``staging`` are made in it, readable by their owner only.

    Raises:
        DestinationUnwritable: The folders cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._objects = folder / "objects"
        self._staging = folder / "staging"
        with os_errors("destination", destination=str(folder)):
            for path in (self._objects, self._staging):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)

    # --- names ---------------------------------------------------------------------------------------------------

    def path(self, object_id: str) -> Path:
        """Return where the published object lies, or would lie."""
        check_object_id(object_id)
        return self._objects / object_id[-2:] / object_id

    def staging_folder(self, object_id: str) -> Path:
        """Return the dated folder that takes the object until it is committed; it may not exist yet."""
        check_object_id(object_id)
        made = datetime.fromtimestamp(time_of_id(object_id) / 1000, tz=UTC)
        return self._staging / made.strftime("%Y-%m-%d")

    def staged_path(self, object_id: str, crc32c: str) -> Path:
        """Return where the arrived object lies until it is committed."""
        return self.staging_folder(object_id) / f"{object_id}.{check_crc32c(crc32c)}"

    # --- arrived, not committed ----------------------------------------------------------------------------------

    def staged_size(self, object_id: str, crc32c: str) -> int | None:
        """Return the size of an object that arrived and is not committed; None when it is not there."""
        return _size(self.staged_path(object_id, crc32c))

    def open_staged(self, object_id: str, crc32c: str) -> BinaryIO:
        """Open an object that arrived and is not committed.

        Raises:
            NotFound: It is not there.
        """
        try:
            return self.staged_path(object_id, crc32c).open("rb")
        except FileNotFoundError:
            raise _never_arrived(object_id) from None

    def unstage(self, objects: Sequence[tuple[str, str]]) -> None:
        """Drop the staged names of objects; those that are missing are passed over."""
        for object_id, crc32c in objects:
            self.staged_path(object_id, crc32c).unlink(missing_ok=True)

    # --- published -----------------------------------------------------------------------------------------------

    def publish(self, objects: Sequence[tuple[str, str]]) -> None:
        """Make staged objects published ones; durable when it returns. Repeating it changes nothing.

        The staged names stay until `unstage`: they are hard links, or copies on file systems without links.

        Args:
            objects: Id and crc32c of each.

        Raises:
            NotFound: An object is neither staged nor published.
            Conflict: Other bytes were published under the id before.
            DestinationFull: No space is left.
        """
        if not objects:
            return
        with os_errors("destination", destination=str(self.folder)):
            paths = [self._publish_one(object_id, crc32c) for object_id, crc32c in objects]
            make_durable(self.folder, paths)

    def _publish_one(self, object_id: str, crc32c: str) -> Path:
        staged = self.staged_path(object_id, crc32c)
        published = self.path(object_id)
        for _ in range(2):
            try:
                os.link(staged, published)
            except FileExistsError:
                self._check_same(staged, published, object_id, crc32c)
                return published
            except FileNotFoundError:
                if published.exists():
                    return published
                if not staged.exists():
                    raise _never_arrived(object_id) from None
                published.parent.mkdir(mode=0o700, exist_ok=True)
                continue
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if published.exists():
                    self._check_same(staged, published, object_id, crc32c)
                    return published
                published.parent.mkdir(mode=0o700, exist_ok=True)
                try:
                    self._publish_copy(staged, published)
                except FileNotFoundError:  # whoever published it first has dropped the staged name by now
                    if not published.exists():
                        raise _never_arrived(object_id) from None
            return published
        raise _never_arrived(object_id)

    def _publish_copy(self, staged: Path, published: Path) -> None:
        """Do without hard links: the staged name has to stay, by it the commit is repeated and the sweep finds both.

        The temporary is named after the bytes, so that the sweep finds what a crash left of it; whoever copies holds
        its lock until it is renamed.
        """
        temporary = _copy_path(published, staged.name)
        with staged.open("rb") as source:
            while True:
                descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb") as copy, locked(descriptor):
                    if not _is_named(descriptor, temporary):  # renamed by whoever had the lock before
                        if published.exists():
                            return
                        continue
                    try:
                        copy.truncate(0)
                        shutil.copyfileobj(source, copy, 1024 * 1024)
                        copy.flush()
                        temporary.replace(published)
                    except BaseException:  # no copy stays, whatever ended it
                        temporary.unlink(missing_ok=True)
                        raise
                    return

    def _check_same(self, staged: Path, published: Path, object_id: str, crc32c: str) -> None:
        """Refuse to take what was published before for what is staged now, unless the bytes are the same."""
        with contextlib.suppress(FileNotFoundError):
            if staged.samefile(published):
                return
            # The client sent the object again after it was published: only its bytes can tell.
            if crc32c_of_file(published) != crc32c:
                raise Conflict(f"object {object_id} was published with other bytes; prepare the upload again")

    def size(self, object_id: str) -> int | None:
        """Return the size of a published object; None when there is none."""
        return _size(self.path(object_id))

    def remove(self, object_ids: Iterable[str]) -> None:
        """Remove published objects; those that are missing are passed over."""
        for object_id in object_ids:
            self.path(object_id).unlink(missing_ok=True)

    # --- what nobody committed -----------------------------------------------------------------------------------

    def discard_expired(self, *, before_ms: int, keep: Callable[[Sequence[str]], set[str]]) -> int:
        """Remove what lies in dated folders that ended before *before_ms*: arrived and half-arrived objects.

        For ids that *keep* does not return, the published file goes too: it is what a crash between publishing and
        the commit of the database left. So no commit may run meanwhile: call it inside a write transaction, or be
        sure otherwise.

        Args:
            before_ms: Milliseconds since 1970 UTC.
            keep: Given up to 1,000 ids, returns those that are committed.

        Returns:
            How many files were removed.
        """
        removed = 0
        for folder in self._expired_folders(before_ms):
            entries = iter(_file_names(folder))
            while names := list(islice(entries, _SWEEP_BATCH)):
                ids = sorted({name[:24] for name in names if is_id(name[:24])})
                kept = keep(ids) if ids else set()
                for object_id in ids:
                    if object_id not in kept:
                        removed += _unlink(self.path(object_id))
                for name in names:
                    if is_id(name[:24]) and _CRC32C.fullmatch(name[25:]):  # what a crash left of copying it
                        removed += _unlink(_copy_path(self.path(name[:24]), name))
                    removed += _unlink(folder / name)
            try:
                folder.rmdir()
            except OSError as error:
                # A client came back this moment, or somebody put a folder there: the next sweep sees to it.
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                    raise
        return removed

    def _expired_folders(self, before_ms: int) -> Iterator[Path]:
        for path in sorted(self._staging.iterdir()):
            try:
                day = date.fromisoformat(path.name)
            except ValueError:
                continue
            end = datetime(day.year, day.month, day.day, tzinfo=UTC) + _DAY
            if end.timestamp() * 1000 <= before_ms and path.is_dir():
                yield path


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether *path* is the name of the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _copy_path(published: Path, staged_name: str) -> Path:
    return published.with_name(f"{staged_name}.tmp")


def crc32c_of_file(path: Path) -> str:
    """Return the crc32c of a file, read in buffers of 1 MiB."""
    checksum = Crc32c()
    with path.open("rb", buffering=0) as file:
        while data := file.read(1024 * 1024):
            checksum.update(data)
    return checksum.hex()


def _never_arrived(object_id: str) -> NotFound:
    return NotFound(f"the bytes of object {object_id} never arrived; upload them again")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _file_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())
    except FileNotFoundError:  # another process sweeps too
        return []


def _unlink(path: Path) -> int:
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return 1
