"""Buckets without a cloud: names, signatures, and what a store's own word about a checksum is worth."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id, time_of_id
from asyncsdk.errors import BadRequest, ConfigError, NotFound, ServerError
from asyncsdk.server.objects.clouds import checking
from asyncsdk.server.objects.clouds.azure_minting import AzureMinter
from asyncsdk.server.objects.clouds.bucket import Facts, ObjectGone, store_unavailable
from asyncsdk.server.objects.clouds.clients import ClientOfProcess
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.server.objects.clouds.opening import open_cloud
from asyncsdk.server.objects.clouds.presigning import Credentials, Presigner
from asyncsdk.server.objects.clouds.s3_minting import S3Minter
from asyncsdk.server.objects.discarding import Swept
from asyncsdk.targets import BlobTarget, MultipartTarget, PutTarget, UrlOrigin

DATA = b"0123456789" * 10
DIGEST = crc32c_hex(crc32c(DATA))
SECRET = b"s" * 32


class MemoryBucket:
    """A bucket that states what it is told to state, and counts what is read."""

    def __init__(self, *, verifies: bool = True, late_ms: int = 0) -> None:
        self.late_ms = late_ms
        self.objects: dict[str, bytes] = {}
        self.stated: dict[str, str] = {}
        self.reads = 0
        self.failures = 0
        self.gate = threading.Event()
        self.gate.set()
        self._verifies = verifies

    def facts(self, name: str) -> Facts | None:
        data = self.objects.get(name)
        return None if data is None else Facts(len(data), f"etag-{crc32c(data)}", self.stated.get(name))

    def read(self, name: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        self.reads += 1
        assert self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise store_unavailable("GetObject")
        facts = self.facts(name)
        if facts is None or facts.etag != etag:
            raise ObjectGone(name)
        yield self.objects[name][start:stop]

    def write(self, name: str, data: bytes) -> None:
        self.objects[name] = data

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            self.objects.pop(name, None)

    def names(self, prefix: str) -> Iterator[str]:
        yield from sorted(name for name in self.objects if name.startswith(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        yield from sorted({name[len(prefix) :].partition("/")[0] for name in self.names(prefix)})

    def verifies_checksums(self, name: str) -> bool:
        return self._verifies

    def discard_uploads(self, prefix: str, before_ms: int) -> int:
        return 0

    def close(self) -> None:
        pass

    def minter(self, name_of: Callable[[str], str]) -> S3Minter:
        return minter(name_of)


def minter(name_of: Callable[[str], str] = str, *, tells: bool = True, seconds: int = 3600) -> S3Minter:
    presigner = Presigner("https://host/bucket", "eu-west-1", lambda: Credentials("AKIA", "secret"), lambda: 1e9)
    return S3Minter(
        presigner,
        name_of,
        lambda name: f"upload of {name}",
        expires_seconds=lambda: seconds,
        tells_checksums=lambda: tells,
        clock=lambda: 1e9,
    )


def objects_in(bucket: MemoryBucket) -> CloudObjects:
    objects = CloudObjects(bucket, "prefix", "n" * 32)
    objects.look()
    return objects


# --- where ---


@pytest.mark.parametrize(
    ("url", "shown", "prefix"),
    [("s3://bucket", "s3://bucket", ""), ("s3://b.u-k/a/b=1/", "s3://b.u-k/a/b=1", "a/b=1")],
)
def test_a_location_is_read(url: str, shown: str, prefix: str) -> None:
    location = Location.parse(url, "http://127.0.0.1:9000/")
    assert (str(location), location.prefix, location.endpoint) == (shown, prefix, "http://127.0.0.1:9000")


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("bucket", None),
        ("ftp://bucket", None),
        ("s3://", None),
        ("s3://a", None),
        ("s3://key:secret@bucket/x", None),
        ("s3://bucket/../x", None),
        ("s3://bucket/a//b", None),
        ("s3://bucket/x?secret=1", None),
        ("s3://bucket", "127.0.0.1:9000"),
        ("s3://bucket", "http://key:secret@host"),
        ("s3://bucket", "http://host/?secret=1"),
        ("s3://bucket", "http://host:99999"),
    ],
)
def test_what_is_no_location_is_refused_without_its_secrets(url: str, endpoint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        Location.parse(url, endpoint)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("boto3", "s3://bucket", "s3"),
        ("azure.storage.blob", "az://box-of-things", "azure"),
        ("google.cloud.storage", "gs://bucket", "gcs"),
    ],
)
def test_the_extra_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, module: str, url: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"asyncsdk\[{extra}\]"):
        open_cloud(Location.parse(url), "n" * 32, SECRET)


def test_no_credentials_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("boto3")
    from asyncsdk.server.objects.clouds.s3 import S3Bucket

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        S3Bucket(Location.parse("s3://bucket", "http://127.0.0.1:9"))


# --- signatures ---


@pytest.mark.parametrize("token", ["", "temporary/token+=="])
@pytest.mark.parametrize(
    ("operation", "method", "arguments", "parameters", "headers"),
    [
        ("get_object", "GET", {}, {}, {}),
        ("put_object", "PUT", {"ContentLength": 5}, {}, {"content-length": 5}),
        (
            "upload_part",
            "PUT",
            {"UploadId": "a+b/c=", "PartNumber": 7, "ContentLength": 9},
            {"uploadId": "a+b/c=", "partNumber": 7},
            {"content-length": 9},
        ),
        ("abort_multipart_upload", "DELETE", {"UploadId": "u~1"}, {"uploadId": "u~1"}, {}),
    ],
)
def test_signed_urls_are_those_of_the_sdk(
    operation: str,
    method: str,
    arguments: dict[str, object],
    parameters: dict[str, str | int],
    headers: dict[str, str | int],
    token: str,
) -> None:
    """Signature and parameters, for a second of the SDK's choice, with and without temporary credentials."""
    boto3 = pytest.importorskip("boto3")
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:9000",
        region_name="eu-west-1",
        aws_access_key_id="AKIA",
        aws_secret_access_key="secret",
        aws_session_token=token or None,
        config=Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
        ),
    )
    name = "prefix/ä b+c/1"
    theirs = urlsplit(
        client.generate_presigned_url(operation, Params={"Bucket": "bucket", "Key": name, **arguments}, ExpiresIn=600)
    )
    client.close()
    query = dict(parse_qsl(theirs.query))
    from datetime import datetime

    moment = datetime.strptime(query["X-Amz-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
    presigner = Presigner(
        "http://127.0.0.1:9000/bucket", "eu-west-1", lambda: Credentials("AKIA", "secret", token), lambda: moment
    )
    ours = urlsplit(presigner.sign(method, name, parameters=parameters, headers=headers, expires_seconds=600))
    assert (ours.netloc, ours.path) == (theirs.netloc, theirs.path)
    query.pop("x-id", None)
    assert dict(parse_qsl(ours.query)) == query


@pytest.mark.parametrize(
    ("region", "bucket", "base", "scope"),
    [
        ("eu-central-1", "photos", "https://photos.s3.eu-central-1.amazonaws.com/", "eu-central-1"),
        ("", "photos", "https://photos.s3.amazonaws.com/", "us-east-1"),
        ("eu-central-1", "pho.tos", "https://s3.eu-central-1.amazonaws.com/pho.tos/", "eu-central-1"),
    ],
)
def test_amazons_own_buckets_are_where_the_sdk_says(
    monkeypatch: pytest.MonkeyPatch, region: str, bucket: str, base: str, scope: str
) -> None:
    """Host, path and region of the signature; with temporary credentials a URL works for ten minutes."""
    pytest.importorskip("boto3")
    from asyncsdk.server.objects.clouds.s3 import S3Bucket

    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    facts = {"DEFAULT_REGION": region, "ACCESS_KEY_ID": "AKIA", "SECRET_ACCESS_KEY": "secret", "SESSION_TOKEN": "t"}
    for name, value in {**facts, "CONFIG_FILE": "/nowhere", "SHARED_CREDENTIALS_FILE": "/nowhere"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    found = S3Bucket(Location.parse(f"s3://{bucket}"))
    origin = found.minter(lambda object_id: f"a/{object_id}").origin("x", size_bytes=1, crc32c="0" * 8, etag="")
    found.close()
    assert isinstance(origin, UrlOrigin)
    query = dict(parse_qsl(urlsplit(origin.url).query))
    assert origin.url.startswith(f"{base}a/x?")
    assert query["X-Amz-Credential"].split("/")[2] == scope
    assert (query["X-Amz-Expires"], query["X-Amz-Security-Token"]) == ("600", "t")
    assert "secret" not in origin.url + repr(origin) + repr(found.credentials())


def test_sizes_and_checksums_are_under_the_signature() -> None:
    target = minter().target(make_id(), size_bytes=5, crc32c="00000001")
    assert isinstance(target, PutTarget)
    assert target.headers == {"x-amz-checksum-crc32c": "AAAAAQ=="}
    signed = dict(parse_qsl(urlsplit(target.url).query))["X-Amz-SignedHeaders"]
    assert signed == "content-length;host;x-amz-checksum-crc32c"
    assert target.expires_at == 1e9 + 3600
    untold = minter(tells=False).target(make_id(), size_bytes=5, crc32c="00000001")
    assert isinstance(untold, PutTarget)
    assert untold.headers == {}


def test_parts_are_cut_the_same_way_whenever_urls_are_minted() -> None:
    size = 100 * 8 * 1024 * 1024 + 1
    object_id = make_id()
    target = minter().target(object_id, size_bytes=size, crc32c=None)
    assert isinstance(target, MultipartTarget)
    assert (target.upload_id, target.first_part, len(target.part_urls)) == (f"upload of {object_id}", 1, 25)
    again = minter().renew(object_id, size_bytes=size, crc32c=None, upload_id=target.upload_id, first_part=2)
    assert isinstance(again, MultipartTarget)
    assert (again.part_size, len(again.part_urls)) == (target.part_size, 100)
    assert again.part_urls[0] == target.part_urls[1]
    assert "content-length" in again.part_urls[-1]
    facts = {"size_bytes": size, "crc32c": None}
    for wrong in ({"upload_id": "x", "first_part": 102}, {"upload_id": "\n", "first_part": 1}):
        with pytest.raises(BadRequest):
            minter().renew(object_id, **facts, **wrong)  # type: ignore[arg-type]  # made of both
    with pytest.raises(BadRequest, match="at most"):
        minter().target(object_id, size_bytes=6 * 1024**4, crc32c=None)


def test_an_origin_does_not_name_the_platforms_validator() -> None:
    origin = minter().origin(make_id(), size_bytes=5, crc32c="00000001", etag='"00000001-x"')
    assert isinstance(origin, UrlOrigin)
    assert (origin.etag, origin.crc32c, origin.size_bytes) == (None, "00000001", 5)


def test_many_uploads_in_parts_are_begun_side_by_side_and_a_failing_store_fails_them_all() -> None:
    """In order; one that is too large is refused alone."""
    together = threading.Barrier(4, timeout=10)
    presigner = Presigner("https://host/bucket", "eu-west-1", lambda: Credentials("AKIA", "secret"), lambda: 1e9)

    def begin(name: str) -> str:
        together.wait()  # breaks unless four are here at once
        return name

    def minter_by(begin_upload: Callable[[str], str]) -> S3Minter:
        return S3Minter(
            presigner, str, begin_upload, expires_seconds=lambda: 60, tells_checksums=lambda: True, clock=lambda: 1e9
        )

    large = 17 * 1024 * 1024
    ids = [make_id() for _ in range(6)]
    sizes = [large, 1, large, 6 * 1024**4, large, large]
    found = minter_by(begin).targets([(*pair, None) for pair in zip(ids, sizes, strict=True)])
    kinds = [type(one) for one in found]
    assert kinds == [MultipartTarget, PutTarget, MultipartTarget, BadRequest, MultipartTarget, MultipartTarget]
    assert [one.upload_id for one in found if isinstance(one, MultipartTarget)] == [ids[0], ids[2], ids[4], ids[5]]

    def fail(name: str) -> str:
        raise store_unavailable("CreateMultipartUpload")

    with pytest.raises(ServerError, match="CreateMultipartUpload"):
        minter_by(fail).targets([(one, large, None) for one in ids])


def test_a_blob_is_signed_for_sending_and_for_reading() -> None:
    """What a signature allows stands in it; Azurite checks that it is right (tests/contract/clouds)."""
    minter = AzureMinter("https://account.host/box", "account", b"key", "box", str, clock=lambda: 1e9)
    object_id = make_id()
    target = minter.target(object_id, size_bytes=100_000 * 1024 * 1024, crc32c=None)
    again = minter.renew(object_id, size_bytes=None, crc32c=None, upload_id="any", first_part=3)
    origin = minter.origin(object_id, size_bytes=5, crc32c="00000001", etag='"x"')
    assert isinstance(target, BlobTarget)
    assert isinstance(again, BlobTarget)
    assert isinstance(origin, UrlOrigin)
    assert target.upload_id == again.upload_id
    assert target.part_size * 10_000 >= 100_000 * 1024 * 1024
    queries = [dict(parse_qsl(urlsplit(one.url).query)) for one in (target, origin)]
    assert [(query["sp"], query["se"], query["sr"]) for query in queries] == [
        ("rcw", "2001-09-09T02:46:40Z", "b"),
        ("r", "2001-09-09T02:46:40Z", "b"),
    ]
    assert (origin.etag, origin.crc32c, target.expires_at) == (None, "00000001", 1e9 + 3600)
    (refused,) = minter.targets([(object_id, 6 * 1024**4, None)])
    assert isinstance(refused, BadRequest)


def test_an_account_without_a_key_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.storage.blob")
    from asyncsdk.server.objects.clouds.azure import AzureBucket

    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="AZURE_STORAGE_CONNECTION_STRING"):
        AzureBucket(Location.parse("az://box-of-things"))
    text = "DefaultEndpointsProtocol=https;AccountName=name;AccountKey=secret!;EndpointSuffix=host.example"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    bucket = AzureBucket(Location.parse("az://box-of-things"))
    with pytest.raises(ConfigError) as caught:
        bucket.minter(str)
    assert "secret" not in f"{caught.value}{bucket!r}"


# --- whose word counts ---


@pytest.mark.parametrize("verifies", [True, False])
def test_a_stated_checksum_counts_where_the_store_compares_them(verifies: bool) -> None:
    """A store that takes whatever it is told repeats the client's word: the bytes are read."""
    bucket = MemoryBucket(verifies=verifies)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    bucket.stated[objects.name(object_id)] = "12345678"
    assert objects.staged_size(object_id, "12345678") == (len(DATA) if verifies else None)
    assert objects.staged_size(object_id, DIGEST) == (None if verifies else len(DATA))
    assert bucket.reads == (0 if verifies else 1)


def test_the_first_bytes_of_an_object_are_read_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryBucket(verifies=False)
    asked: list[tuple[int, int]] = []
    read = bucket.read

    def noted(name: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        asked.append((start, stop))
        return read(name, start, stop, etag)

    monkeypatch.setattr(bucket, "read", noted)
    objects = objects_in(bucket)
    large, small, empty = make_id(), make_id(), make_id()
    for object_id, data in ((large, DATA), (small, b"abc"), (empty, b"")):
        bucket.objects[objects.name(object_id)] = data
    assert objects.head(large, DIGEST, 16) == DATA[:16]
    assert objects.head(small, DIGEST, 16) == b"abc"
    assert objects.head(empty, DIGEST, 16) == b""
    assert asked == [(0, 16), (0, 3)], "a request for no bytes at all would be refused"
    with pytest.raises(NotFound, match="upload them again"):
        objects.head(make_id(), DIGEST, 16)


def test_a_name_tells_nothing_without_the_namespace() -> None:
    objects = objects_in(MemoryBucket())
    object_id = make_id()
    prefix, namespace, day, last = objects.name(object_id).split("/")
    assert (prefix, namespace, last, len(day)) == ("prefix", "n" * 32, object_id, 10)
    with pytest.raises(BadRequest):
        objects.name("../../x")


def test_large_objects_are_summed_in_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "RANGE_BYTES", 7)
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    assert objects.staged_size(object_id, DIGEST) == len(DATA)
    assert bucket.reads == 15


def test_those_who_ask_meanwhile_wait_for_one_reading() -> None:
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    bucket.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(objects.staged_size, object_id, DIGEST) for _ in range(4)]
        bucket.gate.set()
        assert [one.result(10) for one in asked] == [len(DATA)] * 4
    assert bucket.reads == 1


def test_a_reading_that_breaks_is_begun_again_and_a_lasting_failure_is_told() -> None:
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    bucket.failures = 2
    assert objects.staged_size(object_id, DIGEST) == len(DATA)
    bucket.objects[objects.name(object_id)] = DATA * 2
    bucket.failures = 3
    with pytest.raises(ServerError) as caught:
        objects.staged_size(object_id, DIGEST)
    assert caught.value.code == "store_unavailable"
    assert objects.staged_size(object_id, crc32c_hex(crc32c(DATA * 2))) == 2 * len(DATA)


def test_bytes_for_the_server_are_checked_as_they_come() -> None:
    bucket = MemoryBucket()
    objects = objects_in(bucket)
    object_id = make_id()
    with pytest.raises(NotFound):
        objects.open_staged(object_id, DIGEST)
    bucket.objects[objects.name(object_id)] = DATA
    with objects.open_staged(object_id, DIGEST) as file:
        assert file.read() == DATA
    with pytest.raises(NotFound):
        objects.open_staged(object_id, "00000000")


# --- sweeps ---


@pytest.mark.parametrize("late_days", [0, 7])
def test_a_day_is_looked_at_until_nothing_can_come_there_any_more(late_days: int) -> None:
    """Where sessions take bytes for a week after the last renewal, what came late is found by a later sweep."""
    day_ms = 24 * 60 * 60 * 1000
    bucket = MemoryBucket(late_ms=late_days * day_ms)
    objects = objects_in(bucket)
    object_id = make_id()
    over_ms = (time_of_id(object_id) // day_ms + 1) * day_ms
    bucket.objects[objects.name(object_id)] = DATA
    swept = Swept(before_ms=over_ms, started_at=0.0)  # it saw the end of that day, when nothing was there
    found = objects.discard_expired(before_ms=over_ms + day_ms, keep=lambda ids: {}, swept=swept)
    assert found == (1 if late_days else 0)
    bucket.objects[objects.name(object_id)] = DATA
    late = Swept(before_ms=over_ms + 7 * day_ms, started_at=0.0)
    assert objects.discard_expired(before_ms=over_ms + 8 * day_ms, keep=lambda ids: {}, swept=late) == 0


# --- processes ---


def test_a_client_is_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork another is made, and the one of the other side is not closed."""
    closed: list[object] = []

    class Client:
        def close(self) -> None:
            closed.append(self)

    client_of = ClientOfProcess(Client)
    parents = client_of()
    assert client_of() is parents
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        child = client_of()
        assert child is not parents
        client_of.close()
        assert closed == [child]
        client_of()
    client_of.close()  # what is there is the other side's
    assert closed == [child]
    assert client_of() is not child
