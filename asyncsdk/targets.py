"""Where bytes go and where they come from.

Frozen dataclasses, minted by a platform, carried unchanged by messages and used by the engine. ``repr`` never shows
the query of a URL nor the value of a header. The file forms exist in-process only (embedded platform): they never
leave over HTTP, and a message that came over HTTP never makes one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncsdk.errors import ConfigError, redact_url

__all__ = ["FileOrigin", "FileTarget", "MultipartTarget", "Origin", "PutTarget", "Target", "UrlOrigin"]

_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f]")


class _Redacted:
    """`repr` for records that hold signed URLs: the path of each, the names of headers."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = []
        for name in self.__dataclass_fields__:  # type: ignore[attr-defined]  # only dataclasses inherit this
            value: Any = getattr(self, name)
            if name == "headers":
                value = sorted(value)
            elif name == "part_urls":
                value = f"<{len(value)} URLs>"
            elif isinstance(value, str) and "url" in name:
                value = redact_url(value)
            shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _check_url(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"a URL must start with http:// or https://, this one is {redact_url(url)!r}")
    if _NOT_IN_URLS.search(url):
        raise ConfigError(f"a URL holds no spaces or control characters; encode them: {redact_url(url)!r}")


@dataclass(frozen=True, slots=True, repr=False)
class PutTarget(_Redacted):
    """One request takes the whole object.

    Args:
        url: Signed or plain URL; sent byte for byte as given.
        headers: Headers that go with it (those that were signed). The engine adds ``Content-Length``.
        method: ``PUT`` unless the service wants another.
        expires_at: When the URL stops working, seconds since 1970 UTC; None when unknown.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "PUT"
    expires_at: float | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)


@dataclass(frozen=True, slots=True, repr=False)
class MultipartTarget(_Redacted):
    """S3's multipart upload through signed URLs: parts in any order, then complete, or abort.

    Args:
        upload_id: Names the upload at the service.
        part_size: Bytes of each part but the last.
        part_urls: URL of part ``first_part``, ``first_part + 1`` ...; when more are needed, the feed's ``renew`` is
            asked for further ones.
        complete_url: Takes the list of parts (POST, XML). Empty: the platform completes when it commits.
        abort_url: Removes the parts (DELETE). Empty: nothing is sent, the service sweeps.
        list_url: Lists the parts that arrived (GET, XML). Empty: cannot be asked.
        headers: Headers that go with every part.
        first_part: Number of the part that ``part_urls[0]`` takes, from 1.
        expires_at: When the URLs stop working, seconds since 1970 UTC; None when unknown.

    Source: Amazon S3 API reference, UploadPart, CompleteMultipartUpload, ListParts, AbortMultipartUpload.
    """

    upload_id: str
    part_size: int
    part_urls: tuple[str, ...]
    complete_url: str = ""
    abort_url: str = ""
    list_url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    first_part: int = 1
    expires_at: float | None = None

    def __post_init__(self) -> None:
        if self.part_size < 1:
            raise ConfigError(f"part_size must be at least 1 byte, not {self.part_size}")
        if self.first_part < 1:
            raise ConfigError(f"parts are numbered from 1, not {self.first_part}")
        for url in (*self.part_urls, self.complete_url, self.abort_url, self.list_url):
            if url:
                _check_url(url)

    def part_url(self, part: int) -> str | None:
        """Return the URL of *part* (from 1), or None when this target holds none for it."""
        index = part - self.first_part
        return self.part_urls[index] if 0 <= index < len(self.part_urls) else None


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file of this machine takes the object: copied, verified, then renamed into place.

    The final name carries the checksum, so that it can be known only when the bytes are: the engine writes
    ``folder/name.<crc32c>`` (eight hexadecimal digits).

    Args:
        folder: Folder that takes it; made when missing.
        name: First part of the file's name.
    """

    folder: Path
    name: str

    def path(self, crc32c: str) -> Path:
        """Return the file that holds the object whose bytes have this checksum."""
        return self.folder / f"{self.name}.{crc32c}"


@dataclass(frozen=True, slots=True, repr=False)
class UrlOrigin(_Redacted):
    """An object behind a URL.

    Args:
        url: Signed or plain URL; sent byte for byte as given.
        headers: Headers that go with every request for it.
        size_bytes: Size, when known: then large objects are read in parallel ranges at once.
        crc32c: Eight hexadecimal digits, when known: then the download is verified.
        etag: Validator, when known: then every range is asked for with ``If-Match``.
        expires_at: When the URL stops working, seconds since 1970 UTC; None when unknown.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int | None = None
    crc32c: str | None = None
    etag: str | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """An object that is a file of this machine."""

    path: Path
    size_bytes: int | None = None
    crc32c: str | None = None
    etag: str | None = None


Target = PutTarget | MultipartTarget | FileTarget
Origin = UrlOrigin | FileOrigin
