"""``asyncsdk journal list|show|resume|forget``: the runs that were stopped, and what there is to go on with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.formats import TableWriter, cell, human_size
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import Arguments, add_common, add_no_wait, add_transfer
from asyncsdk.engine.journal import RunSummary, journal_folder
from asyncsdk.engine.journal.catalogue import forget as forget_run
from asyncsdk.engine.journal.catalogue import summaries, summary
from asyncsdk.errors import AsyncSDKError, ConfigError, Conflict, SourceNotFound

__all__ = ["GIVEN_ANEW", "add_commands", "command_of", "forget", "list_runs", "resume", "show"]

GIVEN_ANEW = (
    *("token", "json", "quiet", "debug", "report", "retry", "events", "dry_run", "wait"),
    *(
        "concurrency",
        "part_size",
        "bandwidth",
        "requests_per_second",
        "deadline",
        "outage",
        "max_failures",
        "processes",
        "source_changed",
    ),
)
"""Options that say how, not what: those that were given to ``resume`` count."""

_COLUMNS = ("run", "state", "objects", "large", "parts", "size", "half received", "place")


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    group = commands.add_parser(
        "journal",
        help="list, show, resume, forget runs that were stopped",
        description="A run that moves many or large objects keeps a journal (ASYNCSDK_HOME/journal) until it is "
        "complete.\nRunning the same command again goes on with it; so does: asyncsdk journal resume RUN",
    )
    add_common(group)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = verbs.add_parser("list", help="list the runs that have a journal, the latest first")
    add_common(parser)
    parser.set_defaults(work=list_runs)
    parser = verbs.add_parser("show", help="show what is known of a run")
    _add_run(parser)
    parser.set_defaults(work=show)
    parser = verbs.add_parser(
        "resume",
        help="go on with a run",
        description="Go on with a run as the command did that started it, and with its options; those that say how "
        "(--concurrency,\n--report ...) may be given anew.",
    )
    _add_run(parser)
    add_transfer(parser)
    add_no_wait(parser)
    parser.set_defaults(work=resume)
    parser = verbs.add_parser(
        "forget",
        help="forget a run: its journal and the files it had half received",
        description="Forget a run: its journal and the files it had half received. Whatever is whole stays, here and "
        "on the platform.",
    )
    _add_run(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
    parser.set_defaults(work=forget)


def _add_run(parser: Any) -> None:
    parser.add_argument("run", metavar="RUN", help="its id as list shows it, or enough of its beginning")
    add_common(parser)


async def list_runs(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk journal list``."""
    output = invocation.output
    folder = journal_folder(invocation.settings().home)
    unreadable: list[AsyncSDKError] = []
    found = await anyio.to_thread.run_sync(lambda: list(summaries(folder, unreadable.append)))
    if output.as_json:
        for run in found:
            output.record(_values(run))
    elif found:
        for line in TableWriter(_COLUMNS).lines([_row(run) for run in found]):
            output.text(line)
    elif not unreadable:
        output.note("no runs have a journal: all that were begun are complete")
    for error in unreadable:
        output.problem(str(error))
    return ExitCode.OK


async def show(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk journal show``."""
    run = await _summary(invocation)
    if invocation.output.as_json:
        invocation.output.record(_values(run))
        return ExitCode.OK
    values = _values(run)
    values["size_bytes"] = human_size(run.size_bytes)
    values["half_received_bytes"] = human_size(run.half_received_bytes)
    values |= values.pop("arguments")
    width = max(map(len, values)) + 1
    for name, value in values.items():
        invocation.output.text(f"{name + ':':<{width}} {cell(value)}")
    return ExitCode.OK


async def resume(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk journal resume``."""
    from asyncsdk.cli.parser import parse  # it knows this module

    run = await _summary(invocation)
    if run.state == "running":
        raise Conflict(f"{run.run_id} is under way ({run.owner})")
    arguments = parse(command_of(run))
    given = invocation.arguments
    for name in GIVEN_ANEW:
        value = getattr(given, name)
        if value != getattr(Arguments, name):
            setattr(arguments, name, value)
    if "url" in run.arguments:  # whatever the environment says
        arguments.platform = run.arguments.get("platform", "rest")
    if "folder" in run.arguments:  # paths in a manifest count from it
        arguments.manifest_folder = folder = Path(run.arguments["folder"])
        if not await anyio.to_thread.run_sync(folder.is_dir):
            raise SourceNotFound(f"{folder}: is no folder; its manifest was read from there", source=str(folder))
    status: ExitCode = await arguments.work(replace(invocation, arguments=arguments))
    return status


async def forget(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk journal forget``."""
    given, output = invocation.arguments, invocation.output
    folder = journal_folder(invocation.settings().home)
    if given.dry_run:
        run = await _summary(invocation)
        files = _files(run.half_received, run.half_received_bytes)
        output.note(f"would forget {run.run_id} ({run.objects} objects, {run.large} half-moved) and remove {files}")
        return ExitCode.OK
    gone = await anyio.to_thread.run_sync(forget_run, folder, given.run)
    if output.as_json:
        output.record(
            {"run_id": gone.run_id, "forgotten": True, "files_removed": gone.files, "bytes_removed": gone.size_bytes}
        )
    removed = f", removed {_files(gone.files, gone.size_bytes)}" if gone.files else ""
    output.text(f"forgot {gone.run_id}{removed}")
    return ExitCode.OK


async def _summary(invocation: Invocation) -> RunSummary:
    folder = journal_folder(invocation.settings().home)
    return await anyio.to_thread.run_sync(partial(summary, folder, invocation.arguments.run))


def command_of(run: RunSummary) -> list[str]:
    """Return the arguments of the command that goes on with *run*.

    Raises:
        ConfigError: No command can: a program started it, with what only that program knows.
    """
    if not run.is_rebuildable:
        raise ConfigError(
            f"{run.run_id} was started by a program, with a source, filter or metadata that only it knows; run it again"
        )
    known = run.arguments
    place = known["place"]
    match run.verb:
        case "upload":
            command = ["upload", place, known["dataset"], *_selection(run), *_policy(run)]
        case "download":
            command = ["download", known["dataset"], place, *_selection(run)]
        case "checkpoint_upload":
            command = ["checkpoint", "upload", place, known["model"], *_facts(known["facts"]), *_policy(run)]
        case "checkpoint_download":
            command = ["checkpoint", "download", known["model"], place, "--which", known["checkpoint"]]
        case "archive_upload":
            command = ["archive", "upload", place, known["dataset"]]
            command += [*_policy(run), *([] if known.get("unpack", True) else ["--no-unpack"])]
        case "archive_download":
            command = ["archive", "download", known["dataset"], place]
        case "transfer":
            command = ["transfer", place, *_policy(run)]
        case _:
            raise ConfigError(f"{run.run_id}: no command of this release starts {run.verb!r}; run it again")
    command += [f"--retry={known['retry']}"] if "retry" in known else []
    for name in ("url", "data"):
        if name in known:
            command += [f"--{name}", known[name]]
    return command


def _selection(run: RunSummary) -> Iterator[str]:
    known = run.arguments
    yield f"--on-existing={known['on_existing']}"
    for name in ("include", "exclude"):
        for pattern in known.get(name) or ():
            yield f"--{name}={pattern}"


def _policy(run: RunSummary) -> list[str]:
    policy = run.arguments.get("source_changed")
    return [] if policy is None else [f"--source-changed={policy}"]


def _facts(facts: dict[str, Any]) -> Iterator[str]:
    if "epoch" in facts:
        yield f"--epoch={facts['epoch']}"
    for name in ("best", "final"):
        if facts.get(f"is_{name}"):
            yield f"--{name}"
    for name, value in (facts.get("metrics") or {}).items():
        yield f"--metric={name}={value!r}"


def _values(run: RunSummary) -> dict[str, Any]:
    return {**asdict(run), "arguments": dict(run.arguments)}


def _row(run: RunSummary) -> list[str]:
    values = (run.run_id, run.state, run.objects, run.large, run.parts)
    half = _files(run.half_received, run.half_received_bytes) if run.half_received else "-"
    return [*map(str, values), human_size(run.size_bytes), half, cell(run.arguments.get("place", ""))]


def _files(count: int, size_bytes: int) -> str:
    return f"{count} file{'' if count == 1 else 's'} ({human_size(size_bytes)})"
