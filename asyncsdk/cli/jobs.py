"""``asyncsdk jobs list|get|wait|cancel|retry|logs|download`` and ``asyncsdk workers list|delete``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.formats import TableWriter, cell, parse_duration
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_listing, parsed_as, parsed_filter
from asyncsdk.client import AsyncClient
from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import is_id
from asyncsdk.entities.jobs import AsyncJob
from asyncsdk.entities.pages import AsyncPages
from asyncsdk.entities.workers import AsyncWorker
from asyncsdk.errors import DestinationUnwritable, NotFound

__all__ = ["add_commands"]

Work = Callable[[Invocation], Awaitable[ExitCode]]

_PAGE = 500
_STATUSES = ("queued", "running", "succeeded", "failed", "cancelled", "lost")
_JOB_COLUMNS = ("id", "kind", "status", "progress", "stage", "attempts", "created_at", "message")
_WORKER_COLUMNS = ("id", "name", "is_online", "last_seen_at", "labels", "kinds")


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    verbs = _group(commands, "jobs", "list, show, wait for, cancel, retry jobs")
    parser = _verb(verbs, "list", "list jobs, newest first", _list_jobs)
    parser.add_argument("--kind", metavar="KIND", help="only jobs of this kind")
    parser.add_argument("--status", choices=_STATUSES, help="only jobs of this status")
    add_listing(parser)
    for name, explained, work in (
        ("get", "show a job", _get),
        ("wait", "wait until a job ended; fails unless it succeeded", _wait),
        ("cancel", "cancel a job; one that runs is told to stop", _cancel),
        ("retry", "queue a job again that failed, was cancelled or lost", _retry),
        ("logs", "print the log of a job", _logs),
        ("download", "download the outputs of a job into a folder", _download),
    ):
        parser = _verb(verbs, name, explained, work)
        parser.add_argument("job", metavar="JOB", help="id of the job")
        if name == "wait":
            parser.add_argument("--timeout", metavar="TIME", type=parsed_as(parse_duration), help="how long to wait, "
                                "such as 90, 30m or 8h (default: as long as it takes)")  # fmt: skip
        if name == "logs":
            parser.add_argument("--follow", "-f", action="store_true", help="go on until the job ended")
        if name == "download":
            parser.add_argument("folder", metavar="FOLDER", type=Path, help="made when missing")
    verbs = _group(commands, "workers", "list and forget workers")
    parser = _verb(verbs, "list", "list workers", _list_workers)
    add_listing(parser)
    parser = _verb(verbs, "delete", "forget a worker; jobs that it has are queued again", _delete_worker)
    parser.add_argument("worker", metavar="WORKER", help="name or id")


def _group(commands: Any, name: str, explained: str) -> Any:
    parser = commands.add_parser(name, help=explained)
    add_common(parser)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _verb(verbs: Any, name: str, explained: str, work: Work) -> Any:
    parser = verbs.add_parser(name, help=explained, description=f"{explained[0].upper()}{explained[1:]}.")
    add_common(parser)
    parser.set_defaults(work=work)
    return parser


async def _table(
    invocation: Invocation,
    columns: Sequence[str],
    pages: AsyncPages[Any],
    row: Callable[[Any], list[str]],
    nothing: str,
) -> ExitCode:
    """Print a listing."""
    output = invocation.output
    table = TableWriter([column.upper().replace("_AT", "") for column in columns])
    found = 0
    async for page in pages.pages(_PAGE):
        found += len(page.entries)
        if output.as_json:
            for entity in page.entries:
                output.record(entity.to_json())
        elif page.entries:
            for line in table.lines([row(entity) for entity in page.entries]):
                output.text(line)
    if not found:
        output.note(nothing)
    return ExitCode.OK


async def _list_jobs(invocation: Invocation) -> ExitCode:
    given = invocation.arguments
    async with invocation.client() as client:
        pages = client.jobs.list(
            kind=given.kind,
            status=given.status,
            filter=parsed_filter(given.filter),
            sort=given.sort,
            limit=given.limit,
        )
        return await _table(invocation, _JOB_COLUMNS, pages, _job_row, "no jobs")


def _job_row(job: AsyncJob[Any]) -> list[str]:
    shown = {"progress": "" if job.progress is None else f"{job.progress:.0%}"}
    if job.error is not None:
        shown["message"] = cell(job.error.message)
    return [shown.get(name, cell(getattr(job, name))) for name in _JOB_COLUMNS]


async def _get(invocation: Invocation) -> ExitCode:
    async with invocation.client() as client:
        _show(invocation, await client.jobs.get(invocation.arguments.job))
    return ExitCode.OK


async def _wait(invocation: Invocation) -> ExitCode:
    given = invocation.arguments
    async with invocation.client() as client:
        job = await client.jobs.get(given.job)
        _show(invocation, await job.wait(given.timeout))
    return ExitCode.OK


async def _cancel(invocation: Invocation) -> ExitCode:
    async with invocation.client() as client:
        job = await (await client.jobs.get(invocation.arguments.job)).cancel()
    _say(invocation, job, "is told to stop" if job.status == "running" else f"is {job.status}")
    return ExitCode.OK


async def _retry(invocation: Invocation) -> ExitCode:
    async with invocation.client() as client:
        job = await (await client.jobs.get(invocation.arguments.job)).retry()
    _say(invocation, job, f"is {job.status}")
    return ExitCode.OK


async def _logs(invocation: Invocation) -> ExitCode:
    given, output = invocation.arguments, invocation.output
    async with invocation.client() as client:
        job = await client.jobs.get(given.job)
        async for line in job.logs(follow=given.follow):
            if output.as_json:
                output.record(line.model_dump(mode="json"))
            output.text(f"{line.logged_at:%Y-%m-%d %H:%M:%S} {line.level:<7} {line.text}")
    return ExitCode.OK


async def _download(invocation: Invocation) -> ExitCode:
    given, output = invocation.arguments, invocation.output
    folder: Path = given.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationUnwritable(f"{folder}: {error.strerror}", destination=str(folder)) from error
    found = 0
    async with invocation.client() as client:
        job = await client.jobs.get(given.job)
        async for artifact in job.artifacts.list(direction="output"):
            await artifact.download(folder)
            found += 1
            if output.as_json:
                output.record(artifact.to_json())
            output.text(str(folder / artifact.name))
    if not found:
        output.note(f"job {job.id} has no outputs")
    return ExitCode.OK


def _show(invocation: Invocation, job: AsyncJob[Any]) -> None:
    output = invocation.output
    if output.as_json:
        output.record(job.to_json())
        return
    values = {name: value for name, value in dict(job).items() if name not in {"extra", "is_brief"} or value}
    width = max(map(len, values)) + 1
    for name, value in values.items():
        output.text(f"{name + ':':<{width}} {cell(value)}")


def _say(invocation: Invocation, job: AsyncJob[Any], what: str) -> None:
    if invocation.output.as_json:
        invocation.output.record(job.to_json())
    invocation.output.text(f"job {job.id} {what}")


# --- workers -------------------------------------------------------------------------------------------------


async def _list_workers(invocation: Invocation) -> ExitCode:
    given = invocation.arguments
    async with invocation.client() as client:
        pages = client.workers.list(filter=parsed_filter(given.filter), sort=given.sort, limit=given.limit)
        return await _table(invocation, _WORKER_COLUMNS, pages, _worker_row, "no workers")


def _worker_row(worker: AsyncWorker) -> list[str]:
    shown = {"kinds": cell(", ".join(worker.offers)), "labels": cell(", ".join(worker.labels))}
    return [shown[name] if name in shown else cell(getattr(worker, name)) for name in _WORKER_COLUMNS]


async def _delete_worker(invocation: Invocation) -> ExitCode:
    async with invocation.client() as client:
        worker = await _find_worker(client, invocation.arguments.worker)
        await worker.delete()
    if invocation.output.as_json:
        invocation.output.record({"id": worker.id, "name": worker.name, "deleted": True})
    invocation.output.text(f"forgot the worker {worker.name} ({worker.id})")
    return ExitCode.OK


async def _find_worker(client: AsyncClient, text: str) -> AsyncWorker:
    if is_id(text):
        try:
            return await client.workers.get(text)
        except NotFound:
            pass  # 24 hexadecimal digits may also be a name
    found = await client.workers.list(filter=Condition("name", "eq", text)).to_list()
    if not found:
        raise NotFound(f"there is no worker {text!r}; see: asyncsdk workers list")
    return found[0]
