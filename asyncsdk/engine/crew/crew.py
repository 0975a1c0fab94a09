"""The workers of one engine: when they start, who gets what, and what happens when one ends by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import GiB, TransferConfig
from asyncsdk.engine.crew.channel import CannotCross
from asyncsdk.engine.crew.leftovers import remove_leftovers
from asyncsdk.engine.crew.processes import Member
from asyncsdk.engine.crew.shares import has_rates, shares_of, worker_config
from asyncsdk.engine.crew.shift import MAX_CRASHES, Guard, Shift, wait_whatever
from asyncsdk.engine.feed import Feed
from asyncsdk.engine.limits import Limits
from asyncsdk.engine.limits.pilot import SMALL_START
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.targets import MultipartTarget
from asyncsdk.transport.threads import Threads

__all__ = ["Crew"]

_log = logging.getLogger("asyncsdk.engine")

START_SECONDS = 1.0
"""A run that goes on after so long starts the workers: until then it might have been over before they are there (each
takes half a second of a core to start)."""

START_BYTES = 1 * GiB
"""So many bytes of known size start them at once: that is more than a second of work for one loop."""

_WORK_SECONDS = 0.3
"""For how long a worker is given work, by its own measured rate: enough that it never waits, little enough that all
workers end at about the same time, for nothing is taken back."""

_WINDOW_SECONDS = 0.1
_BATCH = 64
_MOST_SMALL = 4096
_CRASH_SECONDS = 60.0

_PATIENCE_SECONDS = 5.0
"""How long workers may take to end when told to, before they are killed."""


class Crew:
    """Worker processes that move transfers of the runs of one engine, while everything else stays with their parent.

    Nothing is started before a run is long enough to pay. A worker that ends by itself is replaced, and what it held is
    given out again: at most `MAX_CRASHES` times, the second time only beside others that were in a crash, the third
    time alone. When so many crash within a minute and nothing is finished in between, the parent goes on alone.

    Args:
        config: Settings of the engine; its limits are for all workers together.
        limits: Those that may change while it runs. With one per second, nothing new is given out.
        threads: For what blocks.
    """

    def __init__(self, config: TransferConfig, limits: Limits, threads: Threads) -> None:
        self.patience_seconds = 2.0
        self._config = config
        self._limits = limits
        self._threads = threads
        self._state: Literal["idle", "starting", "up", "alone", "closed"] = "idle"
        self._members: list[Member | None] = [None] * config.processes
        self._shifts: dict[int, Shift] = {}
        self._last_shift = 0
        self._known_bytes = 0
        self._since = 0.0
        self._is_woken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)
        self._finished: dict[Member, tuple[float, int]] = {}  # since when, how many
        self._have_ended = asyncio.Event()
        self._has_said_so = False

    @property
    def pids(self) -> list[int]:
        """The workers that are ready, by their numbers at the system."""
        return [pid for member in self._ready() if (pid := member.pid) is not None]

    @property
    def is_alone(self) -> bool:
        """Whether the use of processes ended because they crashed again and again."""
        return self._state == "alone"

    # --- runs ------------------------------------------------------------------------------------------------

    def shift(
        self,
        feed: Feed,
        meter: Meter,
        *,
        finish: Callable[[Outcome], None],
        give_back: Callable[[Upload | Download], None],
        on_pulled: Callable[[], None],
        on_failure: Callable[[Exception], None],
        guard: Guard,
    ) -> Shift:
        """Return what one run puts its transfers into; see `Shift` for the arguments."""
        self._last_shift += 1
        shift = Shift(
            self, self._last_shift, self._config, feed, meter, finish, give_back, on_pulled, on_failure, guard
        )
        if not self._shifts:
            self._since, self._known_bytes = time.monotonic(), 0
        self._shifts[self._last_shift] = shift
        return shift

    def forget(self, number: int) -> None:
        """A run has ended."""
        self._shifts.pop(number, None)

    def is_there_for(self, transfer: Upload | Download) -> bool:
        """Whether workers are there; starts them when there is more to do than pays for that."""
        if has_rates(self._limits):
            self._say_that_rates_need_one_process()
            return False
        if self._state == "idle":
            self._known_bytes += _known_size(transfer)
            if self._known_bytes >= START_BYTES or time.monotonic() - self._since >= START_SECONDS:
                self.start()
        return self._state == "up"

    def wait_no_longer(self) -> None:
        """Let what waits for a server that is out fail, see `Origins.wait_no_longer`."""
        for member in self._ready():
            member.send(("wait_no_longer",))

    def idle_places(self) -> int:
        """Return how many more transfers workers would have in flight if they were given them."""
        return sum(max(0, member.slots - member.load) for member in self._ready())

    def _say_that_rates_need_one_process(self) -> None:
        if not self._has_said_so:
            self._has_said_so = True
            _log.warning(
                "processes=%d has no effect while there is a limit per second (bandwidth, requests_per_second): such a "
                "limit is held by one process, exactly",
                self._config.processes,
            )

    def wake(self) -> None:
        """Give out what waits, in the next turn of the event loop: then there is a batch of it."""
        if not self._is_woken:
            self._is_woken = True
            asyncio.get_running_loop().call_soon(self._give_out)

    # --- who gets what ---------------------------------------------------------------------------------------

    def _ready(self) -> list[Member]:
        return [member for member in self._members if member is not None and member.is_ready and member.is_wanted]

    def _give_out(self) -> None:
        self._is_woken = False
        members = self._ready()
        if not members or self._state != "up" or not any(self._waiting(level) for level in range(MAX_CRASHES)):
            return
        self._tell_folder(members)
        # A batch each in turns, so that the first does not take everything.
        while members:
            members.sort(key=lambda member: member.load)
            members = [member for member in members if self._give_batch(member, len(members))]

    def _give_batch(self, member: Member, sharing: int) -> bool:
        """Give *member* what it may have, at most a batch; whether that was anything."""
        if not member.load:
            member.caution = next((level for level in (2, 1) if self._waiting(level)), 0)
        caution = member.caution
        waiting = self._waiting(caution)
        if not waiting:
            return False
        if caution:
            small, large = (1 if caution == MAX_CRASHES - 1 else member.slots) - member.load, 0
        else:
            small = min(max(2 * member.slots, int(member.rate * _WORK_SECONDS)), _MOST_SMALL) - member.small
            large = min(1, member.large_slots - member.large)  # one each in turns
        small, large = min(max(0, small), _BATCH, -(-waiting // sharing)), max(0, large)
        given = 0
        for number in list(self._shifts):
            if small <= 0 and large <= 0:
                break
            shift = self._shifts.pop(number)
            self._shifts[number] = shift  # the last in line next time
            was_small, was_large = member.small, member.large
            given += shift.give(member, caution, small, large)
            more_small, more_large = member.small - was_small, member.large - was_large
            small -= more_small + (more_large if caution else 0)
            large -= 0 if caution else more_large
        return given > 0

    def _waiting(self, caution: int) -> int:
        return sum(shift.waiting(caution) for shift in self._shifts.values())

    def _tell_folder(self, members: list[Member]) -> None:
        """Let relative paths mean the same everywhere."""
        try:
            folder = os.getcwd()  # noqa: PTH109  # once for each batch, and only told
        except FileNotFoundError:
            return  # it was removed; so it is for those who stand in it
        for member in members:
            if member.folder != folder:
                member.folder = folder
                member.send(("folder", folder))

    # --- what workers say ------------------------------------------------------------------------------------

    def _on_message(self, member: Member, message: tuple[Any, ...]) -> None:
        kind, *rest = message
        if kind == "ready":
            member.is_ready = True
            if self._state == "starting":
                self._state = "up"
            self._tell_share(member)
            self.wake()
        elif kind == "log":
            name, level, text = rest
            logging.getLogger(name).log(level, "%s", text)
        elif (shift := self._shifts.get(rest[0])) is not None:
            try:
                self._tell(shift, member, kind, rest)
            except Exception as error:  # noqa: BLE001  # a mistake in this package ends the run instead of hanging it
                shift.fail(error)

    def _tell_share(self, member: Member) -> None:
        """Tell *member* its share of the limits, if that is another than it knows of."""
        share = shares_of(self._limits, len(self._members))[member.number]
        if member.share != share:
            member.share = share
            member.send(("share", share))

    def _tell(self, shift: Shift, member: Member, kind: str, rest: list[Any]) -> None:
        if kind == "outcomes":
            _, seen, rows = rest
            self._crashes.clear()
            self._rate(member, len(rows))
            shift.seen(member, *seen)
            shift.take_outcomes(member, rows)
            self.wake()
        elif kind == "moved":
            shift.seen(member, *rest[1])
            self._tell_share(member)
        elif kind == "note":
            shift.note(*rest[1:])
        elif kind == "retried":
            shift.retried(rest[1])
        elif kind == "renew":
            shift.renew(member, *rest[1:])
        elif kind == "broke":
            shift.broke(rest[1])
        elif kind == "stopped":
            shift.seen(member, *rest[1])
            shift.stopped(member)
            self.wake()

    def _rate(self, member: Member, count: int) -> None:
        now = time.monotonic()
        since, before = self._finished.get(member, (now, 0))
        if now - since >= _WINDOW_SECONDS:
            member.rate = (before + count) / (now - since)
            self._finished[member] = now, 0
        else:
            self._finished[member] = since, before + count

    # --- their lives -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers, unless that was done; until the first is ready nothing is given to them."""
        if self._state != "idle":
            return
        self._state = "starting"
        for number in range(len(self._members)):
            self._replace(number)

    def _replace(self, number: int) -> None:
        self._have_ended.clear()
        config = worker_config(self._config, number, process_budget().limit_bytes)
        slots = min(config.most_concurrency, SMALL_START)
        member = Member(number, slots, config.large_objects, self._on_message, self._on_end)
        self._members[number] = member
        level = logging.getLogger("asyncsdk").getEffectiveLevel()
        self._spawn(self._begin(member, ("hello", config, member.mark, level)))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, member: Member, hello: tuple[Any, ...]) -> None:
        try:
            await member.start(self._threads, hello)
        except (OSError, CannotCross) as error:
            self._is_over(member, f"not starting ({error})")
            return
        if self._state in {"alone", "closed"}:
            member.dismiss()

    def _on_end(self, member: Member) -> None:
        member.is_ready = False
        self._spawn(self._clean_up(member))

    async def _clean_up(self, member: Member) -> None:
        """See what is left of a worker that says nothing more, then let others have what it held."""
        how = "an unknown cause"
        try:
            how = await member.wait(self._threads)
            sinks = [sink for shift in self._shifts.values() for sink in shift.sinks_of(member)]
            if sinks:
                kept = {path for shift in self._shifts.values() for path in shift.kept_of(member)}
                folders = {os.path.dirname(sink) for sink in sinks}  # noqa: PTH120  # as sinks name them
                await self._threads.run(remove_leftovers, {member.mark}, folders, kept)
        finally:
            self._is_over(member, how)

    def _is_over(self, member: Member, how: str) -> None:
        is_crash = member.is_wanted
        self._members[member.number] = None
        self._finished.pop(member, None)
        for shift in list(self._shifts.values()):
            shift.lost(member, how, is_crash=is_crash)
        if not any(self._members):
            self._have_ended.set()
        if self._state not in {"alone", "closed"}:
            if not (is_crash and self._is_one_too_many(how)):
                self._replace(member.number)
                self.wake()
                return
            self._go_on_alone(how)
        for shift in list(self._shifts.values()):
            shift.give_all_back()

    def _is_one_too_many(self, how: str) -> bool:
        now = time.monotonic()
        self._crashes.append(now)
        _log.info("a worker process ended by itself: %s", how)
        return len(self._crashes) == MAX_CRASHES and now - self._crashes[0] <= _CRASH_SECONDS

    def _go_on_alone(self, how: str) -> None:
        _log.warning(
            "%d worker processes in a row ended before they had finished anything (the last: %s); going on in one "
            "process, at the speed of one",
            MAX_CRASHES,
            how,
        )
        self._state = "alone"
        for member in self._members:
            if member is not None:
                member.kill()

    async def aclose(self) -> None:
        """End all workers, and return when nothing is left of them. Cancelling it does not hurry it."""
        self._state = "closed"
        for member in self._members:
            if member is not None:
                member.dismiss()
        if any(self._members):
            ended = asyncio.ensure_future(self._have_ended.wait())
            await wait_whatever(ended, _PATIENCE_SECONDS)
            for member in self._members:
                if member is not None:
                    member.kill()
            await wait_whatever(ended)


def _known_size(transfer: Upload | Download) -> int:
    """Return what is known of the size of a transfer, in bytes, without looking."""
    if isinstance(transfer, Download):
        return transfer.origin.size_bytes or 0
    if transfer.size_bytes is None and isinstance(transfer.target, MultipartTarget):
        return transfer.target.part_size * len(transfer.target.part_urls)
    return transfer.size_bytes or 0
