"""Buckets as the platform's object store, of real servers and one in this process: where they are, what is in them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asyncsdk.server.objects.clouds.bucket import Bucket
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.opening import open_bucket
from tests.support.clouds.google import GoogleStorage
from tests.support.real.running import RealServer

__all__ = ["KINDS", "CloudHome", "cloud_home", "google_home", "google_server"]


@pytest.fixture(scope="session")
def google_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """Google Cloud Storage as it is documented, in this process, with the key file of a service account."""
    with GoogleStorage() as storage:
        yield storage.as_server(tmp_path_factory.mktemp("google"))


KINDS = ("swift", "rclone", "azurite", "gcs", "google")
"""The servers that can keep a platform's objects: real ones, but for ``google``, which `GoogleStorage` is."""

SECRET = b"of the tests' own buckets, 32 b."


class CloudHome:
    """A prefix in the bucket of a real server, which nobody else uses.

    Attributes:
        location: Where it is.
        server: Who has it.
        checks: Whether it asks who somebody is: the emulator of Google Cloud Storage does not.
    """

    def __init__(self, location: Location, server: RealServer) -> None:
        self.location = location
        self.server = server
        self.checks = bool(server.secret_key)

    @contextmanager
    def bucket(self) -> Iterator[Bucket]:
        """Give the bucket as the platform sees it."""
        bucket = open_bucket(self.location, SECRET)
        try:
            yield bucket
        finally:
            bucket.close()

    def names(self) -> list[str]:
        """Return the names of all objects below the prefix."""
        with self.bucket() as bucket:
            return list(bucket.names(f"{self.location.prefix}/"))

    def count(self) -> int:
        """Return how many objects there are, but for what says whose they are."""
        return sum(not name.endswith("/asyncsdk.json") for name in self.names())


def cloud_home(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CloudHome:
    """Return a place for objects at a real server, and put its credentials into the environment.

    The test is skipped, with the reason, where the server cannot be had; its module needs the fixtures of `fixtures`.
    """
    server: RealServer = request.getfixturevalue(f"{kind}_server")
    for name, value in {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    unset = ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"]
    unset += ["STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"]
    unset += ["ASYNCSDK_GCS_HMAC_ACCESS_ID", "ASYNCSDK_GCS_HMAC_SECRET"]
    for name in unset:
        monkeypatch.delenv(name, raising=False)
    prefix = f"platform/{secrets.token_hex(8)}"
    if kind == "azurite":
        monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", server.access_key)
        monkeypatch.setenv("AZURE_STORAGE_KEY", server.secret_key)
        return CloudHome(Location.parse(f"az://{server.bucket}/{prefix}", server.url), server)
    if kind == "google":
        return google_home(server, monkeypatch)
    if kind == "gcs":
        return CloudHome(Location.parse(f"gs://{server.bucket}/{prefix}", server.url), server)
    return CloudHome(Location.parse(f"s3://{server.bucket}/{prefix}", server.url), server)


def google_home(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> CloudHome:
    """Return a place for objects at `GoogleStorage`, and name its key file in the environment."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(server.data / "service-account.json"))
    location = Location.parse(f"gs://{server.bucket}/platform/{secrets.token_hex(8)}", server.url)
    return CloudHome(location, server)
