"""curl: the C client that everybody has, many transfers in one process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from benchmarks.contenders.base import POST_BODY, Tool, find_program, main
from benchmarks.jobs import Batch, Kind

__all__ = ["Curl"]


class Curl(Tool):
    """``curl --parallel`` with a configuration file; a single object comes over one connection."""

    title = "curl -Z"
    program = "curl"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get", "ranges", "post"})

    def prepare(self, batch: Batch) -> list[str]:
        """Write the configuration file and return the command."""
        lines = ["silent", "show-error", "fail", "noproxy = *", 'header = "Expect:"']
        if self.job.ca_file:
            lines.append(f'cacert = "{self.job.ca_file}"')
        if self.job.kind == "post":
            body = batch.destination / "body.json"
            body.write_bytes(POST_BODY)
            lines += ['header = "Content-Type: application/json"', f'data-binary = "@{body}"']
            lines += [f'url = "{self.job.endpoint}/post"'] * batch.count
        elif self.job.kind == "put":
            lines += [f'url = "{item.url}"\nupload-file = "{item.source}"' for item in batch.items()]
        else:
            lines += [f'url = "{item.url}"\noutput = "{item.destination}"' for item in batch.items()]
        config = Path(batch.destination) / "curl.config"
        config.write_text("\n".join(lines) + "\n")
        program = find_program("curl") or "curl"
        return [program, "--disable", "--parallel", "--parallel-max", str(self.concurrency), "--config", str(config)]


if __name__ == "__main__":
    sys.exit(main(Curl))
