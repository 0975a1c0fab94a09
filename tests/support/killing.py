"""Clients killed with SIGKILL at chosen moments, and what a served platform in this process was asked for meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from asyncsdk.errors import ServerError
from asyncsdk.protocol.base import Message
from asyncsdk.server.backend import Backend
from asyncsdk.server.http.front.objects import ObjectBytes, Put
from tests.support.server import RunningServer

__all__ = ["GRACE_SECONDS", "ROOT", "Blow", "Watch", "random_seed"]

ROOT = Path(__file__).resolve().parents[2]
GRACE_SECONDS = 0.5
_END_SECONDS = 120
_LARGE_RANGE = 100_000
_SEED = os.environ.get("ASYNCSDK_TESTS_SEED", "")


@dataclass(frozen=True)
class Blow:
    """The moment at which a client is killed; the first that comes counts, and without any it is left to its end.

    Attributes:
        requests: At the head of its n-th request for the bytes of an object.
        parts: At the head of its n-th part, or n-th range: of more than 100,000 bytes, or not from the first on.
        messages: At its n-th message to the platform, of those in *kinds* (none named: of any kind).
        kinds: Which messages count.
        moment: Whether the platform has done what the message says when the client dies.
        seconds: So long after its first message.
        grace_seconds: How long the client is left alone before that, with a server that does nothing meanwhile: then
            whatever has come is in the journal, and only what is under way may be moved again.
    """

    requests: int = 0
    parts: int = 0
    messages: int = 0
    kinds: tuple[type[Message[Any]], ...] = ()
    moment: Literal["before", "after"] = "before"
    seconds: float | None = None
    grace_seconds: float = 0.0


class Watch:
    """What the server is asked for, and a knife.

    Attributes:
        sent: How often the bytes of a checksum were sent whole, by its eight digits.
        parts: How often each part was sent, by the id of its upload and its number.
        arrived: Parts that the server had answered for, as keys of ``parts``.
        fetched: How often each object, or range of one, was fetched: checksum and first byte.
        kills: How many clients were killed.
        took_seconds: How long the last client was there after its first message.
        grace_seconds: `Blow.grace_seconds` of blows that are given as a number.
        processes: Worker processes of the client. Only their parent is killed; that ends them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: Counter[str] = Counter()
        self.parts: Counter[tuple[str, int]] = Counter()
        self.arrived: set[tuple[str, int]] = set()
        self.fetched: Counter[tuple[str, int]] = Counter()
        self.kills = 0
        self.took_seconds = 0.0
        self.grace_seconds = 0.0
        self.processes = 1
        self.process: subprocess.Popen[bytes] | None = None
        self._blow: Blow | None = None
        self._counts: Counter[str] = Counter()
        self._first = 0.0
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._watch_objects(monkeypatch)
        self._watch_messages(monkeypatch)

    def _watch_objects(self, monkeypatch: pytest.MonkeyPatch) -> None:
        put, find = ObjectBytes.put, ObjectBytes.find
        watch = self

        def watched_put(bytes_: ObjectBytes, head: Any) -> Put:
            parameters = _parameters(head)
            if "partNumber" not in parameters:
                watch._count("requests")
                watch.sent[parameters.get("crc32c", "")] += 1
                return put(bytes_, head)
            watch._count("requests", "parts")
            key = parameters["uploadId"], int(parameters["partNumber"])
            watch.parts[key] += 1
            time.sleep(0.01)  # a part takes its time: the others get their turn
            allowed = put(bytes_, head)

            def begin() -> Any:
                taker, received = allowed.begin()

                def done(receipt: object) -> Any:
                    reply = received(receipt)
                    watch.arrived.add(key)
                    return reply

                return taker, done

            return replace(allowed, begin=begin)

        def watched_find(bytes_: ObjectBytes, head: Any) -> Any:
            found = find(bytes_, head)
            is_large = found.start > 0 or found.stop - found.start > _LARGE_RANGE  # the last range may be small
            watch._count("requests", *(["parts"] if is_large else []))
            if is_large:
                time.sleep(0.01)  # as above
            watch.fetched[_parameters(head)["crc32c"], found.start] += 1
            return found

        monkeypatch.setattr(ObjectBytes, "put", watched_put)
        monkeypatch.setattr(ObjectBytes, "find", watched_find)

    def _watch_messages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        handle = Backend.handle
        watch = self

        def watched_handle(backend: Backend, message: Any, *arguments: Any) -> Any:
            blow = watch._blow
            if blow is None:
                return handle(backend, message, *arguments)
            watch._begin(blow)
            counts = not blow.kinds or isinstance(message, blow.kinds)
            if counts and blow.moment == "before" and watch._count("messages"):
                raise ServerError("the request never arrived", status=500)
            reply = handle(backend, message, *arguments)
            if counts and blow.moment == "after":
                watch._count("messages")
            return reply

        monkeypatch.setattr(Backend, "handle", watched_handle)

    def _begin(self, blow: Blow) -> None:
        with self._lock:
            if self._first:
                return
            self._first = time.monotonic()
            if blow.seconds is not None and self.process is not None:
                self._timer = threading.Timer(blow.seconds, self.process.kill)
                self._timer.start()

    def _count(self, *names: str) -> bool:
        """Count, and kill if that was the moment; returns whether it was."""
        with self._lock:
            blow, strikes = self._blow, False
            if blow is None or self.process is None:
                return False
            for name in names:
                self._counts[name] += 1
                strikes = strikes or self._counts[name] == getattr(blow, name)
            if strikes:
                time.sleep(blow.grace_seconds)
                self.process.kill()
            return strikes

    def counted(self, name: Literal["requests", "parts", "messages"]) -> int:
        """Return how many of them the last client came to."""
        return self._counts[name]

    def run(
        self, served: RunningServer, verb: str, entity_id: str, path: Path, log: Path, blow: Blow | int = 0
    ) -> bool:
        """Run `tests.support.killed_run` until it ends or is killed; returns whether it ended.

        Args:
            blow: When it is killed; a number is `Blow.requests`, 0: not at all.
        """
        command = [sys.executable, "-m", "tests.support.killed_run", verb, served.url, served.token, entity_id]
        blow = blow if isinstance(blow, Blow) else Blow(requests=blow, grace_seconds=self.grace_seconds)
        return self.run_command([*command, str(path), str(log), str(self.processes)], blow)

    def run_command(self, command: Sequence[str], blow: Blow, **environment: str) -> bool:
        """Run any client until it ends or is killed; returns whether it ended."""
        with self._lock:
            self._blow, self._first = blow, 0.0
            self._counts.clear()
            process = self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **environment},
            )
        try:
            _, errors = process.communicate(timeout=_END_SECONDS)
        finally:
            process.kill()
            process.wait()
            with self._lock:
                self._blow = None
                timer, self._timer = self._timer, None
        self.took_seconds = time.monotonic() - self._first if self._first else 0.0
        if timer is not None:
            timer.cancel()
            timer.join()
        assert process.returncode in {0, -9}, errors.decode()
        self.kills += process.returncode == -9
        return process.returncode == 0

    def kill(self) -> None:
        """End the client at once."""
        if self.process is not None:
            self.process.kill()


def random_seed(record_property: Any) -> int:
    """Return a seed of chance that is another one each time, and is told; ``ASYNCSDK_TESTS_SEED`` gives one again."""
    seed = int(_SEED) if _SEED else int.from_bytes(os.urandom(4), "big")
    record_property("seed", seed)
    print(f"ASYNCSDK_TESTS_SEED={seed} does the same again")
    return seed


def _parameters(head: Any) -> dict[str, str]:
    return dict(one.partition("=")[::2] for one in head.query.decode().split("&"))
