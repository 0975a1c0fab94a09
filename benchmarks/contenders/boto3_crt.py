"""boto3's other transfer manager: the AWS Common Runtime (C)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from benchmarks.contenders.base import PythonContender, main
from benchmarks.jobs import Batch, Item, Kind
from benchmarks.workloads import Workload

__all__ = ["Boto3Crt"]


class Boto3Crt(PythonContender):
    """`CRTTransferManager` of s3transfer, over ``awscrt``."""

    title = "boto3[crt] (C)"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get"})
    servers = frozenset({"s3"})
    packages = ("boto3", "awscrt")
    manager: Any

    @classmethod
    def cannot(cls, workload: Workload) -> str | None:
        """Return why it has no part in *workload*, None when it has one."""
        if workload.server == "s3" and workload.kind == "put" and workload.is_large:
            return "does not understand this server's reply to CreateMultipartUpload (root element misnamed)"
        return super().cannot(workload)

    async def open(self) -> None:
        """Make the transfer manager."""
        import botocore.session
        from awscrt.auth import AwsCredentialsProvider
        from s3transfer.crt import BotocoreCRTRequestSerializer, CRTTransferManager, create_s3_crt_client

        session = botocore.session.Session()
        session.set_credentials("bench", "bench-secret")
        arguments = {"region_name": "us-east-1", "endpoint_url": self.job.endpoint}
        client = create_s3_crt_client(
            region="us-east-1",
            crt_credentials_provider=AwsCredentialsProvider.new_static("bench", "bench-secret"),
            use_ssl=False,
        )
        self.manager = CRTTransferManager(client, BotocoreCRTRequestSerializer(session, arguments))

    async def close(self) -> None:
        """Close the transfer manager."""
        self.manager.shutdown()

    async def put(self, batch: Batch, items: Iterable[Item]) -> None:
        """Send each file as one object."""
        for done in [self.manager.upload(item.source, "bench", _key(item)) for item in items]:
            done.result()

    async def get(self, batch: Batch, items: Iterable[Item]) -> None:
        """Fetch each object into a file."""
        for done in [self.manager.download("bench", _key(item), item.destination) for item in items]:
            done.result()


def _key(item: Item) -> str:
    return urlsplit(item.url).path.removeprefix("/bench/")


if __name__ == "__main__":
    sys.exit(main(Boto3Crt))
