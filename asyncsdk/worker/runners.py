"""What does jobs of one kind: the contract of a runner, and those that are installed.

A runner is a class without arguments to its constructor, named by an entry point of the group ``asyncsdk.runners``
whose name is the kind:

    [project.entry-points."asyncsdk.runners"]
    thumbnails = "mypackage.thumbnails:ThumbnailRunner"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from pydantic import JsonValue

from asyncsdk.entities.session import Session
from asyncsdk.errors import RunnerUnavailable
from asyncsdk.protocol.jobs import JobRecord, LogLevel

__all__ = ["Runner", "Work", "find_runners", "load_runner", "runner_kinds"]

GROUP = "asyncsdk.runners"

BUILT_IN: Mapping[str, str] = {
    "export": "asyncsdk.worker.exporting:ExportRunner",
    "predict": "asyncsdk.worker.predicting:PredictRunner",
    "unpack_archive": "asyncsdk.worker.unpacking:UnpackRunner",
}
"""The runners of this package. Named by entry points too; but an editable installation knows those of the day it was
made only."""

P = ParamSpec("P")
T = TypeVar("T")


class Work(Protocol):
    """One attempt at a job, as its runner sees it. All of it is used in the event loop but what says otherwise."""

    @property
    def job(self) -> JobRecord:
        """The job as it was taken: ``job.payload`` says what to do."""

    @property
    def session(self) -> Session:
        """The client on whose behalf the work is done; entities take it: ``AsyncModels(work.session)``."""

    @property
    def folder(self) -> Path:
        """An empty folder for this attempt alone, removed when it is over."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the job's inputs."""

    @property
    def is_cancelled(self) -> bool:
        """Whether the work is to stop: the job was cancelled, or another worker has it. May be asked in any thread."""

    def raise_if_cancelled(self) -> None:
        """Do nothing unless the work is to stop; may be called in any thread. Threads cannot be stopped from outside.

        Raises:
            JobCancelled: It is.
        """

    async def report(
        self, *, progress: float | None = None, stage: str | None = None, message: str | None = None
    ) -> None:
        """Say how far it is; what is not given stays as it was. Cheap: the platform is told once a second at most.

        Args:
            progress: Share that is done, 0 to 1.
            stage: What is being done, in a word or two.
            message: A sentence.
        """

    async def log(self, text: str, level: LogLevel = "info") -> None:
        """Write a line into the job's log; sent with the next report."""

    async def in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *function* returns, called in a thread: for whatever computes or blocks.

        When the work is cancelled meanwhile this waits for the function, which should ask `is_cancelled` now and then.
        """

    async def input(self, name: str) -> Path:
        """Return the file of an input, downloaded and verified; the same file when it is asked for again.

        Raises:
            NotFound: The job has no such input.
        """

    async def add_output(self, path: str | PathLike[str], name: str) -> str:
        """Upload a file and make it an output of the job; one of the same name is replaced.

        Returns:
            The id of the artifact.
        """


class Runner(Protocol):
    """Does jobs of one kind. One object serves all jobs of a worker, several at once when that has the concurrency."""

    kind: str
    """The kind of jobs."""

    def offers(self) -> Mapping[str, JsonValue]:
        """Return what it can do here; the platform matches ``{"formats": [...]}`` with the payload's ``format``.

        Called in a thread, when the worker starts.

        Raises:
            RunnerUnavailable: Something is missing here; the message says what to install.
        """

    async def run(self, work: Work) -> JsonValue:
        """Do one job and return its result.

        It may be run again for the same job, when a worker went away: the end must be the same. When the work is to
        stop, the task is cancelled. An error that it raises is the job's end; errors of this package keep their code.
        """


def runner_kinds() -> tuple[str, ...]:
    """Return the kinds of jobs that something is installed for, sorted; whether it works here is not asked."""
    return tuple(sorted(_places()))


def load_runner(kind: str) -> Runner:
    """Return a runner of jobs of *kind*.

    Raises:
        RunnerUnavailable: None is installed, or it cannot be loaded.
    """
    place = _places().get(kind)
    if place is None:
        raise RunnerUnavailable(kind, "no runner is installed for it")
    module, _, name = place.partition(":")
    try:
        found: Runner = getattr(import_module(module), name)()
    except RunnerUnavailable:
        raise
    except Exception as error:  # somebody else's code: a runner that is broken must not end the others
        raise RunnerUnavailable(
            kind, f"its runner {place} cannot be loaded ({type(error).__name__}: {error})"
        ) from error
    return found


def find_runners(kinds: Iterable[str] | None = None) -> tuple[list[Runner], list[RunnerUnavailable]]:
    """Return the runners that work here, and why the others do not.

    Args:
        kinds: Which kinds; None for all that are installed.
    """
    runners: list[Runner] = []
    missing: list[RunnerUnavailable] = []
    for kind in runner_kinds() if kinds is None else kinds:
        try:
            runners.append(load_runner(kind))
        except RunnerUnavailable as error:
            missing.append(error)
    return runners, missing


def _places() -> dict[str, str]:
    """Return where runners are, by kind. Those installed beside this package may take the place of its own."""
    places = {kind: place for kind, place in BUILT_IN.items() if find_spec(place.partition(":")[0]) is not None}
    for point in entry_points(group=GROUP):
        if point.value != BUILT_IN.get(point.name):
            places[point.name] = point.value
    return places
