"""Targets and origins in Azure Storage: block blobs behind shared access signatures (SAS).

Nothing is asked for: a blob arrives by one request or by blocks, as its sender likes, under one signature.

Source: Azure Storage REST reference, "Create a service SAS", version 2020-12-06.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from asyncsdk.errors import BadRequest
from asyncsdk.server.objects.minting import Wanted, target_or_refusal
from asyncsdk.server.objects.parts import part_size_for
from asyncsdk.targets import BlobTarget, Origin, Target, UrlOrigin

__all__ = ["AzureMinter"]

URL_SECONDS = 3600
VERSION = "2020-12-06"

MAX_OBJECT_BYTES = 5 * 1024**4
"""As S3: an object may be moved there one day. Azure itself takes more."""


class AzureMinter:
    """A `Minter` of Azure Storage.

    Args:
        container_url: As clients reach it, without a slash at its end.
        account: Name of the account.
        key: Its key, decoded; stays in this process.
        container: Name of the container.
        name_of: Gives the name of an object by its id.
        clock: Seconds since 1970 UTC.
    """

    def __init__(
        self,
        container_url: str,
        account: str,
        key: bytes,
        container: str,
        name_of: Callable[[str], str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._container_url = container_url
        self._resource = f"/blob/{account}/{container}"
        self._key = key
        self._name_of = name_of
        self._clock = clock

    def target(self, object_id: str, *, size_bytes: int | None, crc32c: str | None) -> Target:
        """Return where the bytes of a new object go; see `Minter`.

        Raises:
            BadRequest: The object is too large.
        """
        if size_bytes is not None and size_bytes > MAX_OBJECT_BYTES:
            raise BadRequest(f"objects have at most {MAX_OBJECT_BYTES} bytes, not {size_bytes}")
        url, expires_at = self._sign(self._name_of(object_id), "rcw")  # reading is for lists of blocks
        return BlobTarget(url, part_size=part_size_for(size_bytes), version=VERSION, expires_at=expires_at)

    def targets(self, wanted: Sequence[Wanted]) -> list[Target | BadRequest]:
        """Return the targets of many objects; see `Minter`."""
        return [target_or_refusal(self, one) for one in wanted]

    def renew(
        self, object_id: str, *, size_bytes: int | None, crc32c: str | None, upload_id: str | None, first_part: int
    ) -> Target:
        """Return the target again, with a fresh signature: blocks are named after the blob, so they go on."""
        return self.target(object_id, size_bytes=size_bytes, crc32c=crc32c)

    def origin(self, object_id: str, *, size_bytes: int, crc32c: str, etag: str) -> Origin:
        """Return where the bytes of a committed object come from; see `Minter`."""
        url, expires_at = self._sign(self._name_of(object_id), "r")
        # The platform's validator is none of Azure's.
        return UrlOrigin(url, size_bytes=size_bytes, crc32c=crc32c, expires_at=expires_at)

    def _sign(self, name: str, permissions: str) -> tuple[str, int]:
        expires_at = int(self._clock()) + URL_SECONDS
        expiry = datetime.fromtimestamp(expires_at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # Empty: start; identifier, address, protocol; at the end snapshot, encryption scope, five reply headers.
        lines = [permissions, "", expiry, f"{self._resource}/{name}", "", "", "", VERSION, "b", *[""] * 7]
        signature = base64.b64encode(hmac.digest(self._key, "\n".join(lines).encode(), "sha256")).decode()
        query = urlencode({"sv": VERSION, "se": expiry, "sr": "b", "sp": permissions, "sig": signature})
        return f"{self._container_url}/{quote(name)}?{query}", expires_at
