"""What commands that move one object keep of it: the engine's events say how it went, and the report has that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.reports import make_entry, read_failed, was_stopped
from asyncsdk.cli.runs import STOPPED, Run
from asyncsdk.engine import Event, EventCallback, ObjectFailed, ObjectFinished, RunEnded
from asyncsdk.errors import AsyncSDKError, ConfigError, LeftUndone

__all__ = ["SingleRun"]


class SingleRun(Run):
    """The books of a command that moves one object.

    The verb gives back what the object became, not how it got there: attempts and waits of its line, and what the
    summary says of the run, are those that ``on_event`` was told. Give it to the verb.

    Args:
        invocation: The command at work.
        operation: What report lines say it is; a retry must be of the same.
        source: The file that the command reads; None: it reads none.
        unit: What is counted.

    Raises:
        ConfigError, SourceNotFound, SourceUnreadable: As `Run`.
    """

    def __init__(self, invocation: Invocation, operation: str, *, source: Path | None, unit: str) -> None:
        super().__init__(invocation, operation, source=source, unit=unit, is_single=True)
        self._told: ObjectFinished | ObjectFailed | None = None

    @property
    def on_event(self) -> EventCallback:
        """What takes the events of the engine's run, and hands them to ``--events``."""
        return self._hear

    def _hear(self, event: Event) -> None:
        if isinstance(event, (ObjectFinished, ObjectFailed)):
            self._told = event
        elif isinstance(event, RunEnded):
            self.tally.add_waits(event.waits, event.cpu_share, event.seconds)
        events = super().on_event
        if events is not None:
            events(event)

    async def has_nothing_to_do(self) -> bool:
        """Whether this is a retry of a report in which nothing failed; that is said."""
        retry = self._retry_path
        if retry is None:
            return False
        failed = await anyio.to_thread.run_sync(lambda: any(True for _ in read_failed(retry, self.operation)))
        if not failed and await anyio.to_thread.run_sync(was_stopped, retry, self.operation):
            self._output.problem(STOPPED)
        elif not failed:
            self._output.note(f"nothing failed according to {retry}")
        return not failed

    def would(self, do: str, name: str, *, source: str | None, destination: str | None, size_bytes: int | None) -> None:
        """Write the line of a dry run; *do* is ``would_send`` or ``would_fetch``."""
        self.tally.skipped += 1
        line = make_entry(
            self.operation, name, "skipped", source=source, destination=destination, message=do, size_bytes=size_bytes
        )
        self.write(line)

    def failed(self, name: str, error: AsyncSDKError, *, source: str | None, destination: str | None) -> None:
        """Write the line of an object that did not arrive; none when nothing was tried."""
        if isinstance(error, (ConfigError, LeftUndone)):
            return
        self.tally.add_failure(name, error)
        line = make_entry(
            self.operation, name, "failed", source=source, destination=destination, error=error, **self._how()
        )
        self.write(line)

    def arrived(
        self,
        name: str,
        *,
        source: str | None,
        destination: str | None,
        size_bytes: int | None = None,
        crc32c: str | None = None,
        was_made: bool = False,
        **facts: Any,
    ) -> None:
        """Write the line of an object that is where it should be.

        Args:
            name: What it is called.
            source: Where it came from.
            destination: Where it went.
            size_bytes: Its size; None: as the engine said.
            crc32c: Of its bytes.
            was_made: Whether something new came of it, though perhaps nothing had to move: it counts as done.
            facts: What else the line has.
        """
        told = self._told if isinstance(self._told, ObjectFinished) else None
        size = told.size_bytes if size_bytes is None and told is not None else size_bytes or 0
        status = "done" if told is None or was_made else told.status
        if status == "skipped":
            self.tally.skipped += 1
        else:
            self.tally.done += 1
            self.tally.bytes_done += size
        line = make_entry(
            self.operation,
            name,
            status,
            source=source,
            destination=destination,
            size_bytes=size,
            crc32c=crc32c,
            **self._how(),
            **facts,
        )
        self.write(line)

    def _how(self) -> dict[str, Any]:
        """Return what was told of the way of the object; nothing when it did not come to that."""
        told = self._told
        if told is None:
            return {}
        waits = {reason.value: round(spent, 6) for reason, spent in (told.waits or {}).items()}
        how: dict[str, Any] = {"seconds": told.seconds, "attempts": told.attempts, "waits": waits or None}
        return how | ({"verified": told.verified} if isinstance(told, ObjectFinished) else {})
