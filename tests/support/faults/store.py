"""The objects of the fault server: real bytes, in memory or in a folder, in the manner of S3.

``PUT``, ``GET`` with single ranges, ``HEAD`` and ``DELETE`` of any path; multipart uploads (``POST ?uploads``, ``PUT
?partNumber&uploadId``, ``GET``, ``POST`` and ``DELETE ?uploadId``). URLs may carry any signature: nobody looks at it.
Digests that come with a request are compared, and every reply states the crc32c of what it is about.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, quote, unquote

from asyncsdk.checksums import crc32c, crc32c_base64
from tests.support.faults.exchange import Answer
from tests.support.wire.server import Seen

__all__ = ["ObjectStore"]

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class ObjectStore:
    """Answers requests; use it as a `Backend`.

    Args:
        folder: Keeps the objects, one file each; None: memory does. Parts are always in memory.
        states_digests: Whether replies state digests. ETags are MD5s all the same.
        digest: The header that states them, in the manner of its service.
        has_etags_of_chance: Whether each upload of a part has another ETag, as with SSE-KMS.

    Attributes:
        uploads: Multipart uploads that are neither completed nor aborted: their parts by number.
        writes: How many times each path was written: more than once is a duplicate.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        states_digests: bool = True,
        digest: Literal["x-amz-checksum-crc32c", "x-goog-hash", "content-md5"] = "x-amz-checksum-crc32c",
        has_etags_of_chance: bool = False,
    ) -> None:
        self._folder = folder
        self._memory: dict[str, bytes] = {}
        self.states_digests = states_digests
        self.digest = digest
        self._etags: dict[tuple[str, int], str] | None = {} if has_etags_of_chance else None
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.writes: dict[str, int] = {}

    # --- for tests ---------------------------------------------------------------------------------------------

    def __getitem__(self, path: str) -> bytes:
        if self._folder is None:
            return self._memory[path]
        try:
            return self._file(path).read_bytes()
        except FileNotFoundError:
            raise KeyError(path) from None

    def __setitem__(self, path: str, data: bytes) -> None:
        if self._folder is None:
            self._memory[path] = data
        else:
            self._file(path).write_bytes(data)

    def remove(self, path: str) -> None:
        """Forget an object, if it is there."""
        if self._folder is None:
            self._memory.pop(path, None)
        else:
            self._file(path).unlink(missing_ok=True)

    def __contains__(self, path: object) -> bool:
        return path in set(self)

    def __iter__(self) -> Iterator[str]:
        if self._folder is None:
            yield from list(self._memory)
        else:
            yield from sorted(unquote(file.name) for file in self._folder.iterdir())

    def _file(self, path: str) -> Path:
        assert self._folder is not None
        return self._folder / quote(path, safe="")

    # --- answers -----------------------------------------------------------------------------------------------

    async def __call__(self, seen: Seen) -> Answer:
        """Answer one request whose body was read."""
        path, _, query = seen.target.partition("?")
        words = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        if seen.body and (refusal := _check_digests(seen)) is not None:
            return refusal
        if "uploadId" in words:
            return self._multipart(seen, path, words)
        match seen.method:
            case "POST" if "uploads" in words:
                upload_id = secrets.token_hex(8)
                self.uploads[upload_id] = {}
                return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")
            case "PUT":
                self._write(path, seen.body)
                return Answer(200, headers=self._facts(seen.body))
            case "GET" | "HEAD":
                return self._get(seen, path)
            case "DELETE":
                self.remove(path)
                return Answer(204)
        return Answer(405)

    def _write(self, path: str, data: bytes) -> None:
        self[path] = data
        self.writes[path] = self.writes.get(path, 0) + 1

    def _facts(self, data: bytes) -> dict[str, str]:
        facts = {"etag": f'"{hashlib.md5(data).hexdigest()}"'}
        if not self.states_digests:
            return facts
        checksum, md5 = crc32c_base64(crc32c(data)), base64.b64encode(hashlib.md5(data).digest()).decode()
        if self.digest == "x-goog-hash":
            return facts | {"x-goog-hash": f"crc32c={checksum},md5={md5}"}
        if self.digest == "content-md5":
            return facts | {"content-md5": md5}
        return facts | {"x-amz-checksum-crc32c": checksum, "x-amz-checksum-type": "FULL_OBJECT"}

    def _get(self, seen: Seen, path: str) -> Answer:
        try:
            data = self[path]
        except KeyError:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        facts = self._facts(data)
        if seen.headers.get("if-match", facts["etag"]) != facts["etag"]:
            return _error(412, "PreconditionFailed", "It is another object now.")
        facts["accept-ranges"] = "bytes"
        match = _RANGE.fullmatch(seen.headers.get("range", ""))
        if match is None:
            if seen.method == "HEAD":
                return Answer(200, headers={**facts, "content-length": str(len(data))})
            return Answer(200, data, facts)
        start, stop = int(match[1]), min(int(match[2]) + 1 if match[2] else len(data), len(data))
        if start >= len(data):
            return Answer(416, headers={"content-range": f"bytes */{len(data)}"})
        return Answer(206, data[start:stop], {**facts, "content-range": f"bytes {start}-{stop - 1}/{len(data)}"})

    # --- multipart ---------------------------------------------------------------------------------------------

    def _multipart(self, seen: Seen, path: str, words: dict[str, str]) -> Answer:
        upload_id = words["uploadId"]
        parts = self.uploads.get(upload_id)
        if parts is None:
            return _error(404, "NoSuchUpload", "The specified upload does not exist.")
        match seen.method:
            case "PUT":
                number = int(words["partNumber"])
                parts[number] = seen.body
                if self._etags is not None:
                    self._etags[upload_id, number] = f'"{secrets.token_hex(16)}"'
                return Answer(200, headers=self._facts(seen.body) | {"etag": self._etag(upload_id, number, seen.body)})
            case "GET":
                listed = "".join(
                    f"<Part><PartNumber>{number}</PartNumber><ETag>{self._etag(upload_id, number, data)}</ETag>"
                    f"<Size>{len(data)}</Size><ChecksumCRC32C>{crc32c_base64(crc32c(data))}</ChecksumCRC32C></Part>"
                    for number, data in sorted(parts.items())
                )
                return _xml("ListPartsResult", f"<UploadId>{upload_id}</UploadId>{listed}")
            case "DELETE":
                del self.uploads[upload_id]
                return Answer(204)
            case "POST":
                return self._complete(seen, path, upload_id, parts)
        return Answer(405)

    def _etag(self, upload_id: str, number: int, data: bytes) -> str:
        return _etag(data) if self._etags is None else self._etags.get((upload_id, number), "")

    def _complete(self, seen: Seen, path: str, upload_id: str, parts: dict[int, bytes]) -> Answer:
        text = seen.body.decode("utf-8", "replace")
        named = re.findall(r"<PartNumber>(\d+)</PartNumber>\s*<ETag>(?:&quot;|\")?([0-9a-f]+)", text)
        numbers = [int(number) for number, _ in named]
        wrong = any(
            self._etag(upload_id, int(number), parts.get(int(number), b"?")).strip('"') != etag
            for number, etag in named
        )
        if wrong or not numbers or numbers != sorted(set(numbers)):
            return _error(400, "InvalidPart", "One or more of the specified parts could not be found.")
        data = b"".join(parts[number] for number in numbers)
        del self.uploads[upload_id]
        self._write(path, data)
        facts = self._facts(data)
        body = f"<ETag>{facts['etag'].replace(chr(34), '&quot;')}</ETag>"
        if "x-amz-checksum-crc32c" in facts:
            body += f"<ChecksumCRC32C>{facts['x-amz-checksum-crc32c']}</ChecksumCRC32C>"
            body += "<ChecksumType>FULL_OBJECT</ChecksumType>"
        return _xml("CompleteMultipartUploadResult", body)


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _check_digests(seen: Seen) -> Answer | None:
    """Return the refusal of a body that is not what its headers say; None when it is, or they say nothing."""
    try:
        md5 = base64.b64decode(seen.headers.get("content-md5", ""))
    except binascii.Error:
        return _error(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")
    said = seen.headers.get("x-amz-checksum-crc32c", "")
    if (md5 and md5 != hashlib.md5(seen.body).digest()) or (said and said != crc32c_base64(crc32c(seen.body))):
        return _error(400, "BadDigest", "The digest you specified did not match what we received.")
    return None


def _xml(name: str, inner: str) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}>{inner}</{name}>'
    return Answer(200, body.encode(), {"content-type": "application/xml"})


def _error(status: int, code: str, message: str) -> Answer:
    answer = _xml("Error", f"<Code>{code}</Code><Message>{message}</Message>")
    answer.status = status
    return answer
