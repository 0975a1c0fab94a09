"""Every kind of target, with a server behind it: scripted ones, and real ones nobody here wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from asyncsdk.engine import BlobTarget, FormTarget, MultipartTarget, PutTarget, ResumableTarget, Target
from tests.support.clouds.azure import AzureServer
from tests.support.clouds.forms import FormServer
from tests.support.clouds.gcs import GcsServer
from tests.support.clouds.s3 import S3Server
from tests.support.http_server import HttpServer
from tests.support.real import azure_sas, gcs, s3
from tests.support.real.running import RealServer

__all__ = ["PARTED", "PART_BYTES", "SCRIPTED", "Kind", "Scripted", "real_kinds"]

PART_BYTES = 256 * 1024
PARTS = 8
"""Parts that targets made here have URLs for."""


@dataclass
class Kind:
    """One kind of target.

    Attributes:
        name: Of the kind.
        target: Makes a target for a new object of that name, a fresh upload of it.
        stored: Returns the object of that name, None when there is none.
        is_parted: Whether large objects go in parts.
        verifies: Whether its server states a digest that the engine knows.
    """

    name: str
    target: Callable[[str], Target]
    stored: Callable[[str], bytes | None]
    is_parted: bool = True
    verifies: bool = True


class Scripted(Kind):
    """A kind whose server does what it is told.

    Attributes:
        server: It.
    """

    def __init__(self, name: str) -> None:
        self.server: HttpServer = _SERVERS[name]()
        self._made = 0
        self.lifetime_seconds = 3600.0
        super().__init__(
            name,
            self._target,
            lambda key: self.server.objects.get(f"/{key}"),
            is_parted=name in PARTED,
            verifies=name != "plain form",
        )

    def expiry(self) -> float:
        """Return when a URL made now expires, by the server's clock."""
        return (self.server.clock or time.time()) + self.lifetime_seconds

    def uploads_of(self, key: str) -> int:
        """Return how many requests carried bytes of that object."""
        return sum(1 for r in self.server.requests if r.path == f"/{key}" and r.method in {"PUT", "POST"} and r.body)

    def _target(self, key: str) -> Target:
        self._made += 1
        server, expires = self.server, int(self.expiry())
        if isinstance(server, GcsServer):
            return ResumableTarget(server.start(f"/{key}"), PART_BYTES)
        if isinstance(server, AzureServer):
            end = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").replace(":", "%3A")
            url = server.url(f"/{key}?sv=2020-12-06&se={end}&sp=rcw&sig=c2lnbmF0dXJl%3D")
            return BlobTarget(url, PART_BYTES, single_bytes=PART_BYTES if self.is_parted else 1 << 30)
        if isinstance(server, FormServer):
            signed = (("key", f"/{key}"), ("policy", "c2VjcmV0LXBvbGljeQ=="), ("x-amz-signature", "5ec4e7" * 8))
            headers = {"Content-MD5": ""} if self.name == "form" else {}
            return FormTarget(server.url(f"/{key}?Expires={expires}"), signed, headers=headers)
        if self.name == "put":
            return PutTarget(server.url(f"/{key}?Expires={expires}"), {"x-amz-checksum-crc32c": ""})
        server.uploads[f"U{self._made}"].path = f"/{key}"
        whole = server.url(f"/{key}?uploadId=U{self._made}&Expires={expires}")
        urls = tuple(f"{whole}&partNumber={number}" for number in range(1, PARTS + 1))
        headers = {"x-amz-checksum-crc32c": ""}
        read = server.url(f"/{key}?Expires={expires}")
        return MultipartTarget(
            f"U{self._made}", PART_BYTES, urls, whole, whole, (whole,), headers=headers, object_url=read
        )


_SERVERS: dict[str, type[HttpServer]] = {
    "put": S3Server,
    "multipart": S3Server,
    "session": GcsServer,
    "blocks": AzureServer,
    "blob": AzureServer,
    "form": FormServer,
    "plain form": FormServer,
}
PARTED = ("multipart", "session", "blocks")
SCRIPTED = tuple(_SERVERS)


def real_kinds() -> dict[str, Callable[[RealServer], Kind]]:
    """Return what makes the kinds of each real server, by the name of its fixture and of the kind."""
    return {
        "swift_server put": lambda server: _s3_put("swift put", server),
        "swift_server multipart": lambda server: _s3_multipart("swift multipart", server),
        "rclone_server put": lambda server: _s3_put("rclone put", server),
        "rclone_server multipart": lambda server: _s3_multipart("rclone multipart", server),
        "azurite_server blob": lambda server: _azure("azurite blob", server, 1 << 30),
        "azurite_server blocks": lambda server: _azure("azurite blocks", server, PART_BYTES),
        "gcs_server session": _gcs,
    }


def _s3_put(name: str, server: RealServer) -> Kind:
    def target(key: str) -> Target:
        return PutTarget(s3.put_target(server, key).url, {"Content-MD5": ""})

    return Kind(name, target, lambda key: s3.read(server, key), is_parted=False)


def _s3_multipart(name: str, server: RealServer) -> Kind:
    def target(key: str) -> Target:
        return s3.multipart_target(server, key, part_size=5 * 1024 * 1024, parts=4)

    return Kind(name, target, lambda key: s3.read(server, key), verifies=False)


def _azure(name: str, server: RealServer, single_bytes: int) -> Kind:
    def stored(key: str) -> bytes | None:
        reply = httpx.get(azure_sas.sign_blob(server, key, permissions="r"), trust_env=False)
        return None if reply.status_code == 404 else reply.raise_for_status().content

    def target(key: str) -> Target:
        url = azure_sas.sign_blob(server, key)
        return BlobTarget(url, PART_BYTES, single_bytes=single_bytes, version=azure_sas.VERSION)

    return Kind(name, target, stored, is_parted=single_bytes == PART_BYTES)


def _gcs(server: RealServer) -> Kind:
    def target(key: str) -> Target:
        return ResumableTarget(gcs.begin_session(server, key), PART_BYTES)

    return Kind("gcs session", target, lambda key: gcs.read(server, key))
