"""Items: the objects of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.domain.filters import Condition, Filter
from asyncsdk.entities.annotations import AsyncItemAnnotations
from asyncsdk.entities.base import BoundRecord, entity_id, given
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError, NotFound
from asyncsdk.protocol.base import MAX_BULK_ENTRIES
from asyncsdk.protocol.items import DeleteItems, GetItem, ItemRecord, ListItems, PrepareDownloads, UpdateItem
from asyncsdk.targets import Origin

__all__ = ["AsyncItem", "AsyncItems"]


class AsyncItem(BoundRecord, ItemRecord):
    """An item: its fields, and what can be done with it."""

    @property
    def annotations(self) -> AsyncItemAnnotations:
        """The annotations of this item."""
        return AsyncItemAnnotations(self._client, self.dataset_id, self.id)

    async def download(self, destination: str | PathLike[str]) -> Path:
        """Download the object into a file and return its path.

        The file appears under its name only when all bytes are there and their checksum is right.

        Args:
            destination: The file; in a folder that exists, the file takes the item's name.

        Raises:
            NotFound: The item was deleted.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        path = Path(destination)
        if path.is_dir():
            path = path / self.path.rpartition("/")[2]
        await self._client.engine.download(await self._origin(), path)
        return path

    async def read(self) -> bytes:
        """Return the object's bytes, checksum verified. Memory: all of them."""
        outcome = await self._client.engine.download(await self._origin())
        return outcome.data or b""

    async def _origin(self) -> Origin:
        message = PrepareDownloads(dataset_id=self.dataset_id, item_ids=(self.id,))
        origin: Origin | None = (await self._client.send(message)).origins[0]
        if origin is None:
            raise NotFound(f"the item {self.path!r} was deleted")
        return origin

    async def refresh(self) -> AsyncItem:
        """Return the item as it is now."""
        message = GetItem(dataset_id=self.dataset_id, item_id=self.id)
        return self._bind(await self._client.send(message), self._client)

    async def update(self, *, metadata: Mapping[str, Any] | None = None) -> AsyncItem:
        """Change the fields that are given and return the item as it is then.

        Raises:
            Conflict: The item changed since it was read; ``refresh()`` and try again.
        """
        message = UpdateItem(
            dataset_id=self.dataset_id, item_id=self.id, if_updated_at=self.updated_at, **given(metadata=metadata)
        )
        return self._bind(await self._client.send(message), self._client)

    async def delete(self) -> None:
        """Delete the item with its predictions and annotations."""
        await self._client.send(DeleteItems(dataset_id=self.dataset_id, item_ids=(self.id,)))


class AsyncItems:
    """The items of one dataset."""

    def __init__(self, session: Session, dataset_id: str) -> None:
        self._session = session
        self._dataset_id = dataset_id

    def _bind(self, record: ItemRecord) -> AsyncItem:
        return AsyncItem._bind(record, self._session)

    async def get(self, item: ItemRecord | str | None = None, *, path: str | None = None) -> AsyncItem:
        """Return one item, by id or by path.

        Raises:
            NotFound: There is none.
        """
        if (item is None) == (path is None):
            raise ConfigError("give either the id of the item or path=...")
        if item is not None:
            message = GetItem(dataset_id=self._dataset_id, item_id=entity_id(item, "item"))
            return self._bind(await self._session.send(message))
        assert path is not None
        async for found in self.list(filter=Condition("path", "eq", path), limit=1):
            return found
        raise NotFound(f"the dataset has no item {path!r}")

    async def exists(self, path: str) -> bool:
        """Whether the dataset has an item of that path."""
        return bool(await self.list(filter=Condition("path", "eq", path), limit=1).to_list())

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[AsyncItem]:
        """List the items, lazily, by position unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListItems(dataset_id=self._dataset_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)

    async def delete(self, items: ItemRecord | str | Sequence[ItemRecord | str]) -> int:
        """Delete one item or several, with their predictions; returns how many there were to delete."""
        several = [items] if isinstance(items, (str, ItemRecord)) else items
        ids = [entity_id(item, "item") for item in several]
        count = 0
        for start in range(0, len(ids), MAX_BULK_ENTRIES):
            message = DeleteItems(dataset_id=self._dataset_id, item_ids=tuple(ids[start : start + MAX_BULK_ENTRIES]))
            count += (await self._session.send(message)).count
        return count

    def from_json(self, data: Mapping[str, Any]) -> AsyncItem:
        """Return the item that ``to_json`` wrote, without a request."""
        return self._bind(ItemRecord.model_validate(data))
