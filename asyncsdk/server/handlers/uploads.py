"""Uploads before the bytes move: preparing and renewing. Neither writes anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import Row

from asyncsdk.errors import AsyncSDKError, BadRequest, Conflict
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
from asyncsdk.server.handlers.blobs import StoredBlobs
from asyncsdk.server.handlers.datasets import fetch_writable_dataset
from asyncsdk.server.handlers.keys import check_key, is_too_old, never_arrived, new_key
from asyncsdk.server.handlers.making import to_upload
from asyncsdk.server.handlers.naming import bad_paths
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.handlers.standing import Standing
from asyncsdk.server.objects.minting import Wanted

__all__ = ["prepare_object", "taken"]


def taken(path: str, item_id: str) -> Conflict:
    """Return the error for a path that must not exist and does."""
    return Conflict(f"there is an item {path!r} already", ids=(item_id,))


def prepare_object(context: Context, scope_id: str, *, size_bytes: int | None, crc32c: str | None) -> PreparedUpload:
    """Return a key and a target for a new object of a scope. Ends the transaction: called when everything is read."""
    context.end_reading()
    object_id, key = new_key(context, scope_id)
    target = context.minter.target(object_id, size_bytes=size_bytes, crc32c=crc32c)
    return to_upload(key, target)


@handles(PrepareUploads, role="editor", asks_store=True)
def prepare_uploads(context: Context, message: PrepareUploads) -> PreparedUploads:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    paths = {entry.path for entry in message.entries}
    problems = {path: Problem.of(error) for path, error in bad_paths(paths).items()}
    standing = Standing(context, dataset, paths - problems.keys())
    existing = standing.items
    seen: set[str] = set(existing)
    replies: list[PreparedUpload | None] = []
    wanted: list[Wanted] = []
    keys: list[tuple[str, str | None]] = []
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
        except AsyncSDKError as error:  # of this entry: a folder in the way
            reply = PreparedUpload(verdict="refused", problem=Problem.of(error))
            replies.append(reply if item is None else replace(reply, item_id=item.id))
            continue
        object_id, key = new_key(context, dataset.id)
        wanted.append((object_id, entry.size_bytes, entry.crc32c))
        keys.append((key, None if item is None else item.id))
        replies.append(None)
    minted = _minted(context, wanted, keys)
    return PreparedUploads.model_construct(entries=tuple([next(minted) if r is None else r for r in replies]))


def _minted(context: Context, wanted: list[Wanted], keys: list[tuple[str, str | None]]) -> Iterator[PreparedUpload]:
    """Yield the answers to entries that are to be uploaded; *keys* are given with the ids of items that stand there."""
    context.end_reading()
    for (key, item_id), target in zip(keys, context.minter.targets(wanted), strict=True):
        if isinstance(target, BadRequest):  # a size that no target can take
            reply = PreparedUpload(verdict="refused", problem=Problem.of(target))
        else:
            reply = to_upload(key, target)
        yield reply if item_id is None else replace(reply, item_id=item_id)


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


@handles(RenewUploads, role="editor", asks_store=True)
def renew_uploads(context: Context, message: RenewUploads) -> RenewedUploads:
    targets = []
    object_ids = [check_key(context, entry.key, message.scope_id) for entry in message.entries]
    stored = StoredBlobs(context, object_ids)
    context.end_reading()
    for object_id, entry in zip(object_ids, message.entries, strict=True):
        if is_too_old(context, object_id) or stored.is_dead(object_id):  # nothing can be committed under it
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
