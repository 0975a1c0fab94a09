"""Objects out by signed URL: ranges and preconditions."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from asyncsdk.checksums import crc32c, crc32c_base64
from asyncsdk.domain.ids import make_id
from asyncsdk.targets import UrlOrigin
from tests.support.server import RunningServer

DATA = bytes(i * 7 % 256 for i in range(1000))
LARGE = DATA * 3000  # 3 MB: several reads


@pytest.fixture(scope="module")
def small(server: RunningServer) -> UrlOrigin:
    return origin_of(server, DATA)


@pytest.fixture(scope="module")
def large(server: RunningServer) -> UrlOrigin:
    return origin_of(server, LARGE)


def origin_of(server: RunningServer, data: bytes) -> UrlOrigin:
    object_id, digest = server.publish(data)
    origin = server.minter().origin(object_id, size_bytes=len(data), crc32c=digest, etag=f'"{digest}-{object_id}"')
    assert isinstance(origin, UrlOrigin)
    return origin


def test_a_get_gives_the_bytes_and_says_what_they_are(small: UrlOrigin) -> None:
    reply = httpx.get(small.url)
    assert (reply.status_code, reply.content) == (200, DATA)
    headers = reply.headers
    assert headers["etag"] == small.etag
    assert headers["content-length"] == "1000"
    assert headers["accept-ranges"] == "bytes"
    assert headers["x-amz-checksum-crc32c"] == crc32c_base64(crc32c(DATA))
    assert headers["content-disposition"] == "attachment"
    assert headers["x-content-type-options"] == "nosniff"
    assert "date" in headers


def test_a_large_object_comes_whole(large: UrlOrigin) -> None:
    assert httpx.get(large.url).content == LARGE


def test_an_empty_object_comes_empty(server: RunningServer) -> None:
    origin = origin_of(server, b"")
    reply = httpx.get(origin.url)
    assert (reply.status_code, reply.content, reply.headers["content-length"]) == (200, b"", "0")
    assert httpx.get(origin.url, headers={"range": "bytes=0-"}).status_code == 416


def test_head_says_the_same_without_the_bytes(small: UrlOrigin, large: UrlOrigin) -> None:
    for origin in (small, large):
        reply = httpx.head(origin.url, headers={"range": "bytes=1-2"})
        assert (reply.status_code, reply.content) == (200, b"")
        assert reply.headers["content-length"] == str(origin.size_bytes)
        assert reply.headers["etag"] == origin.etag


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=990-", 990, 1000),
        ("bytes=0-", 0, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=999-5000", 999, 1000),
        ("BYTES=5-6", 5, 7),
    ],
)
def test_a_range_gives_that_slice(small: UrlOrigin, text: str, start: int, stop: int) -> None:
    reply = httpx.get(small.url, headers={"range": text})
    assert (reply.status_code, reply.content) == (206, DATA[start:stop])
    assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/1000"


def test_a_large_range_gives_that_slice(large: UrlOrigin) -> None:
    reply = httpx.get(large.url, headers={"range": "bytes=1000001-2900000"})
    assert (reply.status_code, reply.content) == (206, LARGE[1000001:2900001])


@pytest.mark.parametrize("text", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_outside_is_416_and_tells_the_size(small: UrlOrigin, text: str) -> None:
    reply = httpx.get(small.url, headers={"range": text})
    assert (reply.status_code, reply.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert reply.headers["content-range"] == "bytes */1000"


@pytest.mark.parametrize("text", ["bytes=0-1,5-6", "bytes=9-3", "bytes=", "bytes=-", "bytes=a-b", "lines=1-2", "x"])
def test_several_ranges_and_nonsense_give_the_whole(small: UrlOrigin, text: str) -> None:
    reply = httpx.get(small.url, headers={"range": text})
    assert (reply.status_code, reply.content) == (200, DATA)


def test_preconditions(small: UrlOrigin) -> None:
    assert small.etag is not None
    other = '"00000000-000000000000000000000000"'
    cases = [
        ({"if-match": small.etag}, 200),
        ({"if-match": f"{other}, {small.etag}"}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": other}, 412),
        ({"if-match": f"W/{small.etag}"}, 412),
        ({"if-match": other, "range": "bytes=0-1"}, 412),
        ({"if-none-match": small.etag}, 304),
        ({"if-none-match": f"W/{small.etag}"}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": other}, 200),
        ({"if-match": small.etag, "range": "bytes=0-1"}, 206),
        ({"if-range": small.etag, "range": "bytes=0-1"}, 206),
        ({"if-range": other, "range": "bytes=0-1"}, 200),
    ]
    for headers, status in cases:
        reply = httpx.get(small.url, headers=headers)
        assert reply.status_code == status, headers
        if status == 304:
            assert (reply.content, reply.headers["etag"]) == (b"", small.etag)
        if status == 412:
            assert reply.json()["error"]["code"] == "precondition_failed"


def test_nothing_is_readable_without_a_signature_or_before_it_is_published(server: RunningServer) -> None:
    object_id, digest = server.publish(b"secret")
    assert httpx.get(f"{server.url}/objects/{object_id}", headers=server.headers).status_code == 403
    for path in ("../token", "..%2f..%2ftoken", f"{object_id}/../../token", "%00", f"{object_id}%00"):
        reply = httpx.get(f"{server.url}/objects/{path}?crc32c={digest}")
        assert reply.status_code in {403, 404}
        assert server.token not in reply.text
    unknown = server.minter().origin(make_id(), size_bytes=1, crc32c=digest, etag="")
    assert isinstance(unknown, UrlOrigin)
    assert httpx.get(unknown.url).status_code == 404


def test_a_client_that_leaves_does_not_disturb_the_next(server: RunningServer, large: UrlOrigin) -> None:
    parts = urlsplit(large.url)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert httpx.get(large.url).content == LARGE


def test_replies_do_not_wait_for_acknowledgements(server: RunningServer) -> None:
    """Connections inherit TCP_NODELAY; without it every reply of two writes takes 44 ms instead of one."""
    listening = server._server._socket
    assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    with socket.create_server(("127.0.0.1", 0)) as plain:
        assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0  # it is not the default here
