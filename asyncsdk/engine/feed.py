"""Where transfers come from and where outcomes are settled.

A `Feed` is what a platform's bulk verb gives the engine; plain iterables are wrapped into one. The engine calls
``take`` from one task at a time, ``renew`` from many, ``settle`` from one task at a time, in any interleaving.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from asyncsdk.engine.transfers import Download, Outcome, Refused, Skipped, Transfer, Upload
from asyncsdk.errors import ConfigError
from asyncsdk.targets import Origin, Target

__all__ = ["Feed", "IterableFeed", "WatchingFeed"]


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
