"""rclone: copies between anything (Go); here folders to and from S3."""

from __future__ import annotations

import os
import sys
from typing import ClassVar
from urllib.parse import urlsplit

from benchmarks.contenders.base import Tool, main
from benchmarks.jobs import Batch, Kind
from benchmarks.servers import S3Server

__all__ = ["Rclone"]


class Rclone(Tool):
    """``rclone copy`` of a folder, without looking at what is there already."""

    title = "rclone (Go)"
    program = "rclone"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get"})
    servers = frozenset({"s3"})

    def prepare(self, batch: Batch) -> list[str]:
        """Return the command: the whole folder, listed in a file so that it need not be walked."""
        remote = f":s3:{urlsplit(batch.url).path.lstrip('/')}"
        ends = (str(batch.source), remote) if self.job.kind == "put" else (remote, str(batch.destination))
        listing = batch.destination.parent / f"{batch.destination.name}.rclone-list"
        listing.write_text("\n".join(item.url.removeprefix(f"{batch.url}/") for item in batch.items()) + "\n")
        program = S3Server.program() or "rclone"
        command = [program, "copy", *ends, "--config", os.devnull, "--files-from-raw", str(listing), "--no-traverse"]
        command += ["--transfers", str(self.concurrency), "--checkers", str(self.concurrency), "--ignore-times"]
        command += ["--s3-provider", "Other", "--s3-endpoint", self.job.endpoint, "--s3-region", "us-east-1"]
        command += ["--s3-access-key-id", "bench", "--s3-secret-access-key", "bench-secret"]
        return [*command, "--s3-no-check-bucket", "--s3-force-path-style"]


if __name__ == "__main__":
    sys.exit(main(Rclone))
