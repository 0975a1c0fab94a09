"""``asyncsdk serve``: the platform over HTTP, in this process."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common
from asyncsdk.cli.served_worker import ServedWorker
from asyncsdk.config import Settings
from asyncsdk.errors import ConfigError

if TYPE_CHECKING:
    from asyncsdk.server.http.app import OpenDoor  # needs the extra `server`

__all__ = ["add_commands", "serve"]


def add_commands(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "serve",
        help="serve a data folder over HTTP",
        description="Serve a data folder (--data; default: that of the embedded platform) over HTTP until Ctrl-C. The "
        "first line\nof standard output tells the URL when it answers, the second where the token is kept.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on (default: 127.0.0.1; others "
                        "can reach everything but loopback)")  # fmt: skip
    parser.add_argument("--port", type=int, default=8750, help="port (default: 8750); 0 takes a free one")
    parser.add_argument("--public-url", metavar="URL", help="what clients call the server, when that is not the name "
                        "they ask for")  # fmt: skip
    parser.add_argument("--objects", metavar="URL", help="bucket that keeps the objects, s3://bucket/prefix, "
                        "gs://bucket/prefix or az://container/prefix, with the "
                        "credentials of the environment (default: ASYNCSDK_OBJECTS, then where they are, in the folder "
                        "when it is new)")  # fmt: skip
    parser.add_argument("--objects-endpoint", metavar="URL", help="service that has the bucket, when it is not the "
                        "cloud's own (default: ASYNCSDK_OBJECTS_ENDPOINT)")  # fmt: skip
    parser.add_argument("--doors", metavar="NAME[,NAME]", default="", help="protocols of other services to speak as "
                        "well, each at /doors/NAME, with a token of this server as key (default: none)")  # fmt: skip
    parser.add_argument("--door-port", metavar="NAME=PORT", action="append", default=[], help="open a door that has a "
                        "port of its own, where it is at the root; may be repeated")  # fmt: skip
    parser.add_argument("--no-worker", action="store_true", help="start no worker beside the server: jobs are left to "
                        "others, see: asyncsdk worker")  # fmt: skip
    add_common(parser)
    parser.set_defaults(block=serve)


def serve(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk serve``."""
    given, output = invocation.arguments, invocation.output
    if given.url:
        raise ConfigError("serve takes no --url; the address is --host and --port, and --public-url what others see")
    if not 0 <= given.port <= 65535:
        raise ConfigError(f"--port must be between 0 and 65535, not {given.port}")
    # Not from the profile: who is logged in to some server may serve a folder all the same.
    settings = Settings.load(url="", data=given.data, objects=given.objects, objects_endpoint=given.objects_endpoint)
    folder: Path = settings.data
    token_file = folder / "token"

    door_ports = dict(_door_port(text) for text in given.door_port)
    names = dict.fromkeys([*filter(None, given.doors.split(",")), *door_ports])
    door_urls: dict[str, str] = {}

    worker = ServedWorker(folder, output, objects=settings.objects, objects_endpoint=settings.objects_endpoint)

    def on_ready(url: str) -> None:
        if output.as_json:
            doors = {"doors": door_urls} if door_urls else {}
            output.record({"url": url, "data": str(folder), "token_file": str(token_file), **doors})
        output.text(f"asyncsdk serves {url}")
        output.text(f"token: in {token_file}; use it with: asyncsdk login {url} < {token_file}")
        for name, door_url in door_urls.items():
            output.text(f"door {name}: {door_url}")
        output.flush()
        if not given.no_worker:
            worker.start()

    from asyncsdk.server.http import serve as serve_http

    with worker:
        serve_http(
            folder,
            given.host,
            given.port,
            public_url=given.public_url,
            objects=settings.objects,
            objects_endpoint=settings.objects_endpoint,
            doors=_open_doors(names),
            door_ports=door_ports,
            on_door=door_urls.__setitem__,
            on_ready=on_ready,
        )
    return ExitCode.OK


def _door_port(text: str) -> tuple[str, int]:
    name, _, port = text.partition("=")
    if not name or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--door-port looks like NAME=PORT with a port from 0 to 65535, not {text!r}")
    return name, int(port)


def _open_doors(names: Collection[str]) -> dict[str, OpenDoor]:
    if not names:
        return {}
    try:
        from asyncsdk.server.doors.registry import find_doors  # needs the extra `server`
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("asyncsdk"):
            raise
        raise ConfigError(f"serving needs {error.name}; install it with: pip install 'asyncsdk[server]'") from error
    return find_doors(names)
