"""The data folder: what lies where, its lock, and the private files in it.

::

    DATA/                  mode 0700
      asyncsdk.db          metadata (with -wal and -shm beside it while open)
      secret               32 bytes that sign keys and URLs, mode 0600
      token                token of the owner, made when it is first asked for, mode 0600
      lock                 held while the folder is made, upgraded, or a private file is written
      backups/             copies of the database from before upgrades
      objects/  staging/   bytes; see `asyncsdk.server.objects.local`
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncsdk.errors import StoreError

__all__ = ["DataFolder"]

_SECRET_BYTES = 32


class DataFolder:
    """Names and private files of one data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "asyncsdk.db"
        self.backups = path / "backups"
        self._secret = path / "secret"
        self._token = path / "token"

    def make(self) -> None:
        """Make the folder, readable by its owner only, when it is missing.

        Raises:
            StoreError: It cannot be made or entered.
        """
        try:
            if not self.path.is_dir():
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.database.exists():
                self.path.chmod(0o700)
        except OSError as error:
            raise StoreError(self.path, f"cannot be the data folder: {error.strerror}") from error

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
