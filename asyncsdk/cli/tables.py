"""Listings as tables, or as JSON lines: one page in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asyncsdk.cli.formats import TableWriter, cell, human_size
from asyncsdk.cli.output import Output
from asyncsdk.entities.pages import AsyncPages

__all__ = ["Columns", "shown", "write_listing"]

Columns = Sequence[tuple[str, str]]
"""Header of each column, and the field it shows."""

_PAGE = 500


def shown(field: str, value: Any) -> str:
    """Return the value of a field as people read it."""
    return human_size(value) if field == "size_bytes" else cell(value)


async def write_listing(
    output: Output, pages: AsyncPages[Any], columns: Columns, to_json: Callable[[Any], dict[str, Any]], *, kind: str
) -> None:
    """Write a listing: a table, or with ``--json`` a line for each record; a note when it is empty.

    Args:
        output: Where to.
        pages: The listing.
        columns: What a table shows.
        to_json: Makes a JSON object of one record.
        kind: What is listed, singular.
    """
    table = TableWriter([header for header, _ in columns])
    found = 0
    async for page in pages.pages(_PAGE):
        found += len(page.entries)
        if output.as_json:
            for entity in page.entries:
                output.record(to_json(entity))
        elif page.entries:
            rows = [[shown(field, getattr(entity, field)) for _, field in columns] for entity in page.entries]
            for line in table.lines(rows):
                output.text(line)
    if not found:
        output.note(f"no {kind}s")
