"""Platforms that really run: one in a thread of this process, one as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from asyncsdk.domain.ids import make_id
from asyncsdk.server.backend import Backend
from asyncsdk.server.doors.registry import find_doors
from asyncsdk.server.http.server import HttpServer
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.minting import UrlMinter

__all__ = ["RunningServer", "ServedProcess"]

_START_SECONDS = 30


class RunningServer:
    """A platform served from a thread on a free loopback port, for the length of a ``with`` block.

    Attributes:
        url: Where it listens.
        token: The owner's.
        backend: What answers; tests may look into it.
        door_urls: Where its doors are, by name.
    """

    def __init__(
        self,
        folder: Path,
        *,
        public_url: str | None = None,
        objects: Location | None = None,
        doors: Sequence[str] = (),
        door_ports: Mapping[str, int] | None = None,
    ) -> None:
        self.folder = folder
        self.backend = Backend.open(folder, objects)
        self.token = self.backend.server_token()
        self._server = HttpServer(
            self.backend, port=0, public_url=public_url, doors=find_doors(doors), door_ports=door_ports
        )
        self.door_urls = self._server.door_urls
        self.url = self._server.url
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="served platform")

    def _run(self) -> None:
        self._server.run(lambda _: self._ready.set())

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def headers(self) -> dict[str, str]:
        """What lets a request through."""
        return {"Authorization": f"Bearer {self.token}"}

    def minter(self, *, expires_seconds: int = 3600) -> UrlMinter:
        """Return what mints URLs of this server, without asking it."""
        return UrlMinter(self.backend.signer, self.url, expires_seconds=expires_seconds)

    def publish(self, data: bytes) -> tuple[str, str]:
        """Send *data* and publish it without a database row; returns object id and crc32c."""
        object_id = make_id()
        target = self.minter().target(object_id, size_bytes=len(data), crc32c=None)
        reply = httpx.put(target.url, content=data)  # type: ignore[union-attr]  # small ones are put
        reply.raise_for_status()
        crc32c = reply.headers["etag"][1:9]
        self.backend.objects.publish([(object_id, crc32c)])
        return object_id, crc32c

    def start(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_START_SECONDS):
            self.stop()
            raise RuntimeError("the served platform did not start")
        return self

    def stop(self) -> None:
        """Shut down as on SIGTERM and close the folder."""
        self._server.stop()
        self._thread.join(_START_SECONDS)
        self.backend.close()
        if self._thread.is_alive():
            raise RuntimeError("the served platform did not stop")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class ServedProcess:
    """A platform served by a process of its own on a loopback port (0: a free one), as long as a ``with`` block."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asyncsdk.server.http", str(folder), "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.url = ""
        self.token = ""

    def start(self) -> Self:
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()  # the end of the process ends the wait too
        if not self.url.startswith("http://"):
            self.kill()
            raise RuntimeError("the served platform did not start")
        self.token = (self.folder / "token").read_text(encoding="ascii").strip()
        return self

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def terminate(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal and wait; returns exit status, standard output after the URL, and standard error."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=_START_SECONDS)
        return self.process.returncode, output, errors

    def kill(self) -> None:
        """End it at once; does nothing when it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
