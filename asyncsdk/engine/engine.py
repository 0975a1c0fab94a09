"""The engine: the public verbs over runs and single transfers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterable, Iterable
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

import anyio

from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.events import EventCallback
from asyncsdk.engine.feed import Feed, IterableFeed
from asyncsdk.engine.limits import Limits
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.performing import is_large, perform, perform_large
from asyncsdk.engine.progress import OutcomeCallback, ProgressCallback
from asyncsdk.engine.report import Report
from asyncsdk.engine.run import Run
from asyncsdk.engine.streaming import ByteStream
from asyncsdk.engine.transfers import Download, Outcome, Source, StreamSink, Transfer, Upload
from asyncsdk.engine.watching import Watch
from asyncsdk.engine.work import Resources, Work
from asyncsdk.errors import ConfigError, DeadlineExceeded, ForkedProcessError
from asyncsdk.targets import Origin, Target
from asyncsdk.transport.base import Transport
from asyncsdk.transport.httpx_transport import HttpxTransport
from asyncsdk.transport.lean import LeanTransport
from asyncsdk.transport.memory import BudgetedTransport
from asyncsdk.transport.threads import Threads

if TYPE_CHECKING:
    from asyncsdk.engine.crew.crew import Crew

__all__ = ["Engine"]

_logger = logging.getLogger("asyncsdk.engine")


class Engine:
    """Moves bytes through signed URLs: many at once, bounded in memory, each object with exactly one outcome.

    An engine belongs to the event loop that first uses it and to the process that made it. Nothing is opened before
    the first transfer.

    Args:
        config: How much at once, in what pieces, how patiently.
        transport: Who speaks HTTP; None: the lean transport, or httpx on event loops that cannot watch sockets (those
            of Windows). One that is given is closed by whoever made it, and serves this process only: then
            ``processes`` has no effect.

    Attributes:
        config: As it was given.
        limits: How much at once and per second; changeable while it runs.

    Raises:
        ConfigError: ``processes`` is greater than 1 where none can be started: on Windows, in frozen programs.

    ::

        async with Engine(TransferConfig(concurrency=32)) as engine:
            async with engine.run(transfers) as outcomes:
                async for outcome in outcomes:
                    print(outcome.name, outcome.error or "ok")
    """

    def __init__(self, config: TransferConfig | None = None, *, transport: Transport | None = None) -> None:
        self.config = config or TransferConfig()
        self.limits = Limits(self.config)
        self._given_transport = transport
        self._own_transport: Transport | None = None
        self._resources: Resources | None = None
        self._has_crew = self.config.processes > 1 and transport is None
        if self._has_crew:
            from asyncsdk.engine.crew.processes import check_system

            check_system()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._is_closed = False
        self._runs: WeakSet[Run] = WeakSet()
        self._is_draining = False

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def run(
        self,
        transfers: Feed | Iterable[Transfer] | AsyncIterable[Transfer],
        *,
        on_progress: ProgressCallback | None = None,
        on_outcome: OutcomeCallback | None = None,
        on_event: EventCallback | None = None,
        objects_total: int | None = None,
        bytes_total: int | None = None,
    ) -> Run:
        """Move everything *transfers* gives; use it as ``async with engine.run(...) as outcomes``.

        Outcomes come in the order in which they become final, one for each transfer. Failures are outcomes; what is
        raised ends the run: an error of the feed, of a callback, or of the block itself, unchanged. Memory does not
        grow with the number of transfers.

        Args:
            transfers: A feed, or an iterable or asynchronous iterable, pulled lazily; it may be endless.
            on_progress: Called in the event loop, at most every 0.1 s, and once at the end.
            on_outcome: Called in the event loop with every final outcome, before the iterator gives it.
            on_event: Called in the event loop with everything that happens (`Event`): retries, renewals, outcomes...
            objects_total: How many objects there will be, when known; only passed on to *on_progress*.
            bytes_total: How many bytes there will be, when known; only passed on to *on_progress*.

        Raises:
            ConfigError: *transfers* is nothing that can be iterated, or the engine belongs to another event loop.
            ForkedProcessError: The engine was made in the parent of this process.
        """
        feed: Feed = transfers if isinstance(transfers, Feed) else IterableFeed(transfers)
        meter = Meter(on_progress, objects_total=objects_total, bytes_total=bytes_total, watch=Watch(on_event))
        run = Run(self._open, feed, meter, on_outcome)
        self._runs.add(run)
        if self._is_draining:
            run.drain()
        return run

    async def collect(
        self,
        transfers: Feed | Iterable[Transfer] | AsyncIterable[Transfer],
        *,
        on_progress: ProgressCallback | None = None,
        on_outcome: OutcomeCallback | None = None,
        on_event: EventCallback | None = None,
        objects_total: int | None = None,
        bytes_total: int | None = None,
    ) -> Report:
        """Run *transfers* to the end and return what it amounted to; see `run` for arguments and errors."""
        report = Report()
        latest = self.limits.pilot.latest
        run = self.run(
            transfers,
            on_progress=on_progress,
            on_outcome=on_outcome,
            on_event=on_event,
            objects_total=objects_total,
            bytes_total=bytes_total,
        )
        started = asyncio.get_running_loop().time()
        async with run as outcomes:
            async for outcome in outcomes:
                report.add(outcome)
        report.seconds = asyncio.get_running_loop().time() - started
        report.add_waits(run.watch.waits.seconds, run.watch.waits.cpu_share, report.seconds)
        report.is_complete = run.is_complete
        report.concurrency = self.limits.trace_since(latest)
        return report

    async def upload(
        self, source: Source, target: Target, *, size_bytes: int | None = None, crc32c: str | None = None
    ) -> Outcome:
        """Send one object.

        Args:
            source: A path, bytes, an open binary file, or an asynchronous iterable of bytes.
            target: Where it goes.
            size_bytes: Its size, when known beforehand.
            crc32c: Eight hexadecimal digits that its bytes must have.

        Returns:
            The outcome, which is no failure.

        Raises:
            SourceNotFound, SourceUnreadable, SourceChanged: The source.
            ChecksumMismatch: Other bytes than announced, or than the server says it has.
            RequestError, ResponseError: The server, after all attempts.
        """
        return await self._one(Upload(source, target, size_bytes=size_bytes, crc32c=crc32c))

    async def download(self, origin: Origin | str, sink: Path | str | StreamSink | None = None) -> Outcome:
        """Fetch one object.

        A file appears at its path only when it is whole and its checksum, if known, is right; a failed download
        leaves nothing behind.

        Args:
            origin: A URL, or an origin with what is known of the object.
            sink: A path, a `StreamSink`, or None to keep it in memory (``Outcome.data``).

        Returns:
            The outcome, which is no failure.

        Raises:
            ObjectChanged: It was replaced while being read.
            ChecksumMismatch, IncompleteTransfer: Wrong or missing bytes, after all attempts.
            DestinationFull, DestinationUnwritable: The sink.
            RequestError, ResponseError: The server, after all attempts.
        """
        return await self._one(Download(origin, sink))

    def stream(self, origin: Origin | str) -> ByteStream:
        """Fetch one object piece by piece; use it as ``async with engine.stream(url) as pieces``, then ``async for``.

        A large object is read in ranges ahead of the consumer, as far as the byte budget lets it. The iteration raises
        what `download` raises; when it ends without an error, all bytes came and they were the right ones.

        Args:
            origin: A URL, or an origin with what is known of the object.
        """
        return ByteStream(lambda sink: self._one(Download(origin, sink)))

    async def _one(self, transfer: Upload | Download) -> Outcome:
        work = Work(self._open(), transfer, None, Meter())
        result: Outcome | LargeObject | None = None
        seconds = self.config.deadline_seconds
        with self.limits.pilot.at_work(), anyio.move_on_after(seconds) as scope:
            if not is_large(transfer, self.config):
                result = await perform(work)
            outcome = result if isinstance(result, Outcome) else await perform_large(work, result)
        if scope.cancelled_caught:
            name = transfer.name
            raise DeadlineExceeded(f"{name}: not done within {seconds:g} s", source=name)
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def drain(self) -> bool:
        """Finish what is under way in all runs and begin nothing new; returns whether anything is under way.

        What waits for a server that is out fails with `CircuitOpen`: that may take longer than anybody waits.
        Runs end early, without an error, and say so (`Report.is_complete`); runs that begin later end at once. Single
        transfers (`upload`, `download`, `stream`) go on. To be called in the event loop.
        """
        self._is_draining = True
        is_active = False
        for run in list(self._runs):
            is_active = run.drain() or is_active
        self.limits.origins.wait_no_longer()
        if self._resources is not None and self._resources.crew is not None:
            self._resources.crew.wait_no_longer()
        return is_active

    async def aclose(self) -> None:
        """Close connections, end worker processes, and let threads end. Calling it again does nothing."""
        self._is_closed = True
        resources, self._resources = self._resources, None
        transport, self._own_transport = self._own_transport, None
        if os.getpid() != self._pid:
            return  # the sockets are the parent's
        try:
            if resources is not None and resources.crew is not None:
                await resources.crew.aclose()
        finally:
            if transport is not None:
                await transport.aclose()
            if resources is not None:
                resources.threads.close()

    def _open(self) -> Resources:
        """Return what transfers share, made with the first of them."""
        if os.getpid() != self._pid:
            raise ForkedProcessError("this engine was made before the process was forked; make a new one here")
        if self._is_closed:
            raise ConfigError("this engine is closed; make a new one")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigError("an engine belongs to the event loop that used it first; make one per event loop")
        if self._resources is None:
            self._resources = self._make_resources()
        return self._resources

    def _make_resources(self) -> Resources:
        config = self.config
        if config.memory_bytes is not None:
            process_budget().resize(config.memory_bytes)
        threads = Threads(max(4, min(32, config.most_concurrency + 4)))
        transport = self._given_transport
        if transport is None:
            transport = self._own_transport = _make_transport(config, threads)
        limits = self.limits
        limits.attach(transport)
        if isinstance(transport, BudgetedTransport):
            transport.draw_on(process_budget().allowance())
        return Resources(
            config,
            transport,
            threads,
            limits.slots,
            process_budget(),
            limits.health,
            limits,
            crew=self._make_crew(threads),
        )

    def _make_crew(self, threads: Threads) -> Crew | None:
        """Return who moves transfers in other processes: nobody, unless there are to be several."""
        if not self._has_crew or not LeanTransport.can_run(asyncio.get_running_loop()):
            return None
        # Imported when needed: with one process nothing of it is.
        from asyncsdk.engine.crew.crew import Crew

        return Crew(self.config, self.limits, threads)


def _make_transport(config: TransferConfig, threads: Threads) -> Transport:
    kind: type[LeanTransport | HttpxTransport] = LeanTransport
    if not LeanTransport.can_run(asyncio.get_running_loop()):
        kind = HttpxTransport
        _say_once("this event loop cannot watch sockets: transfers go through httpx, at ten times the CPU per request")
    return kind(timeouts=config.timeouts, tls=config.tls, max_idle=config.most_concurrency, threads=threads)


@lru_cache(maxsize=1)
def _say_once(text: str) -> None:
    _logger.info(text)
