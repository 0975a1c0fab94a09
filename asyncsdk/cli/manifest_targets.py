"""Lines of a manifest whose object goes another way than by one PUT: parts, sessions, blobs, forms.

What a line says of its target are the fields of the class of that target, `asyncsdk.targets`, under the same names.
An id of an upload is kept as a digest: whoever writes a manifest may take for one what is a secret, and the journal
remembers ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from typing import Any, get_type_hints
from urllib.parse import parse_qs, urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from asyncsdk.cli.line_names import lasting_fields, lasting_query
from asyncsdk.errors import ConfigError
from asyncsdk.targets import BlobTarget, FormTarget, MultipartTarget, ResumableTarget

__all__ = ["TARGET_KINDS", "LineTarget", "address_of", "check_parts", "lasting_part", "parse_target"]

LineTarget = MultipartTarget | ResumableTarget | BlobTarget | FormTarget

TARGET_KINDS: Mapping[str, type[LineTarget]] = {
    "multipart": MultipartTarget,
    "resumable": ResumableTarget,
    "blob": BlobTarget,
    "form": FormTarget,
}
"""Classes of targets by the key that a line has for them."""

_UPLOAD_ID = "uploadId"
_OF_PARTS = frozenset({"uploadid", "partnumber", "x-id"})
_OF_SESSIONS = frozenset({"upload_id"})
_CONFIG = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


def parse_target(kind: str, said: object) -> LineTarget:
    """Return the target that a line means by *said*, what stands under its key *kind*.

    Raises:
        ConfigError: It means none; the message says which key and what is to be done, and holds no value of it.
    """
    if not isinstance(said, dict):
        raise ConfigError(f"{kind!r} must be an object: {{{', '.join(map(repr, _names(kind)))}}}")
    if kind == "form" and isinstance(said.get("fields"), dict):
        said = {**said, "fields": list(said["fields"].items())}
    try:
        # As JSON once more: only there a list may be a tuple though nothing else may be what it is not.
        found = _model(kind).model_validate_json(orjson.dumps(said))
    except ValidationError as error:
        raise ConfigError(_reason(kind, error)) from None
    given = {name: getattr(found, name) for name in found.model_fields_set}
    if kind == "multipart":
        _check_multipart(given)
    try:
        target = TARGET_KINDS[kind](**given)
    except ConfigError as error:
        raise ConfigError(f"{kind!r}: {error}") from None
    if isinstance(target, FormTarget) or not given.get("upload_id"):
        return target
    return replace(target, upload_id=_digest(given["upload_id"]))


def address_of(target: LineTarget) -> str:
    """Return the URL that tells where the object goes. It may be signed."""
    return target.part_urls[0] if isinstance(target, MultipartTarget) else target.url


def lasting_part(target: LineTarget) -> str:
    """Return what tells the object of *target* from others at the same address, also when all was signed anew.

    Of another upload of the same object, too. For digests: it may hold secrets.
    """
    if isinstance(target, MultipartTarget):
        return lasting_query(address_of(target), _OF_PARTS)
    if isinstance(target, ResumableTarget):
        return lasting_query(target.url, _OF_SESSIONS)
    if isinstance(target, FormTarget):
        return f"{lasting_query(target.url)}\0{lasting_fields(target.fields)}"
    return lasting_query(target.url)


def check_parts(target: MultipartTarget, size_bytes: int) -> None:
    """Raise `ConfigError` unless there is a URL for the last part of *size_bytes*: nobody gives further ones."""
    parts = max(1, -(-size_bytes // target.part_size))
    has = target.first_part - 1 + len(target.part_urls)
    if has < parts:
        raise ConfigError(
            f"'multipart.part_urls' reach to part {has}, and {size_bytes} bytes have {parts} parts of "
            f"{target.part_size}: sign a URL for each"
        )


def _check_multipart(given: dict[str, Any]) -> None:
    """Raise `ConfigError` unless *given* make an upload that can be finished; give it an id if it has none."""
    if not given["part_urls"]:
        raise ConfigError("'multipart.part_urls' must hold a URL for each part")
    if not given.get("complete_url"):
        raise ConfigError("'multipart.complete_url' is missing: without it nobody makes the object of its parts")
    if not given.get("upload_id"):
        try:
            said = parse_qs(urlsplit(given["part_urls"][0]).query, errors="surrogateescape")
        except ValueError:  # no URL; the target says so
            said = {}
        if _UPLOAD_ID not in said:
            raise ConfigError(
                f"'multipart.upload_id' is missing, and the first of 'part_urls' has no {_UPLOAD_ID}: it tells this "
                "upload from another one of the same object"
            )
        given["upload_id"] = said[_UPLOAD_ID][0]


def _digest(upload_id: str) -> str:
    return hashlib.sha256(upload_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _names(kind: str) -> list[str]:
    return [member.name for member in fields(TARGET_KINDS[kind])]


@cache
def _model(kind: str) -> type[BaseModel]:
    """Return what checks the fields of a target; made when the first line needs it."""
    cls = TARGET_KINDS[kind]
    hints = get_type_hints(cls)
    members: dict[str, Any] = {}
    for member in fields(cls):
        is_needed = member.default is MISSING and member.default_factory is MISSING and member.name != "upload_id"
        members[member.name] = (hints[member.name], ... if is_needed else None)
    return create_model(cls.__name__, __config__=_CONFIG, **members)


def _reason(kind: str, error: ValidationError) -> str:
    """Return what is wrong first: where and what is wanted, without what stands there."""
    wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = [str(step) for step in wrong["loc"]]
    if wrong["type"] == "extra_forbidden":
        return f"unknown key {where[0]!r} in {kind!r}; known are {', '.join(sorted(_names(kind)))}"
    if where[0] == "fields":
        return f"'{kind}.fields' must be an object of texts, or a list of [name, text]"
    place = f"'{'.'.join([kind, *where])}'"
    if wrong["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {wrong['msg'][:1].lower()}{wrong['msg'][1:]}"
