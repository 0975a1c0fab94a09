"""``asyncsdk users list`` and ``asyncsdk models agents``: who works with a platform, and what trains its models."""

from __future__ import annotations

from typing import Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_listing, add_project, parsed_filter
from asyncsdk.cli.references import Reference, find_model
from asyncsdk.cli.tables import write_listing

__all__ = ["add_agents_verb", "add_commands", "list_agents", "list_users"]

_USERS = (("ID", "id"), ("NAME", "name"), ("ROLE", "role"), ("CREATED", "created_at"))
_AGENTS = (
    ("ID", "id"),
    ("NAME", "name"),
    ("STATUS", "status"),
    ("BEATS#", "beats"),
    ("LAST BEAT", "last_beat_at"),
    ("STOPPED", "stopped_at"),
)


def add_commands(commands: Any) -> None:
    """Add ``users`` to the parser."""
    group = commands.add_parser("users", help="list the users of a platform")
    add_common(group)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = verbs.add_parser("list", help="list users: owners see all, others themselves")
    add_common(parser)
    add_listing(parser)
    parser.set_defaults(work=list_users)


def add_agents_verb(verbs: Any) -> None:
    """Add ``agents`` to the verbs of models."""
    parser = verbs.add_parser("agents", help="list the programs that train a model, the one heard last first")
    parser.add_argument("name", metavar="MODEL", help="name, project/name, or id")
    add_project(parser)
    add_common(parser)
    add_listing(parser)
    parser.set_defaults(work=list_agents)


async def list_users(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk users list``."""
    given = invocation.arguments
    async with invocation.client() as client:
        pages = client.users.list(filter=parsed_filter(given.filter), sort=given.sort, limit=given.limit)
        await write_listing(invocation.output, pages, _USERS, lambda user: user.model_dump(mode="json"), kind="user")
    return ExitCode.OK


async def list_agents(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk models agents``."""
    given = invocation.arguments
    async with invocation.client() as client:
        model = await find_model(client, Reference.parse(given.name, given.project))
        pages = model.agents.list(filter=parsed_filter(given.filter), sort=given.sort, limit=given.limit)
        await write_listing(invocation.output, pages, _AGENTS, lambda agent: agent.to_json(), kind="agent")
    return ExitCode.OK
