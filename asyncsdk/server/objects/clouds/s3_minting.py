"""Targets and origins in S3: signed PUTs, uploads in parts, and signed GETs.

Sizes are under the signature wherever they are known, and so is the checksum: a store that compares it refuses other
bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from asyncsdk.checksums import crc32c_base64
from asyncsdk.errors import BadRequest
from asyncsdk.server.objects.clouds.presigning import Presigner
from asyncsdk.server.objects.clouds.side_by_side import arrives_in_parts, mint_side_by_side
from asyncsdk.server.objects.local import check_crc32c
from asyncsdk.server.objects.minting import (
    FIRST_PART_URLS,
    RENEWED_PART_URLS,
    Wanted,
)
from asyncsdk.server.objects.parts import MAX_PART_SIZE, MAX_PARTS, part_size_for
from asyncsdk.targets import MultipartTarget, Origin, PutTarget, Target, UrlOrigin

__all__ = ["CHECKSUM_HEADER", "S3Minter"]

CHECKSUM_HEADER = "x-amz-checksum-crc32c"

LISTED_PARTS = 1000
"""Parts that one page of S3's names at most; where the next one begins is a number of a part, so all can be signed."""

MAX_OBJECT_BYTES = 5 * 1024**4
"""What S3 takes."""


class S3Minter:
    """A `Minter` of S3. Begins an upload in parts by asking the store; all else is arithmetic.

    Args:
        presigner: Signs.
        name_of: Gives the name of an object by its id.
        begin_upload: Begins an upload in parts of the object of that name, returns its id.
        expires_seconds: Returns how long a URL made now works.
        tells_checksums: Returns whether the store knows checksums that are told with the bytes.
        clock: Seconds since 1970 UTC.
    """

    def __init__(
        self,
        presigner: Presigner,
        name_of: Callable[[str], str],
        begin_upload: Callable[[str], str],
        *,
        expires_seconds: Callable[[], int],
        tells_checksums: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._presigner = presigner
        self._name_of = name_of
        self._begin_upload = begin_upload
        self._expires_seconds = expires_seconds
        self._tells_checksums = tells_checksums
        self._clock = clock

    def target(self, object_id: str, *, size_bytes: int | None, crc32c: str | None) -> Target:
        """Return where the bytes of a new object go; see `Minter`.

        Raises:
            BadRequest: The object is larger than S3 takes.
            ServerError: The store did not begin an upload in parts.
        """
        name = self._name_of(object_id)
        if size_bytes is None or arrives_in_parts((object_id, size_bytes, crc32c)):
            if size_bytes is not None and size_bytes > MAX_OBJECT_BYTES:
                raise BadRequest(f"objects have at most {MAX_OBJECT_BYTES} bytes, not {size_bytes}")
            return self._multipart(name, self._begin_upload(name), size_bytes, 1, FIRST_PART_URLS, most_pages=1)
        expires_seconds, expires_at = self._expiry()
        headers: dict[str, str] = {}
        if crc32c is not None and self._tells_checksums():
            headers[CHECKSUM_HEADER] = crc32c_base64(int(check_crc32c(crc32c), 16))
        signed: dict[str, str | int] = {**headers, "content-length": size_bytes}
        url = self._presigner.sign("PUT", name, headers=signed, expires_seconds=expires_seconds)
        return PutTarget(url, headers, expires_at=expires_at)

    def targets(self, wanted: Sequence[Wanted]) -> list[Target | BadRequest]:
        """Return the targets of many objects; see `Minter`. Uploads in parts are begun 16 at once."""
        return mint_side_by_side(self, wanted, arrives_in_parts)

    def renew(
        self, object_id: str, *, size_bytes: int | None, crc32c: str | None, upload_id: str | None, first_part: int
    ) -> Target:
        """Return the target again, with fresh URLs; see `Minter`."""
        if upload_id is None:
            return self.target(object_id, size_bytes=size_bytes, crc32c=crc32c)
        if not upload_id or len(upload_id) > 1024 or not upload_id.isprintable():
            raise BadRequest("this is no upload id; use the one that was given")
        count = _count_parts(size_bytes)
        if first_part > count:
            raise BadRequest(f"this object has parts 1 to {count}, not {first_part}")
        return self._multipart(self._name_of(object_id), upload_id, size_bytes, first_part, RENEWED_PART_URLS)

    def origin(self, object_id: str, *, size_bytes: int, crc32c: str, etag: str) -> Origin:
        """Return where the bytes of a committed object come from; see `Minter`."""
        expires_seconds, expires_at = self._expiry()
        url = self._presigner.sign("GET", self._name_of(object_id), expires_seconds=expires_seconds)
        # The platform's validator is none of S3's.
        return UrlOrigin(url, size_bytes=size_bytes, crc32c=crc32c, expires_at=expires_at)

    def _multipart(
        self,
        name: str,
        upload_id: str,
        size_bytes: int | None,
        first_part: int,
        count: int,
        most_pages: int = MAX_PARTS // LISTED_PARTS,
    ) -> MultipartTarget:
        expires_seconds, expires_at = self._expiry()
        part_size = part_size_for(size_bytes)
        last = _count_parts(size_bytes)
        upload: dict[str, str | int] = {"uploadId": upload_id}

        def sign(method: str, part: int | None = None) -> str:
            if part is None:
                return self._presigner.sign(method, name, parameters=upload, expires_seconds=expires_seconds)
            signed = {}
            if size_bytes is not None:
                signed["content-length"] = part_size if part < last else size_bytes - (last - 1) * part_size
            parameters = {**upload, "partNumber": part}
            return self._presigner.sign(
                method, name, parameters=parameters, headers=signed, expires_seconds=expires_seconds
            )

        def list_page(page: int) -> str:
            after = {"part-number-marker": page * LISTED_PARTS} if page else {}
            return self._presigner.sign("GET", name, parameters={**upload, **after}, expires_seconds=expires_seconds)

        return MultipartTarget(
            upload_id=upload_id,
            part_size=part_size,
            part_urls=tuple(sign("PUT", part) for part in range(first_part, min(first_part + count, last + 1))),
            complete_url=sign("POST"),
            abort_url=sign("DELETE"),
            list_urls=tuple(list_page(page) for page in range(min(most_pages, -(-last // LISTED_PARTS)))),
            first_part=first_part,
            expires_at=expires_at,
            object_url=self._presigner.sign("GET", name, expires_seconds=expires_seconds),
        )

    def _expiry(self) -> tuple[int, int]:
        seconds = self._expires_seconds()
        return seconds, int(self._clock()) + seconds


def _count_parts(size_bytes: int | None) -> int:
    """Return how many parts an object has at most; `BadRequest` when they would be too large."""
    if size_bytes is None:
        return MAX_PARTS
    if part_size_for(size_bytes) > MAX_PART_SIZE:
        raise BadRequest(f"objects have at most {MAX_OBJECT_BYTES} bytes, not {size_bytes}")
    return max(1, -(-size_bytes // part_size_for(size_bytes)))
