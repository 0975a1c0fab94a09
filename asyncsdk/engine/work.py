"""One transfer under way: what it may use, how it asks, how it is tried again, how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine.budget import Budget
from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.feed import Feed
from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import LaneName, Slots
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.redirects import send_following
from asyncsdk.engine.replies import refusal
from asyncsdk.engine.retries import has_expired, wait_before_next
from asyncsdk.engine.strays import no_strays
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.errors import AsyncSDKError, ConnectionFailed, RequestTimeout, ResponseError
from asyncsdk.targets import Origin, Target
from asyncsdk.transport.base import Reply, Request, Transport
from asyncsdk.transport.threads import Threads

if TYPE_CHECKING:
    from asyncsdk.engine.sources import FileSource, MemorySource

__all__ = ["SMALL_BYTES", "Count", "Resources", "UrlExpired", "Work", "header", "renewed"]

SMALL_BYTES = 64 * 1024
"""Up to here bytes are read and checksummed where they are; beyond, in a thread."""

_CHECKSUM_STEP_BYTES = 256 * 1024

_EXPIRED_STATUS = {400, 401, 403, 410}
"""How services refuse an expired URL; all of them also mean other things, so the URL's own expiry decides."""

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
    """

    __slots__ = (
        "_bytes_moved",
        "_end",
        "_first_error",
        "_meter",
        "_renewing",
        "_started",
        "attempts",
        "feed",
        "opened",
        "resources",
        "transfer",
    )

    def __init__(self, resources: Resources, transfer: Upload | Download, feed: Feed | None, meter: Meter) -> None:
        self.resources = resources
        self.transfer = transfer
        self.feed = feed
        self.attempts = 0
        self.opened: FileSource | MemorySource | None = None
        self._first_error: Exception | None = None
        self._meter = meter
        self._bytes_moved = 0
        self._started = time.monotonic()
        self._renewing: asyncio.Lock | None = None
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
        return Outcome(self.transfer, "failed", error=error, seconds=self.seconds, attempts=self.attempts)

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
            seconds=self.seconds,
            attempts=self.attempts,
            etag=etag,
            checksum=f"crc32c:{crc32c_hex(checksum)}",
            verified=verified,
            reply=reply or None,
            data=data,
        )

    @property
    def seconds(self) -> float:
        """Since its first attempt began."""
        return time.monotonic() - self._started

    # --- requests --------------------------------------------------------------------------------------------

    async def send(self, request: Request, lane: LaneName) -> Reply:
        """Send *request* when a slot is free, following redirects in that slot; the reply may be a refusal."""
        async with self.resources.slots.hold(lane):
            reply = await send_following(self.resources.transport, request)
        self.resources.health.answered()
        return reply

    def refused(self, reply: Reply, request: Request, expires_at: float | None) -> Exception:
        """Return what to raise for a refusal: its typed error, or `UrlExpired`."""
        error = refusal(reply, request.method, request.url, request.headers)
        if reply.status in _EXPIRED_STATUS and has_expired(request.url, expires_at, reply.headers):
            return UrlExpired(error)
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
                if self.is_final(error, number, limit):
                    raise
                wait = wait_before_next(policy, number, error)
            except BaseException:  # whoever catches it starts again, or nobody does: uncounted either way
                count.take_back()
                raise
            await anyio.sleep(wait)

    def is_final(self, error: AsyncSDKError, number: int, limit: int | None = None) -> bool:
        """Whether nothing is tried again after attempt *number* of at most *limit* failed with *error*."""
        health = self.resources.health
        is_unreachable = _is_unreachable(error)
        if limit is None:
            limit = self.resources.config.retry.max_attempts
        if error.retryable and number < limit and not (is_unreachable and health.is_down):
            return False
        if is_unreachable:
            health.gave_up()
        return True

    # --- where to --------------------------------------------------------------------------------------------

    @property
    def end(self) -> Target | Origin:
        """The target or origin in force: the one given, or the latest renewed."""
        return self._end

    async def renew(self, stale: Target | Origin, *, first_part: int = 1) -> bool:
        """Ask the feed for a fresh target or origin unless *stale* was replaced meanwhile; False: there is none."""
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
            return True

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


async def renewed(feed: Feed, transfer: Upload | Download, *, first_part: int) -> Target | Origin | None:
    """Return what the feed gives as a fresh target or origin.

    Raises:
        StrayCancelledError: The feed was cancelled by itself; that ends the run.
    """
    with no_strays():
        return await feed.renew(transfer, first_part=first_part)


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return the value of a header to be sent, whatever its case."""
    return next((value for key, value in headers.items() if key.lower() == name), None)
