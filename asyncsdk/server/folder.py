"""The data folder: what lies where, its lock, and the private files in it.

::

    DATA/                  mode 0700 when made here; a folder that was there keeps its own
      asyncsdk.db          metadata (with -wal and -shm beside it while open), mode 0600
      secret               32 bytes that sign keys and URLs, mode 0600
      token                token of the owner, made when it is first asked for, mode 0600
      lock                 held while the folder is made, upgraded, or a private file is written
      backups/             copies of the database from before upgrades, mode 0700
      objects/             bytes, mode 0700; see `asyncsdk.server.objects.local`
      staging/             the same, of releases up to schema version 2; see `asyncsdk.server.objects.earlier`
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncsdk.errors import StoreError

__all__ = ["DataFolder"]

_SECRET_BYTES = 32
_DATABASE = "asyncsdk.db"
_PRIVATE = (
    *(f"{_DATABASE}{suffix}" for suffix in ("", "-wal", "-shm")),
    "secret",
    "token",
    "lock",
    "backups",
    "objects",
    "staging",
)


class DataFolder:
    """Names and private files of one data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / _DATABASE
        self.backups = path / "backups"
        self._secret = path / "secret"
        self._token = path / "token"

    def make(self) -> None:
        """Make the folder, readable by its owner only, when it is missing.

        Raises:
            StoreError: It cannot be made or entered.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(self.path, f"cannot be the data folder: {error.strerror}") from error

    def make_private(self) -> None:
        """See to it that others can read nothing of what is in the folder, whoever can enter it.

        The database is made, empty, when it is missing: SQLite would go by the umask, and its log goes by the database.
        What belongs to another user and symbolic links stay as they are. The caller holds the lock.

        Raises:
            StoreError: A file cannot be made or changed.
        """
        try:
            if not self.database.exists():
                os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            for name in _PRIVATE:
                _take_from_others(self.path / name)
        except OSError as error:
            raise StoreError(self.database, f"cannot be made private: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock against every other thread and process; waits for it."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(self.path, f"cannot be locked: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def secret(self) -> bytes:
        """Return the signing secret, made when missing. The caller holds the lock.

        Raises:
            StoreError: The file is not what was written there.
        """
        found = self._read(self._secret)
        if found is None:
            found = secrets.token_bytes(_SECRET_BYTES)
            self._write_private(self._secret, found)
        if len(found) != _SECRET_BYTES:
            raise StoreError(self._secret, f"must hold {_SECRET_BYTES} bytes; restore it, or remove it: keys and "
                             "URLs given out before stop working then")  # fmt: skip
        return found

    def token(self) -> str | None:
        """Return the kept token, None when there is none."""
        found = self._read(self._token)
        return found.decode(errors="replace").strip() if found else None

    def keep_token(self, token: str) -> None:
        """Keep *token* in place of the one before. The caller holds the lock."""
        self._write_private(self._token, token.encode() + b"\n")

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(path, f"cannot be read: {error.strerror}") from error

    def _write_private(self, path: Path, content: bytes) -> None:
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{path.name}-")  # made with mode 0600
        except OSError as error:
            raise StoreError(path, f"cannot be written: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except OSError as error:
            raise StoreError(path, f"cannot be written: {error.strerror}") from error
        finally:
            Path(temporary).unlink(missing_ok=True)


def _take_from_others(path: Path) -> None:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(facts.st_mode)
    if mode & 0o077 and not stat.S_ISLNK(facts.st_mode) and facts.st_uid == os.geteuid():
        path.chmod(mode & 0o700)
