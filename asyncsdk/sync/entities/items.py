# Generated from asyncsdk/entities/items.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Items: the objects of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.entities.items import AsyncItem, AsyncItems
from asyncsdk.protocol.items import ItemRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.entities.annotations import ItemAnnotations
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Item", "Items"]


class Item(BlockingRecord, ItemRecord):
    """An item: its fields, and what can be done with it."""

    @property
    def _twin(self) -> AsyncItem:
        return AsyncItem._bind(self, self._client)

    @property
    def annotations(self) -> ItemAnnotations:
        """The annotations of this item."""
        return ItemAnnotations._of(self._twin.annotations)

    def download(self, destination: str | PathLike[str]) -> Path:
        """Download the object into a file and return its path.

        The file appears under its name only when all bytes are there and their checksum is right.

        Args:
            destination: The file; in a folder that exists, the file takes the item's name.

        Raises:
            NotFound: The item was deleted.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        return run(self._twin.download, destination)

    def read(self) -> bytes:
        """Return the object's bytes, checksum verified. Memory: all of them."""
        return run(self._twin.read)

    def refresh(self) -> Item:
        """Return the item as it is now."""
        return Item._of(run(self._twin.refresh))

    def update(self, *, metadata: Mapping[str, Any] | None = None) -> Item:
        """Change the fields that are given and return the item as it is then.

        Raises:
            Conflict: The item changed since it was read; ``refresh()`` and try again.
        """
        return Item._of(run(self._twin.update, metadata=metadata))

    def delete(self) -> None:
        """Delete the item with its predictions and annotations."""
        run(self._twin.delete)


class Items(BlockingTwin[AsyncItems]):
    """The items of one dataset."""

    def get(self, item: ItemRecord | str | None = None, *, path: str | None = None) -> Item:
        """Return one item, by id or by path.

        Raises:
            NotFound: There is none.
        """
        return Item._of(run(self._twin.get, item, path=path))

    def exists(self, path: str) -> bool:
        """Whether the dataset has an item of that path."""
        return run(self._twin.exists, path)

    def list(self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None) -> Pages[Item]:
        """List the items, lazily, by position unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), Item._of)

    def delete(self, items: ItemRecord | str | Sequence[ItemRecord | str]) -> int:
        """Delete one item or several, with their predictions; returns how many there were to delete."""
        return run(self._twin.delete, items)

    def from_json(self, data: Mapping[str, Any]) -> Item:
        """Return the item that ``to_json`` wrote, without a request."""
        return Item._of(self._twin.from_json(data))
