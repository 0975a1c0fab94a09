"""Filters, sorts and cursors over a table with missing values, equal values and metadata of every kind."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
import pytest
from sqlalchemy import BigInteger, Boolean, Column, Connection, MetaData, Table, Text, create_engine, insert, select

from asyncsdk.domain.filters import AllOf, AnyOf, Condition, Filter, Not
from asyncsdk.errors import BadRequest
from asyncsdk.protocol.base import ListMessage, Page, Record
from asyncsdk.protocol.items import ListItems
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import JsonText

things = Table(
    "things",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("size", BigInteger),
    Column("is_good", Boolean, nullable=False),
    Column("metadata", JsonText, nullable=False),
)

LISTING = Listing(
    fields={
        "id": Field(things.c.id, is_unique=True),
        "name": Field(things.c.name),
        "size": Field(things.c["size"], "number", is_nullable=True),
        "is_good": Field(things.c.is_good, "boolean"),
    },
    metadata=things.c.metadata,
    default_sort=("name",),
)

ROWS: list[dict[str, Any]] = [
    {"id": "a", "name": "x", "size": 3, "is_good": True, "metadata": {"k": 1, "deep": {"er": "v"}}},
    {"id": "b", "name": "x", "size": None, "is_good": False, "metadata": {"k": True}},
    {"id": "c", "name": "X", "size": 3, "is_good": True, "metadata": {"k": "1"}},
    {"id": "d", "name": "x%y", "size": 10, "is_good": False, "metadata": {"k": None}},
    {"id": "e", "name": "x_y", "size": None, "is_good": True, "metadata": {}},
    {"id": "f", "name": "\u00e9", "size": 1, "is_good": True, "metadata": {"k": 1.5, "odd key": 1, "a[0]": 2}},
    {"id": "g", "name": "e\u0301", "size": 2, "is_good": True, "metadata": {"k": [1]}},
    {"id": "h", "name": "x\U0010ffff", "size": 4, "is_good": False, "metadata": {"k": "z'; DROP TABLE things; --"}},
]


class Thing(Record):
    id: str
    name: str


class _ListThings(ListMessage[Thing]):
    """Not an operation: it has no route of its own, so that no registry knows it."""

    reply_type: ClassVar[Any] = Page[Thing]


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        things.create(connection)
        connection.execute(insert(things), ROWS)
        yield connection
    engine.dispose()


def page(connection: Connection, **facts: Any) -> Page[Thing]:
    return list_page(
        connection, LISTING, select(things), _ListThings(**facts), lambda row: Thing.model_validate(row._mapping)
    )


def ids(connection: Connection, condition: Filter | None = None, **facts: Any) -> str:
    return "".join(sorted(thing.id for thing in page(connection, filter=condition, **facts).entries))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition("name", "eq", "x"), "ab"),
        (Condition("name", "ne", "x"), "cdefgh"),
        (Condition("name", "in", ["x", "X", None]), "abc"),
        (Condition("name", "in", []), ""),
        (Condition("name", "prefix", "x"), "abdeh"),
        (Condition("name", "prefix", "x%"), "d"),
        (Condition("name", "prefix", "x_"), "e"),
        (Condition("name", "prefix", "x\U0010ffff"), "h"),
        (Condition("name", "prefix", ""), "abcdefgh"),
        (Condition("name", "prefix", "\u00e9"), "f"),
        (Condition("name", "contains", "%"), "d"),
        (Condition("name", "contains", "Y"), ""),
        (Condition("name", "contains", "e"), "g"),
        (Condition("size", "eq", None), "be"),
        (Condition("size", "ne", None), "acdfgh"),
        (Condition("size", "ne", 3), "bdefgh"),
        (Condition("size", "ge", 3), "acdh"),
        (Condition("size", "lt", 3.5), "acfg"),
        (Condition("size", "in", [3, None]), "abce"),
        (Condition("size", "exists", False), "be"),
        (Condition("is_good", "eq", True), "acefg"),
        (Not(Condition("size", "ge", 3)), "befg"),
        (Not(AllOf([Condition("size", "ge", 3), Condition("name", "eq", "x")])), "bcdefgh"),
        (AnyOf([Condition("size", "lt", 2), Condition("name", "eq", "X")]), "cf"),
        (Condition("metadata.k", "eq", 1), "a"),
        (Condition("metadata.k", "eq", True), "b"),
        (Condition("metadata.k", "eq", "1"), "c"),
        (Condition("metadata.k", "eq", None), "de"),
        (Condition("metadata.k", "ne", 1), "bcdefgh"),
        (Condition("metadata.k", "gt", 0), "af"),
        (Condition("metadata.k", "ge", "0"), "ch"),
        (Condition("metadata.k", "in", [1, "1", True]), "abc"),
        (Condition("metadata.k", "in", [None, 1.5, False]), "def"),
        (Condition("metadata.k", "in", []), ""),
        (Condition("metadata.k", "in", [*range(1, 998), "1", True]), "abc"),
        (Not(Condition("metadata.k", "in", [1, True])), "cdefgh"),
        (Condition("metadata.k", "lt", 1e300), "af"),
        (Condition("size", "le", 1e300), "acdfgh"),
        (Condition("metadata.k", "exists", True), "abcdfgh"),
        (Condition("metadata.k", "prefix", "z'; DROP"), "h"),
        (Condition("metadata.k", "contains", "TABLE"), "h"),
        (Condition("metadata.deep.er", "eq", "v"), "a"),
        (Condition("metadata.odd key", "eq", 1), "f"),
        (Condition("metadata.a[0]", "eq", 2), "f"),
        (Not(Condition("metadata.k", "gt", 0)), "bcdegh"),
    ],
    ids=str,
)
def test_a_filter_gives_exactly_what_it_says(connection: Connection, condition: Filter, expected: str) -> None:
    """Text with case and without wildcards; missing values hold only for ``ne``; like compares with like."""
    assert ids(connection, condition) == expected


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (Condition("path", "eq", "x"), "'path'.*id, is_good, name, size, metadata.KEY"),
        (Condition("size", "eq", "3"), "'size'.*number"),
        (Condition("size", "eq", True), "'size'.*number"),
        (Condition("size", "gt", 2**70), "'size'.*number"),
        (Condition("size", "lt", float("nan")), "'size'.*number"),
        (Condition("metadata.k", "eq", 2**70), "metadata"),
        (Condition("metadata.k", "in", [1, 2**70]), "metadata"),
        (Condition("metadata.k", "lt", float("inf")), "metadata"),
        (Condition("name", "in", ["x", 3]), "'name'.*text"),
        (Condition("is_good", "eq", 1), "'is_good'.*boolean"),
    ],
    ids=str,
)
def test_a_filter_that_makes_no_sense_is_refused(connection: Connection, condition: Filter, said: str) -> None:
    """The message names the field and what is allowed."""
    with pytest.raises(BadRequest, match=said):
        ids(connection, condition)


def test_depth_and_length_of_a_filter_are_bounded(connection: Connection) -> None:
    deep: Filter = Condition("name", "eq", "x")
    for _ in range(15):
        deep = Not(deep)
    assert ids(connection, deep)
    with pytest.raises(BadRequest, match="16 levels"):
        ids(connection, Not(deep))
    many = [Condition("name", "in", [str(i) for i in range(1000)])] * 5
    assert ids(connection, AnyOf(many)) == ""
    with pytest.raises(BadRequest, match="5000 values"):
        ids(connection, AnyOf([*many, Condition("name", "eq", "x")]))


SORTS = [
    (),
    ("name",),
    ("-name",),
    ("size",),
    ("-size",),
    ("-size", "name"),
    ("is_good", "-size"),
    ("metadata.k",),
    ("-metadata.k", "size"),
    ("-id",),
]


@pytest.mark.parametrize("sort", SORTS, ids=str)
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_put_together_are_the_whole_listing(connection: Connection, sort: tuple[str, ...], limit: int) -> None:
    """Whatever the sort, every record comes once, in the order of one large page, also among equal values."""
    whole = [thing.id for thing in page(connection, sort=sort).entries]
    assert sorted(whole) == [row["id"] for row in ROWS]
    found: list[str] = []
    cursor = None
    for _ in range(len(ROWS) + 1):
        part = page(connection, sort=sort, limit=limit, cursor=cursor)
        found += [thing.id for thing in part.entries]
        cursor = part.cursor
        if cursor is None:
            break
    assert found == whole


def test_missing_values_come_first_going_up_and_last_going_down(connection: Connection) -> None:
    assert [t.id for t in page(connection, sort=("size",)).entries] == list("befgachd")
    assert [t.id for t in page(connection, sort=("-size",)).entries] == list("dhcagfeb")


def test_records_that_come_and_go_shift_nothing(connection: Connection) -> None:
    """A page begins after the last record seen, even when that record is gone."""
    first = page(connection, sort=("id",), limit=3)
    connection.execute(things.delete().where(things.c.id.in_(["a", "c"])))
    second = page(connection, sort=("id",), limit=3, cursor=first.cursor)
    assert [thing.id for thing in second.entries] == ["d", "e", "f"]


def test_total_counts_the_whole_listing(connection: Connection) -> None:
    good = Condition("is_good", "eq", True)
    first = page(connection, filter=good, limit=2, total=True)
    assert (len(first.entries), first.total) == (2, 5)
    assert page(connection, filter=good, limit=2).total is None
    assert page(connection, filter=good, limit=2, total=True, cursor=first.cursor).total == 5


def test_a_cursor_belongs_to_its_filter_and_sort(connection: Connection) -> None:
    cursor = page(connection, sort=("name",), limit=2).cursor
    for other in ({"sort": ("-name",)}, {"sort": ("name",), "filter": Condition("size", "ge", 0)}, {}):
        with pytest.raises(BadRequest, match="another listing"):
            page(connection, cursor=cursor, **other)
    assert page(connection, sort=("name",), limit=7, cursor=cursor).entries


def test_a_cursor_belongs_to_its_scope() -> None:
    """The cursor of one dataset does not page another."""
    from asyncsdk.server.listing import _binding

    one, other = (ListItems(dataset_id=f"{n:024x}", limit=n) for n in (1, 2))
    assert _binding(one) != _binding(other)
    assert _binding(one) == _binding(ListItems(dataset_id=one.dataset_id, limit=50, total=True))


def _forged(cursor: str, *values: Any) -> str:
    binding = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))[0]
    return base64.urlsafe_b64encode(orjson.dumps([binding, *values])).decode().rstrip("=")


def test_a_damaged_cursor_is_refused(connection: Connection) -> None:
    cursor = page(connection, sort=("size",), limit=2).cursor
    assert cursor is not None
    bad = ["", "x", "\u00e9", "!!!!", cursor[:-3], _forged(cursor), _forged(cursor, 1), _forged(cursor, "text", "a"),
           _forged(cursor, [1], "a"), _forged(cursor, 1, None), _forged(cursor, 2**64 - 1, "a"),
           _forged(cursor, 1, "a", 2)]  # fmt: skip
    for text in bad:
        with pytest.raises(BadRequest, match="cursor"):
            page(connection, sort=("size",), limit=2, cursor=text)


@pytest.mark.parametrize("sort", [("metadata.big",), ("-metadata.big",)], ids=str)
def test_a_listing_pages_by_metadata_of_any_size(connection: Connection, sort: tuple[str, ...]) -> None:
    """Floats beyond 64-bit integers, integers beyond them that SQLite reads as floats, and small ones."""
    connection.execute(things.delete())
    for name, big in zip("abcdef", (1e20, 3e20, -1e300, 2**63 + 5, 7, 1.7e308), strict=True):
        connection.execute(insert(things), [{**ROWS[0], "id": name, "metadata": {"big": big}}])
    found: list[str] = []
    cursor = None
    for _ in range(6):
        part = page(connection, sort=sort, limit=1, cursor=cursor)
        found += [thing.id for thing in part.entries]
        cursor = part.cursor
    assert cursor is None
    assert found == (list("cedabf") if sort[0] == "metadata.big" else list("fbadec"))


@pytest.mark.parametrize(
    "key", ["a\\", "a\\b", "tab\t", "new\nline", "nul\0", "'", "é", "[0]", "$", "\U0001f600"], ids=ascii
)
def test_metadata_keys_are_found_whatever_they_hold(connection: Connection, key: str) -> None:
    connection.execute(things.delete())
    connection.execute(insert(things), [{**ROWS[0], "id": n, "metadata": {key: int(n)}} for n in "12"])
    assert ids(connection, Condition(f"metadata.{key}", "eq", 2)) == "2"
    assert [t.id for t in page(connection, sort=(f"-metadata.{key}",)).entries] == ["2", "1"]


@pytest.mark.parametrize(
    "sort",
    [
        ("nothing",),
        ("name", "-name"),
        ("--name",),
        ("metadata",),
        ("metadata.",),
        ("metadata.a..b",),
        ('metadata.a"b',),
        ("",),
    ],
    ids=str,
)
def test_a_sort_that_makes_no_sense_is_refused(connection: Connection, sort: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest):
        page(connection, sort=sort)
