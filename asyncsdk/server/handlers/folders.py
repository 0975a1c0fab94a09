"""Paths that cannot stand side by side: an item ``a`` and an item ``a/b`` could not both come back as files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import orjson
from sqlalchemy import func, select

from asyncsdk.errors import Conflict
from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.schema import items

__all__ = ["FolderCheck"]


class FolderCheck:
    """Judges new paths of one dataset, also against each other.

    Two indexed queries, whatever the number of paths; none for a dataset without items.

    Args:
        context: Of the message.
        dataset_id: The dataset.
        paths: Valid paths that no item of the dataset has.
        is_empty: Whether the dataset has no items.
    """

    def __init__(self, context: Context, dataset_id: str, paths: Collection[str], *, is_empty: bool) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        if is_empty or not paths:
            return
        parents = {parent for path in paths for parent in _parents(path)}
        if parents:
            # As one parameter: a thousand deep paths have more parents than a statement takes parameters.
            among = _values(parents, "parents")
            taken = select(items.c.path).where(
                items.c.dataset_id == dataset_id, items.c.path.in_(select(among.c.value))
            )
            self._files.update(context.connection.execute(taken).scalars())
        # "0" is the character after "/": the range holds exactly what lies below the path, and the index serves it.
        given = _values(paths, "given")
        below = (
            select(items.c.id)
            .where(
                items.c.dataset_id == dataset_id,
                items.c.path > given.c.value + "/",
                items.c.path < given.c.value + "0",
            )
            .correlate(given)
        )
        self._folders.update(context.connection.execute(select(given.c.value).where(below.exists())).scalars())

    def take(self, path: str) -> None:
        """Let *path* stand; later ones are judged against it too.

        Raises:
            Conflict: It is the folder of another path, or lies below another.
        """
        if path in self._folders:
            raise Conflict(f"{path!r} is a folder already: other items lie below it; choose another path")
        parents = list(_parents(path))
        for parent in parents:
            if parent in self._files:
                raise Conflict(f"{parent!r} is an item already, so that nothing can lie below it; choose another path")
        self._files.add(path)
        self._folders.update(parents)


def _values(texts: Collection[str], name: str) -> Any:
    return func.json_each(orjson.dumps(list(texts)).decode()).table_valued("value", name=name)


def _parents(path: str) -> Iterator[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
