"""Lazy listings: iterate them for everything, or take them page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError
from asyncsdk.protocol.base import MAX_BULK_ENTRIES, Message, Page

__all__ = ["AsyncPages", "EntityPage", "listing"]

T = TypeVar("T")
DEFAULT_PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class EntityPage(Generic[T]):
    """One page of a listing.

    Attributes:
        entries: What is on it, in order.
        total: How many the whole listing has, when that was asked for.
        cursor: Where the next page starts; None on the last.
    """

    entries: tuple[T, ...]
    total: int | None = None
    cursor: str | None = None


class AsyncPages(Generic[T]):
    """A listing, fetched page by page while it is iterated. Each iteration starts anew.

    ``async for x in listing`` gives everything; ``async for page in listing.pages(size)`` gives pages.
    Memory: one page.
    """

    def __init__(
        self, fetch: Callable[[str | None, int, bool], Awaitable[EntityPage[T]]], limit: int | None = None
    ) -> None:
        if limit is not None and limit < 0:
            raise ConfigError(f"limit must be 0 or more, not {limit}")
        self._fetch = fetch
        self._limit = limit

    def __aiter__(self) -> AsyncIterator[T]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[T]:
        size = DEFAULT_PAGE_SIZE if self._limit is None else min(self._limit, DEFAULT_PAGE_SIZE)
        if size == 0:
            return
        async for page in self.pages(size):
            for entry in page.entries:
                yield entry

    async def pages(
        self, size: int = DEFAULT_PAGE_SIZE, *, total: bool = False, cursor: str | None = None
    ) -> AsyncIterator[EntityPage[T]]:
        """Yield the listing page by page.

        Args:
            size: Entries of a page, 1 to 1,000.
            total: Whether to count the whole listing; the first page then tells.
            cursor: Start after the page that had this cursor, to go on with a listing later.

        Yields:
            Pages with at least one entry; one empty page when the listing is empty.
        """
        if not 1 <= size <= MAX_BULK_ENTRIES:
            raise ConfigError(f"size must be between 1 and {MAX_BULK_ENTRIES}, not {size}")
        left = self._limit
        while left is None or left > 0:
            page = await self._fetch(cursor, size if left is None else min(size, left), total)
            cursor, total = page.cursor, False
            if left is not None:
                left -= len(page.entries)
            yield page
            if cursor is None:
                return

    async def to_list(self) -> list[T]:
        """Return everything at once; memory grows with the listing."""
        return [entry async for entry in self]


def listing(
    session: Session,
    message: Message[Page[Any]],
    bind: Callable[[Any], T],
    *,
    limit: int | None = None,
) -> AsyncPages[T]:
    """Return the lazy listing that *message* asks for; *bind* makes what users hold from a record."""

    async def fetch(cursor: str | None, size: int, total: bool) -> EntityPage[T]:
        asked = message.model_copy(update={"cursor": cursor, "limit": size, "total": total})
        page = await session.send(asked)
        return EntityPage(tuple(bind(record) for record in page.entries), page.total, page.cursor)

    return AsyncPages(fetch, limit)
