"""What tests ask of an S3 server beside the engine: buckets, multipart uploads begun, targets with signed URLs."""

from __future__ import annotations

import re

import httpx

from asyncsdk.targets import MultipartTarget, PutTarget, UrlOrigin
from tests.support.real.running import RealServer
from tests.support.real.sigv4 import presign

__all__ = ["begin_multipart", "make_bucket", "multipart_target", "origin", "put_target", "read"]


def make_bucket(server: RealServer) -> None:
    """Make the bucket of *server*."""
    _ask("PUT", presign(server, "PUT", ""))


def put_target(server: RealServer, key: str) -> PutTarget:
    """Return where one request puts the object."""
    return PutTarget(presign(server, "PUT", key))


def origin(server: RealServer, key: str) -> UrlOrigin:
    """Return where the object comes from; nothing is said about its size or its checksum."""
    return UrlOrigin(presign(server, "GET", key))


def read(server: RealServer, key: str) -> bytes | None:
    """Return the object as the server has it, None when it is not there."""
    reply = httpx.get(presign(server, "GET", key), trust_env=False)
    return None if reply.status_code == 404 else reply.raise_for_status().content


def begin_multipart(server: RealServer, key: str) -> str:
    """Begin a multipart upload; returns its id."""
    text = _ask("POST", presign(server, "POST", key, query={"uploads": ""})).text
    found = re.search(r"<UploadId>([^<]+)</UploadId>", text)
    assert found is not None, text
    return found[1]


def multipart_target(
    server: RealServer, key: str, *, part_size: int, parts: int, upload_id: str = ""
) -> MultipartTarget:
    """Return a multipart upload with signed URLs for everything, begun unless *upload_id* names one."""
    upload_id = upload_id or begin_multipart(server, key)
    named = {"uploadId": upload_id}
    return MultipartTarget(
        upload_id,
        part_size,
        tuple(
            presign(server, "PUT", key, query={**named, "partNumber": str(number)}) for number in range(1, parts + 1)
        ),
        complete_url=presign(server, "POST", key, query=named),
        abort_url=presign(server, "DELETE", key, query=named),
        list_urls=(presign(server, "GET", key, query=named),),
    )


def _ask(method: str, url: str) -> httpx.Response:
    return httpx.request(method, url, trust_env=False, timeout=30).raise_for_status()
