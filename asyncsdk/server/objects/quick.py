"""One small object staged in one go: all of its bytes are here, so nothing is written before they are checked."""

from __future__ import annotations

import itertools
import os
import secrets
from pathlib import Path

import google_crc32c

from asyncsdk.checksums import crc32c_hex
from asyncsdk.os_errors import os_error
from asyncsdk.server.objects.arrivals import Digests, Expected
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.private import make_private_folder

__all__ = ["QuickStaging"]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class QuickStaging:
    """Stages small objects as `arrivals.Arrival` does, with the same files and guarantees, for a tenth of the time.

    Blocking, for as long as a small file takes; safe for several threads and several processes on one folder.

    Args:
        objects: The store.
    """

    def __init__(self, objects: LocalObjects) -> None:
        self._objects = objects
        self._unique = secrets.token_hex(8)
        self._count = itertools.count()

    def stage(self, object_id: str, data: bytes, expected: Expected) -> str:
        """Stage the object when its bytes are those expected; returns their crc32c. Nothing stays otherwise.

        Raises:
            BadRequest: They are not those expected.
            DestinationFull: No space is left.
        """
        if expected.md5 is None:
            crc32c = crc32c_hex(google_crc32c.extend(0, data))
            expected.check(len(data), crc32c, None)
        else:
            digests = Digests(expected)
            digests.update(data)
            crc32c = digests.check(expected)
        folder = self._objects.staging_name(object_id)
        # Unique among processes by its random half, within this one by the count.
        temporary = f"{folder}/{object_id}.{self._unique}{next(self._count):x}.tmp"
        try:
            self._place(temporary, folder, object_id, crc32c, data)
        except OSError as error:
            raise os_error(error, "destination", destination=object_id) from error
        return crc32c

    def _place(self, temporary: str, folder: str, object_id: str, crc32c: str, data: bytes) -> None:
        try:
            descriptor = os.open(temporary, _FLAGS, 0o600)
        except FileNotFoundError:
            make_private_folder(Path(folder))
            descriptor = os.open(temporary, _FLAGS, 0o600)
        try:
            try:
                _write(descriptor, data)
            finally:
                os.close(descriptor)
            self._objects.place(temporary, object_id, crc32c)
        except BaseException:  # no temporary file stays, whatever ended it; raised again
            Path(temporary).unlink(missing_ok=True)
            raise


def _write(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
