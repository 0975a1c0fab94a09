"""A real server that runs: where it is, who may use it, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.nginx import free_port

__all__ = ["Processes", "RealServer", "StartFailed", "start_on_free_ports"]

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_TRIES = 5


class StartFailed(RuntimeError):
    """The server did not start; the message holds what it said last."""


@dataclass
class RealServer:
    """A server that answers; use it with ``with``, or call `stop`.

    Attributes:
        url: Where it listens, without a slash at the end. For Azurite it ends with the account.
        bucket: A bucket (Azure: a container) that exists and is empty.
        access_key: Who may use it: S3's access key, Azure's account; empty when nobody is asked.
        secret_key: The key of that; empty when nobody is asked. Valid for this run alone.
        region: What S3's signatures name.
        data: Its folder; what is in there is its own business.
    """

    url: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str
    data: Path
    stop: Callable[[], None] = field(repr=False)

    def object_url(self, key: str) -> str:
        """Return the URL of an object of the bucket, unsigned."""
        return f"{self.url}/{self.bucket}/{key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Processes:
    """The processes of one server, each with a log file in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start a process; what it says goes to ``NAME.log``."""
        settings = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        with (self._folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**settings, "HOME": str(self._folder), **(environment or {})},
                start_new_session=True,  # a Ctrl-C in the terminal is for the tests; and the group is ended as one
            )

    def wait_for(self, name: str, port: int) -> None:
        """Wait until *port* of loopback is taken by the process of that name.

        Raises:
            StartFailed: It ended, or said nothing for a minute.
        """
        process = self._running[name]
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                time.sleep(0.05)  # was it somebody else who has the port, ours is about to end
                if process.poll() is None:
                    return
        raise StartFailed(f"{name} did not start: {self._said(name)}")

    def finish(self, name: str) -> None:
        """Wait until the process of that name has ended.

        Raises:
            StartFailed: It ended badly, or not within a minute.
        """
        process = self._running.pop(name)
        try:
            status = process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            status = -1
        _signal(process, signal.SIGKILL)
        if status:
            raise StartFailed(f"{name} failed: {self._said(name)}")

    def stop(self) -> None:
        """End them all and wait; calling it again does nothing."""
        running, self._running = self._running, {}
        for process in running.values():
            _signal(process, signal.SIGTERM)
        for process in running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            _signal(process, signal.SIGKILL)  # whoever of its group is left
            process.wait()

    def _said(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-2000:] or "it said nothing"


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def start_on_free_ports(count: int, begin: Callable[[tuple[int, ...]], RealServer]) -> RealServer:
    """Call *begin* with free ports, again with others when somebody was faster.

    Args:
        count: How many ports.
        begin: Starts the server; raises `StartFailed`, with nothing left running, when it does not come up.
    """
    for attempt in range(_TRIES):
        ports: set[int] = set()
        while len(ports) < count:
            ports.add(free_port())
        try:
            return begin(tuple(ports))
        except StartFailed as failed:
            said = str(failed).lower()
            if attempt == _TRIES - 1 or not ("in use" in said or "addrinuse" in said):
                raise
    raise AssertionError("unreachable")
