"""Containers of Azure Storage, by ``azure-storage-blob`` (extra ``azure``).

The account and its key come from the environment: ``AZURE_STORAGE_CONNECTION_STRING``, or ``AZURE_STORAGE_ACCOUNT`` and
``AZURE_STORAGE_KEY``. They stay in this process; URLs are signed with the key and do not hold it.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from asyncsdk.errors import ConfigError
from asyncsdk.server.objects.clouds.azure_minting import AzureMinter
from asyncsdk.server.objects.clouds.bucket import Facts, ObjectGone, is_passing, store_refused, store_unavailable
from asyncsdk.server.objects.clouds.clients import ClientOfProcess
from asyncsdk.server.objects.clouds.location import Location

__all__ = ["AzureBucket"]

ATTEMPTS = 4
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_READ_BYTES = 4 * 1024 * 1024
_BLOCK_BYTES = 8 * 1024 * 1024
"""Of what is sent in blocks: Azure takes 50,000 of them."""

_BATCH = 256
"""What Azure removes by one request."""


class AzureBucket:
    """A `Bucket` in a container of Azure Storage.

    Azure keeps no crc32c, and a Content-MD5 is whatever the sender says: checksums are never taken from it.

    Attributes:
        late_ms: See `Bucket`.

    Args:
        location: Which one. An endpoint ends with the account where the host does not name it (Azurite).

    Raises:
        ConfigError: The extra ``azure`` is not installed, or there is no account key.
    """

    late_ms = 0

    def __init__(self, location: Location) -> None:
        try:
            import azure.storage.blob as sdk  # an optional dependency
        except ModuleNotFoundError as error:
            raise ConfigError(
                "objects in az:// need azure-storage-blob; install it with: pip install 'asyncsdk[azure]'"
            ) from error
        self._sdk = sdk
        self._container = location.bucket
        self._account, self._key, endpoint = _account()
        self._endpoint = (location.endpoint or endpoint).rstrip("/")
        self._client = ClientOfProcess(self._connect)

    def _connect(self) -> Any:
        return self._sdk.ContainerClient(
            self._endpoint,
            self._container,
            credential={"account_name": self._account, "account_key": self._key},
            api_version="2021-12-02",
            retry_total=ATTEMPTS - 1,
            connection_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            max_single_get_size=_READ_BYTES,
            max_chunk_get_size=_READ_BYTES,
            max_single_put_size=_BLOCK_BYTES,  # the SDK holds what it puts in one request
            max_block_size=_BLOCK_BYTES,
        )

    def close(self) -> None:
        """Close its connections. Calling it again does nothing."""
        self._client.close()

    def facts(self, name: str) -> Facts | None:
        """Return what the store says of an object; None when it is not there. It states no checksum."""
        try:
            with _requests("Get Blob Properties"):
                found = self._client().get_blob_client(name).get_blob_properties()
        except ObjectGone:
            return None
        return Facts(int(found.size), str(found.etag).strip('"'), None)

    def listed_facts(self, names: Sequence[str]) -> Mapping[str, Facts]:
        """Return nothing: a listing states no checksum of the bytes."""
        return {}

    def read(self, name: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        """Yield the bytes of ``[start, stop)``; `ObjectGone` when the object of that ETag is not there."""
        from azure.core import MatchConditions

        with _requests("Get Blob"):
            stream = self._client().download_blob(
                name, offset=start, length=stop - start, etag=f'"{etag}"', match_condition=MatchConditions.IfNotModified
            )
            yield from stream.chunks()

    def write(self, name: str, data: bytes) -> None:
        """Store a small object."""
        with _requests("Put Blob"):
            self._client().upload_blob(name, data, overwrite=True)

    def write_file(self, name: str, file: BinaryIO, size_bytes: int, crc32c: str) -> None:
        """Store an object of any size in constant memory; see `Bucket.write_file`. Azure compares no crc32c."""
        with _requests("Put Blob"):
            self._client().upload_blob(name, file, length=size_bytes, overwrite=True)

    def remove(self, names: Sequence[str]) -> Mapping[str, str]:
        """Remove objects, 256 in one request; see `Bucket.remove`."""
        stayed: dict[str, str] = {}
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            with _requests("Blob Batch"):
                replies = self._client().delete_blobs(*batch, raise_on_any_failure=False)
                statuses = [reply.status_code for reply in replies]
            wrong = {
                name: status for name, status in zip(batch, statuses, strict=True) if status not in {200, 202, 404}
            }
            if any(map(is_passing, wrong.values())):
                raise store_unavailable("Blob Batch")
            stayed |= {name: str(status) for name, status in wrong.items()}
        return stayed

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with *prefix*, a page in memory."""
        with _requests("List Blobs"):
            yield from self._client().list_blob_names(name_starts_with=prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the parts of names between *prefix* and the next slash; each once."""
        with _requests("List Blobs"):
            for entry in self._client().walk_blobs(name_starts_with=prefix, delimiter="/"):
                if entry.name.endswith("/"):
                    yield entry.name[len(prefix) :].rstrip("/")

    def verifies_checksums(self, name: str) -> bool:
        """Return False: Azure compares no crc32c, and states none."""
        return False

    def discard_uploads(self, prefix: str, before_ms: int) -> int:
        """Do nothing: Azure itself removes blocks that nobody made a blob of within a week."""
        return 0

    def minter(self, name_of: Callable[[str], str], clock: Callable[[], float] = time.time) -> AzureMinter:
        """Return what mints signed URLs."""
        try:
            key = base64.b64decode(self._key, validate=True)
        except (ValueError, binascii.Error):
            raise ConfigError("the key of the storage account is none: it is written in base64") from None
        url = f"{self._endpoint}/{self._container}"
        return AzureMinter(url, self._account, key, self._container, name_of, clock=clock)


def _account() -> tuple[str, str, str]:
    """Return name, key and endpoint of the account that the environment tells."""
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    facts = dict(pair.split("=", 1) for pair in text.split(";") if "=" in pair)
    account = facts.get("AccountName") or os.environ.get("AZURE_STORAGE_ACCOUNT", "")
    key = facts.get("AccountKey") or os.environ.get("AZURE_STORAGE_KEY", "")
    if not account or not key:
        raise ConfigError(
            "there is no key of a storage account: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and "
            "AZURE_STORAGE_KEY"
        )
    scheme, suffix = facts.get("DefaultEndpointsProtocol", "https"), facts.get("EndpointSuffix", "core.windows.net")
    return account, key, facts.get("BlobEndpoint") or f"{scheme}://{account}.blob.{suffix}"


@contextmanager
def _requests(what: str) -> Iterator[None]:
    """Translate what the SDK raises inside into this package's errors.

    What it says is not repeated but for the store's own word: it may hold names and addresses of the server's.
    """
    from azure.core.exceptions import AzureError, HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        status = error.status_code or 0
        if status in {404, 412, 416}:
            code = str(getattr(error, "error_code", "") or "")
            if code == "ContainerNotFound":
                raise store_refused(what, code) from error
            raise ObjectGone(what) from None
        if is_passing(status):
            raise store_unavailable(what) from error
        raise store_refused(what, str(getattr(error, "error_code", "") or status)) from error
    except AzureError as error:
        raise store_unavailable(what) from error
