"""The object endpoint: bytes in and out by signed URL, in the shape of S3's.

======== =========================== ======================================================
PUT      ``/objects/ID?size...``     a whole object
PUT      ``...partNumber&uploadId``  one part
GET      ``...uploadId``             the parts that arrived
POST     ``...uploadId``             complete
DELETE   ``...uploadId``             abort
GET HEAD ``/objects/ID?crc32c``      a published object, or one range of it
======== =========================== ======================================================

Everything a request may do stands in its URL, under the signature: no token and no row of the database is looked at.
The loop only moves buffers; checksums and files are the business of a pool of threads. Errors have the platform's JSON
shape.

Source: RFC 9110 (GET, ranges, preconditions); Amazon S3 API reference (PutObject, UploadPart and the others above).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from asyncsdk.checksums import crc32c_base64, crc32c_from_base64, crc32c_hex
from asyncsdk.errors import BadRequest, NotFound, PermissionDenied
from asyncsdk.server.http.bodies import chunks_of, content_length, read_body
from asyncsdk.server.http.conditions import check_preconditions, parse_range
from asyncsdk.server.http.multipart_xml import complete_result, list_parts_result, parse_complete
from asyncsdk.server.http.replies import MethodNotAllowed, Receive, Scope, Send, header, send_reply
from asyncsdk.server.objects.arrivals import Arrival, Expected
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.multipart import MultipartUpload
from asyncsdk.server.objects.parts import UploadId
from asyncsdk.server.objects.signing import Grant, Signer, object_etag

__all__ = ["ObjectEndpoint"]

SMALL_BYTES = 64 * 1024
"""A body up to this size is taken by one call in one thread."""

BATCH_BYTES = 1024 * 1024
"""Bytes of a body that go to a thread at once; two such batches are in memory per request."""

READ_BYTES = 512 * 1024
"""Bytes of an object that are read at once."""

MAX_BODY_BYTES = 5 * 1024**3
"""Of one request, as S3."""

MAX_LIST_BYTES = 4 * 1024 * 1024
"""Of the XML that completes an upload: 10,000 parts fit several times."""

_METHODS = ("DELETE", "GET", "HEAD", "POST", "PUT")
_XML = (b"content-type", b"application/xml")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Taker(Protocol[T_co]):
    """Takes the bytes of one request: an `Arrival` or a `PartArrival`."""

    def write(self, chunks: Sequence[bytes]) -> None: ...

    def finish(self) -> T_co: ...

    def discard(self) -> None: ...


@dataclass(slots=True)
class _Found:
    """What is answered to a GET. ``descriptor`` is open when the bytes are still to be read."""

    status: int
    headers: list[tuple[bytes, bytes]]
    start: int = 0
    stop: int = 0
    body: bytes = b""
    descriptor: int = -1

    @property
    def length(self) -> int:
        return self.stop - self.start


class ObjectEndpoint:
    """ASGI application for everything below ``/objects/``.

    Args:
        objects: The store.
        signer: Made the URLs.
        threads: Threads that read, write and checksum.
    """

    def __init__(self, objects: LocalObjects, signer: Signer, *, threads: int | None = None) -> None:
        self._objects = objects
        self._signer = signer
        count = threads or min(32, 4 * (os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="asyncsdk-objects")

    def close(self) -> None:
        """Wait for the threads and end them."""
        self._pool.shutdown(wait=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method not in _METHODS:
            raise MethodNotAllowed(method, _METHODS)
        query = scope["query_string"].decode("latin-1")
        grant = self._signer.check_url(method, scope["raw_path"].decode("latin-1"), query)
        in_parts = "uploadId" in grant.parameters
        match method:
            case "PUT" if in_parts:
                await self._put_part(scope, receive, send, grant)
            case "PUT":
                await self._put(scope, receive, send, grant)
            case "POST" if in_parts:
                await self._complete(scope, receive, send, grant)
            case "DELETE" if in_parts:
                await self._run(self._upload(grant).abort)
                await send_reply(send, 204)
            case "GET" if in_parts:
                upload = self._upload(grant)
                receipts = await self._run(upload.receipts)
                body = list_parts_result(grant.object_id, str(upload.upload_id), receipts)
                await send_reply(send, 200, body, [_XML])
            case "GET" | "HEAD" if "crc32c" in grant.parameters:
                await self._get(scope, receive, send, grant)
            case _:  # signed here, and yet no such operation: a URL of another release
                raise PermissionDenied("this URL is for an operation that this server does not have")

    # --- in ------------------------------------------------------------------------------------------------------

    async def _put(self, scope: Scope, receive: Receive, send: Send, grant: Grant) -> None:
        expected = _expected(scope, grant)
        if (signed := grant.parameters.get("size")) is not None and int(signed) != expected.size_bytes:
            raise BadRequest(
                f"this URL is for {signed} bytes, Content-Length says {expected.size_bytes}", code="incomplete"
            )
        crc32c = await self._take(
            lambda: Arrival(self._objects, grant.object_id, expected), receive, expected.size_bytes
        )
        await send_reply(send, 200, headers=_received(object_etag(grant.object_id, crc32c), crc32c))

    async def _put_part(self, scope: Scope, receive: Receive, send: Send, grant: Grant) -> None:
        expected = _expected(scope, grant)
        upload = self._upload(grant)
        part = int(grant.parameters["partNumber"])
        upload.upload_id.check_part(part, expected.size_bytes)
        receipt = await self._take(lambda: upload.begin(part, expected), receive, expected.size_bytes)
        await send_reply(send, 200, headers=_received(receipt.etag, receipt.crc32c))

    async def _take(self, begin: Callable[[], _Taker[T]], receive: Receive, size_bytes: int) -> T:
        """Return what the taker says of the body, once it has all of it; leaves nothing behind otherwise."""
        if size_bytes <= SMALL_BYTES:
            chunks = [data async for data in chunks_of(receive)]
            return await self._run(lambda: _take_at_once(begin, chunks))
        begun = self._pool.submit(begin)
        pending: Future[Any] = begun
        try:
            taker = await asyncio.wrap_future(begun)
            batch: list[bytes] = []
            batch_size = 0
            async for data in chunks_of(receive):
                batch.append(data)
                batch_size += len(data)
                if batch_size >= BATCH_BYTES:
                    # The next batch is received while this one is checksummed and written.
                    await asyncio.wrap_future(pending)
                    pending = self._pool.submit(taker.write, batch)
                    batch, batch_size = [], 0
            await asyncio.wrap_future(pending)
            await self._run(lambda: taker.write(batch))
            return await self._run(taker.finish)
        finally:
            # A thread may still be at work for a request that is over: only after it may files be closed.
            await asyncio.shield(self._run(lambda: _discard_after(begun, pending)))

    async def _complete(self, scope: Scope, receive: Receive, send: Send, grant: Grant) -> None:
        body = await read_body(scope, receive, limit=MAX_LIST_BYTES)
        upload = self._upload(grant)
        crc32c = grant.parameters.get("crc32c")
        whole = await self._run(lambda: upload.complete(parse_complete(body), crc32c=crc32c))
        etag = object_etag(grant.object_id, whole.crc32c)
        result = complete_result(grant.object_id, scope["path"], etag, whole.crc32c)
        await send_reply(send, 200, result, [_XML, *_received(etag, whole.crc32c)])

    def _upload(self, grant: Grant) -> MultipartUpload:
        return MultipartUpload(self._objects, grant.object_id, UploadId.parse(grant.parameters["uploadId"]))

    # --- out -----------------------------------------------------------------------------------------------------

    async def _get(self, scope: Scope, receive: Receive, send: Send, grant: Grant) -> None:
        found = await self._run(lambda: self._find(scope, grant))
        if found.descriptor < 0:
            await send_reply(send, found.status, found.body, found.headers, size_bytes=found.length)
            return
        gone = asyncio.ensure_future(_gone(receive))
        pending = self._read(found)
        try:
            headers = [*found.headers, (b"content-length", b"%d" % found.length)]
            await send({"type": "http.response.start", "status": found.status, "headers": headers})
            while found.start < found.stop and not gone.done():
                data = await asyncio.wrap_future(pending)
                if not data:
                    raise OSError(f"object {grant.object_id} is shorter than it was")
                found.start += len(data)
                is_last = found.start >= found.stop
                if not is_last:
                    pending = self._read(found)  # ahead, while the client takes what is there
                await send({"type": "http.response.body", "body": data, "more_body": not is_last})
        finally:
            gone.cancel()
            await asyncio.shield(self._run(lambda: _close_after(found.descriptor, pending)))

    def _read(self, found: _Found) -> Future[bytes]:
        return self._pool.submit(os.pread, found.descriptor, min(READ_BYTES, found.stop - found.start), found.start)

    def _find(self, scope: Scope, grant: Grant) -> _Found:
        """Return what is to be answered; small bodies are read at once. Blocking."""
        crc32c = grant.parameters["crc32c"]
        etag = object_etag(grant.object_id, crc32c)
        try:
            descriptor = os.open(self._objects.path(grant.object_id), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound("there is no such object; it was deleted or never committed") from None
        found = _Found(200, [*_received(etag, crc32c), *_OBJECT_HEADERS])
        try:
            size_bytes = os.fstat(descriptor).st_size
            if not check_preconditions(
                etag, if_match=_text(scope, b"if-match"), if_none_match=_text(scope, b"if-none-match")
            ):
                found.status = 304
                return found
            found.stop = size_bytes
            asked = _text(scope, b"range") if scope["method"] == "GET" else None
            if asked is not None and _text(scope, b"if-range") in {None, etag}:
                span = parse_range(asked, size_bytes)
                if span is not None:
                    found.start, found.stop = span
                    found.status = 206
                    content_range = f"bytes {found.start}-{found.stop - 1}/{size_bytes}"
                    found.headers.append((b"content-range", content_range.encode()))
            if scope["method"] == "HEAD":
                return found
            if found.length <= READ_BYTES:
                found.body = os.pread(descriptor, found.length, found.start)
            else:
                found.descriptor = descriptor
            return found
        finally:
            if found.descriptor < 0:
                os.close(descriptor)

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._pool.submit(function))


_OBJECT_HEADERS = (
    (b"content-type", b"application/octet-stream"),
    (b"content-disposition", b"attachment"),
    (b"x-content-type-options", b"nosniff"),
    (b"accept-ranges", b"bytes"),
    (b"cache-control", b"private, no-transform"),
)


def _received(etag: str, crc32c: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that say which bytes these are: of the whole object, or of one part that arrived."""
    return [
        (b"etag", etag.encode()),
        (b"x-amz-checksum-crc32c", crc32c_base64(int(crc32c, 16)).encode()),
        (b"x-amz-checksum-type", b"FULL_OBJECT"),
    ]


def _expected(scope: Scope, grant: Grant) -> Expected:
    """Return what is known of the body from the URL and the headers.

    Raises:
        BadRequest: It has no declared length (411), is too large (413), or a checksum header makes no sense.
    """
    size_bytes = content_length(scope)
    if size_bytes is None:
        raise BadRequest("send Content-Length, and the body as it is", status=411, code="length_required")
    if size_bytes > MAX_BODY_BYTES:
        raise BadRequest(f"one request takes at most {MAX_BODY_BYTES} bytes", status=413, code="too_large")
    if header(scope, b"content-encoding") is not None:
        raise BadRequest("bytes are stored as they come; send them without Content-Encoding")
    crc32c = [grant.parameters["crc32c"]] if "crc32c" in grant.parameters else []
    md5 = None
    try:
        if (text := _text(scope, b"x-amz-checksum-crc32c")) is not None:
            crc32c.append(crc32c_hex(crc32c_from_base64(text)))
        if (text := _text(scope, b"content-md5")) is not None:
            md5 = base64.b64decode(text, validate=True)
            if len(md5) != 16:
                raise ValueError("an MD5 has 16 bytes")
    except (ValueError, binascii.Error) as error:
        raise BadRequest(f"a checksum header is not Base64 of a checksum: {error}", code="invalid_digest") from error
    return Expected(size_bytes, tuple(crc32c), md5)


def _text(scope: Scope, name: bytes) -> str | None:
    value = header(scope, name)
    return None if value is None else value.decode("latin-1")


def _take_at_once(begin: Callable[[], _Taker[T]], chunks: Sequence[bytes]) -> T:
    taker = begin()
    try:
        taker.write(chunks)
        return taker.finish()
    finally:
        taker.discard()


def _discard_after(begun: Future[_Taker[T]], pending: Future[Any]) -> None:
    """Close what was begun, once no thread uses it any more."""
    wait([begun, pending])
    if not begun.cancelled() and begun.exception() is None:
        begun.result().discard()


def _close_after(descriptor: int, pending: Future[Any]) -> None:
    wait([pending])
    os.close(descriptor)


async def _gone(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
