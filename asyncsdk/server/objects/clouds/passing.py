"""One object that comes through this server on its way into a bucket: to a file without a name, then to the bucket.

A bucket wants to be told size and checksum before the bytes, and of a file in a form nobody knows them before its end.
The file has no name: whatever ends this process, it takes its space along.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from asyncsdk.checksums import Crc32c
from asyncsdk.os_errors import os_errors
from asyncsdk.server.objects.arrivals import write_all
from asyncsdk.server.objects.clouds.objects import CloudObjects

__all__ = ["PassingArrival"]


class PassingArrival:
    """Takes the bytes of one object as `Arrival` does. Blocking; used by one thread at a time.

    Args:
        objects: The store.
        folder: Folder of this machine with space for the object while it comes.
        object_id: Under which it is stored.

    Raises:
        DestinationFull, DestinationUnwritable: The folder takes no file.
    """

    def __init__(self, objects: CloudObjects, folder: Path, object_id: str) -> None:
        self._objects = objects
        self._object_id = object_id
        self._checksum = Crc32c()
        with os_errors("destination", destination=object_id):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed by `discard`

    def write(self, chunks: Sequence[bytes]) -> None:
        """Take the next bytes.

        Raises:
            DestinationFull: No space is left.
        """
        for data in chunks:
            self._checksum.update(data)
        with os_errors("destination", destination=self._object_id):
            write_all(self._file.fileno(), chunks)

    def finish(self) -> str:
        """Put the object into the bucket and return its crc32c; takes as long as the bucket does.

        Raises:
            ServerError: The bucket cannot be reached, or refuses. Whether it has the object is not known then.
        """
        self._file.seek(0)
        crc32c = self._checksum.hex()
        self._objects.put(self._object_id, crc32c, self._file, self._checksum.size_bytes)
        return crc32c

    def discard(self) -> None:
        """Let go of the file; what is in the bucket stays there."""
        self._file.close()
