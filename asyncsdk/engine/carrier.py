"""Who moves one transfer after the other in the express lane, without a task, a future or a thread for any.

A `Carrier` is itself the exchange that the lean transport calls back: when a reply is whole, it makes the outcome,
pulls the next transfer and begins it on the connection that just became free, all in the event loop's callback.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from asyncsdk.engine.conditional import may_have_arrived
from asyncsdk.engine.downloads import Fetch, NoRanges
from asyncsdk.engine.redirects import REDIRECTS
from asyncsdk.engine.small_downloads import MAX_SMALL_BYTES, SmallFetch
from asyncsdk.engine.small_uploads import SmallPut
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.work import UrlExpired, Work
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch, RequestError, ResponseError, SourceChanged
from asyncsdk.transport.base import Reply, Request, is_conditional
from asyncsdk.transport.lean import Exchange

if TYPE_CHECKING:
    from asyncsdk.engine.express import Express
    from asyncsdk.engine.limits.rates import Gate, Ticket

__all__ = ["STALL_SECONDS", "Carrier"]

_NOTHING = Request("GET", "")

STALL_SECONDS = 0.0005
"""From here on, opening and reading one small file, or putting one in place, was no matter of memory: a network disk
takes 1 ms, a turning one 10 ms. What is cached takes 0.03 ms."""

_PER_TURN = 32
"""Transfers that may end without a request before the event loop gets its turn."""

_PULLED_STEP = 8
"""Who fills the queue is told of so many at once, and when it is empty."""


class Carrier(Exchange):
    """Carries one transfer after the other while it has a slot."""

    __slots__ = (
        "_express",
        "_fetch",
        "_has_leave",
        "_has_slot",
        "_is_its_turn",
        "_is_pulling",
        "_leave_ticket",
        "_loop",
        "_put",
        "_small",
        "_spare",
        "_work",
    )

    def __init__(self, express: Express) -> None:
        super().__init__(_NOTHING)
        self._express = express
        self._loop = asyncio.get_running_loop()
        self._has_slot = False
        self._is_its_turn = False  # it waited for the slot it has
        self._is_pulling = False
        self._has_leave = False
        self._leave_ticket: Ticket | None = None
        self._work: Work | None = None
        # Used for one transfer after the other: making them takes 3 us.
        self._spare: Work | None = None
        self._put = SmallPut()
        self._fetch: Fetch | SmallFetch | None = None  # None: it carries an upload
        self._small = SmallFetch()

    # --- slots -----------------------------------------------------------------------------------------------

    def ask_for_slot(self) -> None:
        """Go on when there is a slot, in the next turn of the event loop if there is one."""
        slots = self._express.slots
        if slots.try_take():
            self._has_slot = True
            self._loop.call_soon(self._pull)
        else:
            slots.wait("small", self._take_slot)

    def _take_slot(self) -> bool:
        if self._express.is_over:
            return False
        self._has_slot = self._is_its_turn = True
        self._loop.call_soon(self._pull)
        return True

    def _release_slot(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._express.slots.release()

    def _pull(self) -> None:
        """Begin the next transfer; without one, wait without a slot."""
        if self._is_pulling:
            return  # what it is beginning just now ended at once
        express = self._express
        self._is_pulling = True
        left = _PER_TURN
        try:
            while express.queue and not express.held and not express.is_over:
                if not self._is_its_turn and express.slots.is_wanted:
                    if express.slots.used("small") > express.slots.small_limit:
                        break  # there are fewer by now
                    self._release_slot()  # one transfer each: back to the end of the line
                    self.ask_for_slot()
                    return
                if express.limits.requests is not None and not self._may_ask(express.limits.requests):
                    return
                if not left:
                    self._loop.call_soon(self._pull)
                    return
                left -= 1
                self._is_its_turn = False
                transfer = express.queue.popleft()
                if not len(express.queue) % _PULLED_STEP:
                    express.on_pulled()
                if self._begin(transfer):
                    return
        except Exception as error:  # noqa: BLE001  # a mistake in this package ends the run instead of hanging it
            self._broke(error)
        finally:
            self._is_pulling = False
        self._release_slot()
        if not express.is_over:
            express.idle.append(self)

    def _may_ask(self, requests: Gate) -> bool:
        """Whether one more request may begin now; else this goes on when it may."""
        if self._has_leave:
            self._has_leave = False
        elif requests.passes():
            requests.charge(1)
        else:
            self._leave_ticket = requests.wait(self._got_leave, 1)
            return False
        return True

    def _got_leave(self) -> None:
        self._leave_ticket = None
        self._has_leave = True
        self._pull()

    def _is_held(self, work: Work) -> bool:
        """Whether the server of *work* asked for a pause, or is out: it is put aside then.

        Raises:
            CircuitOpen: It has been out for too long.
        """
        url: str = work.end.url  # type: ignore[union-attr]  # see `takes`
        seconds = self._express.limits.origins.held_seconds(url)
        if seconds:
            self._express.parking.put(work.transfer, url, seconds)
        return seconds > 0

    # --- one transfer ----------------------------------------------------------------------------------------

    def _begin(self, transfer: Upload | Download) -> bool:
        """Send the request for *transfer*; False: nothing is under way, it was finished or handed over."""
        express = self._express
        work = self._spare
        if work is None:
            work = express.start(transfer)
        else:
            self._spare = None
            work.turn_to(transfer)
        started = monotonic()
        if started < express.detour_until:
            express.hand_over(work, None)
            return False
        if started >= express.horizon.due:
            express.horizon.look(work.resources.clocks, started)
        end = transfer.target if isinstance(transfer, Upload) else transfer.origin
        if end.expires_at is not None and end.expires_at < express.horizon.until:  # type: ignore[union-attr]  # see `takes`
            express.hand_over(work, None)  # a worker looks closer, and renews it first
            return False
        self._work = work
        try:
            if not express.limits.origins.is_clear and self._is_held(work):
                self._clear()
                return False
            if isinstance(transfer, Download):
                size = transfer.origin.size_bytes
                if size is not None and size <= MAX_SMALL_BYTES:
                    self._fetch = self._small
                    self.request = self._small.begin(work, size)
                else:
                    self._fetch = fetch = Fetch(work, None, with_range=size is None)
                    self.request = fetch.request(work.moved)
            elif self._put.begin(work, transfer):
                self.request = self._put.request
            else:
                self._leave(work, None)
                return False
            if monotonic() - started > STALL_SECONDS:
                express.was_slow(started)
            if express.horizon.wants_date:
                express.horizon.wants_date = False
                work.resources.clocks.watch(self.request)
            work.attempts = 1
            self.reported = 0
            self.is_repeated = False
            express.transport.begin(self)
        except AsyncSDKError as error:
            self._give_up(work, error)
            return False
        return self._work is not None  # else it has ended already

    # --- how it ended ----------------------------------------------------------------------------------------

    def succeed(self, reply: Reply) -> None:
        """Make the outcome of a reply that is whole, and go on."""
        work = self._work
        assert work is not None
        work.resources.health.answered()
        origins = self._express.limits.origins
        origins.reached(self.request.url)
        if not origins.is_clear:
            origins.answered(self.request.url, reply.status)
        try:
            try:
                if reply.status in REDIRECTS:
                    self._leave(work, None)
                elif self._fetch is None:
                    self._sent(work, reply)
                else:
                    self._received(work, self._fetch, reply)
            except (AsyncSDKError, UrlExpired, NoRanges) as error:
                self._failed(work, error)
        except AsyncSDKError as error:  # what is left of it cannot be removed
            self._express.finish(work.failed(error))
        except Exception as error:  # noqa: BLE001  # a mistake in this package ends the run instead of hanging it
            self._broke(error)
        self._pull()

    def fail(self, error: Exception) -> None:
        """Leave what failed to the workers of the run, or tell that it failed for good, and go on."""
        work = self._work
        if work is None:
            return  # it was abandoned
        try:
            if isinstance(error, AsyncSDKError):
                if isinstance(error, RequestError):
                    work.unanswered(self.request.url, error)
                self._failed(work, error)
            else:
                self._broke(error)
        except AsyncSDKError as left:  # what is left of it cannot be removed
            self._express.finish(work.failed(left))
        self._pull()

    def _sent(self, work: Work, reply: Reply) -> None:
        started = monotonic()
        try:
            outcome = self._put.finish(work, reply, self.reported)
        finally:
            if monotonic() - started > STALL_SECONDS:  # the second look at its file: a network disk asks its server
                self._express.was_slow(started)
        self._work = None
        self.request = _NOTHING
        self._express.finish(outcome)
        self._spare = work

    def _received(self, work: Work, fetch: Fetch | SmallFetch, reply: Reply) -> None:
        fetch.judge(reply, self.request, work.take_back)
        started = monotonic()
        result = fetch.finish(reply)
        if monotonic() - started > STALL_SECONDS:
            self._express.was_slow(started)
        self._clear()
        if isinstance(result, Outcome):
            self._express.finish(result)
            self._spare = work
        else:
            self._express.hand_over(work, result)

    def _failed(self, work: Work, error: AsyncSDKError | UrlExpired | NoRanges) -> None:
        if not isinstance(error, AsyncSDKError) or not work.is_final(error, 1):
            if isinstance(error, AsyncSDKError) and work.waits_for_server(error) and not self._may_be_there(error):
                work.take_back()
                self._clear()
                self._spare = work
                if not self._express.parking.takes(work.transfer):
                    self._express.queue.append(work.transfer)  # it may be tried right now
            else:
                self._leave(work, error)
            return
        file = self._put.file
        if file is not None and isinstance(error, (ResponseError, ChecksumMismatch, RequestError)):
            # A file that changed while it was read fails in many ways; say what is behind them.
            try:
                file.check_unchanged_now()
            except SourceChanged as changed:
                changed.__cause__ = error
                error = changed
        self._give_up(work, error)

    def _may_be_there(self, error: AsyncSDKError) -> bool:
        """Whether the request may have stored what the same request would be refused for: a worker remembers that."""
        if self._fetch is not None or not is_conditional(self.request.headers):
            return False
        body = self.request.body
        return may_have_arrived(error, self.reported if body is not None and body.size_bytes else None)

    def _give_up(self, work: Work, error: AsyncSDKError) -> None:
        self._clear()
        if isinstance(error, SourceChanged) and self._can_start_over(work):
            work.failed_once(None)  # a worker does
            self._express.hand_over(work, None)
        else:
            self._express.finish(work.failed(error))

    def _can_start_over(self, work: Work) -> bool:
        """Whether a source that changed is sent again as it is now. Bytes that were read of it stay what they are."""
        upload: Upload = work.transfer  # type: ignore[assignment]  # downloads have no source
        return work.resources.config.source_changed == "retry" and isinstance(upload.source, (str, Path))

    def _leave(self, work: Work, error: Exception | None) -> None:
        if self._fetch is None:
            work.opened = self._put.take(work)
        self._clear()
        work.failed_once(error)
        self._express.hand_over(work, None)

    # --- the end ---------------------------------------------------------------------------------------------

    @property
    def has_slot(self) -> bool:
        """Whether it may send a request."""
        return self._has_slot

    @property
    def work(self) -> Work | None:
        """What is under way."""
        return self._work

    def abandon(self) -> list[asyncio.Future[Any]]:
        """Stop what is under way. Returns what has to end by itself before `drop` may be called."""
        if self._leave_ticket is not None:
            self._leave_ticket.cancel()
            self._leave_ticket = None
        if self._work is None:
            return []
        connecting = self.connecting
        using = self._express.transport.abandon(self)
        return [future for future in (connecting, using) if future is not None]

    def drop(self) -> None:
        """Leave nothing behind of what was under way."""
        try:
            self._clear()
        except AsyncSDKError as error:
            self._express.on_failure(error)
        self._release_slot()

    def _broke(self, error: Exception) -> None:
        """End the run because of a mistake."""
        self._express.on_failure(error)  # the first one counts
        try:
            self._clear()
        except AsyncSDKError as left:
            self._express.on_failure(left)

    def _clear(self) -> None:
        """Forget the transfer, and close and remove what belongs to it."""
        self._work = None
        self.request = _NOTHING
        fetch = self._fetch
        if fetch is None:
            self._put.close()
        else:
            self._fetch = None
            fetch.close()
