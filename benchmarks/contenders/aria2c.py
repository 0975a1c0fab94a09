"""aria2c: the C++ downloader that splits files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from benchmarks.contenders.base import Tool, find_program, main
from benchmarks.jobs import Batch, Kind

__all__ = ["Aria2c"]


class Aria2c(Tool):
    """One process with a list of downloads; a large object over several connections."""

    title = "aria2c"
    program = "aria2c"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"get", "ranges"})
    share = 0.5

    def prepare(self, batch: Batch) -> list[str]:
        """Write the list and return the command."""
        lines = [
            f"{item.url}\n dir={Path(item.destination).parent}\n out={Path(item.destination).name}"
            for item in batch.items()
        ]
        listing = Path(batch.destination) / "aria2.list"
        listing.write_text("\n".join(lines) + "\n")
        split = self.concurrency if self.job.kind == "ranges" else 1
        command = [find_program("aria2c") or "aria2c", "--no-conf", "--quiet", f"--input-file={listing}"]
        command += [f"--max-concurrent-downloads={self.concurrency}", f"--split={split}"]
        command += [f"--max-connection-per-server={split}", "--min-split-size=8M", "--file-allocation=none"]
        command += ["--allow-overwrite=true", "--auto-file-renaming=false", "--summary-interval=0", "--no-proxy=*"]
        if self.job.ca_file:
            command.append(f"--ca-certificate={self.job.ca_file}")
        return command


if __name__ == "__main__":
    sys.exit(main(Aria2c))
