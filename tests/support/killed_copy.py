"""A process on an embedded platform that kills itself: ``python -m tests.support.killed_copy VERB DATA ID PATH BYTES``.

Once it has read BYTES of what it copies, in whole pieces, it waits until its journal has been written and is gone
(SIGKILL). With 0 it goes on to its end; how many bytes it read is all it prints.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from asyncsdk import AsyncClient
from asyncsdk.engine.sources import FileSource

__all__ = ["main"]

_GRACE_SECONDS = 0.3

_read_bytes = 0


def _watch(limit_bytes: int) -> None:
    read_at = FileSource.read_at

    def watched(source: FileSource, size_bytes: int, offset: int) -> bytes:
        global _read_bytes  # noqa: PLW0603  # one large file is copied at a time
        if limit_bytes and _read_bytes >= limit_bytes:
            time.sleep(_GRACE_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)
        data = read_at(source, size_bytes, offset)
        _read_bytes += len(data)
        return data

    FileSource.read_at = watched  # type: ignore[method-assign]


async def main(verb: str, data: str, entity_id: str, path: str, limit_bytes: str) -> None:
    """Do what *verb* says."""
    _watch(int(limit_bytes))
    async with AsyncClient(data=data) as client:
        if verb == "upload":
            (await (await client.datasets.get(entity_id)).upload(path)).raise_for_failures()
        elif verb == "download":
            (await (await client.datasets.get(entity_id)).download(path)).raise_for_failures()
        elif verb == "upload_checkpoint":
            await (await client.models.get(entity_id)).upload_checkpoint(path)
        else:
            await (await client.models.get(entity_id)).download_checkpoint(path, which="last")
    print(_read_bytes)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
