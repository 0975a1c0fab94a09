"""Uploads: prepare mints where bytes go, the engine sends them, commit makes them part of something.

Preparing writes no row: what it says is in the signed *key*. A key is good for one scope (a dataset, a model) and one
user. Committing is idempotent: the same entry again gives the same answer. Bytes that are never committed are swept.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.dataclasses import dataclass

from asyncsdk.domain.ids import Id
from asyncsdk.domain.paths import MAX_PATH_BYTES
from asyncsdk.protocol.base import (
    MAX_BULK_ENTRIES,
    Crc32cHex,
    Message,
    Metadata,
    Post,
    Problem,
    Record,
    Value,
)
from asyncsdk.targets import (
    BlobTarget,
    FileOrigin,
    FileTarget,
    FormTarget,
    MultipartTarget,
    Origin,
    PutTarget,
    ResumableTarget,
    Target,
    UrlOrigin,
)

__all__ = [
    "BAD_DIGEST",
    "CHECKING_SECONDS",
    "STILL_CHECKING",
    "CommitEntry",
    "CommitUploads",
    "CommittedUpload",
    "CommittedUploads",
    "OnExisting",
    "OriginField",
    "PrepareUploads",
    "PreparedUpload",
    "PreparedUploads",
    "RenewEntry",
    "RenewUploads",
    "RenewedUploads",
    "TargetField",
    "UploadEntry",
    "UploadKey",
]

BAD_DIGEST = "bad_digest"
"""Code of a commit that is refused because the bytes that arrived are others than those it tells: send them again."""

STILL_CHECKING = "still_checking"
"""Code of a commit that is refused (503) because the platform still reads the bytes back: repeat it after a while."""

CHECKING_SECONDS = 24 * 3600.0
"""How long to repeat a commit for that reason. The platform gives up reading long before when the store stalls."""

# --- targets and origins on the wire -------------------------------------------------------------------------

_WIRE_KINDS: dict[str, type[Any]] = {
    "put": PutTarget,
    "multipart": MultipartTarget,
    "resumable": ResumableTarget,
    "blob": BlobTarget,
    "form": FormTarget,
    "url": UrlOrigin,
}
_KIND_OF = {cls: kind for kind, cls in _WIRE_KINDS.items()}
_FIELDS_OF = {cls: tuple(f.name for f in fields(cls)) for cls in _KIND_OF}


def _to_wire(value: Target | Origin) -> dict[str, Any]:
    kind = _KIND_OF.get(type(value))
    if kind is None:
        raise ValueError(f"{type(value).__name__} never leaves its process")
    wire: dict[str, Any] = {"kind": kind}
    for name in _FIELDS_OF[type(value)]:
        given = getattr(value, name)
        if given is not None and given != {}:
            wire[name] = given
    return wire


def _from_wire(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    cls = _WIRE_KINDS.get(value.get("kind", ""))
    if cls is None:
        raise ValueError(f"unknown kind {value.get('kind')!r}")
    known = {f.name for f in fields(cls)}
    given = {name: v for name, v in value.items() if name in known}
    for name in given.keys() & {"part_urls", "list_urls", "success"}:
        given[name] = tuple(given[name])
    if "fields" in given:  # pairs, not an object: their order is part of what a service expects
        given["fields"] = tuple((name, text) for name, text in given["fields"])
    return cls(**given)


def _must_be(*types: type[Any]) -> BeforeValidator:
    def check(value: Any) -> Any:
        result = _from_wire(value)
        if not isinstance(result, types):
            raise ValueError(f"expected one of {[t.__name__ for t in types]}")
        return result

    return BeforeValidator(check)


_URL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["kind"],
    "properties": {
        "kind": {"type": "string", "enum": sorted(_WIRE_KINDS)},
        "url": {"type": "string", "description": "Signed; sent byte for byte as given."},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "expires_at": {"type": "number", "description": "Seconds since 1970 UTC."},
    },
}

TargetField = Annotated[
    Any,
    _must_be(PutTarget, MultipartTarget, ResumableTarget, BlobTarget, FormTarget, FileTarget),
    PlainSerializer(_to_wire, return_type=dict),
    WithJsonSchema(_URL_SCHEMA),
]
"""A `Target`; from JSON only those with URLs are made."""

OriginField = Annotated[
    Any,
    _must_be(UrlOrigin, FileOrigin),
    PlainSerializer(_to_wire, return_type=dict),
    WithJsonSchema(_URL_SCHEMA),
]
"""An `Origin`; from JSON only those with URLs are made."""

# --- messages ------------------------------------------------------------------------------------------------

OnExisting = Literal["skip_same", "overwrite", "fail"]
"""What happens to an item whose path is taken: nothing when size and crc32c are equal and replaced otherwise
(``skip_same``), replaced (``overwrite``), refused (``fail``)."""

UploadKey = Annotated[str, Field(pattern=r"^[0-9a-f]{24}-[0-9a-f]{32}$")]
"""Names bytes on their way: an id and a signature over scope and user."""

# Entries of a thousand at a time are dataclasses, validated as `Value` is: a model keeps a dict and a set for each, and
# collecting those as garbage costs as much again as making them.
_AS_VALUE = ConfigDict(extra="ignore", ser_json_inf_nan="null")


@dataclass(frozen=True, slots=True, kw_only=True, config=_AS_VALUE)
class UploadEntry:
    """One object to prepare for.

    Attributes:
        path: Path of the item it will be. Checked by the server; a bad one is a refused entry, not a failed call.
        size_bytes: Its size; None when not known before it was read.
        crc32c: Its checksum, when known: then arriving bytes are checked against it, and ``skip_same`` can be decided.
    """

    path: Annotated[str, Field(max_length=4 * MAX_PATH_BYTES)]
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    crc32c: Crc32cHex | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_AS_VALUE)
class PreparedUpload:
    """What to do about one entry.

    Attributes:
        verdict: ``upload``: send the bytes to ``target``, then commit ``key``. ``skip``: the item is there already.
            ``compare``: an item of this path and size is there; prepare again with the checksum. ``refused``: see
            ``problem``.
        key: Names the bytes until they are committed.
        target: Where the bytes go.
        item_id: The item of that path that exists already.
        problem: Why it was refused.
    """

    verdict: Literal["upload", "skip", "compare", "refused"]
    key: UploadKey | None = None
    target: TargetField | None = None
    item_id: Id | None = None
    problem: Problem | None = None


class PreparedUploads(Record):
    """One answer per entry, in order."""

    entries: tuple[PreparedUpload, ...]


class PrepareUploads(Message[PreparedUploads]):
    """Mint targets for up to 1,000 items of a dataset. Writes nothing."""

    route: ClassVar = Post("/datasets/{dataset_id}/uploads/prepare")
    dataset_id: Id
    entries: Annotated[tuple[UploadEntry, ...], Field(min_length=1, max_length=MAX_BULK_ENTRIES)]
    on_existing: OnExisting = "skip_same"


@dataclass(frozen=True, slots=True, kw_only=True, config=_AS_VALUE)
class CommitEntry:
    """One object that was sent.

    Attributes:
        item_id: Id of the item if it is new, made by the client: repeating the entry makes no second item.
        path: As prepared.
        key: As prepared.
        size_bytes: Bytes sent.
        crc32c: Checksum of the bytes sent.
        metadata: Of the item; None keeps what an item that is replaced has.
    """

    item_id: Id
    path: Annotated[str, Field(max_length=4 * MAX_PATH_BYTES)]
    key: UploadKey
    size_bytes: Annotated[int, Field(ge=0)]
    crc32c: Crc32cHex
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_AS_VALUE)
class CommittedUpload:
    """What became of one entry.

    Attributes:
        verdict: ``created``, ``replaced`` (the path existed), ``unchanged`` (it was committed before, or an equal
            item stands under ``skip_same``), ``refused`` (see ``problem``).
        item_id: The item.
        etag: Its validator.
        problem: Why it was refused.
    """

    verdict: Literal["created", "replaced", "unchanged", "refused"]
    item_id: Id | None = None
    etag: str | None = None
    problem: Problem | None = None


class CommittedUploads(Record):
    """One answer per entry, in order."""

    entries: tuple[CommittedUpload, ...]


class CommitUploads(Message[CommittedUploads]):
    """Make up to 1,000 sent objects items of a dataset. Durable when it answers; idempotent.

    Entries are judged one by one; a refused one does not stop the others. One that is refused with `STILL_CHECKING` is
    to be sent again, alone or with others.
    """

    route: ClassVar = Post("/datasets/{dataset_id}/uploads/commit")
    dataset_id: Id
    entries: Annotated[tuple[CommitEntry, ...], Field(min_length=1, max_length=MAX_BULK_ENTRIES)]
    on_existing: OnExisting = "skip_same"


class RenewEntry(Value):
    """An upload that needs fresh URLs.

    Attributes:
        key: As prepared.
        size_bytes: As prepared.
        crc32c: As prepared.
        upload_id: Of the multipart upload; None for a single request.
        first_part: The part that the first URL shall take.
    """

    key: UploadKey
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    crc32c: Crc32cHex | None = None
    upload_id: str | None = None
    first_part: Annotated[int, Field(ge=1, le=10_000)] = 1


class RenewedUploads(Record):
    """One target per entry, in order."""

    targets: tuple[TargetField, ...]


class RenewUploads(Message[RenewedUploads]):
    """Mint fresh URLs for uploads prepared before, or URLs for further parts. Writes nothing.

    A key that was not minted for this scope and user fails the call as permission denied. One under which nothing can
    be committed any more (it is a week old, or what was committed was deleted since) fails it as not found.
    """

    route: ClassVar = Post("/uploads/renew")
    scope_id: Id
    """The dataset or model that the keys were prepared for."""
    entries: Annotated[tuple[RenewEntry, ...], Field(min_length=1, max_length=MAX_BULK_ENTRIES)]
