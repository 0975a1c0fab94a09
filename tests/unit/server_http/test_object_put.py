"""Whole objects in by signed URL."""

from __future__ import annotations

import base64
import hashlib
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.targets import PutTarget
from tests.support.server import RunningServer

LARGE = bytes(range(256)) * 4 * 1024 * 3  # 3 MiB: several batches


def target_of(server: RunningServer, data: bytes, *, checked: bool = True, **facts: int) -> tuple[str, str]:
    """Return a new object id and where its bytes go."""
    object_id = make_id()
    known = crc32c_hex(crc32c(data)) if checked else None
    target = server.minter(**facts).target(object_id, size_bytes=len(data), crc32c=known)
    assert isinstance(target, PutTarget)
    return object_id, target.url


def staged_files(server: RunningServer, object_id: str) -> list[str]:
    folder = server.backend.objects.staging_folder(object_id)
    return sorted(path.name for path in folder.glob(f"{object_id}*")) if folder.exists() else []


def wait_for_none(server: RunningServer, object_id: str) -> None:
    for _ in range(500):
        if not staged_files(server, object_id):
            return
        time.sleep(0.01)
    pytest.fail(f"left behind: {staged_files(server, object_id)}")


@pytest.mark.parametrize("data", [b"", b"x", b"0123456789" * 2048, LARGE], ids=["empty", "1 byte", "20 KiB", "3 MiB"])
def test_a_put_stages_the_bytes_and_answers_with_their_checksum(server: RunningServer, data: bytes) -> None:
    object_id, url = target_of(server, data, checked=False)
    reply = httpx.put(url, content=data)
    digest = crc32c_hex(crc32c(data))
    assert reply.status_code == 200
    assert reply.headers["etag"] == f'"{digest}-{object_id}"'
    assert reply.headers["x-amz-checksum-crc32c"] == crc32c_base64(crc32c(data))
    assert server.backend.objects.staged_size(object_id, digest) == len(data)
    with server.backend.objects.open_staged(object_id, digest) as file:
        assert file.read() == data
    assert staged_files(server, object_id) == [f"{object_id}.{digest}"]


def test_the_same_put_twice_is_fine(server: RunningServer) -> None:
    object_id, url = target_of(server, b"twice")
    assert [httpx.put(url, content=b"twice").status_code for _ in range(2)] == [200, 200]
    assert len(staged_files(server, object_id)) == 1


@pytest.mark.parametrize("size", [5, len(LARGE)])
def test_bytes_that_differ_from_the_signed_checksum_are_refused_and_nothing_stays(
    server: RunningServer, size: int
) -> None:
    good, bad = b"a" * size, b"b" * size
    object_id, url = target_of(server, good)
    reply = httpx.put(url, content=bad)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_digest")
    assert staged_files(server, object_id) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-crc32c": crc32c_base64(crc32c(b"other"))},
        {"content-md5": base64.b64encode(hashlib.md5(b"other").digest()).decode()},
    ],
    ids=["crc32c", "md5"],
)
def test_bytes_that_differ_from_a_checksum_header_are_refused(server: RunningServer, headers: dict[str, str]) -> None:
    object_id, url = target_of(server, b"bytes", checked=False)
    reply = httpx.put(url, content=b"bytes", headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_digest")
    assert staged_files(server, object_id) == []


def test_right_checksum_headers_pass(server: RunningServer) -> None:
    _, url = target_of(server, b"bytes")
    headers = {
        "x-amz-checksum-crc32c": crc32c_base64(crc32c(b"bytes")),
        "content-md5": base64.b64encode(hashlib.md5(b"bytes").digest()).decode(),
    }
    assert httpx.put(url, content=b"bytes", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{"content-md5": "!!"}, {"content-md5": "YWI="}, {"x-amz-checksum-crc32c": "YQ=="}])
def test_a_checksum_header_that_is_none_is_refused(server: RunningServer, headers: dict[str, str]) -> None:
    _, url = target_of(server, b"bytes")
    reply = httpx.put(url, content=b"bytes", headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_digest")


@pytest.mark.parametrize("sent", [b"four", b"sixsix"])
def test_another_length_than_the_signed_one_is_refused(server: RunningServer, sent: bytes) -> None:
    object_id, url = target_of(server, b"fives")
    assert httpx.put(url, content=sent).status_code == 400
    assert staged_files(server, object_id) == []


def test_a_body_without_a_declared_length_is_refused(server: RunningServer) -> None:
    object_id, url = target_of(server, b"bytes")
    reply = httpx.put(url, content=iter([b"by", b"tes"]))
    assert (reply.status_code, reply.json()["error"]["code"]) == (411, "length_required")
    assert staged_files(server, object_id) == []


@pytest.mark.parametrize("data", [b"x" * 1000, LARGE], ids=["small", "large"])
def test_a_cut_connection_leaves_nothing(server: RunningServer, data: bytes) -> None:
    object_id, url = target_of(server, data, checked=False)
    parts = urlsplit(url)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[:-10])
        if len(data) > 100_000:
            for _ in range(500):  # until the server has begun to write
                if staged_files(server, object_id):
                    break
                time.sleep(0.01)
            assert staged_files(server, object_id)
    wait_for_none(server, object_id)


def test_more_than_declared_is_no_part_of_the_object(server: RunningServer) -> None:
    """What follows the declared bytes is the next request, and no HTTP."""
    object_id, url = target_of(server, b"bytes")
    parts = urlsplit(url)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 5\r\n\r\n"
        connection.sendall(head.encode() + b"bytes" + b"\x00more")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert b"400 Bad Request" in received
    # The connection broke while the first request was answered: it may have gone either way, with these bytes only.
    allowed = ([], [f"{object_id}.{crc32c_hex(crc32c(b'bytes'))}"])
    for _ in range(200):  # the server may still be at it
        if staged_files(server, object_id) in allowed:
            break
        time.sleep(0.02)
    assert staged_files(server, object_id) in allowed


def test_an_expired_url_is_refused_with_a_code_of_its_own(server: RunningServer) -> None:
    object_id, url = target_of(server, b"late", expires_seconds=-1)
    reply = httpx.put(url, content=b"late")
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "expired_url")
    assert staged_files(server, object_id) == []


def test_any_change_to_a_signed_url_is_refused(server: RunningServer) -> None:
    object_id, url = target_of(server, b"bytes")
    signature = url.rpartition("=")[2]
    other = ("0" if signature[0] != "0" else "1") + signature[1:]
    for changed in (
        url.replace(signature, other),
        url.replace("size=5", "size=6"),
        url.replace("size=5&", ""),
        url.replace("expires=", "expires=9"),
        url.replace(object_id, make_id()),
        url.replace("&signature", "&partNumber=1&signature"),
        f"{url}&x=1",
        url.replace("?", "?x=1&"),
        url.replace(signature, ""),
        url.partition("?")[0],
    ):
        reply = httpx.put(changed, content=b"bytes")
        assert reply.status_code == 403, changed
        assert signature not in reply.text
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert httpx.request(method, url).status_code == 403, method
    assert httpx.patch(url).status_code == 405
    assert staged_files(server, object_id) == []


def test_expect_100_continue_is_answered(server: RunningServer) -> None:
    _, url = target_of(server, b"bytes")
    parts = urlsplit(url)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(20)
        head = (
            f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"bytes")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_full_disk_is_507_and_leaves_nothing(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    object_id, url = target_of(server, LARGE)
    monkeypatch.setattr("asyncsdk.server.objects.arrivals.write_all", full)
    reply = httpx.put(url, content=LARGE)
    assert (reply.status_code, reply.json()["error"]["code"]) == (507, "destination_full")
    assert str(server.folder) not in reply.text
    wait_for_none(server, object_id)


def test_many_requests_use_one_connection(server: RunningServer) -> None:
    with httpx.Client() as client:
        streams = set()
        for index in range(20):
            _, url = target_of(server, b"%d" % index)
            reply = client.put(url, content=b"%d" % index)
            assert reply.status_code == 200
            streams.add(reply.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(streams) == 1


def test_the_store_is_private_to_its_owner(server: RunningServer) -> None:
    object_id, url = target_of(server, b"private")
    httpx.put(url, content=b"private")
    path = server.backend.objects.staged_path(object_id, crc32c_hex(crc32c(b"private")))
    folders = [path, path.parent, path.parent.parent, server.folder]
    assert [entry.stat().st_mode & 0o077 for entry in folders] == [0, 0, 0, 0]
