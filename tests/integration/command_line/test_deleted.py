"""The command line on what is deleted softly, pictures of projects, status and agents of models, users."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsdk import Client
from tests.support.commands import Caller

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(250))


@pytest.mark.parametrize("kind", ["projects", "datasets", "models"])
def test_what_is_deleted_softly_is_listed_and_restored(call: Caller, kind: str) -> None:
    singular = kind.removesuffix("s")
    made = call(kind, "create", "n", "--json").records[0]
    said = call(kind, "delete", "n", "--soft", "--yes", "--json")
    assert said.records == [{"id": made["id"], "name": "n", "deleted": True, "restorable": True}]
    assert call(kind, "get", "n").status == 5
    assert call(kind, "list", "--json").out == ""
    assert [record["id"] for record in call(kind, "list", "--deleted", "--json").records] == [made["id"]]
    said = call(kind, "restore", "n")
    assert (said.status, said.out) == (0, f"restored the {singular} n ({made['id']})\n")
    assert call(kind, "get", "n", "--json").records[0]["id"] == made["id"]
    said = call(kind, "restore", "n")
    assert said.status == 5
    assert f"asyncsdk {kind} list --deleted" in said.err


@pytest.mark.parametrize("kind", ["projects", "datasets", "models"])
def test_what_is_deleted_softly_can_go_for_good(call: Caller, kind: str) -> None:
    made = call(kind, "create", "n", "--json").records[0]
    assert "until it is restored" in call(kind, "delete", "n", "--soft", "--dry-run").err
    assert call(kind, "delete", "n", "--soft", "--yes").status == 0
    if kind != "models":
        said = call(kind, "create", "n")
        assert said.status == 7
        assert "was deleted and keeps its name" in said.err
    assert call(kind, "delete", "n", "--yes").status == 5
    assert call(kind, "delete", made["id"], "--deleted", "--yes").status == 0
    assert call(kind, "list", "--deleted", "--json").out == ""
    assert call(kind, "create", "n").status == 0
    assert call(kind, "delete", "n", "--soft", "--deleted", "--yes").status == 2


def test_deleted_models_of_one_name_are_told_with_their_ids(call: Caller) -> None:
    ids = [call("models", "create", "m", "--json").records[0]["id"] for _ in range(2)]
    for model_id in ids:
        assert call("models", "delete", model_id, "--soft", "--yes").status == 0
    said = call("models", "restore", "m")
    assert said.status == 7
    assert all(model_id in said.err for model_id in ids)
    assert call("models", "restore", ids[0]).status == 0
    assert call("models", "restore", "default/m").status == 0


def test_a_project_gets_a_picture(call: Caller, tmp_path: Path) -> None:
    cover, copy = tmp_path / "cover.png", tmp_path / "copy.png"
    cover.write_bytes(PNG)
    call("projects", "create", "p")
    assert call("projects", "download-image", "p", copy).status == 5
    said = call("projects", "upload-image", "p", cover)
    assert (said.status, said.out) == (0, "project p has the image cover.png\n")
    said = call("projects", "download-image", "p", copy, "--json")
    assert said.records[0]["file"] == str(copy)
    assert copy.read_bytes() == PNG
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    said = call("projects", "upload-image", "p", text)
    assert said.status == 2
    assert "PNG" in said.err


def test_models_show_their_status_and_agents(call: Caller) -> None:
    call("datasets", "create", "photos")
    call("models", "create", "m", "--dataset", "photos")
    assert call("models", "agents", "m").err.strip() == "asyncsdk: no agents"
    with Client() as client:
        model = client.models.get(name="m")
        assert model.dataset_id == client.datasets.get(name="photos").id
        with model.heartbeat(interval=600, name="me"):
            table = call("models", "list").out
            assert table.splitlines()[0].split()[:3] == ["ID", "NAME", "STATUS"]
            assert table.splitlines()[1].split()[1:3] == ["m", "training"]
            assert call("models", "agents", "m").out.splitlines()[1].split()[1:4] == ["me", "alive", "1"]
    assert call("models", "agents", "m", "--json").records[0]["status"] == "stopped"
    assert call("models", "list", "--filter", "status=created", "--json").records[0]["name"] == "m"


def test_users_are_listed(call: Caller) -> None:
    assert call("users", "list").out.splitlines()[1].split()[1:3] == ["owner", "owner"]
    assert call("users", "list", "--json").records[0]["role"] == "owner"
