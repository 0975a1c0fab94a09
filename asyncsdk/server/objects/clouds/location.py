"""Which bucket, as settings write it: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from asyncsdk.errors import ConfigError, redact_url

__all__ = ["SCHEMES", "Location"]

SCHEMES = ("s3", "gs", "az")
"""The clouds there are."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_SEGMENT = re.compile(r"[A-Za-z0-9_.=-]{1,100}")


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket and a prefix in it. Holds no credentials: those are the environment's.

    Args:
        scheme: Whose bucket it is: ``s3``, ``gs`` or ``az``.
        bucket: Its name.
        prefix: What all names begin with, without slashes around it; may be empty.
        endpoint: URL of the service, for those that are not the cloud itself; empty: the cloud's own.
    """

    scheme: str
    bucket: str
    prefix: str = ""
    endpoint: str = ""

    @classmethod
    def parse(cls, url: str, endpoint: str | None = None) -> Self:
        """Read ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.

        Raises:
            ConfigError: It is none.
        """
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in SCHEMES:
            known = ", ".join(f"{name}://bucket/prefix" for name in SCHEMES)
            raise ConfigError(f"objects are kept in {known}; not in {redact_url(url)!r}")
        bucket, _, prefix = rest.partition("/")
        prefix = prefix.strip("/")
        segments = prefix.split("/") if prefix else []
        good = all(_SEGMENT.fullmatch(segment) and segment.strip(".") for segment in segments)
        if not _BUCKET.fullmatch(bucket) or not good:
            raise ConfigError(
                f"write {scheme}://bucket/prefix with letters, digits and . _ = - only, and neither user nor query"
            )
        return cls(scheme, bucket, prefix, _check_endpoint(endpoint) if endpoint else "")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def _check_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError("the endpoint of the objects must look like https://host or http://host:port, without a user")
    return url.rstrip("/")
