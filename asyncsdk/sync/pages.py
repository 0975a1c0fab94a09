"""Lazy listings, blocking: the twin of `asyncsdk.entities.pages.AsyncPages`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from asyncsdk.entities.pages import DEFAULT_PAGE_SIZE, AsyncPages, EntityPage
from asyncsdk.sync.iteration import iterate

__all__ = ["Pages"]

T = TypeVar("T")


class Pages(Generic[T]):
    """A listing, fetched page by page while it is iterated. Each iteration starts anew.

    ``for x in listing`` gives everything; ``for page in listing.pages(size)`` gives pages.
    Memory: one page.
    """

    def __init__(self, twin: AsyncPages[Any], convert: Callable[[Any], T]) -> None:
        self._twin = twin
        self._convert = convert

    def __iter__(self) -> Iterator[T]:
        limit = self._twin._limit
        size = DEFAULT_PAGE_SIZE if limit is None else min(limit, DEFAULT_PAGE_SIZE)
        if size == 0:
            return
        # A page crosses per hop, not an entry: one hop costs as much as some hundred entries.
        for page in self.pages(size):
            yield from page.entries

    def pages(
        self, size: int = DEFAULT_PAGE_SIZE, *, total: bool = False, cursor: str | None = None
    ) -> Iterator[EntityPage[T]]:
        """Yield the listing page by page.

        Args:
            size: Entries of a page, 1 to 1,000.
            total: Whether to count the whole listing; the first page then tells.
            cursor: Start after the page that had this cursor, to go on with a listing later.

        Yields:
            Pages with at least one entry; one empty page when the listing is empty.
        """
        for page in iterate(self._twin.pages(size, total=total, cursor=cursor), batch=1):
            yield EntityPage(tuple(map(self._convert, page.entries)), page.total, page.cursor)

    def to_list(self) -> list[T]:
        """Return everything at once; memory grows with the listing."""
        return list(self)
