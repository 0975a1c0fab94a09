"""Digests: those of the bytes that were sent or received, compared with whatever the other end states.

crc32c is known of all bytes that move, it costs next to nothing. Any other digest is taken only when a target asks for
it, by leaving its header empty: it is filled in, the server checks what arrives against it, and what the server states
afterwards is compared too. What a MiB costs on one core (measured once, on a busy machine): crc32c 0.2 ms, crc32
0.3 ms, sha1 and sha256 0.7 ms, md5 1.7 ms, crc64 7 ms (Python brings none: see `asyncsdk.engine.crc64`).

Source: Amazon S3 User Guide, "Checking object integrity"; Google Cloud Storage, "Hashes and ETags"; Azure Storage REST
reference, "Put Block" (Content-MD5, x-ms-content-crc64); RFC 1864 (Content-MD5).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from asyncsdk.checksums import crc32c as crc32c_of
from asyncsdk.checksums import crc32c_from_base64, crc32c_hex
from asyncsdk.engine.crc64 import crc64nvme
from asyncsdk.engine.parts import Part
from asyncsdk.engine.work import SMALL_BYTES, Work
from asyncsdk.errors import ChecksumMismatch
from asyncsdk.transport.base import Body, BytesBody, FramedBody, Reply

__all__ = [
    "CRC32C_ALONE",
    "Running",
    "asked_for",
    "confirm",
    "crc32c_of_body",
    "digests_of",
    "filled_in",
    "is_confirmed",
    "reply_crc32c",
    "running",
    "stated",
]

CRC32C_ALONE = ("crc32c",)

_STEP_BYTES = 1024 * 1024
_STEPS_PER_TURN = 16
"""Read between two looks at whether the work was cancelled."""

_ASKING = {
    "content-md5": "md5",
    "x-amz-checksum-crc32": "crc32",
    "x-amz-checksum-crc32c": "crc32c",
    "x-amz-checksum-crc64nvme": "crc64",
    "x-amz-checksum-sha1": "sha1",
    "x-amz-checksum-sha256": "sha256",
    "x-goog-hash": "crc32c",
    "x-ms-content-crc64": "crc64",
}
"""Headers that a target may leave empty, and the digest that fills them in."""

_STATING = {**_ASKING, "x-ms-blob-content-md5": "md5"}

_SIZES = {"md5": 16, "crc32": 4, "crc32c": 4, "crc64": 8, "sha1": 20, "sha256": 32}

_MD5_ETAG = re.compile(r'"?([0-9a-fA-F]{32})"?')


class Running(Protocol):
    """A digest that takes bytes in order."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""

    def digest(self) -> bytes:
        """Return the digest of what came so far."""


# --- what the other end states -------------------------------------------------------------------------------


def reply_crc32c(headers: Mapping[str, str]) -> int | None:
    """Return the crc32c that the server states for an object, or None.

    Checksums of checksums (S3's ``...-3``) and of stored bytes other than those sent (GCS unpacking gzip) do not count.
    """
    text = headers.get("x-amz-checksum-crc32c")
    if text is None and "x-goog-hash" not in headers:
        return None
    if text is None:
        text = _goog_hashes(headers).get("crc32c")
    if text is None or _is_composite(headers):
        return None
    try:
        return crc32c_from_base64(text)
    except ValueError:
        return None


def stated(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Return the digests that a reply states for all bytes of an object or part, by algorithm.

    What is of another length, a checksum of checksums, or of stored bytes that are not those sent, does not count. An
    ETag that is an MD5 is not among them, see `confirm`.
    """
    found = {}
    for header, name in _STATING.items():
        if header not in headers or (header.startswith("x-amz-") and _is_composite(headers)):
            continue
        texts = _goog_hashes(headers) if header == "x-goog-hash" else {name: headers[header]}
        for algorithm, text in texts.items():
            try:
                value = base64.b64decode(text, validate=True)
            except (ValueError, binascii.Error):
                continue  # S3 writes "...-3" after a checksum of three checksums
            if _SIZES.get(algorithm) == len(value):
                # Azure writes the least significant byte first.
                found[algorithm] = value[::-1] if header == "x-ms-content-crc64" else value
    return found


def confirm(
    known: Mapping[str, bytes], headers: Mapping[str, str], *, source: str = "", part: int | None = None
) -> bool:
    """Whether the server states a digest that is known here too; all that are must be the same.

    An ETag that is the MD5 confirms; one that is another 32 digits says nothing, unless the server is S3 and keeps the
    object unencrypted or under its own key: only then an ETag is promised to be the MD5.

    Args:
        known: Digests of the bytes that were sent, by algorithm.

    Raises:
        ChecksumMismatch: One of them differs.
    """
    theirs = stated(headers)
    both = known.keys() & theirs.keys()
    for name in both:
        if known[name] != theirs[name]:
            raise _mismatch(name, known[name].hex(), theirs[name].hex(), source, part)
    if both or "md5" not in known:
        return bool(both)
    etag = _MD5_ETAG.fullmatch(headers.get("etag", "").strip())
    if etag is None:
        return False
    if etag[1].lower() == known["md5"].hex():
        return True
    if _etag_is_md5(headers):
        raise _mismatch("md5", known["md5"].hex(), etag[1].lower(), source, part)
    return False


def is_confirmed(
    work: Work, reply: Reply, checksum: int, part: int | None = None, known: Mapping[str, bytes] | None = None
) -> bool:
    """Whether the server states the same digest for what was sent.

    Args:
        checksum: The crc32c of what was sent.
        known: Other digests of it, by algorithm.

    Raises:
        ChecksumMismatch: It states another one.
    """
    theirs = reply_crc32c(reply.headers)
    if theirs is not None and theirs != checksum:
        raise _mismatch("crc32c", crc32c_hex(checksum), crc32c_hex(theirs), work.transfer.name, part)
    is_told = confirm(known, reply.headers, source=work.transfer.name, part=part) if known else False
    return theirs is not None or is_told


def _mismatch(name: str, ours: str, theirs: str, source: str, part: int | None) -> ChecksumMismatch:
    return ChecksumMismatch(f"{name}:{ours}", f"{name}:{theirs}", source=source, part=part)


def _goog_hashes(headers: Mapping[str, str]) -> dict[str, str]:
    stored = headers.get("x-goog-stored-content-encoding", "identity")
    if stored not in {"identity", headers.get("content-encoding", "identity")}:
        return {}
    return dict(item.strip().partition("=")[::2] for item in headers.get("x-goog-hash", "").split(","))


def _is_composite(headers: Mapping[str, str]) -> bool:
    return headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE"


def _etag_is_md5(headers: Mapping[str, str]) -> bool:
    if "x-amz-request-id" not in headers or "x-amz-server-side-encryption-customer-algorithm" in headers:
        return False
    return headers.get("x-amz-server-side-encryption", "AES256") == "AES256"


# --- what a target asks for ----------------------------------------------------------------------------------


def asked_for(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the digests whose headers a target leaves empty, to be filled in; none of them twice."""
    if "" not in headers.values():
        return ()
    names = (_ASKING.get(name.lower()) for name, value in headers.items() if value == "")
    return tuple(dict.fromkeys(name for name in names if name is not None))


def filled_in(headers: Mapping[str, str], known: Mapping[str, bytes]) -> dict[str, str]:
    """Return *headers* with those that ask for one of the digests *known* filled in."""
    result = dict(headers)
    for name, value in headers.items():
        header = name.lower()
        digest = known.get(_ASKING.get(header, "")) if value == "" else None
        if digest is not None:
            text = base64.b64encode(digest[::-1] if header == "x-ms-content-crc64" else digest).decode()
            result[name] = f"crc32c={text}" if header == "x-goog-hash" else text
    return result


async def digests_of(work: Work, part: Part, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return these digests of all bytes of *part*, read off the loop unless it is small."""
    if names == CRC32C_ALONE:  # a part may know it already
        return {"crc32c": (await part.crc32c(work)).to_bytes(4, "big")}
    begun = {name: running(name) for name in names}
    await _feed(work, part.body(), begun.values())
    return {name: value.digest() for name, value in begun.items()}


async def crc32c_of_body(work: Work, body: Body) -> int:
    """Return the crc32c of all bytes of *body*, read off the loop unless they are few."""
    checksum = _Crc32c()
    await _feed(work, body, (checksum,))
    return checksum.value


async def _feed(work: Work, body: Body, digests: Iterable[Running]) -> None:
    digests = tuple(digests)
    offset = 0

    def step() -> bool:
        nonlocal offset
        for _ in range(_STEPS_PER_TURN):
            if offset >= body.size_bytes:
                return False
            if isinstance(body, BytesBody):
                data = bytes(body.data[offset : offset + _STEP_BYTES])
            else:
                data = body.read(offset, _STEP_BYTES)
            for digest in digests:
                digest.update(data)
            offset += len(data)
        return offset < body.size_bytes

    if body.size_bytes <= SMALL_BYTES and isinstance(body, (BytesBody, FramedBody)):
        step()
    else:
        await work.resources.threads.run_in_steps(step)


def running(name: str) -> Running:
    """Return a digest that is begun, by its name in `stated`."""
    made: dict[str, Callable[[], Running]] = {"crc32": _Crc32, "crc32c": _Crc32c, "crc64": _Crc64}
    if name in made:
        return made[name]()
    return hashlib.new(name, usedforsecurity=False)


class _Crc32:
    """The CRC of zlib and of ``x-amz-checksum-crc32``."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self.value = zlib.crc32(data, self.value)

    def digest(self) -> bytes:
        return self.value.to_bytes(4, "big")


class _Crc32c(_Crc32):
    """The one every part has anyway."""

    def update(self, data: bytes | memoryview, /) -> None:
        self.value = crc32c_of(bytes(data), self.value)


class _Crc64(_Crc32):
    """CRC-64/NVME."""

    def update(self, data: bytes | memoryview, /) -> None:
        self.value = crc64nvme(data, self.value)

    def digest(self) -> bytes:
        return self.value.to_bytes(8, "big")
