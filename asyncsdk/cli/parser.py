"""The whole command line as a parser."""

from __future__ import annotations

from collections.abc import Sequence

from asyncsdk._version import __version__
from asyncsdk.cli import (
    accounts,
    archives,
    checkpoints,
    dataset_transfers,
    entities,
    jobs,
    journals,
    manifests,
    model_work,
    people,
    predictions,
    serving,
    verifying,
    working,
)
from asyncsdk.cli.exits import exit_codes_help
from asyncsdk.cli.options import Arguments, CommandParser, add_common
from asyncsdk.errors import ConfigError

__all__ = ["build_parser", "parse"]

_DESCRIPTION = """\
Moves datasets, checkpoints and predictions between this machine and an ML platform: without --url the embedded
platform in a folder of this machine, with it an asyncsdk server."""

_EPILOG = """\
environment:
  ASYNCSDK_URL, ASYNCSDK_TOKEN      server and token; stronger than the profile, weaker than options
  ASYNCSDK_HOME                     folder of profile and embedded data (default: ~/.asyncsdk)
  ASYNCSDK_DATA                     data folder of the embedded platform (default: HOME/data)
  ASYNCSDK_CONCURRENCY, ASYNCSDK_PART_SIZE, ASYNCSDK_MEMORY_BYTES
  ASYNCSDK_DEBUG                    any value: as --debug

with --json:
  Standard output holds one JSON object per line: each record of a listing, each object that was moved (the same line
  as in a report) and last {"summary": {...}}. A command that an error ended prints {"error": {"code", "message",
  "exit_status"}} as its last line, and a sentence on standard error.

"""


def build_parser() -> CommandParser:
    """Return the parser of every command."""
    parser = CommandParser(
        prog="asyncsdk",
        description=_DESCRIPTION,
        epilog=_EPILOG + exit_codes_help(),
    )
    parser.add_argument("--version", action="version", version=f"asyncsdk {__version__}")
    add_common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        serving,
        accounts,
        people,
        dataset_transfers,
        archives,
        verifying,
        checkpoints,
        model_work,
        predictions,
        manifests,
        journals,
        working,
        jobs,
        entities,
    ):
        module.add_commands(commands)
    return parser


def parse(argv: Sequence[str]) -> Arguments:
    """Return what *argv* says.

    Raises:
        ConfigError: It makes no sense.
        SystemExit: ``--help`` or ``--version`` was asked for and printed.
    """
    arguments, unknown = build_parser().parse_known_args(argv, namespace=Arguments())
    if unknown:
        # A misspelt --token is followed by a token: only names of options are repeated.
        options = [text.partition("=")[0] for text in unknown if text.startswith("-") and text != "-"]
        what = f"unknown option {options[0]}" if options else f"{len(unknown)} more arguments than the command takes"
        raise ConfigError(f"{what}; see: asyncsdk --help, or asyncsdk COMMAND --help")
    return arguments
