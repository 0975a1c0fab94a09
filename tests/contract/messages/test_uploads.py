"""Preparing and committing uploads: verdicts, idempotency, what is refused and why, on every platform the same."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, Conflict, NotFound, PermissionDenied
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.datasets import CreateDataset, DatasetRecord, GetDataset
from asyncsdk.protocol.items import DeleteItems, GetItem, ListItems, PrepareDownloads, UpdateItem
from asyncsdk.protocol.uploads import (
    CommitEntry,
    CommittedUpload,
    CommitUploads,
    OnExisting,
    RenewEntry,
    RenewUploads,
    UploadEntry,
)
from tests.support.messages import Stored, checksum, commit_entry, list_all, new_dataset, prepare, put, read, upload

NOBODY = "f" * 24
NFC = unicodedata.normalize("NFC", "caf\u00e9.jpg")
NFD = unicodedata.normalize("NFD", "caf\u00e9.jpg")


async def commit(
    platform: Platform, dataset_id: str, *entries: CommitEntry, on_existing: OnExisting = "skip_same"
) -> tuple[CommittedUpload, ...]:
    return (await platform.send(CommitUploads(dataset_id=dataset_id, entries=entries, on_existing=on_existing))).entries


async def send(platform: Platform, dataset_id: str, path: str, data: bytes, **facts: Any) -> CommitEntry:
    """Prepare and send one object whatever stands at its path; return what commits it."""
    asked = [UploadEntry(path=path, size_bytes=len(data), crc32c=checksum(data))]
    (prepared,) = await prepare(platform, dataset_id, asked, "overwrite")
    await put(prepared.target, data)
    return commit_entry(path, prepared.key, data, **facts)


# --- prepare ---


async def test_a_new_path_is_uploaded(platform: Platform, dataset: DatasetRecord) -> None:
    (reply,) = await prepare(platform, dataset.id, [UploadEntry(path="a/b.jpg", size_bytes=3)])
    assert (reply.verdict, reply.item_id, reply.problem) == ("upload", None, None)
    assert reply.key is not None
    assert reply.target is not None


async def test_a_thousand_deep_paths_are_prepared_and_still_meet_what_stands_in_their_way(
    platform: Platform, dataset: DatasetRecord
) -> None:
    """Their folders are more than a statement of the database takes parameters."""
    await upload(platform, dataset.id, {"000/0": b"a file where a folder would be"})
    paths = ["/".join([f"{n:03d}", *(f"{level % 10}" for level in range(300))]) for n in range(1000)]
    replies = await prepare(platform, dataset.id, [UploadEntry(path=path, size_bytes=1) for path in paths])
    assert [reply.verdict for reply in replies] == ["refused"] + ["upload"] * 999


async def test_preparing_writes_nothing(platform: Platform, dataset: DatasetRecord, count_objects: Stored) -> None:
    await prepare(platform, dataset.id, [UploadEntry(path=f"{n}", size_bytes=3) for n in range(1000)])
    assert await platform.send(GetDataset(dataset_id=dataset.id)) == dataset
    assert count_objects() == 0


@pytest.mark.parametrize(
    ("on_existing", "entry", "verdict"),
    [
        ("skip_same", {"size_bytes": 3, "crc32c": checksum(b"one")}, "skip"),
        ("skip_same", {"size_bytes": 3}, "compare"),
        ("skip_same", {"size_bytes": 3, "crc32c": checksum(b"two")}, "upload"),
        ("skip_same", {"size_bytes": 4, "crc32c": checksum(b"one")}, "upload"),
        ("skip_same", {"size_bytes": 4}, "upload"),
        ("skip_same", {}, "upload"),
        ("overwrite", {"size_bytes": 3, "crc32c": checksum(b"one")}, "upload"),
        ("fail", {"size_bytes": 3, "crc32c": checksum(b"one")}, "refused"),
    ],
)
async def test_the_verdict_on_a_path_that_exists(
    platform: Platform, dataset: DatasetRecord, on_existing: OnExisting, entry: dict[str, Any], verdict: str
) -> None:
    (made,) = await upload(platform, dataset.id, {"a": b"one"})
    (reply,) = await prepare(platform, dataset.id, [UploadEntry(path="a", **entry)], on_existing)
    assert (reply.verdict, reply.item_id) == (verdict, made.item_id)
    assert (reply.target is not None) == (verdict == "upload")
    if verdict == "refused":
        assert reply.problem is not None
        assert reply.problem.code == "conflict"


BAD_PATHS = ["", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", ".", "..", "a\0b", "a\nb", "x" * 256,
             "\u00e9" * 128, "a/" * 512 + "b"]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda p: repr(p[:12]))
async def test_a_bad_path_is_a_refused_entry(platform: Platform, dataset: DatasetRecord, path: str) -> None:
    """It neither fails the call nor reaches the store, when preparing and when committing."""
    entries = [UploadEntry(path="good", size_bytes=1), UploadEntry(path=path, size_bytes=1)]
    good, bad = await prepare(platform, dataset.id, entries)
    assert (good.verdict, bad.verdict) == ("upload", "refused")
    assert bad.problem is not None
    assert bad.problem.code == "invalid_name"
    await put(good.target, b"1")
    (refused,) = await commit(platform, dataset.id, commit_entry(path, good.key, b"1"))
    assert refused.problem is not None
    assert (refused.verdict, refused.problem.code) == ("refused", "invalid_name")
    assert await list_all(platform, dataset.id) == []


async def test_preparing_for_a_dataset_that_is_not_there(platform: Platform) -> None:
    with pytest.raises(NotFound):
        await prepare(platform, NOBODY, [UploadEntry(path="a")])


# --- commit ---


async def test_what_is_committed_comes_back(platform: Platform, dataset: DatasetRecord, count_objects: Stored) -> None:
    """Byte for byte, with its checksum, validator, metadata, and a dense position in the order of the batch."""
    files = {NFC: b"composed", NFD: b"decomposed", "empty": b"", "A": b"upper", "a": b"lower", "deep/er/x": b"x" * 9999}
    replies = await upload(platform, dataset.id, files, metadata={"k": [1]})
    assert {reply.verdict for reply in replies} == {"created"}
    items = await list_all(platform, dataset.id)
    assert [item.path for item in items] == list(files)
    assert [item.position for item in items] == list(range(6))
    assert [item.id for item in items] == [reply.item_id for reply in replies]
    assert [item.etag for item in items] == [reply.etag for reply in replies]
    assert all(item.etag == f'"{item.crc32c}-{item.etag[10:-1]}"' for item in items)
    assert [item.crc32c for item in items] == [checksum(content) for content in files.values()]
    assert {str(item.metadata) for item in items} == {"{'k': [1]}"}
    ids = tuple(item.id for item in items)
    origins = (await platform.send(PrepareDownloads(dataset_id=dataset.id, item_ids=ids))).origins
    assert [await read(origin) for origin in origins] == list(files.values())
    now = await platform.send(GetDataset(dataset_id=dataset.id))
    assert (now.item_count, now.size_bytes) == (6, sum(map(len, files.values())))
    assert count_objects() == 6


async def test_committing_again_changes_nothing(platform: Platform, dataset: DatasetRecord) -> None:
    """Whatever ``on_existing`` says, and although the staged bytes are gone: the reply was lost, not the commit."""
    entry = await send(platform, dataset.id, "a", b"one", metadata={"k": 1})
    (first,) = await commit(platform, dataset.id, entry)
    items = await list_all(platform, dataset.id)
    for on_existing in ("skip_same", "overwrite", "fail"):
        (again,) = await commit(platform, dataset.id, entry, on_existing=on_existing)
        assert (again.verdict, again.item_id, again.etag) == ("unchanged", first.item_id, first.etag)
    assert await list_all(platform, dataset.id) == items
    assert (await platform.send(GetDataset(dataset_id=dataset.id))).item_count == 1


async def test_a_replaced_item_keeps_id_and_position(
    platform: Platform, dataset: DatasetRecord, count_objects: Stored
) -> None:
    """Its validator changes, its metadata stays unless new one is given, and the old bytes leave the disk."""
    await upload(platform, dataset.id, {"a": b"one", "b": b"two"}, metadata={"k": 1})
    before = (await list_all(platform, dataset.id))[0]
    (reply,) = await upload(platform, dataset.id, {"a": b"other"})
    after = (await list_all(platform, dataset.id))[0]
    assert (reply.verdict, reply.item_id, reply.etag) == ("replaced", before.id, after.etag)
    assert (after.id, after.position, after.metadata, after.created_at) == (
        before.id, before.position, {"k": 1}, before.created_at,
    )  # fmt: skip
    assert after.updated_at > before.updated_at
    assert (after.etag != before.etag, after.size_bytes, after.crc32c) == (True, 5, checksum(b"other"))
    await upload(platform, dataset.id, {"a": b"third"}, metadata={})
    assert (await list_all(platform, dataset.id))[0].metadata == {}
    now = await platform.send(GetDataset(dataset_id=dataset.id))
    assert (now.item_count, now.size_bytes) == (2, 8)
    assert count_objects() == 2


async def test_an_equal_item_stands_under_skip_same(
    platform: Platform, dataset: DatasetRecord, count_objects: Stored
) -> None:
    """Its second copy is dropped; under ``overwrite`` it would replace."""
    (made,) = await upload(platform, dataset.id, {"a": b"one"})
    entry = await send(platform, dataset.id, "a", b"one")
    (reply,) = await commit(platform, dataset.id, entry)
    assert (reply.verdict, reply.item_id, reply.etag) == ("unchanged", made.item_id, made.etag)
    assert count_objects() == 1
    entry = await send(platform, dataset.id, "a", b"one")
    (reply,) = await commit(platform, dataset.id, entry, on_existing="overwrite")
    assert (reply.verdict, reply.etag != made.etag) == ("replaced", True)


async def test_a_taken_path_is_refused_under_fail(platform: Platform, dataset: DatasetRecord) -> None:
    (made,) = await upload(platform, dataset.id, {"a": b"one"})
    entry = await send(platform, dataset.id, "a", b"two")
    (reply,) = await commit(platform, dataset.id, entry, on_existing="fail")
    assert reply.problem is not None
    assert (reply.verdict, reply.item_id, reply.problem.code) == ("refused", made.item_id, "conflict")
    (later,) = await commit(platform, dataset.id, entry, on_existing="overwrite")
    assert later.verdict == "replaced"


async def test_bytes_that_never_arrived_are_refused(platform: Platform, dataset: DatasetRecord) -> None:
    """Nothing sent, another size, another checksum: each refuses its entry and no other."""
    good = await send(platform, dataset.id, "good", b"good")
    other = await send(platform, dataset.id, "other", b"other")
    (unsent,) = await prepare(platform, dataset.id, [UploadEntry(path="unsent", size_bytes=1)])
    replies = await commit(
        platform,
        dataset.id,
        commit_entry("unsent", unsent.key, b"1"),
        replace(other, size_bytes=4),
        good,
        replace(other, crc32c="00000000"),
    )
    assert [reply.verdict for reply in replies] == ["refused", "refused", "created", "refused"]
    codes = [reply.problem.code for reply in replies if reply.problem]
    assert codes[:2] == ["not_found", "not_found"]
    assert codes[2] in {"not_found", "bad_digest"}, "a bucket has them under their id alone, a folder by their checksum"
    assert [item.path for item in await list_all(platform, dataset.id)] == ["good"]
    (late,) = await commit(platform, dataset.id, other)
    assert late.verdict == "created"


async def test_a_key_is_good_for_its_dataset_only(platform: Platform, dataset: DatasetRecord) -> None:
    """A forged one, and one of another dataset, refuse their entries."""
    elsewhere = await new_dataset(platform, "elsewhere")
    foreign = await send(platform, elsewhere.id, "a", b"one")
    forged = replace(foreign, key=make_id() + "-" + "0" * 32)
    replies = await commit(platform, dataset.id, foreign, forged)
    assert [reply.problem.code for reply in replies if reply.problem] == ["permission_denied"] * 2
    assert await list_all(platform, dataset.id) == []
    (kept,) = await commit(platform, elsewhere.id, foreign)
    assert kept.verdict == "created"


async def test_the_id_of_another_item_is_refused(platform: Platform, dataset: DatasetRecord) -> None:
    """Also within one batch, and when that item is in another dataset."""
    elsewhere = await new_dataset(platform, "elsewhere")
    (made,) = await upload(platform, elsewhere.id, {"a": b"one"})
    twice = make_id()
    replies = await commit(
        platform,
        dataset.id,
        await send(platform, dataset.id, "a", b"1", item_id=made.item_id),
        await send(platform, dataset.id, "b", b"2", item_id=twice),
        await send(platform, dataset.id, "c", b"3", item_id=twice),
    )
    assert [reply.verdict for reply in replies] == ["refused", "created", "refused"]
    assert [reply.problem.code for reply in replies if reply.problem] == ["conflict", "conflict"]
    assert [item.path for item in await list_all(platform, dataset.id)] == ["b"]


async def test_the_later_of_two_entries_for_one_path_wins(
    platform: Platform, dataset: DatasetRecord, count_objects: Stored
) -> None:
    """As if they had come one after the other; under ``fail`` the later one is refused."""
    for path, on_existing, verdicts, content in (
        ("a", "skip_same", ["created", "replaced"], b"second"),
        ("b", "overwrite", ["created", "replaced"], b"second"),
        ("c", "fail", ["created", "refused"], b"first"),
    ):
        entries = [await send(platform, dataset.id, path, b) for b in (b"first", b"second")]
        replies = await commit(platform, dataset.id, *entries, on_existing=on_existing)  # type: ignore[arg-type]
        assert [reply.verdict for reply in replies] == verdicts
        item = (await list_all(platform, dataset.id))[-1]
        assert (item.path, item.crc32c) == (path, checksum(content))
    now = await platform.send(GetDataset(dataset_id=dataset.id))
    assert (now.item_count, now.size_bytes) == (3, 17)
    # The bytes of the refused one wait for a commit that takes them, or for the sweep.
    assert count_objects() == 4
    assert [item.position for item in await list_all(platform, dataset.id)] == [0, 1, 2]


async def test_one_object_may_stand_at_two_paths(
    platform: Platform, dataset: DatasetRecord, count_objects: Stored
) -> None:
    """It is counted: its bytes leave the disk with the last of them."""
    entry = await send(platform, dataset.id, "a", b"shared")
    second = replace(entry, path="b", item_id=make_id())
    third = replace(entry, path="c", item_id=make_id())
    await commit(platform, dataset.id, entry, second)
    (late,) = await commit(platform, dataset.id, third)
    assert late.verdict == "created"
    for left in (2, 1, 0):
        items = await list_all(platform, dataset.id)
        await platform.send(DeleteItems(dataset_id=dataset.id, item_ids=(items[0].id,)))
        assert count_objects() == min(left, 1)


@pytest.mark.parametrize(
    ("there", "new", "is_refused"),
    [
        ("a", "a/b", True),
        ("a/b", "a", True),
        ("a/b/c", "a", True),
        ("a", "a/b/c/d", True),
        ("a", "ab", False),
        ("a/b", "a0", False),
        ("a/b", "a.b", False),
        ("a/b", "a/c", False),
        ("a", "A/b", False),
    ],
)
async def test_a_file_and_a_folder_cannot_share_a_path(
    platform: Platform, dataset: DatasetRecord, there: str, new: str, is_refused: bool
) -> None:
    """They could not both come back as files: refused when preparing and committing, in one batch and over several."""
    pair = [UploadEntry(path=there, size_bytes=1), UploadEntry(path=new, size_bytes=1)]
    first, second = await prepare(platform, dataset.id, pair)
    assert (first.verdict, second.verdict) == ("upload", "refused" if is_refused else "upload")
    entries = [await send(platform, dataset.id, path, b"1") for path in (there, new)]
    batch = await commit(platform, dataset.id, *entries)
    assert [r.verdict for r in batch] == ["created", "refused" if is_refused else "created"]
    elsewhere = await new_dataset(platform, "elsewhere")
    await upload(platform, elsewhere.id, {there: b"1"})
    (prepared,) = await prepare(platform, elsewhere.id, [UploadEntry(path=new, size_bytes=1)])
    assert prepared.verdict == ("refused" if is_refused else "upload")
    if is_refused:
        assert prepared.problem is not None
        assert prepared.problem.code == "conflict"


async def test_positions_are_never_reused(platform: Platform, dataset: DatasetRecord) -> None:
    await upload(platform, dataset.id, {"a": b"1", "b": b"2", "c": b"3"})
    items = await list_all(platform, dataset.id)
    await platform.send(DeleteItems(dataset_id=dataset.id, item_ids=tuple(item.id for item in items[1:])))
    await upload(platform, dataset.id, {"c": b"4", "d": b"5"})
    found = {item.path: item.position for item in await list_all(platform, dataset.id)}
    assert found == {"a": 0, "c": 3, "d": 4}


async def test_a_thousand_entries_at_once(platform: Platform, dataset: DatasetRecord) -> None:
    """Prepared, sent, committed and listed; more than that is refused before anything happens."""
    if platform.name == "rest":
        pytest.skip("a thousand requests take long here; the batch is the same, and the embedded platform sends it")
    files = {f"folder{n % 10}/{n:04}.bin": f"{n}".encode() for n in range(1000)}
    replies = await upload(platform, dataset.id, files)
    assert {reply.verdict for reply in replies} == {"created"}
    items = await list_all(platform, dataset.id, limit=300)
    assert [item.path for item in items] == list(files)
    assert [item.position for item in items] == list(range(1000))
    entries = [UploadEntry(path=path, size_bytes=len(b), crc32c=checksum(b)) for path, b in files.items()]
    assert {reply.verdict for reply in await prepare(platform, dataset.id, entries)} == {"skip"}
    ids = tuple(item.id for item in items)
    origins = (await platform.send(PrepareDownloads(dataset_id=dataset.id, item_ids=ids))).origins
    assert len({origin.path for origin in origins if origin is not None}) == 1000
    assert (await platform.send(DeleteItems(dataset_id=dataset.id, item_ids=ids))).count == 1000
    with pytest.raises(BadRequest, match="1000"):
        await prepare(platform, dataset.id, [*entries, entries[0]])


async def test_a_thousand_entries_are_prepared_and_judged(platform: Platform, dataset: DatasetRecord) -> None:
    """Targets, and as many refusals, fit one message."""
    entries = [UploadEntry(path=f"{n}", size_bytes=1) for n in range(1000)]
    prepared = await prepare(platform, dataset.id, entries)
    assert len({reply.key for reply in prepared}) == 1000
    unsent = tuple(commit_entry(f"{n}", reply.key, b"1") for n, reply in enumerate(prepared))
    replies = await commit(platform, dataset.id, *unsent)
    assert [r.problem.code for r in replies if r.problem] == ["not_found"] * 1000


# --- renew ---


async def test_a_renewed_target_takes_the_bytes(platform: Platform, dataset: DatasetRecord) -> None:
    facts: dict[str, Any] = {"size_bytes": 3, "crc32c": checksum(b"one")}
    (prepared,) = await prepare(platform, dataset.id, [UploadEntry(path="a", **facts)])
    renewal = RenewEntry(key=prepared.key, **facts)
    (target,) = (await platform.send(RenewUploads(scope_id=dataset.id, entries=(renewal,)))).targets
    await put(target, b"one")
    (reply,) = await commit(platform, dataset.id, commit_entry("a", prepared.key, b"one"))
    assert reply.verdict == "created"
    with pytest.raises(PermissionDenied):
        await platform.send(RenewUploads(scope_id=make_id(), entries=(renewal,)))


# --- items ---


async def test_items_are_got_updated_and_deleted(platform: Platform, dataset: DatasetRecord) -> None:
    await upload(platform, dataset.id, {"a": b"one", "b": b"two"}, metadata={"k": 1})
    first, second = await list_all(platform, dataset.id)
    here = {"dataset_id": dataset.id, "item_id": first.id}
    assert await platform.send(GetItem(**here)) == first
    changed = await platform.send(UpdateItem(**here, metadata={"k": 2}, if_updated_at=first.updated_at))
    assert (changed.metadata, changed.updated_at > first.updated_at, changed.etag) == ({"k": 2}, True, first.etag)
    with pytest.raises(Conflict) as stale:
        await platform.send(UpdateItem(**here, metadata={}, if_updated_at=first.updated_at))
    assert stale.value.status == 412
    elsewhere = await new_dataset(platform, "elsewhere")
    for message in (
        GetItem(dataset_id=elsewhere.id, item_id=first.id),
        UpdateItem(dataset_id=elsewhere.id, item_id=first.id, metadata={}),
    ):
        with pytest.raises(NotFound):
            await platform.send(message)
    gone = DeleteItems(dataset_id=dataset.id, item_ids=(first.id, NOBODY, first.id))
    assert (await platform.send(gone)).count == 1
    assert (await platform.send(gone)).count == 0
    assert (await platform.send(DeleteItems(dataset_id=elsewhere.id, item_ids=(second.id,)))).count == 0
    now = await platform.send(GetDataset(dataset_id=dataset.id))
    assert (now.item_count, now.size_bytes) == (1, 3)


async def test_downloads_of_unknown_items_are_none(platform: Platform, dataset: DatasetRecord) -> None:
    (made,) = await upload(platform, dataset.id, {"a": b"one"})
    assert made.item_id is not None
    asked = (NOBODY, made.item_id, NOBODY)
    origins = (await platform.send(PrepareDownloads(dataset_id=dataset.id, item_ids=asked))).origins
    assert [origin is None for origin in origins] == [True, False, True]
    assert (origins[1].size_bytes, origins[1].crc32c) == (3, checksum(b"one"))


async def test_items_page_filter_and_sort(platform: Platform, dataset: DatasetRecord) -> None:
    files = {f"train/{n}": b"x" * n for n in range(5)} | {f"val/{n}": b"x" * n for n in range(3)}
    await upload(platform, dataset.id, files)
    found = await list_all(platform, dataset.id, limit=2, filter=Condition("path", "prefix", "train/"))
    assert [item.path for item in found] == [f"train/{n}" for n in range(5)]
    largest = await list_all(platform, dataset.id, limit=3, sort=("-size_bytes", "path"))
    assert [item.path for item in largest] == [
        "train/4", "train/3", "train/2", "val/2", "train/1", "val/1", "train/0", "val/0",
    ]  # fmt: skip
    page = await platform.send(
        ListItems(dataset_id=dataset.id, filter=Condition("size_bytes", "ge", 2), total=True, limit=1)
    )
    assert page.total == 4
    elsewhere = await platform.send(CreateDataset(name="elsewhere"))
    with pytest.raises(BadRequest, match="cursor"):
        await platform.send(ListItems(dataset_id=elsewhere.id, limit=1, cursor=page.cursor))
