"""Where transfers come from and where outcomes are settled.

A `Feed` is what a platform's bulk verb gives the engine; plain iterables are wrapped into one. The engine calls
``take`` from one task at a time, ``renew`` from many, ``settle`` from one task at a time, in any interleaving.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from asyncsdk.engine.strays import no_strays
from asyncsdk.engine.transfers import Download, Outcome, Refused, Skipped, Transfer, Upload
from asyncsdk.errors import ConfigError
from asyncsdk.targets import Origin, Target

__all__ = [
    "ANOTHER_UPLOAD",
    "ExaminingFeed",
    "Feed",
    "IterableFeed",
    "JudgingFeed",
    "ReplacingFeed",
    "WaitingFeed",
    "WatchingFeed",
    "hurry",
    "is_judge",
    "renewed",
]

ANOTHER_UPLOAD = 0
"""In place of the number of a part that URLs are needed for: the upload is gone, and another one is to be begun."""


@runtime_checkable
class Feed(Protocol):
    """Gives transfers just in time and takes their outcomes.

    An exception of ``take`` or ``settle`` ends the whole run (a wrong token, a server gone for good); what concerns
    one object is a `Refused` or a failed outcome instead.
    """

    async def take(self, want: int) -> Sequence[Transfer]:
        """Return up to *want* transfers ready to go; none means the feed has ended."""

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        """Return a fresh target or origin for *transfer*, or None when there is none to be had.

        Asked when URLs expired, and when a multipart target holds no URL for the part *first_part*.
        """

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Make *outcomes* final: commit those that are done. Returns them, changed where the platform refused."""


@runtime_checkable
class WatchingFeed(Protocol):
    """A feed that wants to know of objects before they are settled."""

    def arrived(self, outcome: Outcome) -> None:
        """Called with every outcome of a transfer that was done, as soon as its bytes are there. Must neither block nor
        raise."""


@runtime_checkable
class ReplacingFeed(Protocol):
    """A feed that can have an upload begun once more. Others are asked by ``renew``, which may give another one too."""

    async def replace(self, transfer: Upload) -> Target | None:
        """Return a target that begins another upload of *transfer*, or None when there is none to be had.

        Asked when the server knows nothing any more of the upload that was begun in parts: it was swept, or aborted.
        """


@runtime_checkable
class ExaminingFeed(Protocol):
    """A feed that looked at its sources before it gave them, and announced what it saw."""

    async def examine_again(self, transfer: Upload) -> Transfer | None:
        """Return another transfer in place of *transfer*, whose source is not as it was announced; None: there is none.

        Asked where a source that changes is to be sent as it is now; *transfer* has no outcome then.
        """


@runtime_checkable
class WaitingFeed(Protocol):
    """A feed that waits for its platform when that is out."""

    def wait_no_longer(self) -> None:
        """Called when the run is drained, over or cancelled: what the feed still asks its platform is not waited for.
        Must neither block nor raise. May be called more than once."""


@runtime_checkable
class JudgingFeed(Protocol):
    """A feed whose ``settle`` finds out what is really there.

    Attributes:
        judges_uploads: Whether ``settle`` compares the object of every upload with its size and checksum, and fails the
            outcome where they differ or there is none. Then an upload that may have arrived, of which only the last
            reply was lost, is handed to it as done.
    """

    judges_uploads: bool


def is_judge(feed: object) -> bool:
    """Whether *feed* finds out by itself if what it is told to be done is there."""
    return isinstance(feed, JudgingFeed) and feed.judges_uploads


def hurry(feed: object) -> None:
    """Have *feed* wait no longer for its platform, if it is one that does."""
    if isinstance(feed, WaitingFeed):
        feed.wait_no_longer()


async def renewed(feed: Feed, transfer: Upload | Download, *, first_part: int) -> Target | Origin | None:
    """Return what the feed gives as a fresh target or origin.

    One of another upload is the transfer's target from then on: the feed is asked for further URLs by its id.

    Args:
        first_part: The first part that URLs are needed for; `ANOTHER_UPLOAD`: a target that begins another upload.

    Raises:
        StrayCancelledError: The feed was cancelled by itself; that ends the run.
    """
    with no_strays():
        if first_part == ANOTHER_UPLOAD and isinstance(feed, ReplacingFeed) and isinstance(transfer, Upload):
            fresh: Target | Origin | None = await feed.replace(transfer)
        else:
            fresh = await feed.renew(transfer, first_part=max(1, first_part))
    if isinstance(transfer, Upload) and isinstance(fresh, Target) and _is_another(fresh, transfer.target):
        transfer.target = fresh
    return fresh


def _is_another(fresh: Target, given: Target) -> bool:
    """Whether *fresh* is of another upload in parts, or session, than *given*."""
    ids = getattr(fresh, "upload_id", None), getattr(given, "upload_id", None)
    return type(fresh) is type(given) and ids[0] != ids[1]


class IterableFeed:
    """A feed over an iterable or asynchronous iterable of transfers: nothing to renew, nothing to commit.

    Pulled lazily; the iterable may be endless. A synchronous one is pulled in the event loop: it must not block.
    """

    def __init__(self, transfers: Iterable[Transfer] | AsyncIterable[Transfer]) -> None:
        self._sync: Iterator[Transfer] | None = None
        self._async: AsyncIterator[Transfer] | None = None
        if isinstance(transfers, AsyncIterable):
            self._async = aiter(transfers)
        elif isinstance(transfers, Iterable):
            self._sync = iter(transfers)
        else:
            raise ConfigError(f"transfers must be iterable, not {type(transfers).__name__}")

    async def take(self, want: int) -> Sequence[Transfer]:
        result: list[Transfer] = []
        if self._sync is not None:
            for transfer in self._sync:
                result.append(_checked(transfer))
                if len(result) >= want:
                    break
        elif self._async is not None:
            # One at a time: the next may be long in coming, and this one should not wait for it.
            async for transfer in self._async:
                result.append(_checked(transfer))
                break
        return result

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        return None

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


def _checked(transfer: Transfer) -> Transfer:
    if not isinstance(transfer, (Upload, Download, Skipped, Refused)):
        raise ConfigError(f"a transfer is an Upload or a Download, not {type(transfer).__name__}")
    return transfer
