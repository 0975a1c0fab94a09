"""What bulk messages do for a thousand entries at once gives the same as one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine

from asyncsdk.domain.paths import check_item_path
from asyncsdk.errors import InvalidName
from asyncsdk.server.handlers.bulk import insert_rows
from asyncsdk.server.handlers.naming import bad_paths

HEAD, ROW = "INSERT INTO things (id, kind, count) VALUES", "(?, 'plain', ?)"
GOOD_PATHS = {f"train/images/{number}.jpg" for number in range(3)}


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE things (id INTEGER PRIMARY KEY, kind TEXT, count INTEGER)")
        yield connection
    engine.dispose()


def stored(connection: Connection) -> list[tuple[int, str, int]]:
    return [tuple(row) for row in connection.exec_driver_sql("SELECT id, kind, count FROM things ORDER BY id")]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 99, 100, 111, 1234])
def test_every_row_is_inserted_once(connection: Connection, count: int) -> None:
    """Whatever the number of rows and however it is divided into statements."""
    insert_rows(connection, HEAD, ROW, [value for number in range(count) for value in (number, -number)])
    assert stored(connection) == [(number, "plain", -number) for number in range(count)]


def test_rows_that_are_there_are_met_within_one_statement(connection: Connection) -> None:
    """Also those that an earlier row of the same statement made."""
    twice = [value for number in range(50) for value in (number, 1)] * 2
    insert_rows(connection, HEAD, ROW, twice, ending="ON CONFLICT (id) DO UPDATE SET count = count + 1")
    assert stored(connection) == [(number, "plain", 2) for number in range(50)]


def test_values_that_make_no_whole_rows_are_refused(connection: Connection) -> None:
    """Nothing is left out silently."""
    with pytest.raises(ValueError, match="no whole rows"):
        insert_rows(connection, HEAD, ROW, [1, 2, 3])
    assert stored(connection) == []


@pytest.mark.parametrize(
    "path",
    [
        *("", "/a", "a/", "a//b", "/", "//", ".", "..", "./a", "../a", "a/./b", "a/..", "a/.", ".b", "a/.b", "a.b/c.d"),
        *("a ", "a\n", "\na", "a\nb", "a\x7f", "\x00", "\x85", "é", "e\u0301", "\ud800"),
        *("a" * 255, "a" * 256, "a/" * 600 + "a"),
    ],
)
@pytest.mark.parametrize("others", [set(), {"a"}, GOOD_PATHS])
def test_a_glance_at_all_paths_finds_what_a_look_at_each_does(path: str, others: set[str]) -> None:
    """Alone, and wherever it stands among others."""
    paths = sorted({path, *others})
    expected = set()
    for one in paths:
        try:
            check_item_path(one)
        except InvalidName:
            expected.add(one)
    assert bad_paths(paths).keys() == bad_paths(paths[::-1]).keys() == expected


def test_no_paths_are_all_good() -> None:
    assert bad_paths(set()) == {}
