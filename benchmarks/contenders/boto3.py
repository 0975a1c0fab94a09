"""boto3: the AWS SDK, with its own transfer manager in threads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar
from urllib.parse import urlsplit

from benchmarks.contenders.base import PythonContender, main
from benchmarks.jobs import Batch, Item, Kind

__all__ = ["Boto3"]


class Boto3(PythonContender):
    """One client shared by threads; ``upload_file`` and ``download_file``, parts for large objects."""

    title = "boto3"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get"})
    servers = frozenset({"s3"})
    packages = ("boto3",)
    share = 0.25
    client: Any
    config: Any

    async def open(self) -> None:
        """Make the client."""
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        self.client = boto3.client(
            "s3",
            endpoint_url=self.job.endpoint,
            region_name="us-east-1",
            aws_access_key_id="bench",
            aws_secret_access_key="bench-secret",
            config=Config(max_pool_connections=2 * self.concurrency, s3={"addressing_style": "path"}, proxies={}),
        )
        large = self.job.main.count == 1
        self.config = TransferConfig(max_concurrency=self.concurrency, use_threads=large)

    async def close(self) -> None:
        """Close the client."""
        self.client.close()

    async def put(self, batch: Batch, items: Iterable[Item]) -> None:
        """Send each file as one object."""
        self._each(items, lambda item: self.client.upload_file(item.source, "bench", _key(item), Config=self.config))

    async def get(self, batch: Batch, items: Iterable[Item]) -> None:
        """Fetch each object into a file."""
        self._each(
            items, lambda item: self.client.download_file("bench", _key(item), item.destination, Config=self.config)
        )

    def _each(self, items: Iterable[Item], work: Callable[[Item], None]) -> None:
        with ThreadPoolExecutor(self.concurrency) as threads:
            for _ in threads.map(work, items):
                pass


def _key(item: Item) -> str:
    return urlsplit(item.url).path.removeprefix("/bench/")


if __name__ == "__main__":
    sys.exit(main(Boto3))
