"""Where the bytes of an object go and come from, as whoever asked can reach them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from asyncsdk.errors import BadRequest
from asyncsdk.server.objects.local import LocalObjects, check_crc32c, check_object_id
from asyncsdk.server.objects.parts import UploadId
from asyncsdk.server.objects.signing import Signer, object_etag
from asyncsdk.targets import FileOrigin, FileTarget, MultipartTarget, Origin, PutTarget, Target, UrlOrigin

__all__ = ["FileMinter", "Minter", "UrlMinter", "Wanted", "target_or_refusal"]

Wanted = tuple[str, int | None, str | None]
"""An object to be minted for: its id, its size in bytes and its crc32c as far as they are known."""

MULTIPART_THRESHOLD = 16 * 1024 * 1024
"""Objects larger than this, and those of unknown size, arrive in parts."""

FIRST_PART_URLS = 25
"""Part URLs given at once: a bulk message may prepare for 1,000 large objects. 200 MiB of parts keep a client busy."""

RENEWED_PART_URLS = 100
"""Part URLs given when a client asks for further ones."""


class Minter(Protocol):
    """Mints targets and origins of objects. Writes nothing."""

    def target(self, object_id: str, *, size_bytes: int | None, crc32c: str | None) -> Target:
        """Return where the bytes of a new object go; what is known of them is checked when they arrive."""

    def targets(self, wanted: Sequence[Wanted]) -> list[Target | BadRequest]:
        """Return the targets of many objects, in order, or why there is none for one of them."""

    def renew(
        self, object_id: str, *, size_bytes: int | None, crc32c: str | None, upload_id: str | None, first_part: int
    ) -> Target:
        """Return the target again, with fresh URLs, those of parts from *first_part* on.

        Raises:
            BadRequest: The upload id is not one for an object of that size.
        """

    def origin(self, object_id: str, *, size_bytes: int, crc32c: str, etag: str) -> Origin:
        """Return where the bytes of a published object come from."""


class FileMinter:
    """For the embedded platform: the engine copies files to and from the store's folder itself."""

    def __init__(self, objects: LocalObjects) -> None:
        self._objects = objects

    def target(self, object_id: str, *, size_bytes: int | None, crc32c: str | None) -> Target:
        return FileTarget(self._objects.staging_folder(object_id), object_id)

    def targets(self, wanted: Sequence[Wanted]) -> list[Target | BadRequest]:
        return [target_or_refusal(self, one) for one in wanted]

    def renew(
        self, object_id: str, *, size_bytes: int | None, crc32c: str | None, upload_id: str | None, first_part: int
    ) -> Target:
        return self.target(object_id, size_bytes=size_bytes, crc32c=crc32c)

    def origin(self, object_id: str, *, size_bytes: int, crc32c: str, etag: str) -> Origin:
        return FileOrigin(self._objects.path(object_id, crc32c), size_bytes=size_bytes, crc32c=crc32c, etag=etag)


class UrlMinter:
    """For clients over HTTP: signed URLs of the object endpoint.

    Args:
        signer: The platform's.
        base_url: Scheme, host and port as the client reaches them, without a slash at the end.
        expires_seconds: How long URLs work.
        clock: Seconds since 1970 UTC.
    """

    def __init__(
        self,
        signer: Signer,
        base_url: str,
        *,
        expires_seconds: int = 3600,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = signer
        self._base_url = base_url
        self._expires_seconds = expires_seconds
        self._clock = clock

    def target(self, object_id: str, *, size_bytes: int | None, crc32c: str | None) -> Target:
        if size_bytes is None or size_bytes > MULTIPART_THRESHOLD:
            return self._multipart(object_id, UploadId.make(size_bytes), crc32c, 1, FIRST_PART_URLS)
        return self._put(object_id, size_bytes, crc32c)

    def targets(self, wanted: Sequence[Wanted]) -> list[Target | BadRequest]:
        return [target_or_refusal(self, one) for one in wanted]

    def renew(
        self, object_id: str, *, size_bytes: int | None, crc32c: str | None, upload_id: str | None, first_part: int
    ) -> Target:
        if upload_id is None:
            return self.target(object_id, size_bytes=size_bytes, crc32c=crc32c)
        parsed = UploadId.parse(upload_id)
        if parsed.size_bytes != size_bytes:
            raise BadRequest("this upload id was made for an object of another size; give the size as prepared")
        if first_part > parsed.parts:
            raise BadRequest(f"this object has parts 1 to {parsed.parts}, not {first_part}")
        return self._multipart(object_id, parsed, crc32c, first_part, RENEWED_PART_URLS)

    def origin(self, object_id: str, *, size_bytes: int, crc32c: str, etag: str) -> Origin:
        expires_at = self._expires_at()
        url = self._url("GET", object_id, {"crc32c": check_crc32c(crc32c)}, expires_at)
        return UrlOrigin(
            url,
            size_bytes=size_bytes,
            crc32c=crc32c,
            etag=object_etag(object_id, crc32c),
            expires_at=expires_at,
        )

    def _put(self, object_id: str, size_bytes: int, crc32c: str | None) -> PutTarget:
        expires_at = self._expires_at()
        facts: dict[str, str | int] = {"size": size_bytes, **_known(crc32c)}
        return PutTarget(self._url("PUT", object_id, facts, expires_at), expires_at=expires_at)

    def _multipart(
        self, object_id: str, upload_id: UploadId, crc32c: str | None, first_part: int, count: int
    ) -> MultipartTarget:
        expires_at = self._expires_at()
        text = str(upload_id)
        parts = range(first_part, min(first_part + count, upload_id.parts + 1))
        upload = {"uploadId": text}
        return MultipartTarget(
            upload_id=text,
            part_size=upload_id.part_size,
            part_urls=tuple(self._url("PUT", object_id, {"partNumber": part, **upload}, expires_at) for part in parts),
            complete_url=self._url("POST", object_id, {**upload, **_known(crc32c)}, expires_at),
            abort_url=self._url("DELETE", object_id, upload, expires_at),
            list_urls=(self._url("GET", object_id, upload, expires_at),),  # of all parts
            first_part=first_part,
            expires_at=expires_at,
        )

    def _url(self, method: str, object_id: str, parameters: Mapping[str, str | int], expires_at: int) -> str:
        check_object_id(object_id)
        return self._base_url + self._signer.sign_url(method, object_id, parameters, expires_at=expires_at)

    def _expires_at(self) -> int:
        return int(self._clock()) + self._expires_seconds


def target_or_refusal(minter: Minter, wanted: Wanted) -> Target | BadRequest:
    """Return the target of an object, or why there is none for it."""
    object_id, size_bytes, crc32c = wanted
    try:
        return minter.target(object_id, size_bytes=size_bytes, crc32c=crc32c)
    except BadRequest as error:  # of this object alone: the others go on
        return error


def _known(crc32c: str | None) -> dict[str, str]:
    return {} if crc32c is None else {"crc32c": check_crc32c(crc32c)}
