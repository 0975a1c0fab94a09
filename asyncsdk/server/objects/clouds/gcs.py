"""Buckets of Google Cloud Storage, by ``google-cloud-storage`` (extra ``gcs``).

Credentials stay in this process; `gcs_credentials` says where they come from. URLs hold the address of the service
account, or the name of an HMAC key.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any, BinaryIO

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_from_base64, crc32c_hex
from asyncsdk.errors import BadRequest, ConfigError
from asyncsdk.server.objects.clouds.bucket import Facts, ObjectGone, is_passing, store_refused, store_unavailable
from asyncsdk.server.objects.clouds.clients import ClientOfProcess
from asyncsdk.server.objects.clouds.gcs_credentials import emulator_endpoint, find_credentials, find_signing
from asyncsdk.server.objects.clouds.gcs_minting import SESSION_SECONDS, GcsMinter
from asyncsdk.server.objects.clouds.gcs_sessions import SessionIds
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.presigning import GOOGLE, Credentials, Presigner

__all__ = ["GcsBucket"]

RETRY_SECONDS = 30.0
"""How long a request is tried again, with the SDK's own growing waits."""

CONNECTIONS = 64

_TIMEOUT = (10, 60)
"""Seconds to connect, and between two pieces of a reply."""

_READ_BYTES = 8 * 1024 * 1024
_BATCH = 100
"""What Google removes by one request."""

_BATCHES_AT_ONCE = 4
_LISTED_PAGES = 2
"""Pages of 1,000 that are looked through for fewer objects than that: others may lie between them."""

_TYPE = "application/octet-stream"
_GONE = frozenset({404, 412, 416})
_SESSION_GONE = frozenset({404, 410, 499})
"""What Google says of a session that has ended, or was given up."""
_PROBE_DATA = b"asyncsdk looks whether checksums are compared"


class GcsBucket:
    """A `Bucket` of Google Cloud Storage.

    Google sums what arrives itself, and states it of every object however it was sent: nothing is read back.

    Args:
        location: Which one. Without an endpoint, ``STORAGE_EMULATOR_HOST`` decides, then Google's own.
        secret: Of the platform; upload ids of sessions are made with it.

    Attributes:
        late_ms: See `Bucket`: a session takes bytes for a week.

    Raises:
        ConfigError: The extra ``gcs`` is not installed, there are no credentials, or they cannot sign.
    """

    late_ms = SESSION_SECONDS * 1000

    def __init__(self, location: Location, secret: bytes) -> None:
        try:
            import google.cloud.storage as sdk  # an optional dependency
        except ModuleNotFoundError as error:
            raise ConfigError(
                "objects in gs:// need google-cloud-storage; install it with: pip install 'asyncsdk[gcs]'"
            ) from error
        self._sdk = sdk
        self._name = location.bucket
        self._endpoint = location.endpoint or emulator_endpoint()
        self._credentials = find_credentials(self._endpoint)
        self._signing = find_signing(self._credentials)
        self._session_ids = SessionIds(secret)
        self._client = ClientOfProcess(self._connect)

    def _connect(self) -> Any:
        from google.auth.transport.requests import AuthorizedSession
        from requests.adapters import HTTPAdapter

        session = AuthorizedSession(self._credentials)
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
        universe = getattr(self._credentials, "universe_domain", "googleapis.com")
        options = {"api_endpoint": self._endpoint or f"https://storage.{universe}", "universe_domain": universe}
        # No project: only listing and making buckets wants one.
        client = self._sdk.Client(None, self._credentials, _http=session, client_options=options)
        # For traces that nobody takes, the SDK would ask for the bucket's metadata, in a thread of its own.
        client._bucket_metadata_cache = None
        return client

    def _bucket(self) -> Any:
        return self._client().bucket(self._name)

    def close(self) -> None:
        """Close its connections. Calling it again does nothing."""
        self._client.close()

    # --- objects -------------------------------------------------------------------------------------------------

    def facts(self, name: str) -> Facts | None:
        """Return what the store says of an object; None when it is not there. Its generation is the validator."""
        with _requests("objects.get"):
            found = self._bucket().get_blob(name, timeout=_TIMEOUT, retry=_retry())
        return None if found is None else _facts(found)

    def listed_facts(self, names: Sequence[str]) -> Mapping[str, Facts]:
        """Return what a listing says of objects: one request for a thousand, where no others lie between them."""
        wanted, known = set(names), dict[str, Facts]()
        folders = {name.rpartition("/")[0] for name in names}
        pages = self._pages(
            prefix=f"{folders.pop()}/" if len(folders) == 1 else "",
            start_offset=min(names),
            end_offset=f"{max(names)}0",
            fields="items(name,size,crc32c,generation),nextPageToken",
        )
        for page in islice(pages, _LISTED_PAGES + len(names) // 1000):
            known.update((found.name, _facts(found)) for found in page if found.name in wanted)
        return known

    def read(self, name: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        """Yield the bytes of ``[start, stop)``; `ObjectGone` when the object of that generation is not there."""
        found = self._bucket().blob(name)
        for first in range(start, stop, _READ_BYTES):
            with _requests("objects.get", gone=_GONE):
                data: bytes = found.download_as_bytes(
                    start=first,
                    end=min(first + _READ_BYTES, stop) - 1,  # inclusive
                    raw_download=True,
                    if_generation_match=int(etag),
                    checksum=None,  # of a range there is none
                    timeout=_TIMEOUT,
                    retry=_retry(),
                )
            yield data

    def write(self, name: str, data: bytes) -> None:
        """Store a small object."""
        with _requests("objects.insert"):
            self._write(name, data, crc32c(data))

    def _write(self, name: str, data: bytes, told: int) -> None:
        found = self._bucket().blob(name)
        found.crc32c = crc32c_base64(told)
        found.upload_from_string(data, _TYPE, checksum=None, timeout=_TIMEOUT, retry=_retry())

    def write_file(self, name: str, file: BinaryIO, size_bytes: int, crc32c: str) -> None:
        """Store an object of any size in constant memory; see `Bucket.write_file`. Large ones go in pieces of 8 MiB."""
        found = self._bucket().blob(name, chunk_size=_READ_BYTES)
        found.crc32c = crc32c_base64(int(crc32c, 16))
        with _requests("objects.insert"):
            found.upload_from_file(
                file, size=size_bytes, content_type=_TYPE, checksum=None, timeout=_TIMEOUT, retry=_retry()
            )

    def remove(self, names: Sequence[str]) -> Mapping[str, str]:
        """Remove objects, 100 in one request and four of those at once; see `Bucket.remove`."""
        batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
        if len(batches) < 2:
            statuses = [status for batch in batches for status in self._remove(batch)]
        else:
            with ThreadPoolExecutor(_BATCHES_AT_ONCE, thread_name_prefix="asyncsdk-cloud") as pool:
                statuses = [status for found in pool.map(self._remove, batches) for status in found]
        wrong = {name: status for name, status in zip(names, statuses, strict=True) if status >= 300 and status != 404}
        if any(map(is_passing, wrong.values())):
            raise store_unavailable("objects.delete")
        return {name: str(status) for name, status in wrong.items()}

    def _remove(self, names: Sequence[str]) -> list[int]:
        batch = _batch_class()(self._client(), raise_exception=False)
        bucket = self._bucket()
        with _requests("batch"), batch:
            for name in names:
                bucket.delete_blob(name, timeout=_TIMEOUT)
        statuses: list[int] = batch.statuses
        return statuses

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with *prefix*, a page of 1,000 in memory."""
        for page in self._pages(prefix=prefix, fields="items(name),nextPageToken"):
            for entry in page:
                yield entry.name

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the parts of names between *prefix* and the next slash; each once."""
        for page in self._pages(prefix=prefix, delimiter="/", fields="prefixes,nextPageToken"):
            for found in sorted(page.prefixes):
                yield found[len(prefix) :].rstrip("/")

    def _pages(self, **arguments: Any) -> Iterator[Any]:
        with _requests("objects.list"):
            pages = (
                self._client()
                .list_blobs(self._name, page_size=1000, timeout=_TIMEOUT, retry=_retry(), **arguments)
                .pages
            )
        while True:
            with _requests("objects.list"):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def verifies_checksums(self, name: str) -> bool:
        """Whether the store refuses bytes that differ from the crc32c told with them, or states the true one."""
        try:
            with _requests("objects.insert", gone={400}):
                self._write(name, _PROBE_DATA, 1)
        except ObjectGone:  # it was refused
            return True
        facts = self.facts(name)
        self.remove([name])
        return facts is not None and facts.crc32c == crc32c_hex(crc32c(_PROBE_DATA))

    # --- sessions ------------------------------------------------------------------------------------------------

    def begin_session(self, name: str, size_bytes: int | None, checksum: str | None) -> str:
        """Begin a resumable upload of a new object; returns the address of the session.

        Google ends it with a refusal when another upload made the object meanwhile, when more bytes come than told, or
        when they have another checksum.

        Raises:
            BadRequest: The object is there already.
        """
        found = self._bucket().blob(name)
        if checksum is not None:
            found.crc32c = crc32c_base64(int(checksum, 16))
        try:
            with _requests("objects.insert", gone={412}):
                url: str = found.create_resumable_upload_session(
                    _TYPE,
                    size_bytes,
                    if_generation_match=0,
                    checksum=None,  # the client's affair
                    timeout=_TIMEOUT,
                    retry=_retry(),
                )
        except ObjectGone:
            raise BadRequest("this object has arrived already; commit it, or prepare another") from None
        return url

    def stands(self, url: str) -> bool:
        """Whether there still is a session of that address: one that takes bytes, or that has them all.

        Raises:
            ServerError: Google did not say: taken for a session that ended, an object would be sent again from its
                start.
        """
        with _requests("session", hides=True):
            # No body, and nothing that redirects: the address is the platform's own.
            reply = self._client()._http.put(  # the SDK has no such question
                url, headers={"Content-Range": "bytes */*"}, timeout=_TIMEOUT, allow_redirects=False
            )
        if reply.status_code >= 500 or reply.status_code in {408, 429}:
            raise store_unavailable("session")
        if reply.status_code in _SESSION_GONE:
            return False
        if reply.status_code not in {200, 201, 308}:
            raise store_refused("session", str(reply.status_code))
        return True

    def discard_uploads(self, prefix: str, before_ms: int) -> int:
        """Do nothing: Google itself ends sessions after a week. Nothing lists them."""
        return 0

    # --- signed URLs ---------------------------------------------------------------------------------------------

    def minter(self, name_of: Callable[[str], str], clock: Callable[[], float] = time.time) -> GcsMinter:
        """Return what mints signed URLs."""
        base_url = f"{self._client().api_endpoint.rstrip('/')}/{self._name}"
        presigner = Presigner(base_url, "auto", self._signing_credentials, clock, GOOGLE)
        return GcsMinter(
            presigner,
            name_of,
            self.begin_session,
            self.stands,
            self._session_ids,
            asks_to_sign=self._signing.asks,
            clock=clock,
        )

    def _signing_credentials(self) -> Credentials:
        if not self._signing.asks:
            return self._signing.credentials()
        with _requests("signing"):
            found = self._signing.credentials()

        def sign(data: bytes) -> bytes:
            assert found.sign is not None
            with _requests("signing"):
                return found.sign(data)

        return replace(found, sign=sign)


def _facts(found: Any) -> Facts:
    stated = found.crc32c
    checksum = crc32c_hex(crc32c_from_base64(stated)) if stated else None
    return Facts(int(found.size), str(found.generation), checksum)


@contextmanager
def _requests(what: str, *, gone: Collection[int] = (), hides: bool = False) -> Iterator[None]:
    """Translate what the SDK raises inside into this package's errors; statuses in *gone* into `ObjectGone`.

    What it says is not repeated but for the store's own word: it may hold names and addresses of the server's. With
    *hides* it is not the cause of what is raised either: it names an address that lets whoever knows it write.
    """
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests.exceptions import RequestException

    try:
        yield
    except GoogleAPICallError as error:
        status = int(error.code or 0)
        if status in gone:
            raise ObjectGone(what) from None
        if is_passing(status):
            raise store_unavailable(what) from error
        raise store_refused(what, _reason(error) or str(status)) from error
    except (RequestException, RetryError) as error:
        raise store_unavailable(what) from (None if hides else error)
    except GoogleAuthError as error:
        # IAM's refusal to sign is one of transport too, but nothing is behind it.
        has_no_answer = isinstance(error, TransportError) and isinstance(error.__cause__, RequestException)
        if has_no_answer or getattr(error, "retryable", False):
            raise store_unavailable(what) from (None if hides else error)
        raise store_refused(what, f"the credentials ({type(error).__name__})") from error


def _reason(error: Any) -> str:
    reasons = [str(found.get("reason", "")) for found in error.errors if isinstance(found, dict)]
    return reasons[0] if reasons and re.fullmatch(r"[A-Za-z_]{1,60}", reasons[0]) else ""


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(RETRY_SECONDS)


@cache
def _batch_class() -> Any:
    """Return the SDK's batch, but one that tells what became of each request."""
    from google.cloud.storage.batch import Batch

    class TellingBatch(Batch):  # type: ignore[misc]  # the SDK tells no types
        def finish(self, raise_exception: bool = True) -> Any:
            replies = super().finish(raise_exception=raise_exception)
            self.statuses = [reply.status_code for reply in replies]
            return replies

    return TellingBatch
