"""What comparing a folder, or a file, with a platform found: counts, and what was found of each object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from asyncsdk.errors import AsyncSDKError, VerificationFailed

__all__ = ["Comparison", "ComparisonCallback", "Verdict", "Verification"]

MAX_DIFFERENCES_KEPT = 1000

Verdict = Literal["same", "missing_locally", "missing_remotely", "different", "unreadable"]
"""How the two sides compare: equal in size and crc32c, the file is not there, the item is not there, sizes or checksums
differ, or the file cannot be read, so that nobody knows."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found of one object.

    Attributes:
        path: Path of the item, and of the file below the folder.
        verdict: How the two sides compare.
        size_local: Bytes of the file; None when it is not there, or not known.
        size_remote: Bytes of the object on the platform; None when there is none.
        crc32c_local: Checksum of the file, eight hexadecimal digits; None when it was not read: where the sizes
            differ, nobody has to.
        crc32c_remote: Checksum of the object on the platform.
        error: Why the file could not be read.
    """

    path: str
    verdict: Verdict
    size_local: int | None = None
    size_remote: int | None = None
    crc32c_local: str | None = None
    crc32c_remote: str | None = None
    error: AsyncSDKError | None = None

    @property
    def ok(self) -> bool:
        """Whether both sides are the same."""
        return self.verdict == "same"

    def __str__(self) -> str:
        if self.error is not None:
            return str(self.error)
        if self.verdict != "different":
            return f"{self.path}: {self.verdict.replace('_', ' ')}"
        if self.size_local != self.size_remote:
            return f"{self.path}: {self.size_local} bytes locally, {self.size_remote} remotely"
        return f"{self.path}: crc32c {self.crc32c_local} locally, {self.crc32c_remote} remotely"


ComparisonCallback = Callable[[Comparison], None]
"""Called once for every object, in the event loop by the async API, on the calling thread by the blocking one. What it
raises ends the verification."""


@dataclass(slots=True)
class Verification:
    """Counts of a verification, and its first 1,000 differences. Everything went to ``on_comparison``, when given.

    Attributes:
        same: Objects of equal size and crc32c on both sides.
        missing_locally: Items without a file.
        missing_remotely: Files without an item.
        different: Objects whose sizes or checksums differ.
        unreadable: Files that could not be read, and folders that could not be listed.
        bytes_read: Bytes of files that were read and summed.
        seconds: How long it took.
        differences: The first 1,000 objects that are not the same, in order of path.
    """

    same: int = 0
    missing_locally: int = 0
    missing_remotely: int = 0
    different: int = 0
    unreadable: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    differences: list[Comparison] = field(default_factory=list)

    def add(self, comparison: Comparison) -> None:
        """Count *comparison*."""
        verdict = comparison.verdict
        if verdict == "same":
            self.same += 1
            return
        setattr(self, verdict, getattr(self, verdict) + 1)
        if len(self.differences) < MAX_DIFFERENCES_KEPT:
            self.differences.append(comparison)

    @property
    def ok(self) -> bool:
        """Whether both sides are the same."""
        return self.differing == 0

    @property
    def differing(self) -> int:
        """Objects that are not the same on both sides."""
        return self.missing_locally + self.missing_remotely + self.different + self.unreadable

    @property
    def objects(self) -> int:
        """Objects that were looked at, those on one side only included."""
        return self.same + self.differing

    def raise_for_differences(self) -> None:
        """Raise when anything differs.

        Raises:
            VerificationFailed: The message counts the differences and names the first three.
        """
        if self.differing:
            first = "; ".join(str(comparison) for comparison in self.differences[:3])
            raise VerificationFailed(f"{self} (first: {first})")

    def __str__(self) -> str:
        counts = {
            "missing locally": self.missing_locally,
            "missing remotely": self.missing_remotely,
            "different": self.different,
            "unreadable": self.unreadable,
        }
        found = "".join(f", {count} {what}" for what, count in counts.items() if count)
        return f"{self.objects} objects compared, {self.same} the same{found}"
