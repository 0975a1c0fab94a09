"""The journal of one run, as feeds and transfers use it: asynchronous, one thread behind it, never in the way.

Nothing is made before there is something to keep, and what cannot be kept ends no transfer: a disk that is full, a file
that is damaged or another run that has the journal is said once in the log, and the run goes on as it would without
one. Every minute it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from asyncsdk.engine.journal.catalogue import all_unfinished_files, tidy, unfinished_file, unfinished_files
from asyncsdk.engine.journal.claims import InUse, give_up
from asyncsdk.engine.journal.entries import Entry, Finished
from asyncsdk.engine.journal.large import LargeState
from asyncsdk.engine.journal.records import RunRecord, journal_folder
from asyncsdk.engine.journal.schema import SUFFIX, is_damage, set_aside
from asyncsdk.engine.journal.sorting import TakingUp
from asyncsdk.engine.journal.store import KnownPart, Store
from asyncsdk.engine.journal.waiting import through
from asyncsdk.errors import ConfigError
from asyncsdk.transport.threads import Threads

__all__ = ["Journal"]

_HEARTBEAT_SECONDS = 60.0

_AGAIN_SECONDS = 60.0
"""After which a journal that could not be kept is tried again: a disk has room again, another run has ended."""

_logger = logging.getLogger("asyncsdk.journal")

_NOTED_SECONDS = 0.1
"""How long what arrived may wait for company: a page costs 0.1 ms, whatever is in it. That is also how much of a moment
a kill can cost of what nobody flushed: small objects that arrived, and are neither told nor committed, move again."""

T = TypeVar("T")

Describe = Callable[[Sequence[Any]], Iterable[Finished]]

OnChange = Callable[[bool, str], None]
"""Told whether the journal is kept from now on, and why."""


def _as_they_are(things: Sequence[Any]) -> Iterable[Finished]:
    return things


class Journal:
    """Keeps what one run has done, so that the same call goes on after a kill.

    Made by `open`; `end` must be called. Belongs to one event loop and one process.

    Attributes:
        record: The run.
        has_entries: Whether something is known from before; else there is nothing to look up.
        started_at: When an earlier process began the run, milliseconds since 1970 UTC; None: none did, as far as is
            known.
        earlier_marks: In the names of temporary files of processes that were killed while they worked on the run.
        sessions: How often it was begun to be kept: what was told in an earlier session may not be there any more.
        stays_when_empty: Whether that the run began has to be known though nothing is kept of it at its end.
    """

    def __init__(self, home: Path, record: RunRecord, on_change: OnChange | None = None) -> None:
        self.record = record
        self.has_entries = False
        self.started_at: int | None = None
        self.earlier_marks: tuple[str, ...] = ()
        self.sessions = 1
        self.stays_when_empty = False
        self._folder = journal_folder(home)
        self._path = self._folder / f"{record.run_id}{SUFFIX}"
        self._threads = Threads(1)  # SQLite's connection is used by one thread at a time, in the order of the calls
        self._store: Store | None = None
        self._on_change = on_change
        self._is_off = False
        self._is_ended = False
        self._was_lost = False
        self._is_told = False  # that it is not kept
        self._again: asyncio.TimerHandle | None = None
        self._pid = os.getpid()
        self._heartbeat: asyncio.TimerHandle | None = None
        self._describe: Describe = _as_they_are
        self._notes_are_final = False
        self._noted: list[Any] = []
        self._settled: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._taking_up = TakingUp()
        self._latest: Future[None] | None = None
        self._asked = 0  # counted in the event loop
        self._answered = 0  # counted in the thread
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(
        cls,
        home: Path,
        record: RunRecord,
        *,
        on_begin: Callable[[int], None] | None = None,
        on_change: OnChange | None = None,
    ) -> Journal:
        """Return the journal of *record* in the folder *home*, taken over when a process that is gone has left one.

        While another run works at the same its journal is left alone, and this run keeps none. Putting in order
        what the other one left takes some seconds for a million objects; cancelling the call ends that and changes
        nothing.

        Args:
            on_begin: Called in the event loop, before that, with their number.
            on_change: Called in the event loop when it cannot be kept, and when it can again: must neither block nor
                raise.

        Raises:
            ConfigError: There is one, of a later release.
        """
        journal = cls(home, record, on_change)
        if os.path.exists(journal._path):  # noqa: PTH110  # one look, 2 us: most runs have none
            await journal._take_up(on_begin)
            if (store := journal._store) is not None:
                journal.has_entries, journal.started_at = store.has_entries, store.started_at
                journal.earlier_marks = store.earlier_marks
        return journal

    async def _take_up(self, on_begin: Callable[[int], None] | None) -> None:
        if on_begin is not None:
            self._taking_up.on_begin = lambda count: self._loop.call_soon_threadsafe(partial(on_begin, count))
        future = asyncio.wrap_future(self._threads.submit(self._guarded, _nothing))
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            try:
                with suppress(ConfigError):  # nobody asks for it any more
                    await through(future, self._taking_up.cancel)
            finally:
                await self.end(is_complete=False)
            raise
        except ConfigError:
            self._threads.close()
            raise

    def describe_by(self, describe: Describe, *, notes_are_final: bool) -> None:
        """Say what becomes of what is noted.

        Args:
            describe: Called in the journal's thread with what was noted, returns what is kept of it.
            notes_are_final: Whether what arrived is final; else `settle` says so later.
        """
        self._describe, self._notes_are_final = describe, notes_are_final

    @property
    def is_kept(self) -> bool:
        """Whether what is recorded is really kept; not while another process has the journal, or after a failure."""
        return not self._is_off

    # --- small objects ---------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Return when the run is known, though nothing has arrived: for who has to know later when it began."""
        await self._do(_nothing)

    async def find(self, names: Sequence[str]) -> dict[str, Entry]:
        """Return what is known from before of those of *names* that have finished."""
        if not self.has_entries or not names:
            return {}
        return await self._do(lambda store: store.find(names)) or {}

    def note(self, thing: Any) -> None:
        """Keep within 0.1 s that the bytes of *thing*, whatever `describe` knows, arrived. `flush` waits for it."""
        self._noted.append(thing)
        if self._timer is None:
            self._timer = self._loop.call_later(_NOTED_SECONDS, self._write_noted)

    async def flush(self) -> None:
        """Return when a kill does not lose anything of what was told before."""
        self._write_noted()
        if self._asked != self._answered and self._latest is not None:
            # One thread: everything before it is written then, too. Shielded: what is asked for is written in any case.
            await asyncio.shield(asyncio.wrap_future(self._latest))

    async def sync(self) -> None:
        """Return when a loss of power, too, loses nothing of what was told before: once for each large object."""
        self._write_noted()
        self._do_soon(Store.sync)
        await self.flush()

    def settle(self, digests: Sequence[bytes]) -> None:
        """Keep within 0.1 s that the objects of *digests* (`digest_of` their names) are final."""
        self._settled += digests
        if self._timer is None:
            self._timer = self._loop.call_later(_NOTED_SECONDS, self._write_noted)

    def add_settled(self, things: Sequence[Any]) -> None:
        """Keep that *things* are there and final; nobody waits for it."""
        if things:
            self._do_soon(lambda store: self._add_final(store, things))

    def _write_noted(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._noted or self._settled:
            noted, self._noted = self._noted, []
            settled, self._settled = self._settled, []
            self._do_soon(lambda store: self._add(store, noted, settled))

    def _add(self, store: Store, noted: Sequence[Any], settled: Sequence[bytes]) -> None:
        finished = list(self._describe(noted))
        if finished or settled:
            store.add(finished, settled=settled, are_final=self._notes_are_final)

    def _add_final(self, store: Store, things: Sequence[Any]) -> None:
        finished = list(self._describe(things))
        if finished:
            store.add(finished, are_final=True)

    # --- large objects ---------------------------------------------------------------------------------------

    async def begun(self, names: Sequence[str]) -> list[str]:
        """Return those of *names* that are large objects begun before."""
        if not self.has_entries or not names:
            return []
        return await self._do(lambda store: store.begun(names)) or []

    async def recall_large(self, name: str) -> LargeState:
        """Return what is known of a large object; nothing, when it was not begun before."""
        known = await self._do(lambda store: store.large(name)) if self.has_entries else None
        facts, parts = known or ({}, [])
        return LargeState(self, name, facts, parts)

    async def half_received(self) -> frozenset[str] | None:
        """Return the paths of half-received files that this run or another knows; None: that cannot be told now."""
        return await self._do(lambda store: all_unfinished_files(self._folder))

    def new_large(self, name: str, facts: Mapping[str, Any]) -> LargeState:
        """Return where the parts of a large object are told; *facts* are kept with them."""
        return LargeState(self, name, facts, ())

    def begin_large(self, name: str, facts: Mapping[str, Any]) -> None:
        """Keep that a large object was begun, in place of what was known of it; nobody waits for it."""
        kept = dict(facts)
        self._do_soon(lambda store: self._replace_large(store, name, kept))

    def add_parts(self, name: str, parts: Sequence[KnownPart]) -> None:
        """Keep that parts of a large object are there; nobody waits for it, `flush` does."""
        self._do_soon(lambda store: store.add_parts(name, parts))

    def end_large(self, name: str) -> None:
        """Forget the parts of a large object, and the file of one that is half received; nobody waits for it."""
        self._do_soon(lambda store: self._replace_large(store, name, None))

    def _replace_large(self, store: Store, name: str, facts: Mapping[str, Any] | None) -> None:
        file = unfinished_file(store.large_facts(name))
        if file is not None and file != unfinished_file(facts):  # nobody would know of it any more
            self._unlink([file])
        if facts is None:
            store.end_large(name)
        else:
            store.begin_large(name, facts)

    # --- the end ---------------------------------------------------------------------------------------------

    async def end(self, *, is_complete: bool, state: str = "stopped") -> None:
        """Write what is left; forget the run if *is_complete*, else keep it as *state*. Calling it again does nothing.

        A retry forgets the run only when nothing else is left of it. One that has no other witness, and came to its end
        (*state* ``failed``), is kept only as far as something is half-moved. A cancellation is raised when all is done.
        """
        for timer in (self._heartbeat, self._again):
            if timer is not None:
                timer.cancel()
        if os.getpid() != self._pid or self._is_ended:
            return  # the parent's, after a fork; or there was an end
        if is_complete and self._store is None and self._asked == self._answered:
            self._noted, self._settled = [], []  # nothing was written as yet, and nothing has to be
        self._write_noted()
        self._is_ended = True
        try:
            if self._store is not None or self._was_lost or self._asked != self._answered:
                await through(asyncio.wrap_future(self._threads.submit(self._end, is_complete, state)))
        finally:
            self._is_off = True
            self._store = None
            self._threads.close()

    def _end(self, is_complete: bool, state: str) -> None:
        """Remove or release what there is, also what this run could not keep to its end. Runs in the thread."""
        if self._store is not None:
            self._guarded(partial(self._conclude, is_complete=is_complete, state=state))
            if self._store is not None:
                return  # kept to its end
        if self._was_lost:
            is_retry = self.record.retried is not None  # what else is left of the run nobody knows then
            last = "stopped" if is_retry else None if is_complete else state
            files: list[Path] = []
            with suppress(sqlite3.Error, UnicodeDecodeError, ConfigError):
                files = unfinished_files(self._path)
            try:
                give_up(self._path, last, forgets_finished=last is not None and self._is_over(False, last))
                if not self._path.exists():
                    self._unlink(files)
            except (sqlite3.Error, OSError, ConfigError) as error:  # its lock is free: whoever comes next takes it over
                _logger.info("the journal %s stays as it is: %s", self._path, error)

    def _is_over(self, is_complete: bool, state: str) -> bool:
        """Whether what has finished need not be known any more."""
        return is_complete or (state == "failed" and self.record.is_sole_witness)

    def _conclude(self, store: Store, *, is_complete: bool, state: str) -> None:
        retried = self.record.retried
        if not self.stays_when_empty and store.knows_nothing():
            self._forget(store)
        elif retried is not None and not store.is_rest:
            store.release("stopped")  # as the run was that it is part of: more is left of that than what failed
        elif not self._is_over(is_complete, state):
            store.release(state)
        elif is_complete and retried is None:
            self._forget(store)
        else:
            if self.record.is_sole_witness:
                # Which were met while nothing was kept, nobody knows: they stay until the next whole run.
                gone = store.forget_finished(forgets_unmet=retried is None and self.sessions == 1)
                self._unlink([file for facts in gone if (file := unfinished_file(facts)) is not None])
            if store.has_large():
                store.release("failed")
            else:
                self._forget(store)

    def _forget(self, store: Store) -> None:
        """Forget the run, and with it what is half received of objects that failed: nobody goes on with that."""
        files: list[Path] = []
        with suppress(sqlite3.Error, UnicodeDecodeError):  # damaged by now: nobody can say what it had begun
            files = unfinished_files(self._path)
        store.remove()
        self._unlink(files)

    @staticmethod
    def _unlink(files: Sequence[Path]) -> None:
        for file in files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                _logger.warning("%s: what is half received remains: %s", file, error.strerror)

    # --- the thread ------------------------------------------------------------------------------------------

    async def _do(self, function: Callable[[Store], T]) -> T | None:
        if self._is_off:
            return None
        return await self._threads.run(self._guarded, function)

    def _do_soon(self, function: Callable[[Store], object]) -> None:
        if not self._is_off:
            self._asked += 1
            self._latest = self._threads.submit(self._answer, function)

    def _answer(self, function: Callable[[Store], object]) -> None:
        try:
            self._guarded(function)
        finally:
            self._answered += 1

    def _guarded(self, function: Callable[[Store], T]) -> T | None:
        """Call *function* with the store, opened with the first call. Runs in the thread."""
        if self._is_off:
            return None
        try:
            return function(self._opened())
        except InUse as error:
            self._is_off = True
            self._tell_off(f"{error}; this run keeps no journal", self.record.run_id)
        except ConfigError:  # of a later release, which `open` found out; a ValueError, too
            self._is_off = True
            raise
        except (sqlite3.Error, OSError, ValueError, OverflowError, struct.error) as error:
            if self._taking_up.is_cancelled:
                self._is_off = True  # what was there is still there
            else:
                self._give_up(error)
        return None

    def _opened(self) -> Store:
        if self._store is None:
            if not self._path.exists():
                tidy(self._folder)
            self._store = Store.open(self._path, self.record, self._taking_up, is_again=self._was_lost)
            self._loop.call_soon_threadsafe(self._kept)
        return self._store

    def _give_up(self, error: Exception) -> None:
        self._is_off = True
        store, self._store = self._store, None
        try:
            if store is not None and is_damage(error):
                set_aside(self._path, str(error))  # as long as it is ours
        finally:
            if store is not None:
                store.close()
        self._tell_off(f"cannot be kept ({error}); the run goes on without one", f"the journal {self._path}")

    def _tell_off(self, reason: str, subject: str) -> None:
        """Say once that nothing is kept, and have it tried again."""
        is_told, self._is_told, self._was_lost = self._is_told, True, True
        _logger.log(logging.DEBUG if is_told else logging.WARNING, "%s: %s", subject, reason)
        self._loop.call_soon_threadsafe(self._lost, "" if is_told else reason)

    # --- kept again, in the event loop -----------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        if self._is_ended:
            return
        self._again = self._loop.call_later(_AGAIN_SECONDS, self._try_again)
        if reason and self._on_change is not None:
            self._on_change(False, reason)

    def _try_again(self) -> None:
        self._is_off = False
        self.sessions += 1
        self._do_soon(_nothing)

    def _kept(self) -> None:
        if self._is_off or self._is_ended:
            return
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self._heartbeat = self._loop.call_later(_HEARTBEAT_SECONDS, self._say_something)
        if self._is_told:
            self._is_told = False
            _logger.warning("the journal %s is kept again, of what is done from now on", self._path)
            if self._on_change is not None:
                self._on_change(True, "what is done from now on is kept")

    def _say_something(self) -> None:
        if not self._is_off:
            self._do_soon(Store.touch)
            self._heartbeat = self._loop.call_later(_HEARTBEAT_SECONDS, self._say_something)


def _nothing(store: Store) -> None:
    """Have the store opened, and wait for the thread."""
