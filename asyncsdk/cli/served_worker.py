"""The worker beside a server: a child process that is started again when it ends, and ends with the server.

It is another process so that what jobs compute takes nothing from the server's event loop, and a library that crashes
takes the worker alone. It works on the data folder itself, and ends when its standard input does: also when the server
was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.output import Output
from asyncsdk.worker import runner_kinds

__all__ = ["ServedWorker"]

_BACKOFF_SECONDS = 1.0
_BACKOFF_MAX_SECONDS = 60.0
_STOP_SECONDS = 15.0
"""Longer than a worker waits for its runners."""


class ServedWorker:
    """Keeps a worker running for the length of a ``with`` block, from `start` on.

    Args:
        folder: The data folder.
        output: Where to tell of it.
        objects: Bucket that keeps the objects, when the server was given one.
        objects_endpoint: URL of the bucket's service, when the server was given one.
    """

    def __init__(self, folder: Path, output: Output, *, objects: str | None, objects_endpoint: str | None) -> None:
        self._folder = folder
        self._output = output
        self._environment = dict(os.environ)
        for name, value in (("ASYNCSDK_OBJECTS", objects), ("ASYNCSDK_OBJECTS_ENDPOINT", objects_endpoint)):
            if value is not None:
                self._environment[name] = value
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the worker, when there is anything that it could do."""
        if not runner_kinds():
            self._output.note("no worker beside the server: no runner is installed")
            return
        self._thread = threading.Thread(target=self._keep, name="asyncsdk-worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the worker; jobs that it has are given back."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is None or self._thread is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # that is how it is told
        self._thread.join(_STOP_SECONDS)
        if process.poll() is None:
            process.kill()
        self._thread.join()

    def _keep(self) -> None:
        backoff, is_first = _BACKOFF_SECONDS, True
        while True:
            began = time.monotonic()
            try:
                status = self._run_once(is_first)
            except OSError as error:  # no memory or no process is left: later there may be
                trouble = f"the worker cannot be started ({error.strerror})"
            else:
                trouble = f"the worker ended with status {status}"
                if status in {ExitCode.REFUSED, ExitCode.USAGE}:  # it would be the same again; it said why
                    self._output.note("no worker beside the server")
                    return
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _BACKOFF_MAX_SECONDS:
                backoff = _BACKOFF_SECONDS
            self._output.problem(f"{trouble}; it is started again in {backoff:g} s")
            self._stopping.wait(backoff)
            backoff, is_first = min(_BACKOFF_MAX_SECONDS, 2 * backoff), False

    def _run_once(self, is_first: bool) -> int | None:
        """Run a worker to its end; returns its exit status, None when the server ends.

        Raises:
            OSError: It cannot be started.
        """
        with self._lock:
            if self._stopping.is_set():
                return None
            process = self._process = self._begin(is_first)
        status = process.wait()
        assert process.stdin is not None
        process.stdin.close()
        return None if self._stopping.is_set() else status

    def _begin(self, is_first: bool) -> subprocess.Popen[bytes]:
        # Not in the group of the terminal: Ctrl-C is the server's, which ends the worker after it.
        return subprocess.Popen(  # noqa: S603  # this program, by its own interpreter
            [
                *(sys.executable, "-m", "asyncsdk", "worker", "--data", str(self._folder), "--until-stdin-ends"),
                *(() if is_first and not self._output.is_quiet else ("--quiet",)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )
