"""Options that commands share, and the parser they are added to."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from asyncsdk.cli.formats import (
    parse_assignment,
    parse_bandwidth,
    parse_concurrency,
    parse_duration,
    parse_json_or_text,
    parse_positive,
    parse_size,
    parse_wait,
)
from asyncsdk.domain.filters import AllOf, Condition, Filter
from asyncsdk.engine import Bandwidth, Concurrency
from asyncsdk.errors import ConfigError

__all__ = [
    "Arguments",
    "CommandParser",
    "add_common",
    "add_listing",
    "add_no_wait",
    "add_patterns",
    "add_project",
    "add_report",
    "add_report_file",
    "add_resume",
    "add_selection",
    "add_transfer",
    "parsed_as",
    "parsed_filter",
]

T = TypeVar("T")


class Arguments(argparse.Namespace):
    """What was given on the command line. Options that every command takes have their defaults here, so that they may
    stand before the command or after it."""

    url: str | None = None
    platform: str | None = None
    token: str | None = None
    data: Path | None = None
    concurrency: Concurrency | None = None
    bandwidth: Bandwidth | None = None
    requests_per_second: float | None = None
    deadline: float | None = None
    outage: float | None = None
    max_failures: int | None = None
    processes: int = 1
    source_changed: Literal["fail", "retry", "accept"] = "fail"
    part_size: int | None = None
    json: bool = False
    quiet: bool = False
    debug: bool = False
    dry_run: bool = False
    report: Path | None = None
    retry: Path | None = None
    events: Path | None = None
    resume: bool = True
    wait: bool = True
    manifest_folder: Path | None = None
    include: list[str] | None = None
    exclude: list[str] | None = None
    project: str | None = None
    filter: list[str] | None = None


class CommandParser(argparse.ArgumentParser):
    """A parser whose mistakes are `ConfigError`, so that they are told as every other error is."""

    def __init__(self, **settings: Any) -> None:
        # An abbreviation that works today may mean something else when an option is added.
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        """Raise the mistake as `ConfigError`."""
        raise ConfigError(f"{message}; see: {self.prog} --help")


def parsed_as(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return *parse* for use as the ``type`` of an option: its `ConfigError` becomes the option's."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def parsed_filter(assignments: list[str] | None) -> Filter | None:
    """Return the filter that ``FIELD=VALUE`` options mean: all of them hold.

    Raises:
        ConfigError: One of them is no condition.
    """
    if not assignments:
        return None
    conditions = []
    for text in assignments:
        field, value = parse_assignment(text)
        try:
            conditions.append(Condition(field, "eq", parse_json_or_text(value)))
        except ValueError:
            raise ConfigError(
                f"{text!r} must look like FIELD=VALUE: a field of the record or metadata.KEY, and text, a number, "
                "true, false or null"
            ) from None
    return conditions[0] if len(conditions) == 1 else AllOf(conditions)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes."""
    group = parser.add_argument_group("connection", argument_default=argparse.SUPPRESS)
    group.add_argument("--url", metavar="URL", help="server, http://host:port; else ASYNCSDK_URL, else the profile, "
                       "else the embedded platform")  # fmt: skip
    group.add_argument("--token", metavar="TOKEN", help="token for it; better given as ASYNCSDK_TOKEN, because "
                       "everybody on this machine can read command lines")  # fmt: skip
    group.add_argument("--data", metavar="FOLDER", type=Path, help="use the embedded platform in this folder")
    group.add_argument(
        "--concurrency",
        metavar="N",
        type=parsed_as(parse_concurrency),
        help="requests at once: a number, or 'auto', which finds out while it runs (default)",
    )
    group = parser.add_argument_group("output", argument_default=argparse.SUPPRESS)
    group.add_argument("--json", action="store_true", help="one JSON object per line on standard output, nothing else "
                       "there")  # fmt: skip
    group.add_argument("--quiet", "-q", action="store_true", help="only errors on standard error")
    group.add_argument("--debug", action="store_true", help="tracebacks and details on standard error (or set "
                       "ASYNCSDK_DEBUG)")  # fmt: skip


def add_project(parser: argparse.ArgumentParser) -> None:
    """Add ``--project``."""
    parser.add_argument("--project", metavar="PROJECT", default=argparse.SUPPRESS, help="name or id of the project "
                        "(default: the default project)")  # fmt: skip


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add ``--report``, ``--retry``, ``--events`` and ``--dry-run``."""
    group = parser.add_argument_group("report", argument_default=argparse.SUPPRESS)
    add_report_file(group)
    group.add_argument("--retry", metavar="REPORT", type=Path, help="run only what failed according to this report; it "
                       "may be the same file as --report. After a run that was stopped, run the command again "
                       "without it")  # fmt: skip
    group.add_argument("--events", metavar="FILE.jsonl", type=Path, help="write what happens (retries, renewed URLs, "
                       "outcomes ...) as JSON lines; the file is replaced, - is standard output")  # fmt: skip
    group.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")


def add_report_file(group: Any) -> None:
    """Add ``--report``."""
    group.add_argument("--report", metavar="FILE.jsonl", type=Path, help="write one JSON line per object, as outcomes "
                       "come; the file is replaced")  # fmt: skip


def add_transfer(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that move bytes."""
    parser.add_argument(
        "--part-size",
        metavar="SIZE",
        type=parsed_as(parse_size),
        default=argparse.SUPPRESS,
        help="bytes per request of a large object, such as 8MiB (default); for uploads only where the platform leaves "
        "the choice",
    )
    group = parser.add_argument_group("limits", argument_default=argparse.SUPPRESS)
    group.add_argument("--bandwidth", metavar="SIZE", type=parsed_as(parse_bandwidth), help="bytes per second in each "
                       "direction, such as 10MB; or UP:DOWN, either of which may be left out")  # fmt: skip
    group.add_argument("--requests-per-second", metavar="N", type=parsed_as(parse_positive), help="requests that may "
                       "begin per second")  # fmt: skip
    group.add_argument("--deadline", metavar="TIME", type=parsed_as(parse_duration), help="how long it may take, such "
                       "as 90, 30m or 8h; what is not done by then has failed")  # fmt: skip
    group.add_argument("--outage", metavar="TIME", type=parsed_as(parse_wait), help="how long to wait for a server "
                       "that refuses everything or cannot be reached, such as 30s or 2h, 0 not at all (default: "
                       "10m)")  # fmt: skip
    group.add_argument("--max-failures", metavar="N", type=int, help="begin nothing new once N objects have failed "
                       "(default: go on with the others)")  # fmt: skip
    group.add_argument("--processes", metavar="N", type=int, help="worker processes that transfers are spread over "
                       "(default: 1, all in this one; also with --bandwidth or --requests-per-second); for many cores "
                       "and a fast network")  # fmt: skip
    parser.add_argument(
        "--source-changed",
        choices=("fail", "retry", "accept"),
        default=argparse.SUPPRESS,
        help="what happens when a file changed while it was sent: it has failed (fail, default), it is sent again "
        "(retry), or nobody looks, as for logs that grow (accept)",
    )
    add_report(parser)


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-resume``."""
    parser.add_argument(
        "--no-resume",
        dest="resume",
        action="store_false",
        default=argparse.SUPPRESS,
        help="keep no journal, and do not go on with the one of a run that was stopped",
    )


def add_no_wait(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-wait``."""
    parser.add_argument("--no-wait", dest="wait", action="store_false", default=argparse.SUPPRESS, help="end as soon "
                        "as the job that unpacks an archive is queued; needs a worker elsewhere")  # fmt: skip


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add ``--include``, ``--exclude`` and ``--on-existing``."""
    add_patterns(parser)
    parser.add_argument(
        "--on-existing",
        choices=("skip_same", "overwrite", "fail"),
        default="skip_same",
        help="what happens when it is there already: left alone when size and checksum are equal and replaced "
        "otherwise (skip_same, default), replaced, or refused",
    )


def add_patterns(parser: argparse.ArgumentParser) -> None:
    """Add ``--include`` and ``--exclude``."""
    group = parser.add_argument_group("selection", argument_default=argparse.SUPPRESS)
    group.add_argument("--include", metavar="PATTERN", action="append", help="only paths that match, such as '*.jpg' "
                       "or 'train/**/*.png'; may be repeated")  # fmt: skip
    group.add_argument("--exclude", metavar="PATTERN", action="append", help="leave out paths that match; may be "
                       "repeated")  # fmt: skip


def add_listing(parser: argparse.ArgumentParser) -> None:
    """Add ``--limit``, ``--filter`` and ``--sort``."""
    parser.add_argument("--limit", metavar="N", type=int, help="how many at most (default: all)")
    parser.add_argument("--filter", metavar="FIELD=VALUE", action="append", default=argparse.SUPPRESS,
                        help="only records whose field has this value (JSON, else text), metadata.KEY too; may be "
                        "repeated")  # fmt: skip
    parser.add_argument("--sort", metavar="FIELD", action="append", default=[], help="field to sort by; for going down "
                        "write --sort=-FIELD; may be repeated")  # fmt: skip
