"""Buckets of Amazon S3 and of everything that speaks its protocol, by ``boto3`` (extra ``s3``).

Credentials, region and settings come from where boto3 takes them: the environment, the profile, the machine's role.
They stay in this process. Only the access key's name, and the token of temporary credentials, stand in signed URLs, as
the protocol has it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

from asyncsdk.checksums import crc32c_base64, crc32c_from_base64, crc32c_hex
from asyncsdk.errors import ConfigError
from asyncsdk.server.objects.clouds.bucket import Facts, ObjectGone, is_passing, store_refused, store_unavailable
from asyncsdk.server.objects.clouds.clients import ClientOfProcess
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.presigning import Credentials, Presigner
from asyncsdk.server.objects.clouds.s3_minting import S3Minter

__all__ = ["S3Bucket"]

URL_SECONDS = 3600
"""How long signed URLs work."""

TEMPORARY_URL_SECONDS = 600
"""The same, signed with temporary credentials: a URL ends with them, and the SDK renews them 10 minutes before."""

CONNECTIONS = 64
ATTEMPTS = 4
"""Of each request, with the SDK's own growing waits between them."""

_SINGLE_BYTES = 4 * 1024**3
"""What goes in one request; S3 takes 5 GiB. Its checksum is compared then, and stated ever after."""

_PART_BYTES = 64 * 1024 * 1024
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_READ_BYTES = 1024 * 1024
_GONE = {"404", "NoSuchKey", "NotFound", "412", "416", "PreconditionFailed", "InvalidRange"}
_PASSING = {
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "SlowDown",
}
"""Said of a request, or of one object in a batch: another attempt may do."""

_NO_UPLOADS = {"NoSuchUpload", "NotImplemented", "MethodNotAllowed"}
"""Said to a listing of uploads: by rclone when there is none, by others that have no such listing."""

_BAD_DIGEST = {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"}
_NOT_KNOWN = {"InvalidRequest", "InvalidArgument", "NotImplemented"}
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_PROBE_DATA = b"asyncsdk looks whether checksums are compared"


class S3Bucket:
    """A `Bucket` of S3.

    Args:
        location: Which one. With an endpoint, the bucket's name goes into the path; without, into the host, if it can.

    Attributes:
        late_ms: See `Bucket`.

    Raises:
        ConfigError: The extra ``s3`` is not installed, or there are no credentials.
    """

    late_ms = 0

    def __init__(self, location: Location) -> None:
        try:
            import boto3  # an optional dependency
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"objects in {location.scheme}:// need boto3; install it with: pip install 'asyncsdk[s3]'"
            ) from error
        self._boto3 = boto3
        self._location = location
        self._client = ClientOfProcess(self._connect)
        self._credentials: Any = None
        self._region = ""
        self._tells_checksums = True
        with _requests("connecting"):
            self._client()
        if self._credentials is None:
            raise ConfigError(
                f"there are no credentials for {location}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give "
                "this machine a profile or a role"
            )

    def _connect(self) -> Any:
        from botocore.config import Config

        session = self._boto3.session.Session()
        bucket = self._location.bucket
        config = Config(
            signature_version="s3v4",
            # Said outright, as URLs then lead to the bucket's region; TLS has no names for buckets with dots.
            s3={"addressing_style": "path" if self._location.endpoint or "." in bucket else "virtual"},
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            # Checksums are asked for by name below: many stores refuse those that the SDK would add.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = self._region or session.region_name or "us-east-1"
        client = session.client("s3", endpoint_url=self._location.endpoint or None, region_name=region, config=config)
        self._credentials = session.get_credentials()
        return client

    def find_region(self) -> None:
        """Ask where the bucket is, and speak to it there from then on; URLs signed for elsewhere are refused.

        The settings' region is kept where the store says nothing.

        Raises:
            ServerError: The store gives no answer.
        """
        from botocore.exceptions import ClientError

        with _requests("HeadBucket"):
            client = self._client()
            try:
                reply = client.head_bucket(Bucket=self._location.bucket)
            except ClientError as error:  # to say where it is, it need not let anybody in
                reply = error.response
        region = str(reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", ""))
        if _REGION.fullmatch(region) and region != client.meta.region_name:
            self._region = region
            self._client.close()  # the next one is made for that region

    def close(self) -> None:
        """Close its connections. Calling it again does nothing."""
        self._client.close()

    # --- objects -------------------------------------------------------------------------------------------------

    def facts(self, name: str) -> Facts | None:
        """Return what the store says of an object; None when it is not there."""
        try:
            with _requests("HeadObject"):
                found = self._client().head_object(Bucket=self._location.bucket, Key=name, ChecksumMode="ENABLED")
        except ObjectGone:
            return None
        text = found.get("ChecksumCRC32C", "")
        crc32c = None
        if text and found.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" and "-" not in text:
            try:
                crc32c = crc32c_hex(crc32c_from_base64(text))
            except ValueError:  # none of ours: the bytes are read back then
                crc32c = None
        return Facts(int(found["ContentLength"]), str(found["ETag"]).strip('"'), crc32c)

    def listed_facts(self, names: Sequence[str]) -> Mapping[str, Facts]:
        """Return nothing: a listing states no checksum of the bytes."""
        return {}

    def read(self, name: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        """Yield the bytes of ``[start, stop)``; `ObjectGone` when the object of that ETag is not there."""
        with _requests("GetObject"):
            found = self._client().get_object(
                Bucket=self._location.bucket, Key=name, Range=f"bytes={start}-{stop - 1}", IfMatch=f'"{etag}"'
            )
            with closing(found["Body"]) as body:
                if str(found["ETag"]).strip('"') != etag:  # some stores do not know If-Match
                    raise ObjectGone(name)
                while data := body.read(_READ_BYTES):
                    yield data

    def write(self, name: str, data: bytes) -> None:
        """Store a small object."""
        with _requests("PutObject"):
            self._client().put_object(Bucket=self._location.bucket, Key=name, Body=data)

    def write_file(self, name: str, file: BinaryIO, size_bytes: int, crc32c: str) -> None:
        """Store an object of any size in constant memory; see `Bucket.write_file`. More than 4 GiB goes in parts."""
        client, bucket = self._client(), self._location.bucket
        if size_bytes > _SINGLE_BYTES:
            from boto3.s3.transfer import TransferConfig

            config = TransferConfig(multipart_chunksize=_PART_BYTES, max_concurrency=2)
            with _requests("UploadPart"):
                client.upload_fileobj(file, bucket, name, Config=config)
            return
        told = {"ChecksumCRC32C": crc32c_base64(int(crc32c, 16))} if self._tells_checksums else {}
        with _requests("PutObject"):
            client.put_object(Bucket=bucket, Key=name, Body=file, ContentLength=size_bytes, **told)

    def remove(self, names: Sequence[str]) -> Mapping[str, str]:
        """Remove up to 1,000 objects in one request; see `Bucket.remove`."""
        with _requests("DeleteObjects"):
            reply = self._client().delete_objects(
                Bucket=self._location.bucket, Delete={"Objects": [{"Key": name} for name in names], "Quiet": True}
            )
        wrong = {error["Key"]: str(error.get("Code", "")) for error in reply.get("Errors", [])}
        if not _PASSING.isdisjoint(wrong.values()):
            raise store_unavailable("DeleteObjects")
        return {name: code for name, code in wrong.items() if code != "NoSuchKey"}

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with *prefix*, a page of 1,000 in memory."""
        for page in self._pages("list_objects_v2", Prefix=prefix):
            for entry in page.get("Contents", []):
                yield entry["Key"]

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the parts of names between *prefix* and the next slash; each once."""
        for page in self._pages("list_objects_v2", Prefix=prefix, Delimiter="/"):
            for entry in page.get("CommonPrefixes", []):
                yield entry["Prefix"][len(prefix) :].rstrip("/")

    def verifies_checksums(self, name: str) -> bool:
        """Whether the store refuses bytes that differ from the crc32c told with them.

        One that does not know such checksums is not told any from then on.
        """
        from botocore.exceptions import ClientError

        try:
            with _requests("PutObject", passing=_BAD_DIGEST | _NOT_KNOWN):
                self._client().put_object(
                    Bucket=self._location.bucket, Key=name, Body=_PROBE_DATA, ChecksumCRC32C=crc32c_base64(1)
                )
        except ClientError as error:
            self._tells_checksums = error.response["Error"]["Code"] not in _NOT_KNOWN
            return self._tells_checksums
        self.remove([name])
        return False

    # --- uploads in parts ----------------------------------------------------------------------------------------

    def begin_upload(self, name: str) -> str:
        """Begin an upload in parts; returns its id."""
        with _requests("CreateMultipartUpload"):
            reply = self._client().create_multipart_upload(Bucket=self._location.bucket, Key=name)
        return str(reply["UploadId"])

    def discard_uploads(self, prefix: str, before_ms: int) -> int:
        """Abort uploads in parts that were begun before a time and never completed; returns how many.

        Where the store cannot list them, they are left to its own rules.
        """
        removed = 0
        pages = self._pages("list_multipart_uploads", gone=_GONE | _NO_UPLOADS, Prefix=prefix)
        with suppress(ObjectGone):
            for page in pages:
                for upload in page.get("Uploads", []):
                    if upload["Initiated"].timestamp() * 1000 < before_ms:
                        removed += self._abort(upload["Key"], upload["UploadId"])
        return removed

    def _abort(self, name: str, upload_id: str) -> int:
        try:
            with _requests("AbortMultipartUpload", gone=_GONE | _NO_UPLOADS):
                self._client().abort_multipart_upload(Bucket=self._location.bucket, Key=name, UploadId=upload_id)
        except ObjectGone:  # another process sweeps too
            return 0
        return 1

    def _pages(self, operation: str, *, gone: Collection[str] = _GONE, **arguments: Any) -> Iterator[Any]:
        pages = iter(self._client().get_paginator(operation).paginate(Bucket=self._location.bucket, **arguments))
        while True:
            with _requests(operation, gone=gone):
                page = next(pages, None)
            if page is None:
                return
            yield page

    # --- signed URLs ---------------------------------------------------------------------------------------------

    def minter(self, name_of: Callable[[str], str], clock: Callable[[], float] = time.time) -> S3Minter:
        """Return what mints signed URLs."""
        client = self._client()
        # The SDK knows best where a bucket is: it is asked for one URL, and the others are made like it.
        arguments = {"Bucket": self._location.bucket, "Key": "k"}
        with _requests("signing"):
            parts = urlsplit(client.generate_presigned_url("get_object", Params=arguments))
        base_url = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix('/k')}"
        region = parse_qs(parts.query)["X-Amz-Credential"][0].split("/")[-3]
        presigner = Presigner(base_url, region, self.credentials, clock)
        return S3Minter(
            presigner,
            name_of,
            self.begin_upload,
            expires_seconds=self._url_seconds,
            tells_checksums=lambda: self._tells_checksums,
            clock=clock,
        )

    def credentials(self) -> Credentials:
        """Return the credentials in force."""
        with _requests("signing"):
            found = self._credentials.get_frozen_credentials()
        return Credentials(found.access_key, found.secret_key, found.token or "")

    def _url_seconds(self) -> int:
        return TEMPORARY_URL_SECONDS if self.credentials().token else URL_SECONDS


@contextmanager
def _requests(what: str, *, gone: Collection[str] = _GONE, passing: Collection[str] = ()) -> Iterator[None]:
    """Translate what the SDK raises inside into this package's errors; codes in *passing* pass.

    What it says is not repeated but for the store's own word: it may hold names and addresses of the server's.
    """
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
    from botocore.exceptions import ConnectionError as NoConnection

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in passing:
            raise
        if code in gone:
            raise ObjectGone(what) from None
        if (status and is_passing(status)) or code in _PASSING:
            raise store_unavailable(what) from error
        raise store_refused(what, code or str(status)) from error
    except (HTTPClientError, IncompleteReadError, NoConnection) as error:
        raise store_unavailable(what) from error
    except BotoCoreError as error:
        raise store_refused(what, type(error).__name__) from error
