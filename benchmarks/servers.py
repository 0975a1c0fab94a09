"""The servers that figures are taken against, each as a process of its own on loopback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.nginx import Nginx, NginxUnavailable, free_port

__all__ = ["Nginx", "NginxUnavailable", "S3Server", "ServedPlatform", "ServerFailed"]

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class ServerFailed(RuntimeError):
    """The server did not start, or did not end as it should; the message holds what it said last."""


class ServedPlatform:
    """``asyncsdk serve`` on a free port with a data folder of its own; use it with ``with``.

    Args:
        parent: Folder that the data folder is made in, and removed from at the end; None: that of temporary files.
        options: Further options of the command.

    Attributes:
        url: Where it listens.
        token: The token it made on its first start.
        data: Its data folder.
        pid: Its process.
    """

    def __init__(self, parent: Path | None = None, *options: str) -> None:
        self._parent = parent
        self._options = options
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.token = ""
        self.data = Path()
        self.pid = 0

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="asyncsdk-served-", dir=self._parent))
        self.data = self._folder / "data"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCSDK_")}
        environment |= {"ASYNCSDK_HOME": str(self._folder / "home"), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "asyncsdk", "serve", *self._options, "--host", "127.0.0.1", "--port", "0"]
        try:
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [*command, "--data", str(self.data)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                )
            self.pid = self._process.pid
            self.url = self._wait_for_url(self._process)
            self.token = (self.data / "token").read_text().strip()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status, said = self._end()
        if status and error is None:
            raise ServerFailed(f"the server ended with exit status {status}: {said}")

    def _wait_for_url(self, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            log = self._log()
            found = re.search(r"(https?://[^\s/]+)\S*\s", log)
            if found and not ended:
                return found[1]
            if ended:
                break
            time.sleep(0.02)
        raise ServerFailed(f"the server did not start: {self._log()[-2000:] or 'it said nothing'}")

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _end(self) -> tuple[int, str]:
        """Ask it to end, wait, remove its folder; returns its exit status and what it said last."""
        status, said = 0, ""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.terminate()
            try:
                status = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            said = self._log()[-2000:]
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)
        return status, said


class S3Server:
    """``rclone serve s3`` on a free port, with one bucket, ``bench``, in a folder; use it with ``with``.

    Takes unsigned requests too, so that what a signed URL costs a client can be measured. Debian's rclone (1.60) is too
    old for it; the extra ``bench`` brings a newer one.

    Args:
        parent: Folder that its data are made in, and removed from at the end.

    Attributes:
        url: Where it listens.
        data: Its folder: the object ``a/b`` of the bucket is the file ``bench/a/b``.
        pid: Its process.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.data = Path()
        self.pid = 0

    @staticmethod
    def unavailable() -> str | None:
        """Return why there is no S3 server here, None when there is one."""
        program = S3Server.program()
        if program is None:
            return "no S3 server: rclone is not installed (extra bench)"
        reply = subprocess.run([program, "serve", "s3", "--help"], stdin=subprocess.DEVNULL, capture_output=True)
        return None if b"--auth-key" in reply.stdout else "no S3 server: this rclone is too old to serve S3"

    @staticmethod
    def program() -> str | None:
        """Return rclone: beside this interpreter, where pip puts it, or on the path."""
        beside = Path(sys.executable).parent / "rclone"
        return str(beside) if beside.is_file() else shutil.which("rclone")

    def __enter__(self) -> Self:
        if (reason := self.unavailable()) is not None:
            raise ServerFailed(reason)
        self._folder = Path(tempfile.mkdtemp(prefix="asyncsdk-s3-", dir=self._parent))
        self.data = self._folder / "data"
        (self.data / "bench").mkdir(parents=True)
        try:
            for _ in range(5):  # somebody else may take the free port before it does
                if self._start(free_port()):
                    return self
            raise ServerFailed(f"the S3 server did not start: {self._log()}")
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process and remove its folder; calling it again does nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, port: int) -> bool:
        command = [str(self.program()), "serve", "s3", str(self.data), "--addr", f"127.0.0.1:{port}"]
        command += ["--config", str(self._folder / "rclone.conf"), "--etag-hash", "", "--no-modtime"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if f"127.0.0.1:{port}" in self._log():
                self.url, self.pid = f"http://127.0.0.1:{port}", self._process.pid
                return True
            time.sleep(0.02)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process = None
        return False

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]
