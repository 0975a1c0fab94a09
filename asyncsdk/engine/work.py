"""One transfer under way: what it may use, how it asks, how it is tried again, how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import anyio

from asyncsdk.checksums import crc32c
from asyncsdk.engine.budget import Budget
from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.expiry import Clocks
from asyncsdk.engine.feed import ANOTHER_UPLOAD, Feed, renewed
from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import LaneName, Slots
from asyncsdk.engine.limits import Limits
from asyncsdk.engine.limits.retry_budget import RetryBudget
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.redirects import send_following
from asyncsdk.engine.replies import Redirected, refusal
from asyncsdk.engine.retries import wait_before_next
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.waits import ObjectWaits, counting, reason_of, waiting
from asyncsdk.errors import AsyncSDKError, CircuitOpen, ConnectionFailed, RequestTimeout, ResponseError
from asyncsdk.targets import Origin, Target
from asyncsdk.transport.base import Reply, Request, Transport
from asyncsdk.transport.threads import Threads

if TYPE_CHECKING:
    from asyncsdk.engine.crew.crew import Crew
    from asyncsdk.engine.sources import FileSource, MemorySource

__all__ = ["SMALL_BYTES", "Count", "Resources", "UrlExpired", "Work", "header"]

SMALL_BYTES = 64 * 1024
"""Up to here bytes are read and checksummed where they are; beyond, in a thread."""

_CHECKSUM_STEP_BYTES = 256 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resources:
    """What all transfers of an engine share."""

    config: TransferConfig
    transport: Transport
    threads: Threads
    slots: Slots
    budget: Budget
    health: Health
    limits: Limits
    retries: RetryBudget | None = None
    crew: Crew | None = None
    clocks: Clocks = field(default_factory=Clocks)


class UrlExpired(Exception):
    """The server refused a URL that has expired by its own clock; holds the refusal."""

    def __init__(self, error: ResponseError) -> None:
        super().__init__(str(error))
        self.error = error


class Count:
    """Bytes that one attempt moved, so that they can be taken back when it fails."""

    __slots__ = ("_work", "size_bytes")

    def __init__(self, work: Work) -> None:
        self._work = work
        self.size_bytes = 0

    def __call__(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self._work.moved(size_bytes)
        self._work.resources.health.part_bytes += size_bytes

    def take_back(self) -> None:
        """Count nothing of it any more."""
        self(-self.size_bytes)


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
        "_first_error",
        "_is_part",
        "_meter",
        "_refused_by",
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
        self._is_part = False
        self._refused_by: str | None = None
        self.waits: ObjectWaits | None = None
        self._end: Target | Origin = transfer.target if isinstance(transfer, Upload) else transfer.origin

    # --- progress --------------------------------------------------------------------------------------------

    def moved(self, size_bytes: int) -> None:
        """Count bytes that moved; a negative number takes some back."""
        self._bytes_moved += size_bytes
        self._meter.bytes_moved += size_bytes

    def take_back(self) -> None:
        """Count nothing of what moved any more."""
        self.moved(-self._bytes_moved)

    def failed_once(self, error: Exception | None) -> None:
        """The first attempt was made already, and failed with *error*: `retry` goes on from there, or with a first
        attempt when there is no error. What it moved no longer counts."""
        self.take_back()
        self._first_error = error

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

    async def send(self, request: Request, lane: LaneName, *, final: frozenset[int] = frozenset()) -> Reply:
        """Send *request* when a slot is free, following redirects in that slot; the reply may be a refusal.

        Args:
            final: See `send_following`.
        """
        resources, limits = self.resources, self.resources.limits
        if not limits.origins.is_clear:
            await limits.origins.wait(request.url)
        async with resources.slots.hold(lane):
            if limits.requests is not None:
                await limits.requests.take(1)
            flights = self._meter.watch.flights
            flights[id(request)] = (request, self.waits)
            try:
                reply = await send_following(resources.transport, request, final=final)
            finally:
                del flights[id(request)]
        resources.health.answered()
        self._is_part = lane == "part"
        if self._is_part:
            resources.health.part_answers += 1
        if not limits.origins.is_clear:
            limits.origins.answered(reply.asked[-1].url if isinstance(reply, Redirected) else request.url, reply.status)
        if not isinstance(reply, Redirected):
            self.resources.clocks.saw(request.url, reply.headers)
        return reply

    def refused(self, reply: Reply, request: Request, expires_at: float | None) -> Exception:
        """Return what to raise for a refusal: its typed error, or `UrlExpired`."""
        error = refusal(reply, request.method, request.url, request.headers)
        if not isinstance(reply, Redirected):
            self.resources.clocks.saw(request.url, reply.headers)
        if self.resources.clocks.explains(reply.status, request.url, expires_at, reply.headers):
            return UrlExpired(error)
        url = reply.asked[-1].url if isinstance(reply, Redirected) else request.url
        self._refused_by = url if error.retryable else None
        self.resources.limits.refused(url, error, reply.status, is_part=self._is_part)
        return error

    async def retry(
        self,
        attempt: Callable[[Count], Awaitable[T]],
        *,
        renew: Callable[[], Awaitable[bool]] | None = None,
        max_attempts: int | None = None,
    ) -> T:
        """Return what *attempt* returns, trying again after errors that are retryable.

        An expired URL is renewed once; that attempt is not counted against the policy. While nothing gets through at
        all, what finds no connection is not tried again (`Health`).

        Args:
            max_attempts: For what is sent beside something else; that it fails counts for nothing.
        """
        policy = self.resources.config.retry
        limit = policy.max_attempts if max_attempts is None else min(max_attempts, policy.max_attempts)
        number = 0
        while True:
            number += 1
            self.attempts = max(self.attempts, number)
            count = Count(self)
            first, self._first_error = self._first_error, None
            try:
                if first is not None:
                    raise first
                return await attempt(count)
            except UrlExpired as expired:
                count.take_back()
                if renew is None or not await renew():
                    raise expired.error from None
                renew = None
                limit += 1
                continue
            except AsyncSDKError as error:
                count.take_back()
                if max_attempts is not None and number >= max_attempts:
                    raise  # it says nothing of the object, which is being moved all the same
                if self.is_final(error, number, limit, is_known=error is first):
                    raise
                wait = wait_before_next(policy, number, error)
                reason = reason_of(error)
                self._meter.watch.retried(self.transfer.name, number, wait, error)
            except BaseException:  # whoever catches it starts again, or nobody does: uncounted either way
                count.take_back()
                raise
            with waiting(reason):
                await anyio.sleep(wait)

    def is_final(self, error: AsyncSDKError, number: int, limit: int | None = None, *, is_known: bool = False) -> bool:
        """Whether nothing is tried again after attempt *number* of at most *limit* failed with *error*.

        Args:
            is_known: It was asked before, and the answer was no: the retry is counted already.
        """
        health = self.resources.health
        is_unreachable = _is_unreachable(error)
        if limit is None:
            limit = self.resources.config.retry.max_attempts
        if isinstance(error, CircuitOpen):
            return True
        if error.retryable and number < limit and not (is_unreachable and health.is_down):
            retries = self.resources.retries
            if retries is None or is_known or retries.take():
                return False
            error.add_note("not tried again: too much fails, so the retries of this run are used up")
        if is_unreachable:
            health.gave_up()
        elif self._refused_by is not None and isinstance(error, ResponseError):
            self.resources.limits.origins.gave_up(self._refused_by)
        return True

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
        return await self.resources.threads.run(_crc32c_in_pieces, memoryview(data))


def _is_unreachable(error: AsyncSDKError) -> bool:
    return isinstance(error, ConnectionFailed) or (isinstance(error, RequestTimeout) and error.phase == "connect")


def _crc32c_in_pieces(view: memoryview) -> int:
    # The checksum takes bytes only: a copy of everything at once would double the memory held.
    value = 0
    for start in range(0, len(view), _CHECKSUM_STEP_BYTES):
        value = crc32c(bytes(view[start : start + _CHECKSUM_STEP_BYTES]), value)
    return value


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return the value of a header to be sent, whatever its case."""
    return next((value for key, value in headers.items() if key.lower() == name), None)
