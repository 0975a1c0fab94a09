"""Lazy listings in blocking code."""

from __future__ import annotations

import pytest

from asyncsdk.entities.pages import AsyncPages, EntityPage
from asyncsdk.errors import ConfigError
from asyncsdk.sync.pages import Pages
from tests.support.blocking import count_calls


@pytest.mark.parametrize(("count", "limit"), [(0, None), (1, None), (1201, None), (1201, 7), (1201, 700), (10, 0)])
def test_listing_crosses_a_page_per_hop(monkeypatch: pytest.MonkeyPatch, count: int, limit: int | None) -> None:
    """A listing gives every entry, converted, and makes one hop per page and one to see the end."""
    asked: list[int] = []

    async def fetch(cursor: str | None, size: int, total: bool) -> EntityPage[int]:
        asked.append(size)
        start = int(cursor or 0)
        stop = min(start + size, count)
        return EntityPage(tuple(range(start, stop)), None, str(stop) if stop < count else None)

    hops = count_calls(monkeypatch)
    pages = Pages(AsyncPages(fetch, limit), str)
    wanted = count if limit is None else min(limit, count)
    assert pages.to_list() == [str(number) for number in range(wanted)]
    assert len(hops) <= len(asked) + 1
    assert list(pages) == [str(number) for number in range(wanted)], "each iteration starts anew"


def test_pages_of_a_listing_are_converted() -> None:
    """Pages keep total and cursor, and hold what the caller holds."""

    async def fetch(cursor: str | None, size: int, total: bool) -> EntityPage[int]:
        return EntityPage((1, 2), 2 if total else None, None)

    pages = Pages(AsyncPages(fetch), str)
    assert list(pages.pages(10, total=True)) == [EntityPage(("1", "2"), 2, None)]
    with pytest.raises(ConfigError, match="size"):
        list(pages.pages(0))


def test_one_page_is_fetched_before_the_next_is_asked_for() -> None:
    """A listing is lazy: nothing is fetched ahead."""
    fetched: list[str | None] = []

    async def fetch(cursor: str | None, size: int, total: bool) -> EntityPage[int]:
        fetched.append(cursor)
        return EntityPage((1,), None, "more")

    pages = Pages(AsyncPages(fetch), str).pages(1)
    assert fetched == []
    next(pages)
    assert fetched == [None]
