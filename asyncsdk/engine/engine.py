"""The engine: the public verbs over runs and single transfers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterable, Iterable
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.feed import Feed, IterableFeed
from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import Slots
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.performing import is_large, perform, perform_large
from asyncsdk.engine.progress import OutcomeCallback, ProgressCallback
from asyncsdk.engine.report import Report
from asyncsdk.engine.run import Run
from asyncsdk.engine.streaming import ByteStream
from asyncsdk.engine.transfers import Download, Outcome, Source, StreamSink, Transfer, Upload
from asyncsdk.engine.work import Resources, Work
from asyncsdk.errors import ConfigError, ForkedProcessError
from asyncsdk.targets import Origin, Target
from asyncsdk.transport.base import Transport
from asyncsdk.transport.httpx_transport import HttpxTransport
from asyncsdk.transport.lean import LeanTransport
from asyncsdk.transport.threads import Threads

__all__ = ["Engine"]

_logger = logging.getLogger("asyncsdk.engine")


class Engine:
    """Moves bytes through signed URLs: many at once, bounded in memory, each object with exactly one outcome.

    An engine belongs to the event loop that first uses it and to the process that made it. Nothing is opened before
    the first transfer.

    Args:
        config: How much at once, in what pieces, how patiently.
        transport: Who speaks HTTP; None: the lean transport, or httpx on event loops that cannot watch sockets (those
            of Windows). One that is given is closed by whoever made it.

    ::

        async with Engine(TransferConfig(concurrency=32)) as engine:
            async with engine.run(transfers) as outcomes:
                async for outcome in outcomes:
                    print(outcome.name, outcome.error or "ok")
    """

    def __init__(self, config: TransferConfig | None = None, *, transport: Transport | None = None) -> None:
        self.config = config or TransferConfig()
        self._given_transport = transport
        self._own_transport: Transport | None = None
        self._resources: Resources | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._is_closed = False

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
            objects_total: How many objects there will be, when known; only passed on to *on_progress*.
            bytes_total: How many bytes there will be, when known; only passed on to *on_progress*.

        Raises:
            ConfigError: *transfers* is nothing that can be iterated, or the engine belongs to another event loop.
            ForkedProcessError: The engine was made in the parent of this process.
        """
        feed: Feed = transfers if isinstance(transfers, Feed) else IterableFeed(transfers)
        meter = Meter(on_progress, objects_total=objects_total, bytes_total=bytes_total)
        return Run(self._open, feed, meter, on_outcome)

    async def collect(
        self,
        transfers: Feed | Iterable[Transfer] | AsyncIterable[Transfer],
        *,
        on_progress: ProgressCallback | None = None,
        on_outcome: OutcomeCallback | None = None,
        objects_total: int | None = None,
        bytes_total: int | None = None,
    ) -> Report:
        """Run *transfers* to the end and return what it amounted to; see `run` for arguments and errors."""
        report = Report()
        run = self.run(
            transfers,
            on_progress=on_progress,
            on_outcome=on_outcome,
            objects_total=objects_total,
            bytes_total=bytes_total,
        )
        started = asyncio.get_running_loop().time()
        async with run as outcomes:
            async for outcome in outcomes:
                report.add(outcome)
        report.seconds = asyncio.get_running_loop().time() - started
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
        if not is_large(transfer, self.config):
            result = await perform(work)
        outcome = result if isinstance(result, Outcome) else await perform_large(work, result)
        if outcome.error is not None:
            raise outcome.error
        return outcome

    async def aclose(self) -> None:
        """Close connections and let threads end. Calling it again does nothing."""
        self._is_closed = True
        resources, self._resources = self._resources, None
        transport, self._own_transport = self._own_transport, None
        if os.getpid() != self._pid:
            return  # the sockets are the parent's
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
        threads = Threads(max(4, min(32, config.concurrency + 4)))
        transport = self._given_transport
        if transport is None:
            transport = self._own_transport = _make_transport(config, threads)
        return Resources(
            config, transport, threads, Slots(config.concurrency), process_budget(), Health(config.concurrency)
        )


def _make_transport(config: TransferConfig, threads: Threads) -> Transport:
    kind: type[LeanTransport | HttpxTransport] = LeanTransport
    if not LeanTransport.can_run(asyncio.get_running_loop()):
        kind = HttpxTransport
        _say_once("this event loop cannot watch sockets: transfers go through httpx, at ten times the CPU per request")
    return kind(timeouts=config.timeouts, tls=config.tls, max_idle=config.concurrency, threads=threads)


@lru_cache(maxsize=1)
def _say_once(text: str) -> None:
    _logger.info(text)
