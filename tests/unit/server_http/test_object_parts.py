"""Objects in parts by signed URL, as an S3 client of presigned URLs sends them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import httpx
import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.server.objects import minting, parts
from asyncsdk.targets import MultipartTarget
from tests.support.server import RunningServer

PART = 100_000

ENTITY = (
    '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY number "1">]><CompleteMultipartUpload>'
    "<Part><PartNumber>&number;</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"
)
"""In UTF-16 its declarations cannot be seen without decoding it."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MIN_PART_SIZE", PART)
    monkeypatch.setattr(parts, "STREAM_PART_SIZE", PART)
    monkeypatch.setattr(minting, "MULTIPART_THRESHOLD", PART)


def data_of(size: int) -> bytes:
    return bytes(i * 31 % 251 for i in range(1009)) * (size // 1009 + 1)


def target_of(server: RunningServer, size: int | None, digest: str | None = None) -> tuple[str, MultipartTarget]:
    object_id = make_id()
    target = server.minter().target(object_id, size_bytes=size, crc32c=digest)
    assert isinstance(target, MultipartTarget)
    return object_id, target


def list_of(etags: Sequence[str], numbers: Sequence[int] | None = None) -> bytes:
    entries = "".join(
        f"<Part><ETag>{etag.replace(chr(34), '&quot;')}</ETag><PartNumber>{number}</PartNumber></Part>"
        for number, etag in zip(numbers or range(1, len(etags) + 1), etags, strict=True)
    )
    return f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{entries}</CompleteMultipartUpload>'.encode()


def send(target: MultipartTarget, data: bytes, part: int) -> httpx.Response:
    url = target.part_url(part)
    assert url is not None
    return httpx.put(url, content=data[(part - 1) * PART : part * PART])


def left_behind(server: RunningServer, object_id: str) -> list[str]:
    return sorted(path.name for path in server.backend.objects.staging_folder(object_id).glob(f"{object_id}*"))


@pytest.mark.parametrize("known", [True, False], ids=["size and checksum known", "nothing known"])
def test_parts_in_any_order_become_the_object_and_completing_again_answers_the_same(
    server: RunningServer, known: bool
) -> None:
    size = 3 * PART + 17
    data = data_of(size)[:size]
    digest = crc32c_hex(crc32c(data))
    object_id, target = target_of(server, size if known else None, digest if known else None)
    etags = {part: send(target, data, part).headers["etag"] for part in (3, 1, 4, 2)}
    body = list_of([etags[part] for part in (1, 2, 3, 4)])
    replies = [httpx.post(target.complete_url, content=body) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert replies[0].content == replies[1].content
    root = ET.fromstring(replies[0].content)
    assert root.findtext("{*}ETag") == f'"{digest}-{object_id}"'
    assert root.findtext("{*}Key") == object_id
    assert left_behind(server, object_id) == [f"{object_id}.{digest}"]
    with server.backend.objects.open_staged(object_id, digest) as file:
        assert file.read() == data
    server.backend.objects.publish([(object_id, digest)])
    assert httpx.post(target.complete_url, content=body).content == replies[0].content


def test_listed_parts_are_those_that_arrived(server: RunningServer) -> None:
    data = data_of(3 * PART)[: 3 * PART]
    _, target = target_of(server, len(data))
    assert ET.fromstring(httpx.get(target.list_urls[0]).content).findall("{*}Part") == []
    etags = {part: send(target, data, part).headers["etag"] for part in (3, 1)}
    root = ET.fromstring(httpx.get(target.list_urls[0]).content)
    assert root.findtext("{*}IsTruncated") == "false"
    assert root.findtext("{*}UploadId") == target.upload_id
    found = [
        (part.findtext("{*}PartNumber"), part.findtext("{*}ETag"), part.findtext("{*}Size"))
        for part in root.findall("{*}Part")
    ]
    assert found == [("1", etags[1], str(PART)), ("3", etags[3], str(PART))]


def test_a_part_sent_again_replaces_the_one_before(server: RunningServer) -> None:
    old, new = b"a" * PART, b"b" * PART
    object_id, target = target_of(server, 2 * PART)
    first = send(target, old, 1).headers["etag"]
    again = send(target, new, 1).headers["etag"]
    second = httpx.put(target.part_urls[1], content=old).headers["etag"]
    refused = httpx.post(target.complete_url, content=list_of([first, second]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_part")
    assert httpx.post(target.complete_url, content=list_of([again, second])).status_code == 200
    with server.backend.objects.open_staged(object_id, crc32c_hex(crc32c(new + old))) as file:
        assert file.read() == new + old


def test_a_newer_attempt_at_a_part_takes_over_from_one_still_running(server: RunningServer) -> None:
    object_id, target = target_of(server, 2 * PART)
    url = urlsplit(target.part_urls[0])
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.settimeout(30)
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {PART}\r\n\r\n"
        slow.sendall(head.encode() + b"a" * (PART // 2))
        ledger = server.backend.objects.staging_folder(object_id) / f"{object_id}.{target.upload_id}.list"
        for _ in range(3000):  # until the slow attempt has begun
            if ledger.exists() and b"begun 1" in ledger.read_bytes():
                break
            threading.Event().wait(0.01)
        etag = httpx.put(target.part_urls[0], content=b"b" * PART).headers["etag"]
        slow.sendall(b"a" * (PART - PART // 2))
        assert slow.recv(65536).startswith(b"HTTP/1.1 409 ")
    second = httpx.put(target.part_urls[1], content=b"c" * PART).headers["etag"]
    assert httpx.post(target.complete_url, content=list_of([etag, second])).status_code == 200
    with server.backend.objects.open_staged(object_id, crc32c_hex(crc32c(b"b" * PART + b"c" * PART))) as file:
        assert file.read() == b"b" * PART + b"c" * PART


def test_aborting_removes_the_parts_and_may_be_repeated(server: RunningServer) -> None:
    object_id, target = target_of(server, 2 * PART)
    etag = send(target, b"a" * PART, 1).headers["etag"]
    assert [httpx.delete(target.abort_url).status_code for _ in range(2)] == [204, 204]
    assert left_behind(server, object_id) == []
    reply = httpx.post(target.complete_url, content=list_of([etag, etag]))
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "no_such_upload")


def test_sizes_of_parts_are_checked_when_they_arrive(server: RunningServer) -> None:
    object_id, target = target_of(server, 2 * PART - 1)
    for url, size in ((0, PART - 1), (0, PART + 1), (1, PART), (1, PART - 2)):
        reply = httpx.put(target.part_urls[url], content=b"x" * size)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "incomplete")
    assert len(target.part_urls) == 2
    _, unknown = target_of(server, None)
    assert httpx.put(unknown.part_urls[0], content=b"x" * (PART + 1)).status_code == 400
    assert left_behind(server, object_id) == []


def test_lists_that_are_not_those_of_the_parts_are_refused(server: RunningServer) -> None:
    _, target = target_of(server, None)
    one = send(target, b"a" * PART, 1).headers["etag"]
    two = httpx.put(target.part_urls[1], content=b"end").headers["etag"]
    cases = {
        "invalid_part_order": [list_of([two, one], [2, 1]), list_of([one, one], [1, 1]), list_of([])],
        "invalid_part": [
            list_of([two], [2]),
            list_of([one, two], [1, 3]),
            list_of([one, one]),
            list_of(['"nonsense"', two]),
            list_of([one, two, two]),
        ],
        "malformed_xml": [
            b"",
            b"<x/>",
            b"<CompleteMultipartUpload><Part/></CompleteMultipartUpload>",
            b'<!DOCTYPE a [<!ENTITY b "c">]><CompleteMultipartUpload/>',
            *(ENTITY.encode(encoding) for encoding in ("utf-16", "utf-16-le", "utf-16-be")),
        ],
    }
    for code, bodies in cases.items():
        for body in bodies:
            reply = httpx.post(target.complete_url, content=body)
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, code), body
    assert httpx.post(target.complete_url, content=list_of([one, two])).status_code == 200


def test_a_whole_that_lacks_the_signed_checksum_is_refused(server: RunningServer) -> None:
    _, target = target_of(server, 2 * PART, "00000001")
    etags = [send(target, data_of(2 * PART), part).headers["etag"] for part in (1, 2)]
    reply = httpx.post(target.complete_url, content=list_of(etags))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_digest")


def test_a_whole_of_another_size_than_the_signed_one_is_refused(server: RunningServer) -> None:
    _, target = target_of(server, 2 * PART)
    etag = send(target, b"a" * PART, 1).headers["etag"]
    reply = httpx.post(target.complete_url, content=list_of([etag]))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "incomplete")


def test_a_part_after_completing_does_not_touch_the_object(server: RunningServer) -> None:
    object_id, target = target_of(server, 2 * PART)
    data = data_of(2 * PART)[: 2 * PART]
    etags = [send(target, data, part).headers["etag"] for part in (1, 2)]
    httpx.post(target.complete_url, content=list_of(etags)).raise_for_status()
    digest = crc32c_hex(crc32c(data))
    server.backend.objects.publish([(object_id, digest)])
    assert httpx.put(target.part_urls[0], content=b"z" * PART).status_code == 200
    assert server.backend.objects.path(object_id, digest).read_bytes() == data


def test_further_part_urls_come_by_renewing(server: RunningServer) -> None:
    size = 130 * PART
    object_id, target = target_of(server, size)
    assert (len(target.part_urls), target.first_part) == (minting.FIRST_PART_URLS, 1)
    renewed = server.minter().renew(
        object_id, size_bytes=size, crc32c=None, upload_id=target.upload_id, first_part=minting.FIRST_PART_URLS + 1
    )
    assert isinstance(renewed, MultipartTarget)
    assert renewed.upload_id == target.upload_id
    assert len(renewed.part_urls) == minting.RENEWED_PART_URLS
    url = renewed.part_url(26)
    assert url is not None
    assert httpx.put(url, content=b"x" * PART).status_code == 200
    assert httpx.put(target.part_urls[0], content=b"x" * PART).status_code == 200
    listed = ET.fromstring(httpx.get(renewed.list_urls[0]).content)
    assert [part.findtext("{*}PartNumber") for part in listed.findall("{*}Part")] == ["1", "26"]
