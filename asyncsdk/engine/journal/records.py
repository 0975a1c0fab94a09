"""A run, as the journal knows it: the verb that started it, and what it needs to be started again."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

__all__ = ["RetriedReport", "RunRecord", "RunSummary", "journal_folder"]


def journal_folder(home: Path) -> Path:
    """Return the folder of *home* that holds the journals, one file for each run."""
    return home / "journal"


@dataclass(frozen=True, slots=True)
class RetriedReport:
    """The report of a run, of which only what failed is done again: the same run, with fewer objects.

    Args:
        path: The report, named from the root.
        version: Another one when the report is another.
        is_lasting: Whether it can be read again.
    """

    path: str
    version: str
    is_lasting: bool = True

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the report at *path*, as it is now. Blocking.

        Raises:
            OSError: It cannot be looked at.
        """
        facts = path.stat()
        # Links stay as they are.
        return cls(os.path.abspath(path), f"{facts.st_size}-{facts.st_mtime_ns}", stat.S_ISREG(facts.st_mode))  # noqa: PTH100


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run that may have to go on later.

    Args:
        verb: What started it: ``upload``, ``download``, ``checkpoint_upload``, ``checkpoint_download``,
            ``archive_upload``, ``archive_download``, ``transfer``.
        identity: What makes a call the same run: where from, where to, and what decides over single objects. Values
            are JSON.
        arguments: What it takes to make the call again, as JSON; no secrets.
        is_rebuildable: Whether ``asyncsdk journal resume`` can make the call from *arguments* alone.
        retried: The report whose failures alone are done; None: all that the run consists of.
        is_sole_witness: Whether nobody but the journal can say what has finished. Then that counts until the run has
            come to its end, not longer; what is half-moved, which is compared with what is there, stays for a retry.
    """

    verb: str
    identity: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_rebuildable: bool = True
    retried: RetriedReport | None = None
    is_sole_witness: bool = False

    @property
    def run_id(self) -> str:
        """The run's name: the same for the same call."""
        text = json.dumps([self.verb, dict(self.identity)], sort_keys=True)
        return f"{self.verb.replace('_', '-')}-{blake2b(text.encode(), digest_size=8).hexdigest()}"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What there is to say of a run that has a journal.

    Attributes:
        run_id: Its name.
        verb: What started it.
        arguments: What it was started with.
        state: ``running``, ``stopped`` (told to, or by an error), ``failed`` (some objects failed),
            ``outage`` (some because a server was out for too long) or ``killed``.
        owner: ``host:pid`` of who runs it; empty when nobody does.
        started_at: When it began first, milliseconds since 1970 UTC.
        updated_at: When it was written to last.
        objects: Small objects whose bytes arrived; one that changed and was moved again counts twice.
        large: Large objects that are under way.
        parts: Parts and ranges of these that are there.
        size_bytes: What the journal's files take.
        is_rebuildable: Whether ``asyncsdk journal resume`` can go on with it.
        half_received: Files that large downloads have begun (``.name.….part`` beside where they go), and which are
            there: going on uses them, forgetting the run removes them.
        half_received_bytes: What these take on the disk.
    """

    run_id: str
    verb: str
    arguments: Mapping[str, Any]
    state: str
    owner: str
    started_at: int
    updated_at: int
    objects: int
    large: int
    parts: int
    size_bytes: int
    is_rebuildable: bool
    half_received: int = 0
    half_received_bytes: int = 0
