"""The object endpoint: bytes in and out by signed URL, in the shape of S3's.

======== =========================== ======================================================
PUT      ``/objects/ID?size...``     a whole object
PUT      ``...partNumber&uploadId``  one part
GET HEAD ``/objects/ID?crc32c``      a published object, or one range of it
GET      ``...uploadId``             the parts that arrived
POST     ``...uploadId``             complete
DELETE   ``...uploadId``             abort
======== =========================== ======================================================

The first three move bytes: the front serves them itself, right on the sockets (`front.objects`). The last three, about
an upload as a whole, are here. Everything a request may do stands in its URL, under the signature: no token and no row
of the database is looked at. Errors have the platform's JSON shape.

Source: Amazon S3 API reference (ListParts, CompleteMultipartUpload, AbortMultipartUpload).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from asyncsdk.errors import PermissionDenied
from asyncsdk.server.http.bodies import read_body
from asyncsdk.server.http.front.objects import identity_headers
from asyncsdk.server.http.multipart_xml import complete_result, list_parts_result, parse_complete
from asyncsdk.server.http.replies import MethodNotAllowed, Receive, Scope, Send, send_reply
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.multipart import MultipartUpload
from asyncsdk.server.objects.parts import UploadId
from asyncsdk.server.objects.signing import Grant, Signer, object_etag

__all__ = ["UploadEndpoint"]

MAX_LIST_BYTES = 4 * 1024 * 1024
"""Of the XML that completes an upload: 10,000 parts fit several times."""

THREADS = 4
"""Completing makes bytes durable: most of its time is the disk's."""

_METHODS = ("DELETE", "GET", "HEAD", "POST", "PUT")
_XML = (b"content-type", b"application/xml")

T = TypeVar("T")


class UploadEndpoint:
    """ASGI application for uploads in parts, and for whatever else below ``/objects/`` moves no bytes.

    Args:
        objects: The store.
        signer: Made the URLs.
    """

    def __init__(self, objects: LocalObjects, signer: Signer) -> None:
        self._objects = objects
        self._signer = signer
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="asyncsdk-uploads")

    def close(self) -> None:
        """Wait for the threads and end them."""
        self._pool.shutdown(wait=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method not in _METHODS:
            raise MethodNotAllowed(method, _METHODS)
        query = scope["query_string"].decode("latin-1")
        grant = self._signer.check_url(method, scope["raw_path"].decode("latin-1"), query)
        if "uploadId" not in grant.parameters:
            raise _no_such_operation()
        upload = MultipartUpload(self._objects, grant.object_id, UploadId.parse(grant.parameters["uploadId"]))
        match method:
            case "POST":
                await self._complete(scope, receive, send, grant, upload)
            case "DELETE":
                await self._run(upload.abort)
                await send_reply(send, 204)
            case "GET":
                receipts = await self._run(upload.receipts)
                body = list_parts_result(grant.object_id, str(upload.upload_id), receipts)
                await send_reply(send, 200, body, [_XML])
            case _:
                raise _no_such_operation()

    async def _complete(
        self, scope: Scope, receive: Receive, send: Send, grant: Grant, upload: MultipartUpload
    ) -> None:
        body = await read_body(scope, receive, limit=MAX_LIST_BYTES)
        crc32c = grant.parameters.get("crc32c")
        whole = await self._run(lambda: upload.complete(parse_complete(body), crc32c=crc32c))
        etag = object_etag(grant.object_id, whole.crc32c)
        result = complete_result(grant.object_id, scope["path"], etag, whole.crc32c)
        await send_reply(send, 200, result, [_XML, *identity_headers(etag, whole.crc32c)])

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._pool.submit(function))


def _no_such_operation() -> PermissionDenied:
    """Signed here, and yet no such operation: a URL of another release."""
    return PermissionDenied("this URL is for an operation that this server does not have")
