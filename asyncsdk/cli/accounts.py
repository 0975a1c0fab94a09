"""``asyncsdk login``, ``whoami`` and ``logout``: which server, and who one is there."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common
from asyncsdk.client import AsyncClient
from asyncsdk.config import Settings, remove_profile, write_profile
from asyncsdk.errors import ConfigError

__all__ = ["add_commands", "ask_token", "login", "logout", "whoami"]


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    parser = commands.add_parser(
        "login",
        help="check a token and keep it",
        description="Check a token with a server and keep both in the profile (ASYNCSDK_HOME/profile.json, mode 0600). "
        "The\ntoken comes from --token, ASYNCSDK_TOKEN, a prompt on a terminal, or a line of standard input.",
    )
    parser.add_argument("server", metavar="URL", nargs="?", help="server, http://host:port (or --url)")
    add_common(parser)
    parser.set_defaults(prepare=ask_token, work=login)
    parser = commands.add_parser("whoami", help="say who one is, and where")
    add_common(parser)
    parser.set_defaults(work=whoami)
    parser = commands.add_parser("logout", help="forget the profile")
    add_common(parser)
    parser.set_defaults(work=logout)


def ask_token(invocation: Invocation) -> None:
    """Take the token, and ask for it when it was not given. Blocking; before the event loop starts, so that Ctrl-C
    ends the prompt."""
    given = invocation.arguments
    if given.server and given.url and given.server.rstrip("/") != given.url.rstrip("/"):
        raise ConfigError("two servers are given; leave --url out")
    if given.data is not None:
        raise ConfigError("--data means the embedded platform, which needs no login")
    given.url = given.server or given.url or os.environ.get("ASYNCSDK_URL")
    if not given.url:
        raise ConfigError("which server? asyncsdk login http://host:port")
    Settings.load(url=given.url)  # a bad URL is told before the token is asked for
    given.token = given.token or os.environ.get("ASYNCSDK_TOKEN")
    if not given.token:
        given.token = getpass.getpass("token: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not given.token.strip():
        raise ConfigError("no token was given; the server keeps it in the file 'token' of its data folder")


async def login(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk login``."""
    given = invocation.arguments
    async with AsyncClient(given.url, token=given.token) as client:
        settings = client.settings
        user = await client.whoami()
    assert settings.url is not None
    assert settings.token is not None
    path = write_profile(settings.home, url=settings.url, token=settings.token)
    if invocation.output.as_json:
        invocation.output.record({"url": settings.url, "profile": str(path), **user.model_dump(mode="json")})
    invocation.output.text(f"logged in to {settings.url} as {user.name} ({user.role}); kept in {path}")
    if os.environ.get("ASYNCSDK_URL", settings.url).rstrip("/") != settings.url:
        invocation.output.note("ASYNCSDK_URL is set to another server and is stronger than the profile")
    return ExitCode.OK


async def whoami(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk whoami``."""
    async with invocation.client() as client:
        user = await client.whoami()
        settings = client.settings
    where = settings.url or f"the embedded platform in {settings.data}"
    if invocation.output.as_json:
        invocation.output.record({
            "url": settings.url,
            "data": None if settings.url else str(settings.data),
            **user.model_dump(mode="json"),
        })  # fmt: skip
    invocation.output.text(f"{user.name} ({user.role}) at {where}")
    return ExitCode.OK


async def logout(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk logout``."""
    # Not from `Settings`, which reads the profile: one that cannot be read must still be removable.
    home = Path(os.environ.get("ASYNCSDK_HOME") or Path.home() / ".asyncsdk").expanduser()
    was_there = remove_profile(home)
    if invocation.output.as_json:
        invocation.output.record({"logged_out": was_there})
    invocation.output.text("logged out" if was_there else "nobody was logged in")
    return ExitCode.OK
