"""Datasets there and back: processes, exit statuses, what stands on which stream."""

from __future__ import annotations

import stat
from pathlib import Path

from asyncsdk.cli.exits import ExitCode
from tests.integration.command_line.conftest import Served, assert_same, files_in
from tests.support.commands import Caller, run


def test_folder_goes_to_a_server_and_comes_back(served: Served, photos: Path, tmp_path: Path, home: Path) -> None:
    """Log in, upload, list, download; every byte the same; running it again moves nothing."""
    said = run("login", served.url, stdin=served.token + "\n")
    assert (said.status, said.err) == (0, "")
    assert served.token not in said.out
    assert stat.S_IMODE((home / "profile.json").stat().st_mode) == 0o600
    said = run("whoami", "--json")
    assert said.records[0]["url"] == served.url
    assert said.records[0]["role"] == "owner"
    said = run("upload", photos, "trip/photos", "--create")
    assert (said.status, said.out) == (0, "")
    assert "6 objects done" in said.err
    said = run("upload", photos, "trip/photos", "--json")
    assert (said.summary["done"], said.summary["skipped"]) == (0, 6)
    said = run("items", "list", "photos", "--project", "trip", "--json")
    assert sorted(record["path"] for record in said.records) == files_in(photos)
    assert run("download", "trip/photos", tmp_path / "copy").status == 0
    assert_same(photos, tmp_path / "copy")
    assert run("logout").out == "logged out\n"
    assert not (home / "profile.json").exists()


def test_folder_goes_into_the_embedded_platform(call: Caller, photos: Path, tmp_path: Path, home: Path) -> None:
    """Without a URL everything stays on this machine; --data names another folder, stronger than the profile."""
    assert call("upload", photos, "photos", "--create").status == 0
    assert (home / "data" / "asyncsdk.db").exists()
    assert call("download", "photos", tmp_path / "copy", "--json").summary["done"] == 6
    assert_same(photos, tmp_path / "copy")
    assert call("datasets", "list", "--data", tmp_path / "other", "--json").out == ""
    assert (tmp_path / "other" / "asyncsdk.db").exists()


def test_patterns_choose_files_both_ways(call: Caller, photos: Path, tmp_path: Path) -> None:
    """--include and --exclude may be repeated."""
    said = call("upload", photos, "d", "--create", "--include", "*.jpg", "--include", "*.png", "--exclude", "train")
    assert said.status == 0
    assert call("upload", photos, "d").status == 0
    call("download", "d", tmp_path / "copy", "--include", "*.jpg", "--exclude", "a.*")
    assert files_in(tmp_path / "copy") == ["train/c.jpg", "train/grün ü#?.jpg"]


def test_existing_items_are_refused_when_asked(call: Caller, photos: Path) -> None:
    """--on-existing fail makes every object that is there a failure."""
    call("upload", photos, "d", "--create", "--include", "*.jpg")
    said = call("upload", photos, "d", "--on-existing", "fail", "--json")
    assert said.status == ExitCode.SOME_FAILED
    assert (said.summary["done"], said.summary["failed"], said.summary["failures_by_code"]) == (3, 3, {"conflict": 3})
