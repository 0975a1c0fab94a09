"""Google Cloud Storage without Google: signatures, sessions and their ids, and which credentials can sign."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, ConfigError, ServerError
from asyncsdk.server.objects.clouds.gcs_minting import MAX_OBJECT_BYTES, GcsMinter
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.server.objects.clouds.presigning import GOOGLE, Credentials, Presigner
from asyncsdk.targets import PutTarget, ResumableTarget, UrlOrigin

pytest.importorskip("google.cloud.storage")
pytest.importorskip("cryptography")

from asyncsdk.server.objects.clouds import gcs_credentials
from asyncsdk.server.objects.clouds.gcs import GcsBucket
from asyncsdk.server.objects.clouds.gcs_sessions import Session, SessionIds
from tests.support.clouds.google import GoogleStorage

MiB = 1024 * 1024
SECRET = b"s" * 32
DATA = b"0123456789"
DIGEST = crc32c_hex(crc32c(DATA))
MOMENT = 1_700_000_000.0


@pytest.fixture(scope="module")
def storage() -> Iterator[GoogleStorage]:
    with GoogleStorage() as storage:
        yield storage


@pytest.fixture(autouse=True)
def environment(storage: GoogleStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "ASYNCSDK_GCS_HMAC_ACCESS_ID", "ASYNCSDK_GCS_HMAC_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(storage.write_key_file(tmp_path)))
    storage.objects.clear()
    storage.sessions.clear()
    storage.asked.clear()


@pytest.fixture
def bucket(storage: GoogleStorage) -> Iterator[GcsBucket]:
    bucket = GcsBucket(Location.parse("gs://tests/prefix", storage.url), SECRET)
    yield bucket
    bucket.close()


def put(target: Any, data: bytes, **more: str) -> httpx.Response:
    return httpx.put(target.url, headers={**target.headers, **more}, content=data, trust_env=False, timeout=30)


# --- signatures ---


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", {}), ("PUT", {"x-goog-content-length-range": "5,5", "x-goog-hash": "crc32c=AAAAAQ=="})],
)
def test_signed_urls_are_those_of_the_sdk(storage: GoogleStorage, method: str, headers: dict[str, str]) -> None:
    """To the byte, and the public key of the account confirms them."""
    from google.cloud.storage._signing import generate_signed_url_v4
    from google.oauth2 import service_account

    facts = {"client_email": storage.email, "private_key": storage.key, "token_uri": "http://127.0.0.1:9"}
    account = service_account.Credentials.from_service_account_info(facts)  # type: ignore[no-untyped-call]
    name = "prefix/ä b+c~/1"
    theirs = generate_signed_url_v4(
        account,
        f"/bucket/{quote(name, safe='/~')}",
        600,
        api_access_endpoint="https://storage.googleapis.com",
        method=method,
        headers=dict(headers),
        _request_timestamp="20231114T221320Z",
    )
    signed: list[bytes] = []

    def sign(data: bytes) -> bytes:
        signed.append(data)
        signature: bytes = account.sign_bytes(data)
        return signature

    credentials = Credentials(storage.email, sign=sign)
    presigner = Presigner("https://storage.googleapis.com/bucket", "auto", lambda: credentials, lambda: MOMENT, GOOGLE)
    ours = presigner.sign(method, name, headers=headers, expires_seconds=600)
    assert ours == theirs
    signature = bytes.fromhex(ours.rpartition("=")[2])
    assert storage.verify(signature, signed[0])
    assert not storage.verify(signature, signed[0] + b"x")
    assert storage.key.splitlines()[1] not in repr(credentials) + ours


@pytest.mark.parametrize("kind", ["key file", "hmac"])
def test_a_url_is_good_for_one_request_to_one_object(
    storage: GoogleStorage, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Size, checksum, name and method are under the signature, whichever key made it."""
    if kind == "hmac":
        monkeypatch.setenv("ASYNCSDK_GCS_HMAC_ACCESS_ID", storage.hmac_key[0])
        monkeypatch.setenv("ASYNCSDK_GCS_HMAC_SECRET", storage.hmac_key[1])
    bucket = GcsBucket(Location.parse("gs://tests", storage.url), SECRET)
    minter = bucket.minter(str)
    target = minter.target(make_id(), size_bytes=len(DATA), crc32c=DIGEST)
    assert isinstance(target, PutTarget)
    algorithm = parse_qs(urlsplit(target.url).query)["X-Goog-Algorithm"]
    assert algorithm == ["GOOG4-HMAC-SHA256" if kind == "hmac" else "GOOG4-RSA-SHA256"]
    assert target.headers == {
        "x-goog-content-length-range": "10,10",
        "x-goog-hash": f"crc32c={crc32c_base64(crc32c(DATA))}",
    }
    refused = [
        httpx.put(target.url, content=DATA, trust_env=False),  # without what was signed
        put(target, b"0123456780"),
        put(target, DATA + b"x"),
        put(target, DATA, **{"x-goog-acl": "public-read"}),
        httpx.put(target.url.replace("?", "0?", 1), headers=target.headers, content=DATA, trust_env=False),
        httpx.get(target.url, headers=target.headers, trust_env=False),
    ]
    assert [reply.status_code for reply in refused] == [403, 400, 400, 403, 403, 403]
    assert not storage.objects
    assert put(target, DATA).is_success
    (name,) = storage.objects
    origin = minter.origin(name, size_bytes=len(DATA), crc32c=DIGEST, etag='"x"')
    assert isinstance(origin, UrlOrigin)
    assert (origin.size_bytes, origin.crc32c, origin.etag) == (len(DATA), DIGEST, None)
    got = httpx.get(origin.url, headers={"Range": "bytes=3-5"}, trust_env=False)
    assert (got.status_code, got.content) == (206, b"345")
    bucket.close()


# --- sessions ---


def test_what_a_session_may_become_was_told_when_it_was_begun(storage: GoogleStorage, bucket: GcsBucket) -> None:
    """Nothing larger, no other checksum, and nothing in place of an object that is there."""
    minter = bucket.minter(str)
    names = [make_id() for _ in range(4)]
    size = 17 * MiB
    zeros = bytes(size)
    first = minter.target(names[0], size_bytes=size, crc32c=crc32c_hex(crc32c(zeros)))
    assert isinstance(first, ResumableTarget)
    assert put(first, b"1" + zeros[1:]).status_code == 400
    again = minter.target(names[0], size_bytes=size, crc32c=crc32c_hex(crc32c(zeros)))
    assert put(minter.target(names[1], size_bytes=size, crc32c=None), zeros + b"x").status_code == 400
    assert put(again, zeros).is_success
    late, meanwhile = (minter.target(names[2], size_bytes=None, crc32c=None) for _ in range(2))
    assert put(meanwhile, b"mine").is_success
    assert put(late, b"theirs").status_code == 412
    assert storage.objects[names[2]].data == b"mine"
    with pytest.raises(BadRequest, match="arrived already"):
        minter.target(names[2], size_bytes=None, crc32c=None)


def test_a_session_is_renewed_as_long_as_it_stands(storage: GoogleStorage, bucket: GcsBucket) -> None:
    """Its id stays; one that was given up, or that Google ended, is followed by another; a finished one says so."""
    name = make_id()
    target = bucket.minter(str).target(name, size_bytes=20 * MiB, crc32c=None)
    assert isinstance(target, ResumableTarget)

    def renew(seconds: float = 0.0) -> ResumableTarget:
        import time

        minter = bucket.minter(str, lambda: time.time() + seconds)
        found = minter.renew(name, size_bytes=20 * MiB, crc32c=None, upload_id=target.upload_id, first_part=3)
        assert isinstance(found, ResumableTarget)
        return found

    assert renew() == target
    assert len(storage.sessions) == 1
    assert renew(7 * 24 * 3600).upload_id != target.upload_id
    (session, other) = storage.sessions.values()
    session.is_gone = True
    assert renew().upload_id != target.upload_id
    session.is_gone, session.is_done = False, True
    storage.put(name, b"x")
    assert renew() == target
    assert not other.is_done


def test_an_upload_id_tells_nothing_and_belongs_to_one_object(storage: GoogleStorage, bucket: GcsBucket) -> None:
    """It is sealed with the platform's secret: no journal holds an address by which the object can be written."""
    minter = bucket.minter(str)
    one, other = make_id(), make_id()
    target = minter.target(one, size_bytes=None, crc32c=None)
    assert isinstance(target, ResumableTarget)
    session_id = parse_qs(urlsplit(target.url).query)["upload_id"][0]
    assert session_id not in target.upload_id + repr(target)
    facts: dict[str, Any] = {"size_bytes": None, "crc32c": None, "first_part": 1}
    flipped = target.upload_id[:-5] + ("A" if target.upload_id[-5] != "A" else "B") + target.upload_id[-4:]
    for name, upload_id in (
        (other, target.upload_id),
        (one, flipped),
        (one, ""),
        (one, "ö"),
        (one, "=="),
        (one, "A" * 9999),
    ):
        with pytest.raises(BadRequest, match="no upload id"):
            minter.renew(name, upload_id=upload_id, **facts)
    with pytest.raises(BadRequest, match="no upload id"):
        SessionIds(b"o" * 32).read(target.upload_id, one)
    session = Session("https://host/path", 17)
    assert SessionIds(SECRET).read(SessionIds(SECRET).make(session, one), one) == session


def test_many_sessions_are_begun_in_order_and_too_large_objects_refused_alone(bucket: GcsBucket) -> None:
    ids = [make_id() for _ in range(5)]
    sizes = [20 * MiB, 1, MAX_OBJECT_BYTES + 1, 30 * MiB, None]
    found = bucket.minter(str).targets([(*pair, None) for pair in zip(ids, sizes, strict=True)])
    kinds = [type(one) for one in found]
    assert kinds == [ResumableTarget, PutTarget, BadRequest, ResumableTarget, ResumableTarget]
    session_ids = SessionIds(SECRET)
    for number in (0, 3, 4):
        target = found[number]
        assert isinstance(target, ResumableTarget)
        assert session_ids.read(target.upload_id, ids[number]).url == target.url


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "store_unavailable"), (429, "store_unavailable"), (401, "store_refused"), (403, "store_refused")],
)
def test_a_store_that_fails_a_question_about_a_session_is_no_answer(
    bucket: GcsBucket, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    """Taken for a session that ended, an upload of a terabyte would begin anew."""
    name = make_id()
    target = bucket.minter(str).target(name, size_bytes=None, crc32c=None)
    assert isinstance(target, ResumableTarget)
    reply = type("Reply", (), {"status_code": status})
    monkeypatch.setattr(bucket._client()._http, "put", lambda *_, **__: reply)
    with pytest.raises(ServerError) as caught:
        bucket.minter(str).renew(name, size_bytes=None, crc32c=None, upload_id=target.upload_id, first_part=1)
    assert caught.value.server_code == code


@pytest.mark.parametrize("status", [404, 410, 499])
def test_a_session_that_ended_is_followed_by_another(
    bucket: GcsBucket, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Only what Google says of such a session means it."""
    target = bucket.minter(str).target(make_id(), size_bytes=None, crc32c=None)
    assert isinstance(target, ResumableTarget)
    monkeypatch.setattr(bucket._client()._http, "put", lambda *_, **__: type("Reply", (), {"status_code": status}))
    assert not bucket.stands(target.url)


# --- the bucket ---


def test_the_address_of_a_session_is_in_no_traceback(bucket: GcsBucket) -> None:
    """Whoever prints the error, or logs it, does not give it away."""
    hidden = make_id()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken, but nobody listens
        with pytest.raises(ServerError) as caught:
            bucket.stands(f"http://127.0.0.1:{free.getsockname()[1]}/upload?upload_id={hidden}")
    assert (caught.value.server_code, caught.value.retryable) == ("store_unavailable", True)
    assert hidden not in "".join(traceback.format_exception(caught.value))


def test_objects_are_removed_a_hundred_at_once_and_listed_by_pages(storage: GoogleStorage, bucket: GcsBucket) -> None:
    storage.page_size = 100
    names = [f"prefix/{day}/{number:03d}" for day in ("a", "b") for number in range(125)]
    for name in names:
        storage.put(name, b"x")
    storage.put("prefixed", b"x")
    assert list(bucket.names("prefix/")) == names
    assert list(bucket.folders("prefix/")) == ["a", "b"]
    storage.asked.clear()
    bucket.remove([*names, "prefix/missing"])
    assert storage.asked == [("POST", "/batch/storage/v1")] * 3
    assert list(storage.objects) == ["prefixed"]
    bucket.remove([])
    storage.page_size = 1000


@pytest.mark.parametrize("page_size", [1000, 15])
def test_neighbours_are_looked_at_by_one_request(
    storage: GoogleStorage, bucket: GcsBucket, monkeypatch: pytest.MonkeyPatch, page_size: int
) -> None:
    """Others lie between them, and some are not there: those, and what two pages do not show, are asked for apart."""
    monkeypatch.setattr(storage, "page_size", page_size)
    objects = CloudObjects(bucket, "prefix", "n" * 32)
    objects.look()
    ids = [make_id() for _ in range(60)]
    for number, object_id in enumerate(ids[:50]):
        storage.put(objects.name(object_id), b"%d" % number)
    wanted = [(ids[number], crc32c_hex(crc32c(b"%d" % number))) for number in range(0, 60, 3)]
    wanted[4] = (wanted[4][0], "00000000")
    storage.asked.clear()
    found = objects.sizes(wanted)
    assert len(storage.asked) == {1000: 1 + 3, 15: 2 + 10}[page_size]
    assert isinstance(found[4], BadRequest)
    sizes = [len(b"%d" % number) if number < 50 else None for number in range(0, 60, 3)]
    assert [*found[:4], *found[5:]] == [*sizes[:4], *sizes[5:]]


def test_what_was_not_removed_is_told(bucket: GcsBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept by a retention, one by one; what another attempt may do, as an error that says so."""
    monkeypatch.setattr(bucket, "_remove", lambda names: [204, 403, 404])
    assert bucket.remove(["a", "b", "c"]) == {"b": "403"}
    monkeypatch.setattr(bucket, "_remove", lambda names: [204, 503, 403])
    with pytest.raises(ServerError) as caught:
        bucket.remove(["a", "b", "c"])
    assert caught.value.server_code == "store_unavailable"


@pytest.mark.parametrize("states", ["true", "told", "nothing"])
def test_a_store_that_takes_wrong_checksums_is_believed_if_it_sums_itself(
    storage: GoogleStorage, bucket: GcsBucket, monkeypatch: pytest.MonkeyPatch, states: str
) -> None:
    """Google refuses; one that does not is looked at: what does it state then?"""
    assert bucket.verifies_checksums("prefix/probe")
    assert not storage.objects
    real = GcsBucket._write
    monkeypatch.setattr(GcsBucket, "_write", lambda self, name, data, told: real(self, name, data, crc32c(data)))
    if states != "true":
        from asyncsdk.server.objects.clouds.bucket import Facts

        told = "00000001" if states == "told" else None
        monkeypatch.setattr(bucket, "facts", lambda name: Facts(1, "1", told))
    assert bucket.verifies_checksums("prefix/probe") is (states == "true")
    assert not storage.objects


# --- credentials ---


def test_no_credentials_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    with pytest.raises(ConfigError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        GcsBucket(Location.parse("gs://bucket"), SECRET)
    broken = tmp_path / "broken.json"
    broken.write_text('{"type": "service_account", "private_key": "very secret"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(broken))
    with pytest.raises(ConfigError) as caught:
        GcsBucket(Location.parse("gs://bucket"), SECRET)
    assert "secret" not in str(caught.value)


def test_who_cannot_sign_is_told_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An end user has no key, and IAM signs for service accounts; an HMAC key does for both."""
    facts = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "t"}
    path = tmp_path / "user.json"
    path.write_text(json.dumps(facts))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(ConfigError, match="ASYNCSDK_GCS_HMAC_ACCESS_ID"):
        GcsBucket(Location.parse("gs://bucket"), SECRET)
    monkeypatch.setenv("ASYNCSDK_GCS_HMAC_ACCESS_ID", "GOOG1")
    with pytest.raises(ConfigError, match="together"):
        GcsBucket(Location.parse("gs://bucket"), SECRET)
    monkeypatch.setenv("ASYNCSDK_GCS_HMAC_SECRET", "hidden")
    bucket = GcsBucket(Location.parse("gs://bucket"), SECRET)
    target = bucket.minter(str).target(make_id(), size_bytes=1, crc32c=None)
    bucket.close()
    assert isinstance(target, PutTarget)
    assert target.url.startswith("https://storage.googleapis.com/bucket/")
    assert "hidden" not in f"{target.url}{bucket!r}{vars(bucket)!r}"


def test_a_machine_without_a_key_lets_iam_sign(storage: GoogleStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its account is asked for first; each URL is a request, so many are made side by side; a refusal is told."""
    from google.auth import compute_engine, iam

    class Machine(compute_engine.Credentials):  # type: ignore[misc]  # the SDK tells no types
        def refresh(self, request: object) -> None:
            self._service_account_email = storage.email

    made: list[bytes] = []

    class Signer:
        def __init__(self, request: object, credentials: Any, email: str) -> None:
            assert email == storage.email

        def sign(self, data: bytes) -> bytes:
            made.append(data)
            return b"\x01\x02"

    monkeypatch.setattr(iam, "Signer", Signer)
    signing = gcs_credentials.find_signing(Machine())
    assert signing.asks
    monkeypatch.setattr("asyncsdk.server.objects.clouds.gcs.find_signing", lambda _: signing)
    bucket = GcsBucket(Location.parse("gs://tests", storage.url), SECRET)
    minter = bucket.minter(str)
    found = minter.targets([(make_id(), 1, None) for _ in range(3)])
    assert len(made) == 3
    assert all(isinstance(one, PutTarget) and one.url.endswith("X-Goog-Signature=0102") for one in found)

    def refuse(self: object, data: bytes) -> bytes:
        from google.auth.exceptions import TransportError

        raise TransportError("Error calling the IAM signBlob API: secret")

    monkeypatch.setattr(Signer, "sign", refuse)
    with pytest.raises(ServerError, match="refuses signing") as caught:
        minter.target(make_id(), size_bytes=1, crc32c=None)
    bucket.close()
    assert (caught.value.server_code, caught.value.retryable) == ("store_refused", False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:9023", "http://127.0.0.1:9023/"])
def test_an_emulator_asks_for_nobody(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """``STORAGE_EMULATOR_HOST`` says where; URLs have a signature of nobody's, which nobody checks."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
    bucket = GcsBucket(Location.parse("gs://tests"), SECRET)
    target = bucket.minter(str).target(make_id(), size_bytes=1, crc32c=None)
    bucket.close()
    assert isinstance(target, PutTarget)
    assert target.url.startswith("http://127.0.0.1:9023/tests/")


def test_urls_are_signed_for_now_and_end_in_an_hour() -> None:
    presigner = Presigner("https://host/b", "auto", lambda: Credentials("id", "key"), lambda: MOMENT, GOOGLE)
    minter = GcsMinter(
        presigner, str, lambda *_: "https://host/s", lambda _: True, SessionIds(SECRET), clock=lambda: MOMENT
    )
    target = minter.target(make_id(), size_bytes=0, crc32c="00000000")
    assert isinstance(target, PutTarget)
    query = parse_qs(urlsplit(target.url).query)
    assert (query["X-Goog-Date"], query["X-Goog-Expires"]) == (["20231114T221320Z"], ["3600"])
    assert query["X-Goog-SignedHeaders"] == ["host;x-goog-content-length-range;x-goog-hash"]
    assert target.expires_at == MOMENT + 3600
