"""``asyncsdk projects|datasets|items|models list|create|get|delete|restore``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncsdk.cli import project_images
from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.formats import parse_json_or_text
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import Arguments, add_common, add_listing, add_project, parsed_as, parsed_filter
from asyncsdk.cli.people import add_agents_verb
from asyncsdk.cli.references import Reference, find_dataset, find_model, find_project
from asyncsdk.cli.soft_deletes import add_delete_options, add_list_option, find_deleted, restore_command
from asyncsdk.cli.tables import Columns, shown, write_listing
from asyncsdk.client import AsyncClient
from asyncsdk.domain.ids import is_id
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.entities.items import AsyncItem
from asyncsdk.entities.pages import AsyncPages
from asyncsdk.errors import ConfigError, NotFound

__all__ = ["add_commands"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of entity is named, shown, found and made.

    Attributes:
        name: Singular.
        columns: Header of each column of a listing, and the field it shows.
        list: Gives the listing.
        find: Gives the entity that was named.
        create: Makes one; None for items, which are made of files.
        contents: What goes with it when it is deleted.
    """

    name: str
    columns: Columns
    list: Callable[[AsyncClient, Arguments], Awaitable[AsyncPages[Any]]]
    find: Callable[[AsyncClient, Arguments], Awaitable[Any]]
    create: Callable[[AsyncClient, Arguments], Awaitable[Any]] | None
    contents: str


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    for kind, reference in ((_PROJECTS, "name or id"), (_DATASETS, _REFERENCE), (_MODELS, _REFERENCE)):
        verbs = _group(commands, kind)
        parser = _verb(verbs, "list", f"list {kind.name}s", _list_command(kind))
        add_listing(parser)
        add_list_option(parser)
        if kind is not _PROJECTS:
            add_project(parser)
        parser = _verb(verbs, "create", f"make a {kind.name}", _create_command(kind))
        parser.add_argument("name", metavar="NAME", help="name, or project/name" if kind is not _PROJECTS else "name")
        parser.add_argument("--description", metavar="TEXT", default="", help="free text")
        parser.add_argument("--metadata", metavar="JSON", type=parsed_as(_parse_object), help="JSON object of your own")
        parser.add_argument("--exist-ok", action="store_true", help="fine when it is there already")
        _add_dry_run(parser)
        if kind is _DATASETS:
            parser.add_argument("--kind", choices=("files", "images", "videos"), default="files", help="what its items "
                                "are (default: files)")  # fmt: skip
        if kind is _MODELS:
            parser.add_argument("--framework", metavar="TEXT", default="", help="what its weights are made with")
            parser.add_argument("--dataset", metavar="DATASET", help=f"what it is to be trained on: {_REFERENCE}")
        if kind is not _PROJECTS:
            add_project(parser)
        for verb in ("get", "delete"):
            command = _get_command(kind) if verb == "get" else _delete_command(kind)
            parser = _verb(verbs, verb, f"{'show' if verb == 'get' else 'delete'} a {kind.name}", command)
            parser.add_argument("name", metavar=kind.name.upper(), help=reference)
            if kind is not _PROJECTS:
                add_project(parser)
            if verb == "delete":
                add_delete_options(parser)
                _add_confirmation(parser, _described(kind))
        parser = _verb(verbs, "restore", f"bring back a {kind.name} that was deleted with --soft",
                       restore_command(kind.name))  # fmt: skip
        parser.add_argument("name", metavar=kind.name.upper(), help=reference)
        if kind is not _PROJECTS:
            add_project(parser)
        if kind is _PROJECTS:
            project_images.add_verbs(verbs)
        if kind is _MODELS:
            add_agents_verb(verbs)
    verbs = _group(commands, _ITEMS)
    parser = _verb(verbs, "list", "list the items of a dataset", _list_command(_ITEMS))
    _add_dataset(parser)
    add_listing(parser)
    parser = _verb(verbs, "create", "make an item of a file (upload takes whole folders)", _create_item)
    _add_dataset(parser)
    parser.add_argument("file", metavar="FILE", type=Path, help="its bytes")
    parser.add_argument("--path", metavar="PATH", help="path in the dataset (default: the name of the file)")
    parser.add_argument("--metadata", metavar="JSON", type=parsed_as(_parse_object), help="JSON object of your own")
    parser.add_argument("--exist-ok", action="store_true", help="fine when it is there already: left alone when size "
                        "and checksum are equal, replaced otherwise")  # fmt: skip
    _add_dry_run(parser)
    parser = _verb(verbs, "get", "show an item", _get_command(_ITEMS))
    _add_dataset(parser)
    parser.add_argument("item", metavar="ITEM", help="path or id")
    parser = _verb(verbs, "delete", "delete items with their predictions", _delete_items)
    _add_dataset(parser)
    parser.add_argument("items", metavar="ITEM", nargs="+", help="path or id")
    _add_confirmation(parser, lambda given: f"{len(given.items)} items of the dataset {given.dataset!r}")


def _group(commands: Any, kind: _Kind) -> Any:
    others = "" if kind is _ITEMS else ", restore"
    parser = commands.add_parser(f"{kind.name}s", help=f"list, create, get, delete{others} {kind.name}s")
    add_common(parser)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _verb(verbs: Any, name: str, explained: str, work: Callable[[Invocation], Awaitable[ExitCode]]) -> Any:
    parser = verbs.add_parser(name, help=explained, description=f"{explained[0].upper()}{explained[1:]}.")
    add_common(parser)
    parser.set_defaults(work=work)
    return parser


def _add_dataset(parser: Any) -> None:
    parser.add_argument("dataset", metavar="DATASET", help=_REFERENCE)
    add_project(parser)


def _add_dry_run(parser: Any) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")


def _add_confirmation(parser: Any, describe: Callable[[Arguments], str]) -> None:
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    _add_dry_run(parser)

    def confirm(invocation: Invocation) -> None:
        given = invocation.arguments
        given.is_confirmed = given.yes or given.dry_run
        if given.is_confirmed:
            return
        if not (sys.stdin.isatty() and invocation.output.is_terminal):
            raise ConfigError(f"deleting {describe(given)} needs --yes where nobody can be asked")
        stderr = invocation.output.stderr
        stderr.write(f"delete {describe(given)}? [y/N] ")
        stderr.flush()
        given.is_confirmed = sys.stdin.readline().strip().lower() in {"y", "yes"}

    parser.set_defaults(prepare=confirm)


def _described(kind: _Kind) -> Callable[[Arguments], str]:
    return lambda given: f"the {kind.name} {given.name!r}{kind.contents}{_for_now(given)}"


def _for_now(given: Arguments) -> str:
    return ", until it is restored" if given.soft else ""


def _parse_object(text: str) -> dict[str, Any]:
    value = parse_json_or_text(text)
    if not isinstance(value, dict):
        raise ConfigError(f"{text!r} is no JSON object")
    return value


# --- the verbs -----------------------------------------------------------------------------------------------


def _list_command(kind: _Kind) -> Callable[[Invocation], Awaitable[ExitCode]]:
    async def run(invocation: Invocation) -> ExitCode:
        async with invocation.client() as client:
            pages = await kind.list(client, invocation.arguments)
            await write_listing(invocation.output, pages, kind.columns, lambda entity: entity.to_json(), kind=kind.name)
        return ExitCode.OK

    return run


def _get_command(kind: _Kind) -> Callable[[Invocation], Awaitable[ExitCode]]:
    async def run(invocation: Invocation) -> ExitCode:
        async with invocation.client() as client:
            _show(invocation, await kind.find(client, invocation.arguments))
        return ExitCode.OK

    return run


def _create_command(kind: _Kind) -> Callable[[Invocation], Awaitable[ExitCode]]:
    create = kind.create
    assert create is not None

    async def run(invocation: Invocation) -> ExitCode:
        given, output = invocation.arguments, invocation.output
        if given.dry_run:
            output.note(f"would make the {kind.name} {given.name!r}")
            return ExitCode.OK
        async with invocation.client() as client:
            entity = await create(client, given)
        if output.as_json:
            output.record(entity.to_json())
        output.text(f"{kind.name} {entity.name}: {entity.id}")
        return ExitCode.OK

    return run


def _delete_command(kind: _Kind) -> Callable[[Invocation], Awaitable[ExitCode]]:
    async def run(invocation: Invocation) -> ExitCode:
        given, output = invocation.arguments, invocation.output
        if not given.is_confirmed:
            output.note("nothing was deleted")
            return ExitCode.OK
        async with invocation.client() as client:
            entity = await (find_deleted(client, kind.name, given) if given.deleted else kind.find(client, given))
            what = f"the {kind.name} {entity.name!r} ({entity.id}){kind.contents}{_for_now(given)}"
            if given.dry_run:
                output.note(f"would delete {what}")
                return ExitCode.OK
            await entity.delete(hard=not given.soft)
        if output.as_json:
            restorable = {"restorable": True} if given.soft else {}
            output.record({"id": entity.id, "name": entity.name, "deleted": True, **restorable})
        output.text(f"deleted the {kind.name} {entity.name} ({entity.id}){_for_now(given)}")
        return ExitCode.OK

    return run


async def _create_item(invocation: Invocation) -> ExitCode:
    given = invocation.arguments
    item = ItemUpload(given.file, given.path, given.metadata)
    async with invocation.client() as client:
        dataset = await find_dataset(client, Reference.parse(given.dataset, given.project))
        report = await dataset.upload(
            [item], on_existing="skip_same" if given.exist_ok else "fail", dry_run=given.dry_run
        )
        for failure in report.failures:
            raise failure.error
        if given.dry_run:
            invocation.output.note(f"would make the item {item.item_path!r}")
        else:
            _show(invocation, await dataset.items.get(path=item.item_path))
    return ExitCode.OK


async def _delete_items(invocation: Invocation) -> ExitCode:
    given, output = invocation.arguments, invocation.output
    if not given.is_confirmed:
        output.note("nothing was deleted")
        return ExitCode.OK
    async with invocation.client() as client:
        dataset = await find_dataset(client, Reference.parse(given.dataset, given.project))
        items = [await _item(dataset, text) for text in given.items]  # all of them, before one is deleted
        if given.dry_run:
            for item in items:
                output.note(f"would delete the item {item.path} ({item.id})")
            return ExitCode.OK
        await dataset.items.delete(items)
    for item in items:
        if output.as_json:
            output.record({"id": item.id, "path": item.path, "deleted": True})
        output.text(f"deleted the item {item.path} ({item.id})")
    return ExitCode.OK


def _show(invocation: Invocation, entity: Any) -> None:
    if invocation.output.as_json:
        invocation.output.record(entity.to_json())
        return
    values = {name: value for name, value in dict(entity).items() if name != "extra" or value}
    width = max(map(len, values)) + 1
    for name, value in values.items():
        invocation.output.text(f"{name + ':':<{width}} {shown(name, value)}")


# --- the kinds -----------------------------------------------------------------------------------------------

_REFERENCE = "name, project/name, or id"


async def _listed_projects(client: AsyncClient, given: Arguments) -> AsyncPages[Any]:
    return client.projects.list(**_listing_of(given))


async def _listed_datasets(client: AsyncClient, given: Arguments) -> AsyncPages[Any]:
    project = None if given.project is None else await find_project(client, given.project)
    return client.datasets.list(project=project, **_listing_of(given))


async def _listed_models(client: AsyncClient, given: Arguments) -> AsyncPages[Any]:
    project = None if given.project is None else await find_project(client, given.project)
    return client.models.list(project=project, **_listing_of(given))


def _listing_of(given: Arguments) -> dict[str, Any]:
    return {
        "filter": parsed_filter(given.filter),
        "sort": given.sort,
        "limit": given.limit,
        "deleted": given.deleted,
    }


async def _listed_items(client: AsyncClient, given: Arguments) -> AsyncPages[Any]:
    dataset = await find_dataset(client, Reference.parse(given.dataset, given.project))
    return dataset.items.list(filter=parsed_filter(given.filter), sort=given.sort, limit=given.limit)


async def _found_project(client: AsyncClient, given: Arguments) -> Any:
    return await find_project(client, given.name)


async def _found_dataset(client: AsyncClient, given: Arguments) -> Any:
    return await find_dataset(client, Reference.parse(given.name, given.project))


async def _found_model(client: AsyncClient, given: Arguments) -> Any:
    return await find_model(client, Reference.parse(given.name, given.project))


async def _found_item(client: AsyncClient, given: Arguments) -> Any:
    return await _item(await find_dataset(client, Reference.parse(given.dataset, given.project)), given.item)


async def _item(dataset: Any, text: str) -> AsyncItem:
    items = dataset.items
    found: AsyncItem
    if is_id(text):
        try:
            found = await items.get(text)
        except NotFound:
            found = await items.get(path=text)  # 24 hexadecimal digits may also be a path
    else:
        found = await items.get(path=text)
    return found


async def _created_project(client: AsyncClient, given: Arguments) -> Any:
    return await client.projects.create(
        given.name, description=given.description, metadata=given.metadata, exist_ok=given.exist_ok
    )


async def _created_dataset(client: AsyncClient, given: Arguments) -> Any:
    reference = Reference.parse(given.name, given.project)
    project = None if reference.project is None else await find_project(client, reference.project)
    return await client.datasets.create(
        reference.name,
        project=project,
        kind=given.kind,
        description=given.description,
        metadata=given.metadata,
        exist_ok=given.exist_ok,
    )


async def _created_model(client: AsyncClient, given: Arguments) -> Any:
    reference = Reference.parse(given.name, given.project)
    project = None if reference.project is None else await find_project(client, reference.project)
    dataset = None if given.dataset is None else await find_dataset(client, Reference.parse(given.dataset, None))
    return await client.models.create(
        reference.name,
        project=project,
        dataset=dataset,
        framework=given.framework,
        description=given.description,
        metadata=given.metadata,
        exist_ok=given.exist_ok,
    )


_PROJECTS = _Kind(
    "project",
    (("ID", "id"), ("NAME", "name"), ("CREATED", "created_at"), ("DESCRIPTION", "description")),
    _listed_projects,
    _found_project,
    _created_project,
    " with its datasets and models",
)
_DATASETS = _Kind(
    "dataset",
    (
        ("ID", "id"),
        ("NAME", "name"),
        ("PROJECT", "project_id"),
        ("KIND", "kind"),
        ("ITEMS#", "item_count"),
        ("SIZE#", "size_bytes"),
        ("CREATED", "created_at"),
    ),
    _listed_datasets,
    _found_dataset,
    _created_dataset,
    " with its items and predictions",
)
_MODELS = _Kind(
    "model",
    (
        ("ID", "id"),
        ("NAME", "name"),
        ("STATUS", "status"),
        ("PROJECT", "project_id"),
        ("FRAMEWORK", "framework"),
        ("CREATED", "created_at"),
    ),
    _listed_models,
    _found_model,
    _created_model,
    " with its checkpoints",
)
_ITEMS = _Kind(
    "item",
    (("ID", "id"), ("POSITION#", "position"), ("SIZE#", "size_bytes"), ("CRC32C", "crc32c"), ("PATH", "path")),
    _listed_items,
    _found_item,
    None,
    " with its predictions",
)
