"""``asyncsdk worker``: does jobs of a platform until it is stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common
from asyncsdk.errors import ConfigError
from asyncsdk.worker import Worker

__all__ = ["add_commands", "work"]


def add_commands(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "worker",
        help="do jobs of a platform: exports, predictions...",
        description="Take jobs of the platform and do them, until Ctrl-C or SIGTERM. The first Ctrl-C finishes what is "
        "under way;\na second one, or SIGTERM, gives it back at once. What it can do is what is installed: "
        "pip install 'asyncsdk[predict]'\nbrings export and predict, 'asyncsdk[archive]' the unpacking of archives.",
    )
    parser.add_argument("--name", metavar="NAME", help="name on the platform, gone on with at the next start (default: "
                        "one of its own, forgotten at the end)")  # fmt: skip
    parser.add_argument("--labels", metavar="LABEL[,LABEL]", help="words that jobs may ask for, such as gpu (default: "
                        "those that the platform knows of the name)")  # fmt: skip
    parser.add_argument("--kinds", metavar="KIND[,KIND]", help="kinds of jobs to take (default: all that work here)")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="jobs at once (default: 1)")
    parser.add_argument("--once", action="store_true", help="do the jobs that wait, and end")
    parser.add_argument("--until-stdin-ends", action="store_true", help="end, as on SIGTERM, when standard input does: "
                        "for programs that start workers")  # fmt: skip
    add_common(parser)
    parser.set_defaults(work=work)


async def work(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk worker``."""
    given, output = invocation.arguments, invocation.output
    if given.jobs < 1:
        raise ConfigError(f"--jobs must be 1 or more, not {given.jobs}")
    # Not drained with the engine: a job under way may have files to move yet.
    async with invocation.client(is_drained=False) as client:
        worker = Worker(
            client, name=given.name, labels=_words(given.labels), kinds=_words(given.kinds), concurrency=given.jobs
        )
        async with worker:
            _introduce(invocation, worker)
            invocation.on_drain(lambda: worker.drain() or True)
            with _standard_input(given.until_stdin_ends) as ended:
                doing = asyncio.create_task(worker.run_waiting() if given.once else worker.wait())
                ending = asyncio.create_task(ended.wait())
                try:
                    await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
                    if doing.done():
                        doing.result()
                finally:
                    doing.cancel()
                    ending.cancel()
                    await asyncio.wait({doing, ending})
    if not given.until_stdin_ends:
        output.note(f"worker {worker.record.name}: {worker.jobs_done} jobs")
    return ExitCode.OK


def _introduce(invocation: Invocation, worker: Worker) -> None:
    """Say what it does and what not."""
    output = invocation.output
    if output.as_json:
        missing = {error.kind: error.reason for error in worker.missing}
        output.record({"id": worker.record.id, "name": worker.record.name, "offers": worker.offers, "missing": missing})
    offers = []
    for kind, offer in worker.offers.items():
        formats = offer.get("formats")
        offers.append(f"{kind} ({', '.join(map(str, formats))})" if isinstance(formats, list) else kind)
    output.note(f"worker {worker.record.name} does: {', '.join(offers)}")
    for error in worker.missing:
        output.note(f"it does not do {error.kind}: {error.reason}")
    output.flush()


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


@contextmanager
def _standard_input(is_watched: bool) -> Iterator[asyncio.Event]:
    """Give an event that is set when standard input ends."""
    ended = asyncio.Event()
    if not is_watched:
        yield ended
        return
    if sys.stdin is None:  # closed before the program began
        ended.set()
        yield ended
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            ended.set()

    try:
        loop.add_reader(descriptor, read)
    except PermissionError:  # a file, or the null device: there is nothing to wait for
        ended.set()
    try:
        yield ended
    finally:
        loop.remove_reader(descriptor)
