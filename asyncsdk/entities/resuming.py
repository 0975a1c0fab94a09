"""Journals for the verbs that move many or large objects: which run a call is, and what became of it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.config import Settings
from asyncsdk.engine import Event, EventCallback, JournalChanged, Report, Resuming
from asyncsdk.engine.journal import Journal, RetriedReport, RunRecord
from asyncsdk.entities.session import Session
from asyncsdk.errors import CircuitOpen, ConfigError

__all__ = ["Keeping", "check_resume", "jsonable", "keeping", "named_path", "platform_of", "run_record"]


class Keeping:
    """The journal of one call, and what became of the call.

    Attributes:
        journal: Where it is kept; None: nothing is kept.
        is_complete: Set when everything is final: nothing has to be known of the run any more.
        state: What is kept of a run that is not.
    """

    def __init__(self, journal: Journal | None) -> None:
        self.journal = journal
        self.is_complete = False
        self.state = "stopped"

    def ended(self, report: Report) -> None:
        """Tell what the call amounted to."""
        self.is_complete = report.is_complete and report.ok
        if not report.is_complete:
            self.state = "stopped"
        else:
            self.state = "outage" if CircuitOpen.code in report.failures_by_code else "failed"


@asynccontextmanager
async def keeping(
    settings: Settings, record: RunRecord | None, on_event: EventCallback | None = None
) -> AsyncIterator[Keeping]:
    """Keep a journal in the home of *settings* for what is done in the block; none when *record* is None.

    Args:
        on_event: Told when what an earlier run did is taken up (`Resuming`), and when the journal cannot be kept or can
            be again (`JournalChanged`). What it raises ends the call.

    Raises:
        ConfigError: There is one, of a later release.
    """
    failures: list[Exception] = []

    name = "" if record is None else record.run_id

    def tell(event: Event) -> None:
        try:
            if on_event is not None:
                on_event(event)
        except Exception as error:  # noqa: BLE001  # a mistake of the caller: it ends the call, raised below
            failures.append(error)

    def begin(objects: int) -> None:
        tell(Resuming(run="", journal=name, objects=objects))

    def change(is_kept: bool, reason: str) -> None:
        tell(JournalChanged(run="", journal=name, is_kept=is_kept, reason=reason))

    journal = None if record is None else await Journal.open(settings.home, record, on_begin=begin, on_change=change)
    kept = Keeping(journal)
    try:
        if failures:
            raise failures[0]
        yield kept
        if failures:  # told in the middle, where nothing of the call could be raised
            raise failures[0]
    finally:
        if journal is not None:
            await journal.end(is_complete=kept.is_complete, state=kept.state)


def check_resume(resume: bool | str) -> None:
    """Raise `ConfigError` unless *resume* is what it may be."""
    given: Any = resume  # callers without a type checker give anything
    if not isinstance(given, (bool, str)) or given == "":
        raise ConfigError(f"resume is True, False or a name of the run, not {resume!r}")


def named_path(source: object, resume: bool | str) -> str | None:
    """Return what names a run by where it takes from or puts to; None: it has no name, and nothing is kept.

    Args:
        source: A path names it; nothing else does that outlives this process.
        resume: As the verb was given it: False for none, a name of the user's own before all else.
    """
    if resume is False:
        return None
    if isinstance(resume, str):
        return f"name:{resume}"
    if isinstance(source, (str, PathLike)):
        return os.path.abspath(os.fsdecode(source))  # noqa: PTH100  # links stay as they are
    return None


def platform_of(settings: Settings) -> dict[str, str]:
    """Return where a platform is: ``url``, or ``data`` of the embedded one; of a service its ``platform``, too."""
    if settings.url is not None:
        is_service = settings.platform not in {None, "rest"}
        return {"url": settings.url, **({"platform": str(settings.platform)} if is_service else {})}
    return {"data": str(Path(settings.data).absolute())}


def jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* as JSON reads them back: the same for calls that mean the same."""
    result: dict[str, Any] = json.loads(json.dumps(dict(values), default=str, sort_keys=True))
    return result


def run_record(
    session: Session,
    verb: str,
    place: str | None,
    *,
    identity: Mapping[str, Any],
    arguments: Mapping[str, Any],
    is_rebuildable: bool = True,
    retried: RetriedReport | None = None,
) -> RunRecord | None:
    """Return the run of a call on a platform; None when nothing names it.

    Args:
        session: Whose platform it is.
        verb: As `RunRecord`.
        place: What `named_path` returned.
        identity: What else makes it the same run.
        arguments: What it takes to make the call again, beside platform and place.
        is_rebuildable: Whether these are enough.
        retried: The report whose failures alone are done.
    """
    if place is None:
        return None
    where = platform_of(session.settings)
    if verb in {"upload", "checkpoint_upload", "archive_upload"} and session.engine.config.source_changed != "fail":
        arguments = {**arguments, "source_changed": session.engine.config.source_changed}
    return RunRecord(
        verb,
        identity={**where, "place": place, **identity},
        arguments={**where, "place": place, **{name: value for name, value in arguments.items() if value is not None}},
        is_rebuildable=is_rebuildable and not place.startswith("name:"),
        retried=retried,
    )
