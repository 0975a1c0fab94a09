"""An official client in a process of its own, driven by lines of Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.real.tools import TOOLS

__all__ = ["OfficialClient", "OfficialError"]

_DRIVER = Path(__file__).with_name("driver.py")


class OfficialError(Exception):
    """The code raised; the message is what it raised."""


class OfficialClient:
    """A process of the environment of *tool*, for the length of a ``with`` block.

    Args:
        tool: Name of the package, see `TOOLS`; it must be installed.
        environment: Variables beside those of this process.
        folder: Working folder; None: that of this process.
    """

    def __init__(self, tool: str, environment: Mapping[str, str], *, folder: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [str(TOOLS[tool].program("python")), "-u", str(_DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def run(self, code: str) -> Any:
        """Run *code* and return what it leaves in ``result``.

        Raises:
            OfficialError: It raised.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise OfficialError(f"the process ended with {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise OfficialError(reply["error"])
        return reply["result"]

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
