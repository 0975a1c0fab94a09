"""Buckets of Amazon that are in another region than the settings name."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from asyncsdk.domain.ids import make_id
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.server.objects.clouds.opening import open_cloud
from asyncsdk.server.objects.clouds.presigning import Credentials, Presigner
from asyncsdk.targets import PutTarget, UrlOrigin

pytest.importorskip("boto3")

HOME = "eu-central-1"
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/([a-z0-9-]+)/s3/aws4_request")


class _Handler(BaseHTTPRequestHandler):
    """Keeps objects, and as Amazon refuses whatever is signed for another region than its own."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    refused: list[str]
    says_where = True
    may_look = True

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        told = query.get("X-Amz-Credential")
        match = _SCOPE.search(f"Credential={told}" if told else self.headers.get("authorization", ""))
        if match is None or match[1] != HOME:
            self.refused.append(f"{self.command} {parts.path}")
            self._reply(400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>")
        elif parts.path in {"/photos", "/photos/"}:
            self._reply(200 if self.may_look else 403)
        elif self.command == "PUT":
            self.objects[parts.path] = body
            self._reply(200)
        elif self.command == "DELETE" or parts.path not in self.objects:
            self._reply(204 if self.command == "DELETE" else 404)
        else:
            self._reply(200, self.objects[parts.path])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815  # the base class looks for these

    def _reply(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        if self.says_where:
            self.send_header("x-amz-bucket-region", HOME)
        self.send_header("etag", '"e"')
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Handler]]:
    """The store, which the SDK takes for Amazon: it is named by the environment, and no endpoint is given."""

    class Handler(_Handler):
        objects: dict[str, bytes] = {}
        refused: list[str] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    settings = {"DEFAULT_REGION": "us-east-1", "ACCESS_KEY_ID": "AKIA", "SECRET_ACCESS_KEY": "secret"}
    settings |= {"ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}"}
    settings |= {"CONFIG_FILE": "/nowhere", "SHARED_CREDENTIALS_FILE": "/nowhere"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    yield Handler
    server.shutdown()
    server.server_close()
    thread.join()


def opened() -> CloudObjects:
    return open_cloud(Location.parse("s3://photos/prefix"), "n" * 32, b"s" * 32)


@pytest.mark.parametrize("may_look", [True, False])
def test_urls_are_signed_for_the_region_of_the_bucket(handler: type[_Handler], may_look: bool) -> None:
    """Whoever may not look at the bucket itself is told where it is, too."""
    handler.may_look = may_look
    objects = opened()
    objects.claim()
    assert objects.is_claimed()
    object_id = make_id()
    handler.refused.clear()
    target = objects.minter.target(object_id, size_bytes=5, crc32c=None)
    assert isinstance(target, PutTarget)
    assert httpx.put(target.url, content=b"five.", headers=dict(target.headers)).status_code == 200
    origin = objects.minter.origin(object_id, size_bytes=5, crc32c="0" * 8, etag="")
    assert isinstance(origin, UrlOrigin)
    assert httpx.get(origin.url).content == b"five."
    assert handler.refused == [], "the server's own requests go there at once, too"
    objects.close()


def test_a_store_that_does_not_say_where_it_is_has_the_region_of_the_settings(
    handler: type[_Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler.says_where = False
    monkeypatch.setenv("AWS_DEFAULT_REGION", HOME)
    objects = opened()
    objects.claim()
    assert handler.refused == []
    objects.close()


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("https://minio.example:443/bucket", "minio.example"),
        ("http://minio.example:80/bucket", "minio.example"),
        ("https://minio.example:80/bucket", "minio.example:80"),
        ("https://MinIO.Example/bucket", "minio.example"),
        ("http://[::1]:9000/bucket", "[::1]:9000"),
        ("https://bucket.host", "bucket.host"),
    ],
)
def test_the_host_under_the_signature_is_what_clients_send(base_url: str, host: str) -> None:
    """Without the port that goes without saying, and in small letters; otherwise the store refuses each request."""

    def presigner(url: str) -> Presigner:
        return Presigner(url, "eu-west-1", lambda: Credentials("AKIA", "secret"), lambda: 1e9)

    path = urlsplit(base_url).path
    url = presigner(base_url).sign("GET", "a/x", expires_seconds=60)
    request = httpx.Request("GET", base_url)
    assert urlsplit(url).netloc == host == request.headers["host"]
    assert urlsplit(url).path == f"{path}/a/x"
    scheme = urlsplit(base_url).scheme
    assert url == presigner(f"{scheme}://{host}{path}").sign("GET", "a/x", expires_seconds=60)
