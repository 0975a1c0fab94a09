"""Objects that are files of this machine: copied and checksummed in a thread, then renamed into place.

A small file costs one turn of a thread from opening to renaming. Large ones are copied in steps, so that a cancellation
does not wait for the end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asyncsdk.checksums import Crc32c
from asyncsdk.engine.downloads import check_crc32c, give, object_changed
from asyncsdk.engine.sinks import MemoryStore, PartFile
from asyncsdk.engine.sources import FileSource, OpenSource, fitting_size, open_file, open_source
from asyncsdk.engine.transfers import Download, Outcome, StreamSink, Upload
from asyncsdk.engine.uploads import check_announced_size, check_expected
from asyncsdk.engine.work import Work
from asyncsdk.targets import FileOrigin, FileTarget
from asyncsdk.transport.base import Body, BytesBody, FileBody

__all__ = ["copy_in", "copy_out"]

_CHUNK_BYTES = 256 * 1024
_STEP_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_STREAM_PART_BYTES = 1024 * 1024


class _Copy:
    """Copies an open file into a temporary one, a step at a time. All methods block.

    Args:
        open_source: Opens what is read, in the first step.
        take: Takes each chunk with its offset.
        finish: Called in the last step with the checksum, after the source was found unchanged.
    """

    def __init__(
        self,
        open_source: Callable[[], FileSource],
        take: Callable[[bytes, int], None],
        finish: Callable[[Crc32c], None],
    ) -> None:
        self._open_source = open_source
        self._take = take
        self._finish = finish
        self._source: FileSource | None = None
        self.checksum = Crc32c()

    def step(self) -> bool:
        """Copy up to 16 MiB; False when all is done."""
        if self._source is None:
            self._source = self._open_source()
        source = self._source
        size = source.size_bytes or 0
        part_end = min(self.checksum.size_bytes + _STEP_BYTES, size)
        while self.checksum.size_bytes < part_end:
            self._copy_chunk(source, part_end)
        if part_end < size:
            return True
        source.check_unchanged_now()
        self._finish(self.checksum)
        return False

    def _copy_chunk(self, source: FileSource, part_end: int) -> None:
        offset = self.checksum.size_bytes
        data = source.read_at(min(_CHUNK_BYTES, part_end - offset), offset)
        self._take(data, offset)
        self.checksum.update(data)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    async def run(self, work: Work) -> None:
        """Do all steps in threads, counting what moved."""
        work.attempts = 1
        async with work.resources.slots.hold("small"):
            more = True
            while more:
                before = self.checksum.size_bytes
                more = await work.resources.threads.run(self.step)
                work.moved(self.checksum.size_bytes - before)


# --- up ------------------------------------------------------------------------------------------------------


async def copy_in(work: Work) -> Outcome:
    """Copy the source of an upload to ``folder/name.<crc32c>``; the file appears whole or not at all."""
    upload = work.transfer
    assert isinstance(upload, Upload)
    target = upload.target
    assert isinstance(target, FileTarget)
    file = PartFile(target.folder / target.name)

    def finish(checksum: Crc32c) -> None:
        check_announced_size(upload, checksum.size_bytes)
        check_expected(upload, checksum.value)
        file.open()  # an empty source has written nothing
        file.publish(target.path(checksum.hex()))

    try:
        if isinstance(upload.source, (str, Path)):
            checksum = await _copy_path_in(work, upload.source, file, finish)
        else:
            checksum = await _copy_open_in(work, file, finish)
    finally:
        file.discard()
    return work.done(checksum.size_bytes, checksum.value)


async def _copy_path_in(work: Work, path: Path | str, file: PartFile, finish: Callable[[Crc32c], None]) -> Crc32c:
    upload = work.transfer
    assert isinstance(upload, Upload)
    checks = work.resources.config.checks_source

    def open_checked() -> FileSource:
        source = open_file(path, str(path), check=checks)
        try:
            source.cut_at(fitting_size(upload, source.size_bytes or 0, accepts=not checks))
            file.open()
        except BaseException:  # closed whatever ended it, then raised again
            source.close()
            raise
        return source

    copy = _Copy(open_checked, file.write_at, finish)
    try:
        await copy.run(work)
    finally:
        copy.close()
    return copy.checksum


async def _copy_open_in(work: Work, file: PartFile, finish: Callable[[Crc32c], None]) -> Crc32c:
    source = await open_source(work)
    try:
        if isinstance(source, FileSource):
            opened = source

            def open_both() -> FileSource:
                file.open()
                return opened

            copy = _Copy(open_both, file.write_at, finish)
            await copy.run(work)
            return copy.checksum
        return await _copy_parts_in(work, source, file, finish)
    finally:
        await source.aclose()


async def _copy_parts_in(work: Work, source: OpenSource, file: PartFile, finish: Callable[[Crc32c], None]) -> Crc32c:
    checksum = Crc32c()

    def write(data: bytes | memoryview) -> None:
        file.open()
        file.write_at(data, checksum.size_bytes)
        checksum.update(bytes(data))

    def write_all(body: Body) -> None:
        if isinstance(body, BytesBody):
            write(body.data)
            return
        assert isinstance(body, FileBody)
        for start in range(0, body.size_bytes, _PIECE_BYTES):
            write(body.read(start, _PIECE_BYTES))

    work.attempts = 1
    while (part := await source.next_part(_STREAM_PART_BYTES)) is not None:
        try:
            await work.resources.threads.run(write_all, part.body())
            work.moved(part.size_bytes)
        finally:
            part.release()
    await work.resources.threads.run(finish, checksum)
    return checksum


# --- down ----------------------------------------------------------------------------------------------------


async def copy_out(work: Work) -> Outcome:
    """Copy the file of a download to its sink, verified when its checksum is known."""
    download = work.transfer
    assert isinstance(download, Download)
    origin = download.origin
    assert isinstance(origin, FileOrigin)
    data: bytes | None = None
    if isinstance(download.sink, (str, Path)):
        checksum = await _copy_to_file(work, origin, download.sink)
    elif download.sink is None:
        checksum, data = await _read_all(work, origin)
    else:
        checksum = await _read_in_order(work, origin, download.sink)
    verified = origin.crc32c is not None
    return work.done(checksum.size_bytes, checksum.value, etag=origin.etag, verified=verified, data=data)


def _open_origin(work: Work, origin: FileOrigin) -> FileSource:
    source = open_file(origin.path, str(origin.path))
    if origin.size_bytes is not None and source.size_bytes != origin.size_bytes:
        source.close()
        raise object_changed(work, f"it has {source.size_bytes} bytes, {origin.size_bytes} were announced")
    return source


async def _copy_to_file(work: Work, origin: FileOrigin, path: Path | str) -> Crc32c:
    file = PartFile(path)

    def open_both() -> FileSource:
        file.check()
        source = _open_origin(work, origin)
        try:
            file.open()
        except BaseException:  # closed whatever ended it, then raised again
            source.close()
            raise
        return source

    def finish(checksum: Crc32c) -> None:
        check_crc32c(work, checksum.value, None)
        file.publish()

    copy = _Copy(open_both, file.write_at, finish)
    try:
        await copy.run(work)
    finally:
        copy.close()
        file.discard()
    return copy.checksum


async def _read_all(work: Work, origin: FileOrigin) -> tuple[Crc32c, bytes]:
    source = await work.resources.threads.run(_open_origin, work, origin, undo=FileSource.close)
    try:
        with await work.resources.budget.take(max(1, source.size_bytes or 0)):
            store = await work.resources.threads.run(MemoryStore, source.size_bytes or 0)
            copy = _Copy(
                lambda: source,
                store.write_at,
                lambda checksum: check_crc32c(work, checksum.value, None),
            )
            await copy.run(work)
            return copy.checksum, store.take()
    finally:
        source.close()


async def _read_in_order(work: Work, origin: FileOrigin, stream: StreamSink) -> Crc32c:
    source = await work.resources.threads.run(_open_origin, work, origin, undo=FileSource.close)
    checksum = Crc32c()
    size, part_size = source.size_bytes or 0, work.resources.config.part_size
    work.attempts = 1

    def read() -> bytes:
        data = source.read_at(min(part_size, size - checksum.size_bytes), checksum.size_bytes)
        checksum.update(data)
        return data

    try:
        while checksum.size_bytes < size:
            with await work.resources.budget.take(min(part_size, size)):
                data = await work.resources.threads.run(read)
                work.moved(len(data))
                await give(stream, data, work.transfer.name)
        source.check_unchanged_now()
        check_crc32c(work, checksum.value, None)
    finally:
        source.close()
    return checksum
