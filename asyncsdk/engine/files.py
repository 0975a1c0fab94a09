"""Objects that are files of this machine: copied and checksummed in a thread, then renamed into place.

A small file costs one turn of a thread from opening to renaming. How large ones are copied, and gone on with after a
kill, is in `copying`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asyncsdk.checksums import Crc32c
from asyncsdk.engine.copying import Copy, KeptCopy
from asyncsdk.engine.download_digests import check_crc32c
from asyncsdk.engine.downloads import give, object_changed
from asyncsdk.engine.received import COPIED_BYTES, Unfinished
from asyncsdk.engine.sinks import MemoryStore, PartFile
from asyncsdk.engine.sources import FileSource, MemorySource, OpenSource, fitting_size, open_file, open_source
from asyncsdk.engine.transfers import Download, Outcome, StreamSink, Upload
from asyncsdk.engine.uploads import check_announced_size, check_expected
from asyncsdk.engine.work import Work
from asyncsdk.targets import FileOrigin, FileTarget
from asyncsdk.transport.base import Body, BytesBody, FileBody

__all__ = ["copy_in", "copy_out"]

_PIECE_BYTES = 1024 * 1024
_STREAM_PART_BYTES = 1024 * 1024


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
        except BaseException:  # closed whatever ended it, then raised again
            source.close()
            raise
        return source

    def describe(source: FileSource) -> Unfinished:
        version = "-".join(map(str, source.identity))
        return Unfinished("", source.size_bytes or 0, COPIED_BYTES, version, upload.crc32c)

    copy = Copy(open_checked, file, finish)
    if upload.received is not None:
        copy = KeptCopy(open_checked, file, finish, upload.received, describe)
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
            copy = Copy(lambda: opened, file, finish)
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

    def end() -> None:
        if isinstance(source, MemorySource):
            source.check_unchanged_now()
        finish(checksum)

    work.attempts = 1
    while (part := await source.next_part(_STREAM_PART_BYTES)) is not None:
        try:
            await work.resources.threads.run(write_all, part.body())
            work.moved(part.size_bytes)
        finally:
            part.release()
    await work.resources.threads.run(end)
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
    assert isinstance(work.transfer, Download)
    received = work.transfer.received
    file = PartFile(path)

    def open_checked() -> FileSource:
        file.check()
        return _open_origin(work, origin)

    def describe(source: FileSource) -> Unfinished:
        return Unfinished("", source.size_bytes or 0, COPIED_BYTES, origin.etag, origin.crc32c)

    def finish(checksum: Crc32c) -> None:
        check_crc32c(work, checksum.value, None)
        file.publish()

    copy = Copy(open_checked, file, finish)
    if received is not None:
        copy = KeptCopy(open_checked, file, finish, received, describe)
    try:
        await copy.run(work)
    finally:
        copy.close()
        file.discard()
    if received is not None:
        received.end()
    return copy.checksum


async def _read_all(work: Work, origin: FileOrigin) -> tuple[Crc32c, bytes]:
    source = await work.resources.threads.run(_open_origin, work, origin, undo=FileSource.close)
    try:
        with await work.resources.budget.take(max(1, source.size_bytes or 0)):
            store = await work.resources.threads.run(MemoryStore, source.size_bytes or 0)
            copy = Copy(lambda: source, store, lambda checksum: check_crc32c(work, checksum.value, None))
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
