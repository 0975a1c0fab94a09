"""Commits of many entries: in few statements, each entry judged as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, event

from asyncsdk.domain.ids import make_id
from asyncsdk.protocol.datasets import DatasetRecord, GetDataset
from asyncsdk.protocol.items import ItemRecord, ListItems
from asyncsdk.protocol.uploads import CommitEntry, CommitUploads, PrepareUploads, UploadEntry
from tests.support.messages import put_file
from tests.unit.server.conftest import BYTES, DIGEST, Send


def sent(send: Send, dataset: DatasetRecord, *paths: str) -> list[CommitEntry]:
    """Prepare and send an object for each path; return what commits them."""
    asked = tuple(UploadEntry(path=path) for path in paths)
    entries = []
    for path, reply in zip(paths, send(PrepareUploads(dataset_id=dataset.id, entries=asked)).entries, strict=True):
        put_file(reply.target, BYTES)
        facts = {"path": path, "key": reply.key, "size_bytes": len(BYTES), "crc32c": DIGEST}
        entries.append(CommitEntry(item_id=make_id(), **facts))
    return entries


def commit(send: Send, dataset: DatasetRecord, *entries: CommitEntry, **facts: Any) -> list[str]:
    reply = send(CommitUploads(dataset_id=dataset.id, entries=entries, **facts))
    return [answer.verdict for answer in reply.entries]


def listed(send: Send, dataset: DatasetRecord) -> list[ItemRecord]:
    return list(send(ListItems(dataset_id=dataset.id, limit=1000)).entries)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """What is executed in any database, as it happens."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


def test_a_commit_of_a_thousand_takes_forty_statements_and_one_of_ten_fewer(
    send: Send, dataset: DatasetRecord, statements: list[str]
) -> None:
    """A statement for each row is what made commits slow."""
    # Interleaved with what stands, so that no shortcut for paths after all others applies.
    assert set(commit(send, dataset, *sent(send, dataset, "a/0000.jpg", "z/0000.jpg"))) == {"created"}
    for count, most in ((1000, 40), (10, 24)):
        entries = sent(send, dataset, *(f"b/{count}/{number:04}.jpg" for number in range(count)))
        del statements[:]
        assert set(commit(send, dataset, *entries)) == {"created"}
        assert 10 < len(statements) <= most, "\n".join(statements)


def test_new_replaced_repeated_and_refused_entries_in_one_batch(send: Send, dataset: DatasetRecord) -> None:
    """Positions stay dense, in the order of the batch; the last entry of a path wins; metadata is each entry's own."""
    (stands,) = sent(send, dataset, "stands")
    commit(send, dataset, replace(stands, metadata={"n": 0}))
    many = sent(send, dataset, *(f"many/{number:03}" for number in range(150)))
    again, first, second, below, bad = sent(send, dataset, "stands", "twice", "twice", "else", "fine")
    below, bad = replace(below, path="stands/below"), replace(bad, path="../bad")
    second = replace(second, metadata={"n": 2})
    many[7] = replace(many[7], metadata={"n": 7})
    batch = [*many[:75], again, first, below, bad, second, *many[75:]]
    verdicts = commit(send, dataset, *batch, on_existing="overwrite")
    assert verdicts == [*["created"] * 75, "replaced", "created", "refused", "refused", "replaced", *["created"] * 75]

    items = listed(send, dataset)
    assert [item.path for item in items] == [
        "stands",
        *(entry.path for entry in many[:75]),
        "twice",
        *(entry.path for entry in many[75:]),
    ]
    assert [item.position for item in items] == list(range(152))
    by_path = {item.path: item for item in items}
    assert (by_path["twice"].id, by_path["twice"].etag) == (first.item_id, f'"{DIGEST}-{second.key[:24]}"')
    assert by_path["stands"].etag == f'"{DIGEST}-{again.key[:24]}"'
    given = {path: item.metadata for path, item in by_path.items() if item.metadata}
    assert given == {"stands": {"n": 0}, "twice": {"n": 2}, "many/007": {"n": 7}}
    now = send(GetDataset(dataset_id=dataset.id))
    assert (now.item_count, now.size_bytes) == (152, 152 * len(BYTES))


def test_an_entry_whose_metadata_json_has_no_form_for_is_refused_alone(send: Send, dataset: DatasetRecord) -> None:
    """New, or replacing what stands; an item that stands keeps its bytes."""
    (stands,) = sent(send, dataset, "stands")
    commit(send, dataset, stands)
    good, bad, again = sent(send, dataset, "good", "bad", "stands")
    too_large: dict[str, Any] = {"n": 2**64}
    bad, again = replace(bad, metadata=too_large), replace(again, metadata=too_large)
    verdicts = commit(send, dataset, bad, good, again, on_existing="overwrite")
    assert verdicts == ["refused", "created", "refused"]
    assert [(item.path, item.position, item.etag) for item in listed(send, dataset)] == [
        ("stands", 0, f'"{DIGEST}-{stands.key[:24]}"'),
        ("good", 1, f'"{DIGEST}-{good.key[:24]}"'),
    ]


@pytest.mark.parametrize("last", ["0", "g"])
def test_a_path_next_to_what_stands_is_judged_as_any_other(send: Send, dataset: DatasetRecord, last: str) -> None:
    """Also one that comes after all paths of the dataset, or is the greatest of them, or is not ASCII."""
    assert commit(send, dataset, *sent(send, dataset, "a", "b/c", f"b/c{last}", "é/x")) == ["created"] * 4
    paths = ["é/x", "é", "é/x/y", "é/y", "ü", "b", "b/c/d", "b/c", "zz"]
    entries = sent(send, dataset, *(f"fresh/{number}" for number in range(len(paths))))
    verdicts = commit(
        send,
        dataset,
        *(replace(entry, path=path) for entry, path in zip(entries, paths, strict=True)),
        on_existing="fail",
    )
    refused = {path for path, verdict in zip(paths, verdicts, strict=True) if verdict == "refused"}
    assert refused == {"é/x", "é", "é/x/y", "b", "b/c/d", "b/c"}
