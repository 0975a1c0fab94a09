"""What becomes of data folders: new, older, newer, foreign, damaged."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import StoreError
from asyncsdk.protocol.agents import ListAgents
from asyncsdk.protocol.checkpoints import ListCheckpoints
from asyncsdk.protocol.datasets import ListDatasets
from asyncsdk.protocol.items import ListItems
from asyncsdk.protocol.models import ListModels
from asyncsdk.protocol.predictions import ListPredictions
from asyncsdk.protocol.projects import DeleteProject, ListProjects, RestoreProject
from asyncsdk.server import migrations
from asyncsdk.server.backend import Backend
from asyncsdk.server.database import Database
from asyncsdk.server.objects.minting import FileMinter

V1 = Path(__file__).parents[2] / "data" / "asyncsdk-v1.sql"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A data folder of schema version 1."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    with closing(sqlite3.connect(folder / "asyncsdk.db")) as connection:
        connection.executescript(V1.read_text())
    return folder


def shape(path: Path) -> dict[str, Any]:
    """Return what a database is made of: columns, indexes, references."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found: dict[str, Any] = {}
        for table in tables:
            indexes = {
                (name, unique, origin, partial, tuple(connection.execute(f"PRAGMA index_info({name})")))
                for _, name, unique, origin, partial in connection.execute(f"PRAGMA index_list({table})")
            }
            columns = tuple(connection.execute(f"PRAGMA table_xinfo({table})"))
            # Without their running number, which tells nothing but the order they were written in; all have one column.
            references = {row[1:] for row in connection.execute(f"PRAGMA foreign_key_list({table})")}
            found[table] = (columns, indexes, references)
        return found


def user_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_an_older_folder_is_upgraded_with_everything_in_it(older: Path) -> None:
    """Rows of version 1 are there after the upgrade, byte for byte, and what was added is filled in."""
    backend = Backend.open(older)
    try:
        minter = FileMinter(backend.objects)

        def send(message: Any) -> Any:
            return backend.handle(message, backend.owner(), minter)

        (dataset,) = send(ListDatasets()).entries
        assert (dataset.name, dataset.item_count, dataset.size_bytes) == ("photos", 3, 11)
        items = send(ListItems(dataset_id=dataset.id)).entries
        assert [item.path for item in items] == ["a.jpg", "deep/caf\u00e9.jpg", "deep/cafe\u0301.jpg"]
        assert [item.metadata for item in items] == [{"n": 0}, {"n": 1}, {"n": 2}]
        (row,) = send(ListPredictions(dataset_id=dataset.id, task="detect")).entries
        assert row.predictions == ({"category": "car", "score": 0.5},)
        (model,) = send(ListModels()).entries
        # All three were made in one millisecond: only the new column orders them.
        epochs = [checkpoint.epoch for checkpoint in send(ListCheckpoints(model_id=model.id)).entries]
        assert epochs == [0, 1, 2]
        # What was told of no model before: how far it is, by what it has; nothing is deleted, nobody beats.
        assert (model.status, model.is_resumable, model.has_last) == ("training", True, True)
        assert (model.dataset_id, model.deleted_at, model.retention) == (None, None, None)
        assert send(ListAgents(model_id=model.id)).entries == ()
        (project,) = send(ListProjects()).entries
        assert (project.image_filename, project.deleted_at, dataset.deleted_at) == (None, None, None)
        send(DeleteProject(project_id=project.id, hard=False))
        assert send(ListModels()).entries == ()
        send(RestoreProject(project_id=project.id))
        assert [restored.id for restored in send(ListModels()).entries] == [model.id]
    finally:
        backend.close()


def test_objects_that_were_to_go_are_committed_no_more(older: Path) -> None:
    """Nobody knows whether they went when the older release ended: their keys are dead, and the sweep removes them."""
    object_id = make_id()
    with closing(sqlite3.connect(older / "asyncsdk.db")) as connection, connection:
        columns = "id, size_bytes, crc32c, etag, created_at, references_count"
        connection.execute(f"INSERT INTO blobs ({columns}) VALUES (?, 5, '00000000', 'x', 0, 0)", (object_id,))
    backend = Backend.open(older)
    try:
        counted = f"SELECT references_count FROM blobs WHERE id = '{object_id}'"
        with backend._database.read() as connection_now:
            assert connection_now.exec_driver_sql(counted).scalar() == -1
        backend.sweep()
        with backend._database.read() as connection_now:
            assert connection_now.exec_driver_sql(counted).scalar() == -2
    finally:
        backend.close()


def test_an_upgraded_database_equals_a_new_one(older: Path, tmp_path: Path) -> None:
    """The steps lead to exactly the schema that new folders get."""
    Backend.open(older).close()
    Backend.open(tmp_path / "new").close()
    assert shape(older / "asyncsdk.db") == shape(tmp_path / "new" / "asyncsdk.db")


def test_the_older_database_is_kept(older: Path) -> None:
    """The backup is the whole database as it was, in a folder of its own."""
    before = shape(older / "asyncsdk.db")
    Backend.open(older).close()
    (copy,) = (older / "backups").iterdir()
    assert copy.name.startswith("asyncsdk-v1-")
    assert copy.suffix == ".db"
    assert (shape(copy), user_version(copy)) == (before, 1)
    Backend.open(older).close()
    assert len(list((older / "backups").iterdir())) == 1


def test_a_failing_step_leaves_the_folder_as_it_was(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps are one transaction."""
    before = shape(older / "asyncsdk.db")
    broken = {**migrations.STEPS, 1: (*migrations.STEPS[1], "INSERT INTO no_such_table VALUES (1)")}
    monkeypatch.setattr(migrations, "STEPS", broken)
    with pytest.raises(sqlite3.OperationalError, match="no_such_table"):
        Backend.open(older)
    assert (shape(older / "asyncsdk.db"), user_version(older / "asyncsdk.db")) == (before, 1)


def test_a_newer_folder_is_refused(tmp_path: Path) -> None:
    """The message says which schema version is needed; nothing is changed."""
    Backend.open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "asyncsdk.db")) as connection:
        connection.execute("PRAGMA user_version = 97")
    with pytest.raises(StoreError, match=r"schema version 97.*up to 4"):
        Backend.open(tmp_path)
    assert user_version(tmp_path / "asyncsdk.db") == 97


def test_a_folder_upgraded_while_open_takes_no_more_writes(tmp_path: Path) -> None:
    """A process of an older release must not write into a schema it does not know."""
    Backend.open(tmp_path).close()
    database = Database(tmp_path / "asyncsdk.db", version=migrations.SCHEMA_VERSION - 1)
    try:
        with pytest.raises(StoreError, match="restart"), database.write():
            pass
    finally:
        database.close()


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    """Another program's SQLite file is not touched."""
    with closing(sqlite3.connect(tmp_path / "asyncsdk.db")) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = (tmp_path / "asyncsdk.db").read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Backend.open(tmp_path)
    assert (tmp_path / "asyncsdk.db").read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all, only text" * 200, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """What SQLite cannot read is an error that names the file, and the file stays as it is."""
    (tmp_path / "asyncsdk.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"asyncsdk\.db"):
        Backend.open(tmp_path)
    assert (tmp_path / "asyncsdk.db").read_bytes() == content


def test_a_damaged_page_is_an_error_of_the_store(tmp_path: Path) -> None:
    """Damage that shows only later is told in the same way, never as an internal error."""
    backend = Backend.open(tmp_path)
    backend.close()
    path = tmp_path / "asyncsdk.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(StoreError, match=r"asyncsdk\.db"):
        Backend.open(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreError, match="data"):
        Backend.open(tmp_path / "data")


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    """Folder 0700; secret and token 0600."""
    folder = tmp_path / "deep" / "data"
    backend = Backend.open(folder)
    backend.server_token()
    backend.close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("secret", "token", "lock")} == {0o600}


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_a_folder_that_was_there_keeps_its_mode_and_what_is_made_in_it_is_private(tmp_path: Path) -> None:
    """It may be a mounted volume, or somebody's home: whose it is and who enters it is not ours to change."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o775)
    other = folder / "other.txt"
    other.write_text("not ours")
    other.chmod(0o664)
    backend = Backend.open(folder)
    backend.server_token()
    found = modes(folder)
    backend.close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o775
    assert found.pop("other.txt") == 0o664
    assert {"asyncsdk.db", "asyncsdk.db-wal", "asyncsdk.db-shm", "secret", "token", "lock"} <= found.keys()
    assert {name: mode & 0o077 for name, mode in found.items() if mode & 0o077} == {}


def test_private_files_that_others_could_read_are_made_private_when_the_folder_is_opened(tmp_path: Path) -> None:
    backend = Backend.open(tmp_path)
    backend.server_token()
    backend.close()
    names = ("asyncsdk.db", "secret", "token", "objects")
    for name in names:
        (tmp_path / name).chmod(0o755 if (tmp_path / name).is_dir() else 0o644)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    (tmp_path / "backups").symlink_to(elsewhere)
    Backend.open(tmp_path).close()
    found = modes(tmp_path)
    assert {name: found[name] for name in names} == {
        "asyncsdk.db": 0o600,
        "secret": 0o600,
        "token": 0o600,
        "objects": 0o700,
    }
    assert found["elsewhere"] == 0o755


_OPEN = """
import sys
from pathlib import Path
from asyncsdk.server.backend import Backend
sys.stdin.readline()
backend = Backend.open(Path(sys.argv[1]))
print(backend.owner().user_id, backend.server_token())
backend.close()
"""


def _open_at_once(folder: Path) -> set[str]:
    """Open a folder in several processes at one moment; return what they say."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate("go\n")[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    return set(said)


def test_processes_that_upgrade_at_once_do_it_once(older: Path) -> None:
    """One migrates, the others wait and go on with the result."""
    assert len(_open_at_once(older)) == 1
    assert len(list((older / "backups").iterdir())) == 1


def test_processes_that_make_a_folder_at_once_share_it(tmp_path: Path) -> None:
    """One secret, one owner, one token."""
    assert len(_open_at_once(tmp_path / "data")) == 1
