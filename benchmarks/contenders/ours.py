"""Our engine as a contender, everything on: retries, checksums, progress, outcomes. `Ours` lacks only the transport."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from asyncsdk.checksums import Crc32c
from asyncsdk.client import AsyncClient
from asyncsdk.engine import (
    Download,
    Engine,
    MultipartTarget,
    Progress,
    PutTarget,
    Transfer,
    TransferConfig,
    Upload,
    UrlOrigin,
)
from asyncsdk.transport.base import BytesBody, Request, Transport
from benchmarks.contenders.base import POST_BODY, Contender, WorkFailed, each
from benchmarks.jobs import Batch, Kind, item_name

__all__ = ["Ours"]

PLATFORM_KINDS: frozenset[Kind] = frozenset({"platform_put", "platform_get"})


class Ours(Contender):
    """The engine over whatever `transport` returns."""

    title = "asyncsdk"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get", "ranges", "put_parts", "post"})
    servers = frozenset({"nginx", "s3"})
    packages = ("asyncsdk",)

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self._transport: Transport | None = None
        self._engine: Engine | None = None
        self._client: AsyncClient | None = None
        self._progress: Progress | None = None

    def transport(self) -> Transport | None:
        """Return the transport for the engine; None: its default."""
        return None

    def posting_transport(self) -> Transport:
        """Return the transport for requests that the engine has no verb for."""
        raise WorkFailed("no transport for POST")

    def config(self) -> TransferConfig:
        """Settings: the defaults but for what the workload says."""
        return TransferConfig(concurrency=self.concurrency, memory_bytes=self.job.memory_bytes)

    async def open(self) -> None:
        """Make engine or client; connections are opened by the warm-up."""
        if self.job.kind in PLATFORM_KINDS:
            self._client = AsyncClient(self.job.endpoint, token=self.job.token, config=self.config())
            if self.job.kind == "platform_get":
                await self._send_dataset("warm", self.job.warm)
                await self._send_dataset("main", self.job.main)
        elif self.job.kind == "post":
            self._transport = self.posting_transport()
        else:
            self._transport = self.transport()
            self._engine = Engine(self.config(), transport=self._transport)

    async def close(self) -> None:
        """Close everything."""
        for one in (self._engine, self._client, self._transport):
            if one is not None:
                await one.aclose()

    # --- by the engine ---------------------------------------------------------------------------------------

    async def put(self, batch: Batch, items: Any) -> None:
        """Send each file as one object."""
        await self._run(Upload(item.source, PutTarget(item.url)) for item in items)

    async def get(self, batch: Batch, items: Any) -> None:
        """Fetch each object into a file."""
        await self._run(Download(UrlOrigin(item.url, size_bytes=item.size_bytes), item.destination) for item in items)

    async def ranges(self, batch: Batch, items: Any) -> None:
        """Fetch one object in ranges into one file."""
        await self.get(batch, items)

    async def put_parts(self, batch: Batch, items: Any) -> None:
        """Send one file in parts; nginx keeps each as an object, nothing completes them."""
        urls = tuple(url for _, _, url in batch.parts(self.job.part_size))
        target = MultipartTarget("bench", self.job.part_size, urls)
        await self._run(iter([Upload(batch.item(0).source, target)]))

    async def _run(self, transfers: Iterator[Transfer]) -> None:
        assert self._engine is not None
        async with self._engine.run(transfers, on_progress=self._keep_progress) as outcomes:
            async for outcome in outcomes:
                if outcome.error is not None:
                    raise WorkFailed(f"{outcome.name}: {outcome.error}") from outcome.error

    def _keep_progress(self, progress: Progress) -> None:
        self._progress = progress

    # --- by the transport alone ------------------------------------------------------------------------------

    async def post(self, batch: Batch, items: Any) -> None:
        """Send the same 2 KiB of JSON again and again, and look at the answers."""
        assert self._transport is not None
        url, transport = f"{self.job.endpoint}/post", self._transport
        expected = b'{"received":%d}' % len(POST_BODY)

        async def one(_: int) -> None:
            headers = {"content-type": "application/json"}
            reply = await transport.send(Request("POST", url, headers, BytesBody(POST_BODY)))
            if reply.status != 200 or reply.body != expected:
                raise WorkFailed(f"POST was answered with status {reply.status}: {reply.body[:100]!r}")

        await each(range(batch.count), one, self.concurrency)

    # --- by the entity API -----------------------------------------------------------------------------------

    async def platform_put(self, batch: Batch, items: Any) -> None:
        """Send a folder as a dataset."""
        name = "main" if batch is self.job.main else "warm"
        await self._send_dataset(name, batch)

    async def platform_get(self, batch: Batch, items: Any) -> None:
        """Fetch the dataset that `open` sent."""
        assert self._client is not None
        dataset = await self._client.datasets.get(name="main" if batch is self.job.main else "warm")
        report = await dataset.download(batch.destination, on_progress=self._keep_progress)
        report.raise_for_failures()

    async def _send_dataset(self, name: str, batch: Batch) -> None:
        assert self._client is not None
        dataset = await self._client.datasets.create(name)
        report = await dataset.upload(batch.source, on_progress=self._keep_progress)
        report.raise_for_failures()
        if (report.done, report.bytes_done) != (batch.count, batch.total_bytes):
            raise WorkFailed(f"{report.done} files of {report.bytes_done} bytes were sent, not all")

    async def check_arrived(self) -> None:
        """Compare what the platform lists with the files that were sent: path, size and checksum of each."""
        if self.job.kind != "platform_put":
            return
        assert self._client is not None
        dataset = await self._client.datasets.get(name="main")
        listed = {item.path: (item.size_bytes, item.crc32c) async for item in dataset.items.list()}
        sent = {
            item_name(number): (item.size_bytes, _crc32c(item.source))
            for number, item in enumerate(self.job.main.distinct())
        }
        if listed != sent:
            raise WorkFailed("the dataset does not hold what was sent")

    def prepare(self, batch: Batch) -> Any:
        """Return the items; the entity API finds its files by itself."""
        if self.job.kind in PLATFORM_KINDS:
            return None
        return super().prepare(batch)


def _crc32c(path: str) -> str:
    checksum = Crc32c()
    with Path(path).open("rb", buffering=0) as file:
        while block := file.read(1024 * 1024):
            checksum.update(block)
    return f"{checksum.value:08x}"
