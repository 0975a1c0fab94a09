"""Uploads before the bytes move: preparing and renewing. Neither writes anything."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from asyncsdk.domain.paths import check_item_path
from asyncsdk.errors import AsyncSDKError, Conflict, InvalidName
from asyncsdk.protocol.base import Problem
from asyncsdk.protocol.uploads import (
    OnExisting,
    PreparedUpload,
    PreparedUploads,
    PrepareUploads,
    RenewedUploads,
    RenewUploads,
    UploadEntry,
)
from asyncsdk.server.handlers.datasets import fetch_writable_dataset
from asyncsdk.server.handlers.keys import check_key, is_too_old, never_arrived, new_key
from asyncsdk.server.handlers.making import made
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.handlers.standing import Standing

__all__ = ["prepare_object", "taken"]


def taken(path: str, item_id: str) -> Conflict:
    """Return the error for a path that must not exist and does."""
    return Conflict(f"there is an item {path!r} already", ids=(item_id,))


def prepare_object(context: Context, scope_id: str, *, size_bytes: int | None, crc32c: str | None) -> PreparedUpload:
    """Return a key and a target for a new object of a scope."""
    object_id, key = new_key(context, scope_id)
    target = context.minter.target(object_id, size_bytes=size_bytes, crc32c=crc32c)
    # Made here of checked parts: validating them again would be half the cost of a message of 1,000 entries.
    values = {"verdict": "upload", "key": key, "target": target, "item_id": None, "problem": None}
    return made(PreparedUpload, values)


@handles(PrepareUploads, role="editor")
def prepare_uploads(context: Context, message: PrepareUploads) -> PreparedUploads:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    problems: dict[str, Problem] = {}
    for entry in message.entries:
        try:
            check_item_path(entry.path)
        except InvalidName as error:
            problems[entry.path] = Problem.of(error)
    standing = Standing(context, dataset, {entry.path for entry in message.entries} - problems.keys())
    existing = standing.items
    seen: set[str] = set(existing)
    replies = []
    for entry in message.entries:
        if (problem := problems.get(entry.path)) is not None:
            replies.append(PreparedUpload(verdict="refused", problem=problem))
            continue
        item = existing.get(entry.path)
        if item is not None and (verdict := _judge(entry, item, message.on_existing)) is not None:
            replies.append(verdict)
            continue
        try:
            if entry.path not in seen:
                standing.take(entry.path)
                seen.add(entry.path)
            reply = prepare_object(context, dataset.id, size_bytes=entry.size_bytes, crc32c=entry.crc32c)
        except AsyncSDKError as error:  # of this entry: a folder in the way, a size that no target can take
            reply = PreparedUpload(verdict="refused", problem=Problem.of(error))
        replies.append(reply if item is None else reply.model_copy(update={"item_id": item.id}))
    return PreparedUploads.model_construct(entries=tuple(replies))


def _judge(entry: UploadEntry, item: Row[Any], on_existing: OnExisting) -> PreparedUpload | None:
    """Return what to do about an entry whose path is taken; None when it is to be uploaded."""
    if on_existing == "fail":
        problem = Problem.of(taken(entry.path, item.id))
        return PreparedUpload(verdict="refused", item_id=item.id, problem=problem)
    if on_existing == "overwrite" or entry.size_bytes != item.size_bytes:
        return None
    if entry.crc32c is None:
        return PreparedUpload(verdict="compare", item_id=item.id)
    return PreparedUpload(verdict="skip", item_id=item.id) if entry.crc32c == item.crc32c else None


@handles(RenewUploads, role="editor")
def renew_uploads(context: Context, message: RenewUploads) -> RenewedUploads:
    targets = []
    for entry in message.entries:
        object_id = check_key(context, entry.key, message.scope_id)
        if is_too_old(context, object_id):
            raise never_arrived()
        targets.append(
            context.minter.renew(
                object_id,
                size_bytes=entry.size_bytes,
                crc32c=entry.crc32c,
                upload_id=entry.upload_id,
                first_part=entry.first_part,
            )
        )
    return RenewedUploads(targets=tuple(targets))
