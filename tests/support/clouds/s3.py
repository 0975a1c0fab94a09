"""S3's multipart upload with what `HttpServer` leaves out: listing, checksums that are checked, checksums of the whole.

Source: Amazon S3 API reference, UploadPart, ListParts, CompleteMultipartUpload.
"""

from __future__ import annotations

import base64
import hashlib
import time

from asyncsdk.checksums import crc32c, crc32c_base64
from tests.support.http_server import Connection, HttpServer, Received

__all__ = ["S3Server"]


class S3Server(HttpServer):
    """An S3 that keeps crc32c of parts if they are told.

    Attributes:
        kind: ``FULL_OBJECT`` or ``COMPOSITE``: what completing states of the whole; empty: nothing.
        page_size: Parts that one listing names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kind = "FULL_OBJECT"
        self.page_size = 1000
        self.sums: dict[tuple[str, int], str] = {}

    async def answer(self, connection: Connection, request: Received) -> None:
        query = request.query
        if int(query.get("Expires", "9999999999")) <= (self.clock or time.time()):
            body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            await connection.reply(403, body)
            return
        told = request.header("x-amz-checksum-crc32c")
        told_md5 = request.header("content-md5")
        if told is not None and told != crc32c_base64(crc32c(request.body)):
            await connection.reply(
                400, b"<Error><Code>BadDigest</Code><Message>It arrived otherwise.</Message></Error>"
            )
        elif told_md5 is not None and told_md5 != base64.b64encode(hashlib.md5(request.body).digest()).decode():
            await connection.reply(400, b"<Error><Code>BadDigest</Code></Error>")
        elif request.method == "PUT" and request.header("if-none-match") == "*" and request.path in self.objects:
            await connection.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        elif request.method == "PUT" and "uploadId" not in query:
            self.objects[request.path] = request.body
            sums = {} if told is None else {"x-amz-checksum-crc32c": told}
            await connection.reply(200, headers={"ETag": self.etag(request.path), "x-amz-request-id": "r-1", **sums})
        elif request.method == "GET" and "uploadId" in query:
            await self._list(connection, query["uploadId"], int(query.get("part-number-marker", "0")))
        else:
            if told is not None:
                self.sums[query["uploadId"], int(query["partNumber"])] = told
            self.with_checksums = told is not None
            await super().answer(connection, request)

    async def _list(self, connection: Connection, upload_id: str, after: int) -> None:
        upload = self.uploads.get(upload_id)
        if upload is None or not upload.is_open:
            await connection.reply(404, b"<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>")
            return
        parts = ""
        rest = sorted(number for number in upload.parts if number > after)
        page = rest[: self.page_size]
        for number in page:
            data = upload.parts[number]
            told = self.sums.get((upload_id, number))
            shown = "" if told is None else f"<ChecksumCRC32C>{told}</ChecksumCRC32C>"
            etag = f"&quot;{hashlib.md5(data).hexdigest()}&quot;"
            parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><Size>{len(data)}</Size>{shown}</Part>"
        reached = f"<NextPartNumberMarker>{page[-1] if page else 0}</NextPartNumberMarker>"
        cut = f"<IsTruncated>{str(len(rest) > len(page)).lower()}</IsTruncated>"
        await connection.reply(200, f"<ListPartsResult>{reached}{cut}{parts}</ListPartsResult>".encode())

    async def _complete(self, connection: Connection, request: Received, upload: object) -> None:
        path, query = request.path, request.query
        told = [self.sums.get((query["uploadId"], number)) for number in sorted(self.uploads[query["uploadId"]].parts)]
        parts = [data for _, data in sorted(self.uploads[query["uploadId"]].parts.items())]
        digests = b"".join(hashlib.md5(data).digest() for data in parts)
        self.etags[path] = f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'
        is_summed = bool(self.kind) and all(told)
        if not is_summed:
            await super()._complete(connection, request, upload)  # type: ignore[arg-type]
            return
        answered = connection.reply
        connection.reply = _catching(answered, self, path, told)  # type: ignore[method-assign]
        try:
            await super()._complete(connection, request, upload)  # type: ignore[arg-type]
        finally:
            connection.reply = answered  # type: ignore[method-assign]


def _catching(reply: object, server: S3Server, path: str, told: list[str | None]) -> object:
    async def with_checksum(status: int, body: bytes = b"", *more: object, **named: object) -> None:
        if status == 200:
            if server.kind == "COMPOSITE":
                value = crc32c_base64(crc32c(b"".join(base64.b64decode(text or "") for text in told))) + f"-{len(told)}"
            else:
                value = crc32c_base64(crc32c(server.objects[path]))
            said = f"<ChecksumCRC32C>{value}</ChecksumCRC32C><ChecksumType>{server.kind}</ChecksumType></Comp"
            body = body.replace(b"</Comp", said.encode())
        await reply(status, body, *more, **named)  # type: ignore[operator]

    return with_checksum
