"""Buckets without a cloud: names, signatures, and what a store's own word about a checksum is worth."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id, time_of_id
from asyncsdk.errors import BadRequest, ConfigError, NotFound, ServerError
from asyncsdk.server.objects.clouds import checking
from asyncsdk.server.objects.clouds import objects as objects_module
from asyncsdk.server.objects.clouds.azure_minting import AzureMinter
from asyncsdk.server.objects.clouds.bucket import Bucket, ObjectGone, store_unavailable
from asyncsdk.server.objects.clouds.clients import ClientOfProcess
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.opening import open_cloud
from asyncsdk.server.objects.clouds.presigning import Credentials, Presigner
from asyncsdk.server.objects.clouds.s3_minting import S3Minter
from asyncsdk.server.objects.discarding import Swept
from asyncsdk.targets import BlobTarget, MultipartTarget, PutTarget, UrlOrigin
from tests.support.memory_bucket import MemoryBucket, minter, objects_in

DATA = b"0123456789" * 10
DIGEST = crc32c_hex(crc32c(DATA))
SECRET = b"s" * 32


def wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(2000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it never was")


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


def test_the_signature_of_amazons_own_example() -> None:
    """Its documented GET: key, moment and lifetime give exactly this signature."""
    presigner = Presigner(
        "https://examplebucket.s3.amazonaws.com",
        "us-east-1",
        lambda: Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        datetime(2013, 5, 24, tzinfo=UTC).timestamp,
    )
    url = presigner.sign("GET", "test.txt", expires_seconds=86400)
    assert url == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


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


@pytest.mark.parametrize(("parts", "pages"), [(3, 1), (1000, 1), (1001, 2), (9999, 10), (None, 10)])
def test_every_page_of_a_listing_is_signed_for_who_goes_on(parts: int | None, pages: int) -> None:
    """The first alone at the beginning: a bulk message prepares for many."""
    size = None if parts is None else parts * 8 * 1024 * 1024
    object_id = make_id()
    target = minter().target(object_id, size_bytes=size, crc32c=None)
    assert isinstance(target, MultipartTarget)
    assert len(target.list_urls) == 1
    again = minter().renew(object_id, size_bytes=size, crc32c=None, upload_id=target.upload_id, first_part=1)
    assert isinstance(again, MultipartTarget)
    marks = [dict(parse_qsl(urlsplit(url).query)).get("part-number-marker") for url in again.list_urls]
    assert marks == [None, *(str(1000 * page) for page in range(1, pages))]
    assert again.list_urls[0] == target.list_urls[0]


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
    wrong, right = objects.sizes([(object_id, "12345678"), (object_id, DIGEST)])
    if verifies:
        wrong, right = right, wrong
    assert right == len(DATA)
    assert isinstance(wrong, BadRequest)
    assert wrong.server_code == "bad_digest"
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
    assert objects.sizes([(object_id, DIGEST)]) == [len(DATA)]
    assert bucket.reads == 15


def test_those_who_ask_meanwhile_wait_for_one_reading() -> None:
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    bucket.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(objects.sizes, [(object_id, DIGEST)]) for _ in range(4)]
        bucket.gate.set()
        assert [one.result(10) for one in asked] == [[len(DATA)]] * 4
    assert bucket.reads == 1


def test_a_reading_that_breaks_is_begun_again_and_a_lasting_failure_is_told() -> None:
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    bucket.failures = 2
    assert objects.sizes([(object_id, DIGEST)]) == [len(DATA)]
    bucket.objects[objects.name(object_id)] = DATA * 2
    bucket.failures = 3
    other, missing = make_id(), make_id()
    bucket.objects[objects.name(other)] = b""
    (told, empty, none) = objects.sizes([(object_id, DIGEST), (other, "00000000"), (missing, DIGEST)])
    assert isinstance(told, ServerError), "of one object: the others are judged all the same"
    assert (told.server_code, empty, none) == ("store_unavailable", 0, None)
    assert objects.sizes([(object_id, crc32c_hex(crc32c(DATA * 2)))]) == [2 * len(DATA)]


def test_what_takes_longer_is_read_on_and_found_by_who_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits in a thread of the server meanwhile; a failure that nobody heard of is told to whoever asks next."""
    monkeypatch.setattr(objects_module, "CHECK_SECONDS", 0.05)
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    large, small = make_id(), make_id()
    for object_id in (large, small):
        bucket.objects[objects.name(object_id)] = DATA
    assert objects.sizes([(small, DIGEST)]) == [len(DATA)]
    bucket.gate.clear()
    waiting, known = objects.sizes([(large, DIGEST), (small, DIGEST)])
    assert isinstance(waiting, ServerError)
    assert (waiting.server_code, waiting.status, known) == ("still_checking", 503, len(DATA))
    assert waiting.retry_after
    bucket.failures = 3
    bucket.gate.set()
    monkeypatch.setattr(objects_module, "CHECK_SECONDS", 10)
    (failed,) = objects.sizes([(large, DIGEST)])
    assert isinstance(failed, ServerError)
    assert failed.server_code == "store_unavailable"
    assert objects.sizes([(large, DIGEST)]) == [len(DATA)]
    assert bucket.reads == 5
    objects.close()


def test_that_an_object_cannot_be_read_is_found_by_who_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store lists it and does not give it: begun anew for each who asks, its reading would never come to an end."""
    monkeypatch.setattr(objects_module, "CHECK_SECONDS", 0.05)
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    reads: list[str] = []

    def gone(name: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        reads.append(name)
        assert bucket.gate.wait(60)
        raise ObjectGone(name)

    monkeypatch.setattr(bucket, "read", gone)
    bucket.gate.clear()
    (first,) = objects.sizes([(object_id, DIGEST)])
    bucket.gate.set()
    wait_until(lambda: not objects._checks._readings()._running)
    bucket.gate.clear()
    (second,) = objects.sizes([(object_id, DIGEST)])
    assert isinstance(first, ServerError)
    assert first.server_code == "still_checking"
    assert (second, len(reads)) == (None, 1)
    (third,) = objects.sizes([(object_id, DIGEST)])  # it was told: now it may be looked at again
    assert isinstance(third, ServerError)
    bucket.gate.set()
    objects.close()


def test_a_small_object_does_not_wait_until_a_large_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that are read at the same time take turns, range by range."""
    monkeypatch.setattr(checking, "RANGE_BYTES", 1)
    monkeypatch.setattr(checking, "READS_AT_ONCE", 1)
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    large, small = make_id(), make_id()
    bucket.objects[objects.name(large)] = DATA
    bucket.objects[objects.name(small)] = b"x"
    bucket.gate.clear()
    futures = [objects._checks.begin(objects.name(one), bucket.facts(objects.name(one))) for one in (large, small)]  # type: ignore[arg-type]  # they are there
    read_until_then: list[int] = []
    futures[1].add_done_callback(lambda _: read_until_then.append(bucket.reads))
    bucket.gate.set()
    assert [future.result(10) for future in futures] == [DIGEST, crc32c_hex(crc32c(b"x"))]
    assert read_until_then[0] < 10
    objects.close()


def test_closing_ends_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told, and nobody goes on; asked again, it is read."""
    before = set(threading.enumerate())
    monkeypatch.setattr(checking, "RANGE_BYTES", 1)
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    bucket.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(objects.sizes, [(object_id, DIGEST)])
        wait_until(lambda: bucket.reads > 0)
        closing = pool.submit(objects.close)
        bucket.gate.set()
        closing.result(10)
        (told,) = asked.result(10)
    assert isinstance(told, ServerError)
    assert set(threading.enumerate()) <= before
    assert objects.sizes([(object_id, DIGEST)]) == [len(DATA)]
    objects.close()


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["NoSuchKey", "AccessDenied"], {"b": "AccessDenied"}),
        (["AccessDenied", "SlowDown"], "store_unavailable"),
        (["InternalError", "NoSuchKey"], "store_unavailable"),
    ],
)
def test_what_s3_does_not_remove_is_told(codes: list[str], expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is asked too much says so of each object, in a reply that is a success."""
    pytest.importorskip("boto3")
    from asyncsdk.server.objects.clouds.s3 import S3Bucket

    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "x")

    class Client:
        def delete_objects(self, **_: object) -> object:
            return {"Errors": [{"Key": key, "Code": code} for key, code in zip("ab", codes, strict=True)]}

    bucket = S3Bucket(Location.parse("s3://bucket", "http://127.0.0.1:1"))
    bucket.close()
    monkeypatch.setattr(bucket, "_client", Client)
    assert removed_by(bucket) == expected


@pytest.mark.parametrize(
    ("statuses", "expected"), [([202, 409, 404], {"b": "409"}), ([202, 409, 503], "store_unavailable")]
)
def test_what_azure_does_not_remove_is_told(
    statuses: list[int], expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("azure.storage.blob")
    from asyncsdk.server.objects.clouds.azure import AzureBucket

    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "name")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "c2VjcmV0")

    class Client:
        def delete_blobs(self, *_: str, raise_on_any_failure: bool) -> object:
            return [SimpleNamespace(status_code=status) for status in statuses]

    bucket = AzureBucket(Location.parse("az://box"))
    monkeypatch.setattr(bucket, "_client", Client)
    assert removed_by(bucket) == expected


def removed_by(bucket: Bucket) -> object:
    """Return what stays of three objects, or the code of the error."""
    try:
        return bucket.remove(["a", "b", "c"])
    except ServerError as error:
        return error.server_code


def test_closing_does_not_wait_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """For longer than some seconds. Whoever waits for the bytes is told."""
    monkeypatch.setattr(checking, "CLOSE_SECONDS", 0.05)
    bucket = MemoryBucket(verifies=False)
    objects = objects_in(bucket)
    object_id = make_id()
    bucket.objects[objects.name(object_id)] = DATA
    bucket.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(objects.sizes, [(object_id, DIGEST)])
        wait_until(lambda: bucket.reads > 0)
        objects.close()
        (told,) = asked.result(10)
        assert isinstance(told, ServerError)
        bucket.gate.set()


def test_what_stays_is_told_by_id() -> None:
    bucket = MemoryBucket()
    objects = objects_in(bucket)
    held, gone = make_id(), make_id()
    for object_id in (held, gone):
        bucket.objects[objects.name(object_id)] = DATA
    bucket.held.add(objects.name(held))
    assert objects.remove([(held, DIGEST), (gone, DIGEST)]) == {held: "AccessDenied"}
    assert list(bucket.objects) == [objects.name(held)]


def test_bytes_for_the_server_are_checked_as_they_come() -> None:
    bucket = MemoryBucket()
    objects = objects_in(bucket)
    object_id = make_id()
    with pytest.raises(NotFound):
        objects.open_staged(object_id, DIGEST)
    bucket.objects[objects.name(object_id)] = DATA
    with objects.open_staged(object_id, DIGEST) as file:
        assert file.read() == DATA
    with pytest.raises(BadRequest) as caught:
        objects.open_staged(object_id, "00000000")
    assert caught.value.server_code == "bad_digest"


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
