"""Where bytes go and where they come from.

Frozen dataclasses, minted by a platform, carried unchanged by messages and used by the engine. ``repr`` never shows
the query of a URL nor the value of a header. The file forms exist in-process only (embedded platform): they never
leave over HTTP, and a message that came over HTTP never makes one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asyncsdk.errors import ConfigError, redact_url

__all__ = [
    "BlobTarget",
    "FileOrigin",
    "FileTarget",
    "FormTarget",
    "MultipartTarget",
    "Origin",
    "PutTarget",
    "ResumableTarget",
    "Target",
    "UrlOrigin",
]

_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f]")

SESSION_ALIGNMENT_BYTES = 256 * 1024
"""What the parts of a resumable session must be multiples of, the last one aside."""

MAX_BLOCK_BYTES = 4000 * 1024 * 1024


class _Redacted:
    """`repr` for records that hold signed URLs: the path of each, the names of headers and form fields."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = []
        for name in self.__dataclass_fields__:  # type: ignore[attr-defined]  # only dataclasses inherit this
            value: Any = getattr(self, name)
            if name == "headers":
                value = sorted(value)
            elif name in {"part_urls", "list_urls"}:
                value = f"<{len(value)} URLs>"
            elif name == "fields":
                value = [field_name for field_name, _ in value]
            elif isinstance(value, str) and "url" in name:
                value = redact_url(value)
            shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _check_url(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"a URL must start with http:// or https://, this one is {redact_url(url)!r}")
    # In printable ASCII without a space the expression would find nothing, and take four times as long.
    if not (url.isascii() and url.isprintable() and " " not in url) and _NOT_IN_URLS.search(url):
        raise ConfigError(f"a URL holds no spaces or control characters; encode them: {redact_url(url)!r}")


def _digest(url: str) -> str:
    """Return a name for what *url* leads to, which tells nothing of it."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, repr=False)
class PutTarget(_Redacted):
    """One request takes the whole object.

    Args:
        url: Signed or plain URL; sent byte for byte as given.
        headers: Headers that go with it (those that were signed). The engine adds ``Content-Length``. A header for a
            checksum that is left empty is filled in: ``x-amz-checksum-crc32c``, ``Content-MD5``, ``x-goog-hash`` ...
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
        list_urls: List the parts that arrived (GET, XML): all of them, or a thousand of those after part 0, 1000, 2000
            ... (S3 signs the ``part-number-marker`` too). Pages that are missing when they are needed are asked of the
            feed's ``renew``; parts that are on none are sent again. Empty: cannot be asked; then what is remembered of
            an upload counts, and completing tells if the server has other parts.
        headers: Headers that go with every part; checksums that are left empty are filled in, see `PutTarget`.
        first_part: Number of the part that ``part_urls[0]`` takes, from 1.
        expires_at: When the URLs stop working, seconds since 1970 UTC; None when unknown.
        object_url: Reads the object (GET). Asked only when the reply to completing was lost and the upload is gone: the
            object's ETag tells whether it is made of these parts. Empty: that is an error then, at services that do
            not recognise the second call.

    Source: Amazon S3 API reference, UploadPart, CompleteMultipartUpload, ListParts, AbortMultipartUpload.
    """

    upload_id: str
    part_size: int
    part_urls: tuple[str, ...]
    complete_url: str = ""
    abort_url: str = ""
    list_urls: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    first_part: int = 1
    expires_at: float | None = None
    object_url: str = ""

    def __post_init__(self) -> None:
        if self.part_size < 1:
            raise ConfigError(f"part_size must be at least 1 byte, not {self.part_size}")
        if self.first_part < 1:
            raise ConfigError(f"parts are numbered from 1, not {self.first_part}")
        for url in (*self.part_urls, self.complete_url, self.abort_url, *self.list_urls, self.object_url):
            if url:
                _check_url(url)

    def part_url(self, part: int) -> str | None:
        """Return the URL of *part* (from 1), or None when this target holds none for it."""
        index = part - self.first_part
        return self.part_urls[index] if 0 <= index < len(self.part_urls) else None


@dataclass(frozen=True, slots=True, repr=False)
class ResumableTarget(_Redacted):
    """A resumable upload session of Google Cloud Storage: parts in order, and the server says how far it got.

    After a failure it is asked, and goes on from there; a part that arrived by half is not sent again from its start.

    Args:
        url: The session's URI, as starting it returned it. Whoever has it may write the object.
        part_size: Bytes of each part but the last, a multiple of 256 KiB.
        headers: Headers that go with every request of the session; usually none.
        upload_id: Names the session for whoever resumes it; found from the URL when empty. No secret.
        expires_at: When the session ends, seconds since 1970 UTC; None when unknown (Google's last a week).

    Source: Google Cloud Storage, "Resumable uploads" and "Perform resumable uploads".
    """

    url: str
    part_size: int = 8 * 1024 * 1024
    headers: Mapping[str, str] = field(default_factory=dict)
    upload_id: str = ""
    expires_at: float | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)
        if self.part_size < 1 or self.part_size % SESSION_ALIGNMENT_BYTES:
            raise ConfigError(f"part_size of a session must be a multiple of 256 KiB, not {self.part_size}")
        if not self.upload_id:
            object.__setattr__(self, "upload_id", _digest(self.url))


@dataclass(frozen=True, slots=True, repr=False)
class BlobTarget(_Redacted):
    """A block blob of Azure Storage behind a shared access signature: one request, or blocks in any order and a list.

    Args:
        url: The blob's, with its signature. It must allow create or write, and read too if an upload is to be resumed.
        part_size: Bytes of each block but the last, at most 4,000 MiB; a blob has at most 50,000 of them.
        single_bytes: Up to this size the blob goes by one request.
        headers: Headers that go with the request that makes the blob (the only one, or the list of blocks):
            ``x-ms-blob-content-type``, ``x-ms-meta-...``, ``If-None-Match: *`` to replace nothing.
        checksum: What the server checks every request's bytes against: ``md5``, ``crc64`` (slow in Python) or
            nothing when empty; then what arrived is not verified.
        upload_id: Blocks are named after it, and after something random, so that two uploads to one blob do not mix;
            found from the URL without its query when empty.
        version: Of the service (``x-ms-version``).
        expires_at: When the signature ends, seconds since 1970 UTC; None: read from the URL.

    Source: Azure Storage REST reference, Put Blob, Put Block, Put Block List, Get Block List.
    """

    url: str
    part_size: int = 8 * 1024 * 1024
    single_bytes: int = 8 * 1024 * 1024
    headers: Mapping[str, str] = field(default_factory=dict)
    checksum: Literal["md5", "crc64", ""] = "md5"
    upload_id: str = ""
    version: str = "2020-12-06"
    expires_at: float | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not 1 <= self.part_size <= MAX_BLOCK_BYTES:
            raise ConfigError(f"part_size of a block blob must be 1 to {MAX_BLOCK_BYTES} bytes, not {self.part_size}")
        if self.checksum not in {"md5", "crc64", ""}:
            raise ConfigError(f"checksum must be 'md5', 'crc64' or empty, not {self.checksum!r}")
        if not self.upload_id:
            object.__setattr__(self, "upload_id", _digest(self.url.partition("?")[0]))


@dataclass(frozen=True, slots=True, repr=False)
class FormTarget(_Redacted):
    """A form (``multipart/form-data``) takes the whole object: the fields in order, the file last, by one request.

    Its ``Content-Length`` is exact and the file is read while it is sent, in constant memory.

    Args:
        url: Where the form goes.
        fields: Name and value of each field, in the order in which they are sent: keys, policies, signatures. One
            of S3's checksums (``x-amz-checksum-sha256`` ...) that is left empty is filled in with that of the file.
        file_field: Name of the field that holds the file.
        file_name: File name that is told; None: the last part of the upload's name; empty: none at all.
        content_type: Type of the file part; empty: that line is left out.
        headers: Headers that go with the request. A checksum that is left empty is compared with what the server states
            (``Content-MD5``: with an ETag, too), and not sent: it would be that of the whole form.
        method: ``POST`` unless the service wants another.
        success: Statuses that mean that the object is there; one of 3xx then leads nowhere.
        is_repeatable: Whether the form may be sent again when no answer came: sending it twice makes one object, as
            with the signed forms of S3 and Google Cloud Storage. A refusal that asks for another attempt is heard
            in any case.
        expires_at: When the signature ends, seconds since 1970 UTC; None when unknown.

    Source: RFC 7578 (multipart/form-data); WHATWG HTML, "Multipart form data" (quoting of names).
    """

    url: str
    fields: tuple[tuple[str, str], ...] = ()
    file_field: str = "file"
    file_name: str | None = None
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    success: tuple[int, ...] = (200, 201, 204)
    is_repeatable: bool = True
    expires_at: float | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not self.file_field:
            raise ConfigError("file_field must name the field that holds the file")
        if not self.success:
            raise ConfigError("success must name at least one status")
        if not self.content_type.isascii() or not (self.content_type or "x").isprintable():
            raise ConfigError("content_type holds printable ASCII characters only")
        for name, text in self.fields:
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ConfigError(f"the form field {name!a} holds half of a surrogate pair") from None


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


Target = PutTarget | MultipartTarget | ResumableTarget | BlobTarget | FormTarget | FileTarget
Origin = UrlOrigin | FileOrigin
