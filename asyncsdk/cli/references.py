"""Finding what was named on the command line: by id, by ``project/name``, or by name within ``--project``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from asyncsdk.client import AsyncClient
from asyncsdk.domain.ids import is_id
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.entities.models import AsyncModel
from asyncsdk.entities.projects import AsyncProject
from asyncsdk.errors import ConfigError, NotFound

__all__ = ["Reference", "create_dataset", "create_model", "find_dataset", "find_model", "find_project"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user wrote to name a dataset or a model.

    Attributes:
        name: Its name, or its id.
        project: Name or id of its project; None: the default project, or none needed.
    """

    name: str
    project: str | None = None

    @classmethod
    def parse(cls, text: str, project: str | None) -> Reference:
        """Return what *text* means beside the option ``--project``.

        Raises:
            ConfigError: It names a project twice, or nothing at all.
        """
        if "/" not in text:
            if not text:
                raise ConfigError("a name is empty")
            return cls(text, project)
        if project is not None:
            raise ConfigError(f"{text!r} names its project; leave --project out")
        owner, _, name = text.partition("/")
        if not owner or not name or "/" in name:
            raise ConfigError(f"{text!r} must be a name, an id, or project/name")
        return cls(name, owner)

    @property
    def is_perhaps_id(self) -> bool:
        """Whether it has the form of an id (a name may have it too)."""
        return is_id(self.name)

    def __str__(self) -> str:
        where = f"project {self.project!r}" if self.project is not None else "the default project"
        return f"{self.name!r} in {where}"


async def find_project(client: AsyncClient, text: str) -> AsyncProject:
    """Return a project by name or id.

    Raises:
        NotFound: There is none.
    """
    if is_id(text):
        try:
            return await client.projects.get(text)
        except NotFound:
            pass  # 24 hexadecimal digits may also be a name
    try:
        return await client.projects.get(name=text)
    except NotFound as error:
        raise NotFound(
            f"there is no project {text!r}; see: asyncsdk projects list", request_id=error.request_id
        ) from error


async def find_dataset(client: AsyncClient, reference: Reference) -> AsyncDataset:
    """Return a dataset.

    Raises:
        NotFound: There is none.
    """
    return await _find(client, reference, "dataset", client.datasets.get)


async def find_model(client: AsyncClient, reference: Reference) -> AsyncModel:
    """Return a model.

    Raises:
        NotFound: There is none.
        Conflict: Several have the name; the message gives their ids.
    """
    return await _find(client, reference, "model", client.models.get)


async def create_dataset(client: AsyncClient, reference: Reference) -> AsyncDataset:
    """Return the dataset, made when it is missing; its project too."""
    project = await _create_project(client, reference)
    return await client.datasets.create(reference.name, project=project, exist_ok=True)


async def create_model(client: AsyncClient, reference: Reference) -> AsyncModel:
    """Return the model, made when it is missing; its project too."""
    project = await _create_project(client, reference)
    return await client.models.create(reference.name, project=project, exist_ok=True)


async def _create_project(client: AsyncClient, reference: Reference) -> AsyncProject | None:
    if reference.project is None:
        return None
    try:
        return await find_project(client, reference.project)
    except NotFound:
        if is_id(reference.project):
            raise
        return await client.projects.create(reference.project, exist_ok=True)


async def _find(client: AsyncClient, reference: Reference, kind: str, get: Callable[..., Awaitable[T]]) -> T:
    if reference.is_perhaps_id:
        try:
            return await get(reference.name)
        except NotFound:
            pass  # 24 hexadecimal digits may also be a name
    project = await find_project(client, reference.project) if reference.project is not None else None
    try:
        return await get(name=reference.name, project=project)
    except NotFound as error:
        raise NotFound(
            f"there is no {kind} {reference}; see: asyncsdk {kind}s list, or make it with: "
            f"asyncsdk {kind}s create, or with the option --create of an upload",
            request_id=error.request_id,
        ) from error
