"""``asyncsdk serve``: the platform over HTTP, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common
from asyncsdk.config import Settings
from asyncsdk.errors import ConfigError

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
    parser.add_argument("--objects", metavar="URL", help="bucket that keeps the objects, s3://bucket/prefix or "
                        "az://container/prefix, with the "
                        "credentials of the environment (default: ASYNCSDK_OBJECTS, then where they are, in the folder "
                        "when it is new)")  # fmt: skip
    parser.add_argument("--objects-endpoint", metavar="URL", help="service that has the bucket, when it is not the "
                        "cloud's own (default: ASYNCSDK_OBJECTS_ENDPOINT)")  # fmt: skip
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

    def on_ready(url: str) -> None:
        if output.as_json:
            output.record({"url": url, "data": str(folder), "token_file": str(token_file)})
        output.text(f"asyncsdk serves {url}")
        output.text(f"token: in {token_file}; use it with: asyncsdk login {url} < {token_file}")
        output.flush()

    from asyncsdk.server.http import serve as serve_http

    serve_http(
        folder,
        given.host,
        given.port,
        public_url=given.public_url,
        objects=settings.objects,
        objects_endpoint=settings.objects_endpoint,
        on_ready=on_ready,
    )
    return ExitCode.OK
