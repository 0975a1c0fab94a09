"""The journal of one run, as feeds and transfers use it: asynchronous, one thread behind it, never in the way.

Nothing is made before there is something to keep, and what cannot be kept ends no transfer: a disk that is full or a
file that is damaged is said once in the log, and the run goes on as it would without a journal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from asyncsdk.engine.journal.catalogue import tidy
from asyncsdk.engine.journal.entries import Entry, Finished
from asyncsdk.engine.journal.large import LargeState
from asyncsdk.engine.journal.records import RunRecord, journal_folder
from asyncsdk.engine.journal.schema import SUFFIX, is_damage, set_aside
from asyncsdk.engine.journal.sorting import TakingUp
from asyncsdk.engine.journal.store import InUse, KnownPart, Store
from asyncsdk.errors import ConfigError
from asyncsdk.transport.threads import Threads

__all__ = ["Journal"]

_HEARTBEAT_SECONDS = 60.0

_logger = logging.getLogger("asyncsdk.journal")

_NOTED_SECONDS = 0.02
"""How long what arrived may wait for company: a page costs 0.1 ms, whatever is in it."""

T = TypeVar("T")

Describe = Callable[[Sequence[Any]], Iterable[Finished]]


def _as_they_are(things: Sequence[Any]) -> Iterable[Finished]:
    return things


class Journal:
    """Keeps what one run has done, so that the same call goes on after a kill.

    Made by `open`; `end` must be called. Belongs to one event loop and one process.

    Attributes:
        record: The run.
        has_entries: Whether something is known from before; else there is nothing to look up.
    """

    def __init__(self, home: Path, record: RunRecord) -> None:
        self.record = record
        self.has_entries = False
        self._folder = journal_folder(home)
        self._path = self._folder / f"{record.run_id}{SUFFIX}"
        self._threads = Threads(1)  # SQLite's connection is used by one thread at a time, in the order of the calls
        self._store: Store | None = None
        self._is_off = False
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
    async def open(cls, home: Path, record: RunRecord, *, on_begin: Callable[[int], None] | None = None) -> Journal:
        """Return the journal of *record* in the folder *home*, taken over when a process that is gone has left one.

        While another process works at the same run its journal is left alone, and this run keeps none. Putting in order
        what the other one left takes some seconds for a million objects; cancelling the call ends that and changes
        nothing.

        Args:
            on_begin: Called in the event loop, before that, with their number.

        Raises:
            ConfigError: There is one, of a later release.
        """
        journal = cls(home, record)
        if os.path.exists(journal._path):  # noqa: PTH110  # one look, 2 us: most runs have none
            await journal._take_up(on_begin)
            journal.has_entries = journal._store is not None and journal._store.has_entries
        return journal

    async def _take_up(self, on_begin: Callable[[int], None] | None) -> None:
        if on_begin is not None:
            self._taking_up.on_begin = lambda count: self._loop.call_soon_threadsafe(partial(on_begin, count))
        future = asyncio.wrap_future(self._threads.submit(self._guarded, _nothing))
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            self._taking_up.is_cancelled = True
            try:
                with suppress(ConfigError):  # nobody asks for it any more
                    await _through(future)
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

    async def find(self, names: Sequence[str]) -> dict[str, Entry]:
        """Return what is known from before of those of *names* that have finished."""
        if not self.has_entries or not names:
            return {}
        return await self._do(lambda store: store.find(names)) or {}

    def note(self, thing: Any) -> None:
        """Keep within 20 ms that the bytes of *thing*, whatever `describe` knows, arrived. `flush` waits for it."""
        self._noted.append(thing)
        if self._timer is None:
            self._timer = self._loop.call_later(_NOTED_SECONDS, self._write_noted)

    async def flush(self) -> None:
        """Return when a kill does not lose anything of what was told before."""
        self._write_noted()
        if self._asked != self._answered and self._latest is not None:
            # One thread: everything before it is written then, too. Shielded: what is asked for is written in any case.
            await asyncio.shield(asyncio.wrap_future(self._latest))

    def settle(self, digests: Sequence[bytes]) -> None:
        """Keep within 20 ms that the objects of *digests* (`digest_of` their names) are final."""
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

    def new_large(self, name: str, facts: Mapping[str, Any]) -> LargeState:
        """Return where the parts of a large object are told; *facts* are kept with them."""
        return LargeState(self, name, facts, ())

    def begin_large(self, name: str, facts: Mapping[str, Any]) -> None:
        """Keep that a large object was begun, in place of what was known of it; nobody waits for it."""
        kept = dict(facts)
        self._do_soon(lambda store: store.begin_large(name, kept))

    def add_part(self, name: str, part: KnownPart) -> None:
        """Keep that a part of a large object is there; nobody waits for it."""
        self._do_soon(lambda store: store.add_parts(name, (part,)))

    def end_large(self, name: str) -> None:
        """Forget the parts of a large object; nobody waits for it."""
        self._do_soon(lambda store: store.end_large(name))

    # --- the end ---------------------------------------------------------------------------------------------

    async def end(self, *, is_complete: bool, state: str = "stopped") -> None:
        """Write what is left; forget the run if *is_complete*, else keep it as *state*. Calling it again does nothing.

        A cancellation is raised when that is done.
        """
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if os.getpid() != self._pid:
            return  # the parent's, after a fork
        if is_complete and self._store is None and self._asked == self._answered:
            self._noted, self._settled = [], []  # nothing was written as yet, and nothing has to be
        self._write_noted()
        try:
            if self._store is not None or self._asked != self._answered:
                end: Callable[[Store], None] = Store.remove if is_complete else partial(Store.release, state=state)
                await _through(asyncio.wrap_future(self._threads.submit(self._guarded, end)))
        finally:
            self._is_off = True
            self._store = None
            self._threads.close()

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
            _logger.info("%s: %s; this run keeps no journal", self.record.run_id, error)
        except ConfigError:  # of a later release, which `open` found out; a ValueError, too
            raise
        except (sqlite3.Error, OSError, ValueError) as error:
            if self._taking_up.is_cancelled:
                self._is_off = True  # what was there is still there
            else:
                self._give_up(error)
        return None

    def _opened(self) -> Store:
        if self._store is None:
            if not self._path.exists():
                tidy(self._folder)
            self._store = Store.open(self._path, self.record, self._taking_up)
            self._loop.call_soon_threadsafe(self._beat)
        return self._store

    def _beat(self) -> None:
        if not self._is_off:
            self._heartbeat = self._loop.call_later(_HEARTBEAT_SECONDS, self._say_something)

    def _say_something(self) -> None:
        self._do_soon(Store.touch)
        self._beat()

    def _give_up(self, error: Exception) -> None:
        self._is_off = True
        store, self._store = self._store, None
        if store is not None:
            store.close()
        if is_damage(error):
            set_aside(self._path, str(error))
        else:
            _logger.warning("the journal %s cannot be kept (%s); the run goes on without one", self._path, error)


async def _through(future: asyncio.Future[None]) -> None:
    """Return when the thread is through, whatever cancels this task meanwhile; then it is cancelled.

    Who is cancelled twice (``asyncio`` knows no shield against that) must not leave a journal that nobody gave up:
    nobody else in this process could keep it any more.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
    failure = future.exception()
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure


def _nothing(store: Store) -> None:
    """Have the store opened, and wait for the thread."""
