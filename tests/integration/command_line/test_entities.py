"""Projects, datasets, items and models on the command line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from asyncsdk.cli.exits import ExitCode
from tests.support.commands import WAIT_SECONDS, Caller, command


@pytest.mark.parametrize("kind", ["projects", "datasets", "models"])
def test_entities_are_made_listed_shown_and_deleted(call: Caller, kind: str) -> None:
    """The four verbs, for people and for programs."""
    assert "no " in call(kind, "list").err
    made = call(kind, "create", "one", "--description", "first", "--metadata", '{"k": 1}', "--json").records[0]
    assert made["metadata"] == {"k": 1}
    call(kind, "create", "two")
    assert call(kind, "create", "two", "--exist-ok").status == 0
    table = call(kind, "list").out.splitlines()
    assert table[0].startswith("ID ")
    assert len({len(line.split("  ")[0]) for line in table[1:]}) == 1
    names = lambda *options: [record["name"] for record in call(kind, "list", "--json", *options).records]  # noqa: E731
    assert {"one", "two"} <= set(names())
    assert names("--filter", "name=two") == ["two"]
    assert names("--filter", "metadata.k=1") == ["one"]
    assert names("--sort=-name")[0] == "two"
    assert len(names("--limit", 1)) == 1
    assert ["id:", made["id"]] in [line.split() for line in call(kind, "get", "one").out.splitlines()]
    assert call(kind, "get", made["id"], "--json").records == [made]
    assert call(kind, "delete", "one").status == ExitCode.USAGE
    assert "would delete" in call(kind, "delete", "one", "--dry-run").err
    assert call(kind, "get", "one").status == 0
    assert call(kind, "delete", "one", "--yes", "--json").records[0]["id"] == made["id"]
    assert call(kind, "get", "one").status == ExitCode.NOT_FOUND


def test_items_are_listed_shown_and_deleted(call: Caller, photos: Path) -> None:
    """Items go by path or id; of several, none is deleted when one is unknown."""
    call("upload", photos, "p/d", "--create")
    table = call("items", "list", "p/d", "--limit", 3).out.splitlines()
    assert len(table) == 4
    assert {line.rindex("  ") for line in table} == {table[0].rindex("  ")}
    item = call("items", "get", "d", "a.jpg", "--project", "p", "--json").records[0]
    assert call("items", "get", "p/d", item["id"], "--json").records == [item]
    assert call("items", "list", "p/d", "--filter", "size_bytes=0", "--json").records[0]["path"] == "empty"
    assert call("items", "delete", "p/d", "a.jpg", "nobody", "--yes").status == ExitCode.NOT_FOUND
    assert call("items", "delete", "p/d", item["id"], "b.png", "--yes").status == 0
    assert call("items", "get", "p/d", "a.jpg").status == ExitCode.NOT_FOUND


def test_item_is_made_from_a_file(call: Caller, photos: Path) -> None:
    """Under its own name or another, with metadata; what is there is refused, or with --exist-ok replaced."""
    call("datasets", "create", "d")
    create = ["items", "create", "d", photos / "a.jpg"]
    assert call(*create, "--dry-run").status == 0
    assert call("items", "list", "d", "--json").out == ""
    made = call(*create, "--metadata", '{"k": 1}', "--json").records
    assert [(item["path"], item["size_bytes"], item["metadata"]) for item in made] == [("a.jpg", 100, {"k": 1})]
    assert call("items", "get", "d", "a.jpg", "--json").records == made
    assert "path:       train/b.jpg" in call(*create, "--path", "train/b.jpg").out
    said = call(*create, "--json")
    assert (said.status, said.records[0]["error"]["code"]) == (ExitCode.REFUSED, "conflict")
    assert call(*create, "--exist-ok", "--json").records == made
    (photos / "a.jpg").write_bytes(b"other")
    assert call(*create, "--exist-ok", "--json").records[0]["size_bytes"] == 5
    assert call("items", "create", "d", photos / "nowhere").status == ExitCode.NOT_FOUND
    assert call("items", "create", "d", photos / "train").status == ExitCode.LOCAL
    assert call(*create, "--path", "../up").status == ExitCode.REFUSED
    assert len(call("items", "list", "d", "--json").records) == 2


def test_ambiguous_models_are_told_with_their_ids(call: Caller) -> None:
    """Model names may repeat; then only the id will do."""
    ids = [call("models", "create", "m", "--json").records[0]["id"] for _ in range(2)]
    said = call("models", "get", "m")
    assert said.status == ExitCode.REFUSED
    assert all(model_id in said.err for model_id in ids)
    assert call("models", "delete", ids[0], "--yes").status == 0
    assert call("models", "get", "m").status == 0


def test_deleting_asks_on_a_terminal(call: Caller) -> None:
    """Enter and no keep it, yes deletes it."""
    import pty

    assert call("projects", "create", "p").status == 0
    for answer, status_after in ((b"\n", 0), (b"no\n", 0), (b"yes\n", int(ExitCode.NOT_FOUND))):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            command("projects", "delete", "p"), stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs
        ) as process:
            os.close(theirs)
            os.write(ours, answer)
            assert process.wait(WAIT_SECONDS) == 0
        os.close(ours)
        assert call("projects", "get", "p").status == status_after
