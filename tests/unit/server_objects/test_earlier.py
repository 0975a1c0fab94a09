"""Data folders of earlier releases: their objects are found, may still be committed, and go when nobody wants them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id, time_of_id
from asyncsdk.server.objects.local import LocalObjects

BYTES = b"bytes"
DIGEST = crc32c_hex(crc32c(BYTES))
FUTURE_MS = 2**45


class Folder:
    """A data folder as an earlier release left it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "objects").mkdir(parents=True)
        (path / "staging").mkdir()

    def published(self, object_id: str) -> Path:
        return self.path / "objects" / object_id[-2:] / object_id

    def staged(self, object_id: str) -> Path:
        day = datetime.fromtimestamp(time_of_id(object_id) / 1000, tz=UTC)
        return self.path / "staging" / f"{day:%Y-%m-%d}" / f"{object_id}.{DIGEST}"

    def put(self, path: Path) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(BYTES)
        return path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "data")


def files_in(path: Path) -> list[str]:
    return sorted(found.name for found in path.rglob("*") if found.is_file())


def test_a_committed_object_is_found_where_it_was_put_and_removed_there(folder: Folder) -> None:
    object_id = make_id()
    folder.put(folder.published(object_id))
    objects = LocalObjects(folder.path)
    assert objects.path(object_id, DIGEST) == folder.published(object_id)
    assert objects.staged_size(object_id, DIGEST) is None, "its name does not tell its checksum"
    objects.remove([(object_id, DIGEST)])
    assert files_in(folder.path) == []


def test_what_arrived_may_still_be_committed(folder: Folder) -> None:
    object_id = make_id()
    folder.put(folder.staged(object_id))
    objects = LocalObjects(folder.path)
    assert objects.sizes([(object_id, DIGEST), (object_id, "00000000")]) == [5, None]
    assert objects.path(object_id, DIGEST).read_bytes() == BYTES
    assert files_in(folder.path / "staging") == []


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_crash_between_publishing_and_the_end_of_the_commit(folder: Folder, is_committed: bool) -> None:
    """Two names for one file: committing again takes one of them for all."""
    object_id = make_id()
    folder.put(folder.staged(object_id))
    folder.published(object_id).parent.mkdir()
    folder.published(object_id).hardlink_to(folder.staged(object_id))
    objects = LocalObjects(folder.path)
    assert objects.staged_size(object_id, DIGEST) == 5
    assert files_in(folder.path) == [f"{object_id}.{DIGEST}"]
    kept = {object_id: DIGEST} if is_committed else {}
    objects.discard_expired(before_ms=FUTURE_MS, keep=lambda _: kept)
    assert len(files_in(folder.path)) == len(kept)


def test_the_sweep_takes_what_crashes_left_and_keeps_what_is_committed(folder: Folder) -> None:
    committed, crashed, copied = make_id(), make_id(), make_id()
    for object_id in (committed, crashed):
        folder.put(folder.staged(object_id))
        folder.published(object_id).parent.mkdir(exist_ok=True)
        folder.published(object_id).hardlink_to(folder.staged(object_id))
    folder.put(folder.staged(copied))
    folder.put(folder.published(copied).with_name(f"{copied}.{DIGEST}.tmp"))
    folder.staged(copied).with_name(f"{copied}.x.part").touch()
    objects = LocalObjects(folder.path)
    assert objects.discard_expired(before_ms=0, keep=lambda _: {}) == 0
    assert objects.discard_expired(before_ms=FUTURE_MS, keep=lambda _: {committed: DIGEST}) == 6
    assert files_in(folder.path) == [committed]
    assert not folder.staged(committed).parent.exists()


def test_a_new_folder_has_nothing_of_all_that(tmp_path: Path) -> None:
    LocalObjects(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]
    assert LocalObjects(tmp_path)._earlier is None
