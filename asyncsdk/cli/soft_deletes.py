"""``delete --soft``, ``restore`` and ``list --deleted`` of projects, datasets and models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import Arguments
from asyncsdk.cli.references import Reference, find_project
from asyncsdk.client import AsyncClient
from asyncsdk.domain.filters import Condition
from asyncsdk.errors import Conflict, NotFound

__all__ = ["add_delete_options", "add_list_option", "find_deleted", "restore_command"]

_MAX_NAMED = 2


def add_list_option(parser: Any) -> None:
    """Add ``--deleted`` to a listing."""
    parser.add_argument("--deleted", action="store_true", help="those deleted with --soft, instead of the others")


def add_delete_options(parser: Any) -> None:
    """Add ``--soft`` and ``--deleted`` to a deletion."""
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--soft", action="store_true", help="put it out of reach until it is restored; its name stays "
                      "taken")  # fmt: skip
    ways.add_argument("--deleted", action="store_true", help="delete for good one that was deleted with --soft")


async def find_deleted(client: AsyncClient, kind: str, given: Arguments) -> Any:
    """Return the project, dataset or model of *kind* that was deleted softly and is named by ``given.name``.

    Raises:
        NotFound: There is none.
        Conflict: Several have the name; the message gives their ids.
    """
    listed: dict[str, Any] = {}
    if kind == "project":
        name = given.name
    else:
        reference = Reference.parse(given.name, given.project)
        name = reference.name
        if reference.project is not None:
            listed["project"] = (await find_project(client, reference.project)).id
    collection = getattr(client, f"{kind}s")
    for field in ("id", "name"):
        pages = collection.list(deleted=True, filter=Condition(field, "eq", name), limit=_MAX_NAMED, **listed)
        found = await pages.to_list()
        if len(found) > 1:
            ids = tuple(entity.id for entity in found)
            raise Conflict(f"several deleted {kind}s are named {name!r}; name one by its id: {', '.join(ids)}", ids=ids)
        if found:
            return found[0]
    raise NotFound(f"there is no deleted {kind} {name!r}; see: asyncsdk {kind}s list --deleted")


def restore_command(kind: str) -> Callable[[Invocation], Awaitable[ExitCode]]:
    """Return what ``restore`` does."""

    async def run(invocation: Invocation) -> ExitCode:
        async with invocation.client() as client:
            entity = await (await find_deleted(client, kind, invocation.arguments)).restore()
        if invocation.output.as_json:
            invocation.output.record(entity.to_json())
        invocation.output.text(f"restored the {kind} {entity.name} ({entity.id})")
        return ExitCode.OK

    return run
