"""One transfer under way: what it may use, how it asks, how it is tried again, how far it is."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.engine.attempts import Airtime, Count, RenewalRow, UrlExpired
from asyncsdk.engine.expiry import is_expiry_word
from asyncsdk.engine.feed import ANOTHER_UPLOAD, Feed, renewed
from asyncsdk.engine.lanes import LaneName
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.redirects import send_following
from asyncsdk.engine.replies import Redirected, refusal
from asyncsdk.engine.resources import Resources
from asyncsdk.engine.retries import wait_before_next
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.waits import ObjectWaits, counting, reason_of, waiting
from asyncsdk.errors import AsyncSDKError, CircuitOpen, RequestError, ResponseError
from asyncsdk.targets import Origin, Target
from asyncsdk.transport.base import Reply, Request

if TYPE_CHECKING:
    from asyncsdk.engine.sources import FileSource, MemorySource

__all__ = ["SMALL_BYTES", "Count", "Resources", "UrlExpired", "Work"]

SMALL_BYTES = 64 * 1024
"""Up to here bytes are read and checksummed where they are; beyond, in a thread."""


T = TypeVar("T")

_numbers = itertools.count(1)
_USED_UP = "not tried again: too much fails, so the retries of this run are used up"


class Work:
    """A transfer from its first attempt to its outcome.

    Attributes:
        resources: What it may use.
        transfer: As it was given.
        feed: Where fresh URLs come from; None: nowhere.
        attempts: Requests tried for it, of the part tried most often.
        opened: Its source, when the express lane opened it and left the rest to a worker.
        waits: What it waited for, since a worker has it; None: the express lane has it, and nobody counts.
    """

    __slots__ = (
        "_bytes_moved",
        "_end",
        "_failed_at",
        "_first_error",
        "_is_part",
        "_is_welcome",
        "_meter",
        "_number",
        "_renewing",
        "_started",
        "attempts",
        "feed",
        "opened",
        "resources",
        "transfer",
        "waits",
    )

    def __init__(self, resources: Resources, transfer: Upload | Download, feed: Feed | None, meter: Meter) -> None:
        self.resources = resources
        self.feed = feed
        self._meter = meter
        self.turn_to(transfer)

    def turn_to(self, transfer: Upload | Download) -> None:
        """Be as if made for *transfer*. The one before has its outcome, and nobody holds this any more."""
        self.transfer = transfer
        self.attempts = 0
        self.opened: FileSource | MemorySource | None = None
        self._first_error: Exception | None = None
        self._bytes_moved = 0
        self._started = time.monotonic()
        self._renewing: asyncio.Lock | None = None
        self._is_part = self._is_welcome = False
        self._number = 0
        self._failed_at: str | None = None
        self.waits: ObjectWaits | None = None
        self._end: Target | Origin = transfer.target if isinstance(transfer, Upload) else transfer.origin

    # --- progress --------------------------------------------------------------------------------------------

    def moved(self, size_bytes: int) -> None:
        """Count bytes that moved; a negative number takes some back."""
        self._bytes_moved += size_bytes
        self._meter.bytes_moved += size_bytes
        self.resources.health.moved_bytes += size_bytes

    def take_back(self) -> None:
        """Count nothing of what moved any more."""
        self.moved(-self._bytes_moved)

    def failed_once(self, error: Exception | None) -> None:
        """The first attempt was made already, and failed with *error*: `retry` goes on from there, or with a first
        attempt when there is no error. What it moved no longer counts."""
        self.take_back()
        self._first_error = error

    @property
    def first_error(self) -> Exception | None:
        """What the first attempt failed with, if it was made already and nobody took that up."""
        return self._first_error

    def discard(self) -> None:
        """Close what was opened for it: nobody takes it up any more."""
        opened, self.opened = self.opened, None
        if opened is not None:
            opened.close()

    def failed(self, error: AsyncSDKError) -> Outcome:
        """Return the outcome of failing with *error*; bytes that had moved no longer count."""
        self.take_back()
        waits = None if self.waits is None else self.waits.seconds
        return Outcome(self.transfer, "failed", error=error, seconds=self.seconds, attempts=self.attempts, waits=waits)

    def done(
        self,
        size_bytes: int,
        checksum: int,
        *,
        etag: str | None = None,
        verified: bool = False,
        reply: bytes = b"",
        data: bytes | None = None,
    ) -> Outcome:
        """Return the outcome of having arrived."""
        return Outcome(
            self.transfer,
            "done",
            size_bytes=size_bytes,
            seconds=time.monotonic() - self._started,
            attempts=self.attempts,
            etag=etag,
            checksum=f"crc32c:{checksum:08x}",
            verified=verified,
            reply=reply or None,
            data=data,
            waits=None if self.waits is None else self.waits.seconds,
        )

    def counted(self) -> counting:
        """Return a block in which a worker moves it: what is waited for there is counted for it."""
        if self.waits is None:
            self.waits = ObjectWaits(self._meter.watch.waits.live)
        return counting(self.waits)

    @property
    def seconds(self) -> float:
        """Since its first attempt began."""
        return time.monotonic() - self._started

    # --- requests --------------------------------------------------------------------------------------------

    async def send(
        self,
        request: Request,
        lane: LaneName,
        *,
        final: frozenset[int] = frozenset(),
        freshen: Callable[[Request], Awaitable[None]] | None = None,
        count: Count | None = None,
    ) -> Reply:
        """Send *request* when a slot is free, following redirects in that slot; the reply may be a refusal.

        Args:
            final: See `send_following`.
            freshen: Called once the slot is held, which may be long after it was asked for: gives *request* a URL that
                is good now, of the same server.
            count: Told when it goes out.
        """
        resources, origins = self.resources, self.resources.limits.origins
        reply: Reply | None = None
        while reply is None:
            is_trial = not origins.is_clear and await origins.wait(request.url, lane, self)
            async with resources.slots.hold(lane):
                # Whoever waited for a slot meanwhile may have to wait for the server now.
                if origins.is_clear or is_trial or not origins.seconds_left(request.url):
                    reply = await self._send_now(request, final, freshen, count)
        resources.health.answered()
        self._is_part = lane == "part"
        if count is not None and 200 <= reply.status < 300:
            self._is_welcome = True
        if self._is_part:
            resources.health.part_answers += 1
        origins.reached(request.url)
        if not origins.is_clear:
            origins.answered(reply.asked[-1].url if isinstance(reply, Redirected) else request.url, reply.status)
        return reply

    async def _send_now(
        self,
        request: Request,
        final: frozenset[int],
        freshen: Callable[[Request], Awaitable[None]] | None,
        count: Count | None,
    ) -> Reply:
        limits = self.resources.limits
        if limits.requests is not None:
            await limits.requests.take(1)
        if freshen is not None:
            self._failed_at = None  # what fails here is the platform, which gives fresh URLs
            await freshen(request)
        if count is not None:
            count.begin()
        on_head = request.on_head
        self.resources.clocks.watch(request)
        flights = self._meter.watch.flights
        flights[id(request)] = (request, self.waits)
        try:
            return await send_following(self.resources.transport, request, final=final)
        except RequestError as error:
            self.unanswered(request.url, error)
            raise
        finally:
            del flights[id(request)]
            request.on_head = on_head  # no head may have come: who watches holds the request, and that its bytes

    @property
    def _suspect(self) -> int | None:
        """What `Origins.failed` knows the object by; None once the server has taken or given some of it."""
        if self._is_welcome:
            return None
        if not self._number:
            self._number = next(_numbers)
        return self._number

    def unanswered(self, url: str, error: RequestError) -> None:
        """Note that a request to *url* was not answered."""
        self._failed_at = url if error.retryable else None
        if error.retryable:
            is_seen = error.was_connected  # what ends before that has nothing to do with the object
            self.resources.limits.origins.failed(url, error, self._suspect if is_seen else None)

    def refused(self, reply: Reply, request: Request, expires_at: float | None) -> Exception:
        """Return what to raise for a refusal: its typed error, or `UrlExpired`."""
        error = refusal(reply, request.method, request.url, request.headers)
        clocks = self.resources.clocks
        if not isinstance(reply, Redirected):
            clocks.saw(request.url, reply.headers)  # the express lane has not, and a refusal is short
        overdue = clocks.overdue(reply.status, request.url, expires_at, reply.headers)
        if overdue is not None or is_expiry_word(reply.status, error.server_code):
            self._failed_at = None
            return UrlExpired(error, overdue)
        url = reply.asked[-1].url if isinstance(reply, Redirected) else request.url
        self._failed_at = url if error.retryable else None
        self.resources.limits.refused(url, error, reply.status, is_part=self._is_part, who=self._suspect)
        return error

    async def retry(
        self,
        attempt: Callable[[Count], Awaitable[T]],
        *,
        renew: Callable[[], Awaitable[bool]] | None = None,
        max_attempts: int | None = None,
        lane: LaneName = "part",
        airtime: Airtime | None = None,
    ) -> T:
        """Return what *attempt* returns, trying again after errors that are retryable.

        An expired URL is renewed as often as that helps (`RenewalRow`); those attempts are not counted against the
        policy, one whose renewal fails is. Nor are those that fail while the server counts as out (`Origins`): the next
        one waits for it.

        Args:
            max_attempts: For what is sent beside something else; that it fails counts for nothing.
            lane: That of its requests.
            airtime: Told when an attempt has its slot, and when the next one waits for one.
        """
        policy = self.resources.config.retry
        limit = policy.max_attempts if max_attempts is None else min(max_attempts, policy.max_attempts)
        row = RenewalRow(self.resources.clocks, policy.max_attempts)
        number = 0
        while True:
            number += 1
            self.attempts = max(self.attempts, number)
            count = Count(self, is_part=lane == "part", airtime=airtime)
            first, self._first_error = self._first_error, None
            try:
                try:
                    if first is not None:
                        raise first
                    self._failed_at = None  # what fails now may be another server, the platform's
                    return await attempt(count)
                except UrlExpired as expired:
                    count.take_back()
                    if airtime is not None:
                        airtime.pause()
                    if renew is None or not row.allows(expired) or not await renew():
                        raise expired.error from None
                    limit += 1
                    continue
            except AsyncSDKError as error:
                count.take_back()
                row.end()
                if airtime is not None:
                    airtime.pause()
                if max_attempts is not None and number >= max_attempts:
                    raise  # it says nothing of the object, which is being moved all the same
                if self.is_final(error, number, limit, is_known=error is first):
                    raise
                is_out = self.waits_for_server(error)
                limit += is_out
                wait = 0.0 if is_out else wait_before_next(policy, number, error)
                reason = reason_of(error)
                self._meter.watch.retried(self.transfer.name, number, wait, error)
            except BaseException:  # whoever catches it starts again, or nobody does: uncounted either way
                count.take_back()
                raise
            with waiting(reason):
                await self.resources.limits.origins.sleep(wait)

    def is_final(self, error: AsyncSDKError, number: int, limit: int | None = None, *, is_known: bool = False) -> bool:
        """Whether nothing is tried again after attempt *number* of at most *limit* failed with *error*.

        Args:
            is_known: It was asked before, and the answer was no: the retry is counted already.
        """
        if isinstance(error, CircuitOpen) or self._asks_too_long(error):
            return True
        if limit is None:
            limit = self.resources.config.retry.max_attempts
        if limit > 1 and self.waits_for_server(error):
            return False
        may_again = error.retryable and number < limit
        retries, origins, server = self.resources.retries, self.resources.limits.origins, self._failed_at
        is_free = is_known or retries is None or (server is not None and origins.never_answered(server))
        if may_again and (is_free or (retries is not None and retries.take())):
            return False
        if limit > 1 and server is not None and _is_of_server(error) and origins.must_wait(server):
            return False
        # The error of one message for many is theirs together, and told once.
        if may_again and _USED_UP not in getattr(error, "__notes__", ()):
            error.add_note(_USED_UP)
        return True

    def _asks_too_long(self, error: AsyncSDKError) -> bool:
        """Whether the server asks for a longer pause than is waited; the error says how long."""
        return self.resources.limits.origins.is_too_long(getattr(error, "retry_after", None))

    def waits_for_server(self, error: AsyncSDKError) -> bool:
        """Whether *error* came of a server that is out, and waited for: it costs neither an attempt nor a retry."""
        origins, server = self.resources.limits.origins, self._failed_at
        return server is not None and not origins.is_clear and _is_of_server(error) and origins.is_out(server)

    # --- where to --------------------------------------------------------------------------------------------

    @property
    def end(self) -> Target | Origin:
        """The target or origin in force: the one given, or the latest renewed."""
        return self._end

    async def current(self) -> Target | Origin:
        """Return the target or origin in force; one whose URL is about to expire is renewed first, if that can be."""
        end = self._end
        url = getattr(end, "url", None)
        if url and self.feed is not None and self.resources.clocks.expires_soon(url, end.expires_at):  # type: ignore[union-attr]
            await self.renew(end)
        return self._end

    async def replace(self, lost: str | None) -> bool:
        """Have a target in force that belongs to another upload than *lost*, its id; False: the feed has none."""
        stale = self._end
        if getattr(stale, "upload_id", None) == lost and not await self.renew(stale, first_part=ANOTHER_UPLOAD):
            return False
        return getattr(self._end, "upload_id", None) != lost

    async def renew(self, stale: Target | Origin, *, first_part: int = 1) -> bool:
        """Ask the feed for a fresh target or origin unless *stale* was replaced meanwhile; False: there is none.

        Args:
            first_part: As `renewed`.
        """
        if self._renewing is None:
            self._renewing = asyncio.Lock()
        async with self._renewing:
            if self._end is not stale:
                return True
            if self.feed is None:
                return False
            fresh = await renewed(self.feed, self.transfer, first_part=first_part)
            if fresh is None or type(fresh) is not type(stale):
                return False
            self._end = fresh
            self.was_renewed(first_part or 1)
            return True

    def was_renewed(self, first_part: int) -> None:
        """Tell whoever listens that there are fresh URLs, from part *first_part* on."""
        self._meter.watch.renewed(self.transfer.name, first_part)

    # --- checksums -------------------------------------------------------------------------------------------

    async def crc32c(self, data: bytes | bytearray | memoryview) -> int:
        """Return the crc32c of *data*, computed off the loop unless it is small."""
        if len(data) <= SMALL_BYTES:
            return crc32c(bytes(data))
        return await self.resources.threads.run(_crc32c_of, memoryview(data))


def _is_of_server(error: AsyncSDKError) -> bool:
    return error.retryable and isinstance(error, (RequestError, ResponseError))


def _crc32c_of(view: memoryview) -> int:
    running = Crc32c()
    running.update(view)
    return running.value
