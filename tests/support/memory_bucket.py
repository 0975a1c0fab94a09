"""A bucket in memory, for what a store does that no server here does: stating checksums, hanging, holding objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from asyncsdk.checksums import crc32c
from asyncsdk.server.objects.clouds.bucket import Facts, ObjectGone, store_unavailable
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.server.objects.clouds.presigning import Credentials, Presigner
from asyncsdk.server.objects.clouds.s3_minting import S3Minter

__all__ = ["MemoryBucket", "minter", "objects_in"]


class MemoryBucket:
    """A bucket that states what it is told to state, and counts what is read.

    Attributes:
        objects: Bytes by name.
        stated: Checksums that it states, by name.
        held: Names of objects that it does not let go.
        reads: How often it was read.
        failures: So many of the next reads fail.
        gate: While it is not set, reading waits.
    """

    def __init__(self, *, verifies: bool = True, late_ms: int = 0) -> None:
        self.late_ms = late_ms
        self.objects: dict[str, bytes] = {}
        self.stated: dict[str, str] = {}
        self.held: set[str] = set()
        self.reads = 0
        self.failures = 0
        self.gate = threading.Event()
        self.gate.set()
        self._verifies = verifies

    def facts(self, name: str) -> Facts | None:
        data = self.objects.get(name)
        return None if data is None else Facts(len(data), f"etag-{crc32c(data)}", self.stated.get(name))

    def listed_facts(self, names: Sequence[str]) -> Mapping[str, Facts]:
        return {}

    def read(self, name: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        self.reads += 1
        assert self.gate.wait(60)
        if self.failures:
            self.failures -= 1
            raise store_unavailable("GetObject")
        facts = self.facts(name)
        if facts is None or facts.etag != etag:
            raise ObjectGone(name)
        yield self.objects[name][start:stop]

    def write(self, name: str, data: bytes) -> None:
        self.objects[name] = data

    def remove(self, names: Sequence[str]) -> Mapping[str, str]:
        for name in set(names) - self.held:
            self.objects.pop(name, None)
        return {name: "AccessDenied" for name in names if name in self.held}

    def names(self, prefix: str) -> Iterator[str]:
        yield from sorted(name for name in self.objects if name.startswith(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        yield from sorted({name[len(prefix) :].partition("/")[0] for name in self.names(prefix)})

    def verifies_checksums(self, name: str) -> bool:
        return self._verifies

    def discard_uploads(self, prefix: str, before_ms: int) -> int:
        return 0

    def close(self) -> None:
        pass

    def minter(self, name_of: Callable[[str], str]) -> S3Minter:
        return minter(name_of)


def minter(name_of: Callable[[str], str] = str, *, tells: bool = True, seconds: int = 3600) -> S3Minter:
    presigner = Presigner("https://host/bucket", "eu-west-1", lambda: Credentials("AKIA", "secret"), lambda: 1e9)
    return S3Minter(
        presigner,
        name_of,
        lambda name: f"upload of {name}",
        expires_seconds=lambda: seconds,
        tells_checksums=lambda: tells,
        clock=lambda: 1e9,
    )


def objects_in(bucket: MemoryBucket) -> CloudObjects:
    objects = CloudObjects(bucket, "prefix", "n" * 32)
    objects.look()
    return objects
