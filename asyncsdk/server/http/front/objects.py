"""What PUT, GET and HEAD of an object's bytes ask for by signed URL, and what is answered.

Everything a request may do stands in its URL, under the signature: no token and no row of the database is looked at.
Nothing here knows of sockets. Functions that touch files block, for as long as a small file takes.

Source: RFC 9110 (GET, ranges, preconditions); Amazon S3 API reference (PutObject, UploadPart, GetObject).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from asyncsdk.checksums import crc32c_base64, crc32c_from_base64, crc32c_hex
from asyncsdk.errors import BadRequest, NotFound, PermissionDenied
from asyncsdk.server.http.conditions import check_preconditions, parse_range
from asyncsdk.server.http.front.heads import RequestHead
from asyncsdk.server.http.replies import Reply
from asyncsdk.server.objects.arrivals import Arrival, Expected
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.multipart import MultipartUpload
from asyncsdk.server.objects.parts import Receipt, UploadId
from asyncsdk.server.objects.quick import QuickStaging
from asyncsdk.server.objects.signing import OBJECTS_PATH, Grant, Signer, object_etag

__all__ = ["SMALL_BYTES", "Found", "ObjectBytes", "Put", "Taker", "identity_headers"]

SMALL_BYTES = 64 * 1024
"""A body up to this size is held in memory whole and moved at once."""

MAX_BODY_BYTES = 5 * 1024**3
"""Of one request, as S3."""

_PREFIX = OBJECTS_PATH.encode()
_FULL = b"FULL_OBJECT"
_READ = os.O_RDONLY | os.O_CLOEXEC
_OBJECT_HEADERS = (
    (b"content-type", b"application/octet-stream"),
    (b"content-disposition", b"attachment"),
    (b"x-content-type-options", b"nosniff"),
    (b"accept-ranges", b"bytes"),
    (b"cache-control", b"private, no-transform"),
)


class Taker(Protocol):
    """Takes the bytes of one request, in one thread at a time: `Arrival` or `PartArrival`."""

    def write(self, chunks: Sequence[bytes]) -> None:
        """Take the next bytes."""

    def finish(self) -> object:
        """Say that these were all; raises when they are not those expected."""

    def discard(self) -> None:
        """Close what is open, and leave nothing behind unless it was finished."""


@dataclass(slots=True)
class Put:
    """A PUT that may be taken.

    Attributes:
        object_id: Where to.
        size_bytes: Of the body, as declared; at most 5 GiB.
        stage: Stages a whole body that is in memory and returns the reply; None when it must go through `begin`.
        begin: Opens what takes the body piece by piece, and what makes the reply once that is finished. Blocking.
    """

    object_id: str
    size_bytes: int
    stage: Callable[[bytes], Reply] | None
    begin: Callable[[], tuple[Taker, Callable[[object], Reply]]]


@dataclass(slots=True)
class Found:
    """What is answered to a GET or HEAD. With a *descriptor* (open) the body is bytes ``[start, stop)`` of it."""

    reply: Reply
    start: int = 0
    stop: int = 0
    descriptor: int = -1


class ObjectBytes:
    """Answers for the bytes of objects; safe to share between threads.

    Args:
        objects: The store.
        signer: Made the URLs.
    """

    def __init__(self, objects: LocalObjects, signer: Signer) -> None:
        self._objects = objects
        self._signer = signer
        self._quick = QuickStaging(objects)

    def is_for(self, head: RequestHead) -> bool:
        """Whether a request is about the bytes of an object or a part, not about an upload or anything else."""
        if not head.path.startswith(_PREFIX):
            return False
        return head.method == "PUT" or (head.method in {"GET", "HEAD"} and b"uploadId=" not in head.query)

    # --- in ------------------------------------------------------------------------------------------------------

    def put(self, head: RequestHead) -> Put:
        """Return what a PUT may do; touches no file.

        Raises:
            PermissionDenied: Its URL is not signed for it, or has expired.
            BadRequest: It has no declared length (411), is too large (413), or is not what the URL is for.
        """
        grant = self._check(head)
        expected = _expected(head, grant)
        parameters = grant.parameters
        if "uploadId" in parameters:
            return self._put_part(grant, expected)
        if (signed := parameters.get("size")) is not None and int(signed) != expected.size_bytes:
            raise BadRequest(
                f"this URL is for {signed} bytes, Content-Length says {expected.size_bytes}", code="incomplete"
            )
        object_id = grant.object_id

        def received(crc32c: object) -> Reply:
            assert isinstance(crc32c, str)
            return Reply(200, identity_headers(object_etag(object_id, crc32c), crc32c))

        def stage(body: bytes) -> Reply:
            return received(self._quick.stage(object_id, body, expected))

        def begin() -> tuple[Taker, Callable[[object], Reply]]:
            return Arrival(self._objects, object_id, expected), received

        return Put(object_id, expected.size_bytes, stage, begin)

    def _put_part(self, grant: Grant, expected: Expected) -> Put:
        upload = MultipartUpload(self._objects, grant.object_id, UploadId.parse(grant.parameters["uploadId"]))
        part = int(grant.parameters["partNumber"])
        upload.upload_id.check_part(part, expected.size_bytes)

        def received(receipt: object) -> Reply:
            assert isinstance(receipt, Receipt)
            return Reply(200, identity_headers(receipt.etag, receipt.crc32c))

        def begin() -> tuple[Taker, Callable[[object], Reply]]:
            return upload.begin(part, expected), received

        return Put(grant.object_id, expected.size_bytes, None, begin)

    # --- out -----------------------------------------------------------------------------------------------------

    def find(self, head: RequestHead) -> Found:
        """Return what is answered to a GET or HEAD; small bodies are read. The caller closes the descriptor.

        Raises:
            PermissionDenied: The URL is not signed for it, or has expired.
            NotFound: There is no such object.
            Conflict: ``If-Match`` names another object (412).
            RangeNotSatisfiable: The range lies outside the object.
        """
        grant = self._check(head)
        crc32c = grant.parameters.get("crc32c")
        if crc32c is None:  # signed here, and yet no such operation: a URL of another release
            raise PermissionDenied("this URL is for an operation that this server does not have")
        etag = object_etag(grant.object_id, crc32c)
        descriptor = self._open(grant.object_id, crc32c)
        found = Found(Reply(200, [*identity_headers(etag, crc32c), *_OBJECT_HEADERS]))
        try:
            self._fill(found, head, etag, descriptor)
        finally:
            if found.descriptor < 0:
                os.close(descriptor)
        return found

    def _open(self, object_id: str, crc32c: str) -> int:
        try:
            return os.open(self._objects.staged_name(object_id, crc32c), _READ)
        except FileNotFoundError:
            pass
        try:
            return os.open(self._objects.path(object_id, crc32c), _READ)  # that of an earlier release
        except FileNotFoundError:
            raise NotFound("there is no such object; it was deleted or never committed") from None

    def _fill(self, found: Found, head: RequestHead, etag: str, descriptor: int) -> None:
        reply = found.reply
        size_bytes = os.fstat(descriptor).st_size
        if not check_preconditions(
            etag, if_match=_text(head, b"if-match"), if_none_match=_text(head, b"if-none-match")
        ):
            reply.status = 304
            return
        found.stop = size_bytes
        is_head = head.method == "HEAD"
        asked = None if is_head else _text(head, b"range")
        if asked is not None and _text(head, b"if-range") in {None, etag}:
            span = parse_range(asked, size_bytes)
            if span is not None:
                found.start, found.stop = span
                reply.status = 206
                content_range = f"bytes {found.start}-{found.stop - 1}/{size_bytes}"
                reply.headers.append((b"content-range", content_range.encode()))
        length = found.stop - found.start
        reply.size_bytes = length
        if is_head:
            return
        if length > SMALL_BYTES:
            found.descriptor = descriptor
            return
        reply.body = os.pread(descriptor, length, found.start)
        if len(reply.body) != length:
            raise OSError("the file of an object is shorter than it was")

    def _check(self, head: RequestHead) -> Grant:
        return self._signer.check_url(head.method, head.path.decode("latin-1"), head.query.decode("latin-1"))


def identity_headers(etag: str, crc32c: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that say which bytes these are: of the whole object, or of one part that arrived."""
    return [
        (b"etag", etag.encode()),
        (b"x-amz-checksum-crc32c", crc32c_base64(int(crc32c, 16)).encode()),
        (b"x-amz-checksum-type", _FULL),
    ]


def _expected(head: RequestHead, grant: Grant) -> Expected:
    """Return what is known of the body from the URL and the headers.

    Raises:
        BadRequest: It has no declared length (411), is too large (413), or a checksum header makes no sense.
    """
    size_bytes = head.content_length
    if size_bytes is None:
        raise BadRequest("send Content-Length, and the body as it is", status=411, code="length_required")
    if size_bytes > MAX_BODY_BYTES:
        raise BadRequest(f"one request takes at most {MAX_BODY_BYTES} bytes", status=413, code="too_large")
    if b"content-encoding" in head.first:
        raise BadRequest("bytes are stored as they come; send them without Content-Encoding")
    signed = grant.parameters.get("crc32c")
    crc32c = () if signed is None else (signed,)
    md5 = None
    try:
        if (text := _text(head, b"x-amz-checksum-crc32c")) is not None:
            crc32c = (*crc32c, crc32c_hex(crc32c_from_base64(text)))
        if (text := _text(head, b"content-md5")) is not None:
            md5 = base64.b64decode(text, validate=True)
            if len(md5) != 16:
                raise ValueError("an MD5 has 16 bytes")
    except (ValueError, binascii.Error) as error:
        raise BadRequest(f"a checksum header is not Base64 of a checksum: {error}", code="invalid_digest") from error
    return Expected(size_bytes, crc32c, md5)


def _text(head: RequestHead, name: bytes) -> str | None:
    value = head.first.get(name)
    return None if value is None else value.decode("latin-1")
