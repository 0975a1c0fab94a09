"""Transactions of the metadata database, and how its plans stay on indexes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from asyncsdk.domain.filters import Condition
from asyncsdk.errors import ServerError, StoreError
from asyncsdk.protocol.items import ListItems
from asyncsdk.server import migrations
from asyncsdk.server.backend import Backend
from asyncsdk.server.database import Database
from asyncsdk.server.objects.minting import FileMinter
from asyncsdk.server.schema import meta


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    migrations.prepare(tmp_path / "asyncsdk.db", backups=tmp_path / "backups")
    database = Database(tmp_path / "asyncsdk.db", version=migrations.SCHEMA_VERSION, busy_timeout_seconds=0.05)
    yield database
    database.close()


def put(database: Database, name: str) -> None:
    with database.write() as connection:
        connection.execute(insert(meta).values(name=name, value="1"))


def names(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.execute(select(meta.c.name)).scalars())


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    class Stop(Exception):
        pass

    def stop_half_way() -> None:
        with database.write() as connection:
            connection.execute(insert(meta).values(name="half", value="1"))
            raise Stop

    with pytest.raises(Stop):
        stop_half_way()
    assert names(database) == set()
    put(database, "whole")
    assert names(database) == {"whole"}


def test_a_write_held_elsewhere_is_a_retryable_error(database: Database) -> None:
    """Another process that keeps the lock costs a wait, then an error that says to try again."""
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ServerError) as busy:
            put(database, "late")
        assert (busy.value.retryable, busy.value.server_code, busy.value.status) == (True, "busy", 503)
        other.execute("ROLLBACK")
    put(database, "late")
    assert names(database) == {"late"}


def test_reads_go_on_while_a_write_is_open(database: Database) -> None:
    """They see the state before it, and one read sees one state throughout."""
    with database.write() as connection:
        connection.execute(insert(meta).values(name="new", value="1"))
        assert names(database) == set()
    with database.read() as before:
        assert before.execute(select(meta.c.name)).scalars().all() == ["new"]
        put(database, "newer")
        assert before.execute(select(meta.c.name)).scalars().all() == ["new"]
    assert names(database) == {"new", "newer"}


def test_writes_of_one_process_queue(database: Database) -> None:
    """Many threads write at once although SQLite's own wait would be over at once; none is lost."""
    failures: list[ServerError] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                put(database, f"{number}-{turn}")
        except ServerError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(names(database)) == 40


def test_commits_are_durable_and_references_are_checked(database: Database) -> None:
    with database.read() as connection:
        found = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_full_disk_is_told_and_not_retried(database: Database) -> None:
    def fill() -> None:
        with database.write() as connection:
            pages = connection.execute(text("PRAGMA page_count")).scalar_one()
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            for number in range(2000):
                connection.execute(insert(meta).values(name=f"{number:0200}", value="x" * 500))

    with pytest.raises(ServerError) as full:
        fill()
    assert (full.value.status, full.value.server_code, full.value.retryable) == (507, "full", False)


def test_a_lost_permission_is_an_error_of_the_store(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything: permissions cannot be lost")
    Backend.open(tmp_path).close()
    (tmp_path / "asyncsdk.db").chmod(0)
    with pytest.raises(StoreError):
        Backend.open(tmp_path)


_FORK = """
import os, sys, threading
from pathlib import Path
from sqlalchemy import insert, select
from asyncsdk.server import migrations
from asyncsdk.server.database import Database
from asyncsdk.server.schema import meta
folder = Path(sys.argv[1])
migrations.prepare(folder / "asyncsdk.db", backups=folder / "backups")
database = Database(folder / "asyncsdk.db", version=migrations.SCHEMA_VERSION, busy_timeout_seconds=20)
def put(name):
    with database.write() as connection:
        connection.execute(insert(meta).values(name=name, value="1"))
def write_on():
    number = 0
    while not over.is_set():
        put(f"thread-{number}")
        number += 1
over = threading.Event()
thread = threading.Thread(target=write_on)
put("before")
thread.start()
children = []
for number in range(4):       # forks while the thread is, most likely, inside a transaction
    child = os.fork()
    if child == 0:
        put(f"child-{number}")
        with database.read() as connection:
            seen = set(connection.execute(select(meta.c.name)).scalars())
        os._exit(0 if {"before", f"child-{number}"} <= seen else 3)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
over.set()
thread.join()
with database.read() as connection:
    names = set(connection.execute(select(meta.c.name)).scalars())
print(statuses, sorted(name for name in names if not name.startswith("thread")))
database.close()
"""


def test_a_forked_child_uses_connections_of_its_own(tmp_path: Path) -> None:
    """Neither the parent's transactions nor its connections reach the child; both go on reading and writing."""
    done = subprocess.run([sys.executable, "-c", _FORK, str(tmp_path)], capture_output=True, text=True, timeout=50)
    expected = "[0, 0, 0, 0] ['before', 'child-0', 'child-1', 'child-2', 'child-3']"
    assert done.stdout.strip() == expected, done.stderr
    with closing(sqlite3.connect(tmp_path / "asyncsdk.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


_FORK_INSIDE = """
import os, sys
from pathlib import Path
from asyncsdk.errors import ForkedProcessError
from asyncsdk.server import database as module, migrations
module.FORK_WAIT_SECONDS = 0.01
folder = Path(sys.argv[1])
migrations.prepare(folder / "asyncsdk.db", backups=folder / "backups")
database = module.Database(folder / "asyncsdk.db", version=migrations.SCHEMA_VERSION)
with database.write():
    child = os.fork()
    if child == 0:
        try:
            with database.read():
                os._exit(1)
        except ForkedProcessError:
            os._exit(0)
    print(os.waitpid(child, 0)[1])
with database.read():
    pass
"""


def test_a_child_forked_inside_a_transaction_is_refused(tmp_path: Path) -> None:
    """What SQLite holds in memory then cannot be used in the child: better an error than a damaged database."""
    done = subprocess.run(
        [sys.executable, "-c", _FORK_INSIDE, str(tmp_path)], capture_output=True, text=True, timeout=50
    )
    assert (done.stdout.strip(), done.returncode) == ("0", 0), done.stderr


# --- query plans ---


def _plans(tmp_path: Path, work: Any) -> list[str]:
    """Return how SQLite goes about the statements of *work*, each line a step."""
    backend = Backend.open(tmp_path)
    steps: list[str] = []
    try:
        from sqlalchemy import event

        def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                first = parameters[0] if isinstance(parameters, list) else parameters
                explained = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", first)
                steps.extend(f"{row[3]} <- {statement}" for row in explained)

        event.listen(backend._database._engine, "before_cursor_execute", explain)
        work(backend)
    finally:
        backend.close()
    return steps


def test_no_listing_of_items_reads_the_whole_table(tmp_path: Path) -> None:
    """By position, by path, below a prefix, and from a cursor on: always a range of an index."""
    from asyncsdk.protocol.datasets import CreateDataset
    from asyncsdk.server.schema import blobs, items

    def work(backend: Backend) -> None:
        minter = FileMinter(backend.objects)
        dataset = backend.handle(CreateDataset(name="d"), backend.owner(), minter)
        history = {"created_at": 1, "updated_at": 1}
        with backend._database.write() as connection:
            for number in range(5):
                blob = {"id": f"{number:024x}", "size_bytes": 1, "crc32c": "00000000", "etag": "x"}
                connection.execute(insert(blobs).values(**blob, references_count=1, created_at=1))
                item = {"id": f"{number:024x}", "position": number, "path": f"p{number}", "blob_id": f"{number:024x}"}
                connection.execute(insert(items).values(**item, **history, dataset_id=dataset.id))
        below = Condition("path", "prefix", "p")
        for facts in ({}, {"sort": ("path",)}, {"sort": ("-position",)}, {"filter": below, "sort": ("path",)}):
            page = backend.handle(ListItems(dataset_id=dataset.id, limit=2, **facts), backend.owner(), minter)
            message = ListItems(dataset_id=dataset.id, limit=2, cursor=page.cursor, **facts)
            assert len(backend.handle(message, backend.owner(), minter).entries) == 2

    steps = _plans(tmp_path, work)
    assert len(steps) > 16
    # That index holds only what is to be removed.
    assert [s for s in steps if s.startswith("SCAN") and "INDEX blobs_unreferenced" not in s] == []
    assert [step for step in steps if "USE TEMP B-TREE" in step] == []
