"""What a crew does for one run: which transfers wait, which are given to whom, and what came of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.crew.channel import CannotCross, pickled
from asyncsdk.engine.crew.processes import Member
from asyncsdk.engine.crew.wire import (
    can_cross,
    error_of,
    kept,
    note_crash,
    noted,
    outcome_of,
    pack_end,
    pack_error,
    pack_transfer,
)
from asyncsdk.engine.feed import Feed, is_judge, renewed
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.parted.state import Resume
from asyncsdk.engine.performing import is_large
from asyncsdk.engine.transfers import Download, Outcome, Upload, describe_source, describe_target
from asyncsdk.engine.waits import WaitReason
from asyncsdk.errors import AsyncSDKError, ConfigError, TransferError, WorkerCrashed

if TYPE_CHECKING:
    from asyncsdk.engine.crew.crew import Crew

__all__ = ["MAX_CRASHES", "Given", "Guard", "Shift", "wait_whatever"]

MAX_CRASHES = 3
"""A transfer that was under way in so many crashes, the last time alone, fails."""

Guard = Callable[[Callable[[], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]]


class Given:
    """A transfer on its way through a crew.

    Attributes:
        member: Who moves it; None: it waits.
        crashes: How many workers ended while they held it.
    """

    __slots__ = ("crashes", "is_large", "member", "number", "transfer")

    def __init__(self, number: int, transfer: Upload | Download, is_large: bool) -> None:
        self.number = number
        self.transfer = transfer
        self.is_large = is_large
        self.crashes = 0
        self.member: Member | None = None


class Shift:
    """One run's side of a crew.

    Args:
        number: Names the run in messages.
        feed: Who is asked for fresh URLs, one call at a time for each transfer.
        meter: Counts what moved.
        finish: Takes outcomes.
        give_back: Takes transfers that the crew will not move after all.
        on_pulled: Called after small transfers stopped waiting.
        on_failure: Takes what ends the run.
        guard: Awaits a coroutine function; what it raises ends the run.
    """

    def __init__(
        self,
        crew: Crew,
        number: int,
        config: TransferConfig,
        feed: Feed,
        meter: Meter,
        finish: Callable[[Outcome], None],
        give_back: Callable[[Upload | Download], None],
        on_pulled: Callable[[], None],
        on_failure: Callable[[Exception], None],
        guard: Guard,
    ) -> None:
        self._crew = crew
        self._number = number
        self._config = config
        self._feed = feed
        self._meter = meter
        self._finish = finish
        self._give_back = give_back
        self._on_pulled = on_pulled
        self._on_failure = on_failure
        self._guard = guard
        self._asking: set[asyncio.Task[None]] = set()
        self._last = 0
        self._given: dict[int, Given] = {}
        self._small: deque[Given] = deque()
        self._large: deque[Given] = deque()
        self._suspects: tuple[deque[Given], ...] = tuple(deque() for _ in range(MAX_CRASHES))
        self._counted: dict[Member, int] = {}  # bytes that count, of what a member has not finished
        self._cpu_shares: dict[int, float] = {}
        self._is_over = False
        self._is_giving_back = False
        self._left: list[Upload | Download] = []
        self._stopping: set[Member] = set()
        self._has_stopped = asyncio.Event()

    def __len__(self) -> int:
        """Small transfers that wait."""
        return len(self._small)

    # --- the run's side --------------------------------------------------------------------------------------

    def takes(self, transfer: Upload | Download) -> bool:
        """Whether workers are there for *transfer*; asking may start them."""
        return can_cross(transfer) and not self._is_giving_back and self._crew.is_there_for(transfer)

    def put(self, transfer: Upload | Download) -> None:
        """Queue *transfer*."""
        self._last += 1
        given = Given(self._last, transfer, is_large(transfer, self._config))
        if given.is_large and isinstance(transfer, Upload) and transfer.resume is None:
            # A worker that is killed leaves the next one an upload that is begun, or gone because the object was made.
            transfer.resume = Resume(keeps_parts=False)
        self._given[given.number] = given
        (self._large if given.is_large else self._small).append(given)
        self._crew.wake()

    @property
    def is_busy(self) -> bool:
        """Whether workers move something of it."""
        return bool(self._given)

    @property
    def idle_places(self) -> int:
        """How many more transfers workers would have in flight if they were given them."""
        return self._crew.idle_places()

    def drop_waiting(self) -> int:
        """Forget what no worker was given yet; returns how many."""
        waiting = [*self._small, *self._large]
        for given in waiting:
            del self._given[given.number]
        self._small.clear()
        self._large.clear()
        return len(waiting)

    async def aclose(self) -> None:
        """Stop what is under way, and return when nothing of it is left anywhere. Cancelling it does not hurry it.

        What workers had done is finished before. A worker that does not stop in time is killed.
        """
        self._is_over = True
        for queue in (self._small, self._large, *self._suspects):
            queue.clear()
        self._left = [given.transfer for given in self._given.values() if given.member is None]
        holding = {given.member for given in self._given.values() if given.member is not None}
        self._stopping = holding
        for member in {*holding, *self._counted}:
            member.send(("stop", self._number))
        if holding:
            stopped = asyncio.ensure_future(self._has_stopped.wait())
            await wait_whatever(stopped, self._config.cleanup_seconds + self._crew.patience_seconds)
            for member in self._stopping:
                member.kill()
            await wait_whatever(stopped)
        self._crew.forget(self._number)
        while self._asking:
            for task in self._asking:
                task.cancel()
            await wait_whatever(asyncio.gather(*self._asking, return_exceptions=True))

    def left(self) -> list[Upload | Download]:
        """Return what has no outcome after `aclose`; asked again, nothing."""
        left, self._left = self._left, []
        return left

    # --- giving ----------------------------------------------------------------------------------------------

    def waiting(self, caution: int) -> int:
        """Return how many wait that were in *caution* crashes."""
        return len(self._suspects[caution]) if caution else len(self._small) + len(self._large)

    def give(self, member: Member, caution: int, small: int, large: int) -> int:
        """Send *member* up to so many transfers that were in *caution* crashes; returns how many.

        Args:
            small: How many at most that go by one request; of suspects, how many at all.
            large: How many at most that go by many.
        """
        if caution:
            chosen = _first(self._suspects[caution], small)
        else:
            chosen = _first(self._small, small) + _first(self._large, large)
        if not chosen:
            return 0
        try:
            self._send(member, chosen)
        except CannotCross:  # one of them holds an object of the caller's own class: a kind of string, of mapping
            chosen = [given for given in chosen if self._crosses(given)]
            self._send(member, chosen)
            self._crew.wake()
        self._counted.setdefault(member, 0)
        for given in chosen:
            given.member = member
            if given.is_large:
                member.large += 1
                self._meter.watch.object_started(given.transfer)
            else:
                member.small += 1
        self._on_pulled()
        return len(chosen)

    def _send(self, member: Member, chosen: list[Given]) -> None:
        rows = [pack_transfer(given.number, given.transfer) for given in chosen]
        member.send(("rows", self._number, rows, (is_judge(self._feed), self._meter.watch.is_heard)))

    def _crosses(self, given: Given) -> bool:
        """Whether another process can read it; if not, this one moves it."""
        try:
            pickled(pack_transfer(given.number, given.transfer))
        except CannotCross:
            del self._given[given.number]
            self._is_giving_back = True
            self._give_back(given.transfer)
            self._is_giving_back = False
            return False
        return True

    # --- what workers say ------------------------------------------------------------------------------------

    def seen(self, member: Member, size_bytes: int, waits: Mapping[str, float], cpu_share: float) -> None:
        """Count what a worker saw: bytes that it moved, or took back, seconds that its places waited; and how busy its
        processor is."""
        self._meter.bytes_moved += size_bytes
        self._counted[member] = self._counted.get(member, 0) + size_bytes
        for reason, seconds in waits.items():
            self._meter.watch.waits.add(WaitReason(reason), seconds)
        self._cpu_shares[member.number] = cpu_share
        self._meter.watch.waits.cpu_elsewhere = max(self._cpu_shares.values())

    def take_outcomes(self, member: Member, rows: list[tuple[Any, ...]]) -> None:
        """Finish what a worker finished."""
        for row in rows:
            given = self._given.pop(row[0], None)
            if given is None or given.member is not member:
                continue  # another worker has it by now; cannot be, and would be told twice
            _unload(member, given)
            outcome = outcome_of(row, given.transfer)
            if outcome.error is None:
                self._counted[member] -= outcome.size_bytes
            self._finish(outcome)

    def renew(self, member: Member, asked: int, number: int, first_part: int | None) -> None:
        """Ask the feed for what a worker needs, and answer it; without *first_part*, when all that it noted is kept."""
        given = self._given.get(number)
        if given is not None and not self._is_over:
            ask = partial(self._renew, member, asked, given.transfer, first_part)
            task = asyncio.get_running_loop().create_task(self._guard(ask))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _renew(self, member: Member, asked: int, transfer: Upload | Download, first_part: int | None) -> None:
        fresh, error = None, None
        try:
            if first_part is None:
                await kept(transfer)
            else:
                fresh = await renewed(self._feed, transfer, first_part=first_part)
            if fresh is not None:
                self._meter.watch.renewed(transfer.name, first_part or 1)
        except AsyncSDKError as refused:
            error = pack_error(refused)  # fails this transfer, there as it would here
        try:
            member.send(("renewed", self._number, asked, pack_end(fresh), error))
        except CannotCross as found:
            error = pack_error(ConfigError(f"what renew gave cannot be read by a worker process: it holds a {found}"))
            member.send(("renewed", self._number, asked, None, error))

    def fail(self, error: Exception) -> None:
        """End the run because of a mistake."""
        self._on_failure(error)

    def note(self, number: int, what: str, facts: tuple[Any, ...]) -> None:
        """Remember what a worker found out of a transfer that can be gone on with later."""
        given = self._given.get(number)
        if given is not None:
            noted(given.transfer, what, facts)

    def retried(self, retries: list[tuple[str, int, float, Any]]) -> None:
        """Tell whoever listens what a worker tries again."""
        for name, attempt, wait_seconds, error in retries:
            self._meter.watch.retried(name, attempt, wait_seconds, error_of(error))

    def broke(self, error: Any) -> None:
        """End the run: a worker made a mistake, or its engine cannot work at all."""
        if isinstance(error, tuple):
            self._on_failure(error_of(error))
        else:
            self._on_failure(TransferError(f"a worker process made a mistake ({error}); see the log"))

    def stopped(self, member: Member) -> None:
        """Take back what *member* held: it has stopped this run, because it was told to or is to end, and left nothing
        of it."""
        self.lost(member, "", is_crash=False)

    def _drop(self, member: Member) -> list[Given]:
        """Take from *member* what it held, uncounted."""
        lost = [given for given in self._given.values() if given.member is member]
        for given in lost:
            del self._given[given.number]
            _unload(member, given)
            given.member = None
        self._meter.bytes_moved -= self._counted.pop(member, 0)
        return lost

    # --- when one crashed ------------------------------------------------------------------------------------

    def sinks_of(self, member: Member) -> list[str]:
        """Return where the downloads that *member* holds are to appear."""
        return [str(transfer.sink) for transfer in self._downloads_of(member)]

    def kept_of(self, member: Member) -> list[str]:
        """Return the half-received files of what *member* holds that can be gone on with."""
        received = [transfer.received for transfer in self._downloads_of(member)]
        return [one.unfinished.temporary for one in received if one is not None and one.unfinished is not None]

    def _downloads_of(self, member: Member) -> Iterator[Download]:
        for given in self._given.values():
            if given.member is member and isinstance(given.transfer, Download):
                yield given.transfer

    def lost(self, member: Member, how: str, *, is_crash: bool) -> None:
        """Queue again what *member* held when it ended, or fail what was in too many crashes."""
        for given in self._drop(member):
            given.crashes += is_crash
            if is_crash:
                note_crash(given.transfer)
            if self._is_over:
                self._left.append(given.transfer)
                continue
            if given.crashes >= MAX_CRASHES:
                self._finish(_crashed(given, how))
            else:
                self._given[given.number] = given
                self._queue_again(given)
        self._stopping.discard(member)
        if not self._stopping:
            self._has_stopped.set()

    def _queue_again(self, given: Given) -> None:
        if given.crashes:
            self._suspects[given.crashes].append(given)
        else:
            (self._large if given.is_large else self._small).append(given)

    def give_all_back(self) -> None:
        """Give everything that waits back to the run."""
        for queue in (*self._suspects, self._small, self._large):
            for given in _first(queue, len(queue)):
                del self._given[given.number]
                self._give_back(given.transfer)


def _first(queue: deque[Given], count: int) -> list[Given]:
    return [queue.popleft() for _ in range(min(count, len(queue)))]


def _unload(member: Member, given: Given) -> None:
    if given.is_large:
        member.large -= 1
    else:
        member.small -= 1


def _crashed(given: Given, how: str) -> Outcome:
    transfer = given.transfer
    if isinstance(transfer, Upload):
        source, destination = describe_source(transfer.source), describe_target(transfer.target)
    else:
        source, destination = "", str(transfer.sink)
    error = WorkerCrashed(transfer.name, how, given.crashes, source=source, destination=destination)
    return Outcome(transfer, "failed", error=error, attempts=given.crashes)


async def wait_whatever(future: asyncio.Future[Any], timeout: float | None = None) -> None:
    """Wait until *future* is done, or so many seconds, whatever cancels the wait."""
    loop = asyncio.get_running_loop()
    until = None if timeout is None else loop.time() + timeout
    while not future.done():
        left = None if until is None else until - loop.time()
        if left is not None and left <= 0:
            return
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((future,), timeout=left)
