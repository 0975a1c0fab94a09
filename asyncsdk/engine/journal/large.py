"""What a journal knows of a large object that was begun, and the way transfers tell it of each part."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asyncsdk.checksums import combine_crc32c, crc32c_hex
from asyncsdk.engine.journal.owners import boot_number
from asyncsdk.engine.journal.store import KnownPart
from asyncsdk.engine.parted.state import Resume, SentPart
from asyncsdk.engine.received import COPIED_BYTES, Received, Unfinished
from asyncsdk.targets import FileTarget

if TYPE_CHECKING:
    from asyncsdk.engine.journal.journal import Journal
    from asyncsdk.engine.transfers import Upload

__all__ = ["LargeState", "is_copied_at_once"]


def is_copied_at_once(upload: Upload) -> bool:
    """Whether *upload* is the copy of a file, and in one range: there is nothing to go on with."""
    return isinstance(upload.target, FileTarget) and (upload.size_bytes or 0) <= COPIED_BYTES


class LargeState:
    """One large object of a run.

    Attributes:
        facts: What its feed wants kept with it, and what the transfer told when it began; empty when nothing is known.
        parts: The parts that are there, by number.
    """

    def __init__(self, journal: Journal, name: str, facts: Mapping[str, Any], parts: Sequence[KnownPart]) -> None:
        self._journal = journal
        self._name = name
        self._session = journal.sessions
        self.facts: dict[str, Any] = dict(facts)
        self.parts: dict[int, KnownPart] = {part.number: part for part in parts}

    def follow(self, upload: Upload) -> None:
        """Let *upload* go on with what is there of its object, and tell of what arrives: by parts, or as a copy."""
        if not isinstance(upload.target, FileTarget):
            upload.resume = self.resume()
        elif not is_copied_at_once(upload):
            upload.received = self._received(self._begin_anew)

    def resume(self) -> Resume:
        """Return what an upload in parts goes on with."""
        upload_id, part_size = self.facts.get("upload_id"), self.facts.get("part_size")
        return Resume(
            upload_id=upload_id if isinstance(upload_id, str) else "",
            part_size=part_size if isinstance(part_size, int) else 0,
            parts=tuple(
                SentPart(part.number, part.size_bytes, crc32c_hex(part.crc32c), part.etag, part.is_verified)
                for part in self.parts.values()
            ),
            on_begin=lambda upload_id, part_size: self.begin({"upload_id": upload_id, "part_size": part_size}),
            on_part=lambda part: self._add(
                KnownPart(part.number, part.size_bytes, int(part.crc32c, 16), part.etag, part.verified)
            ),
            identity=self._identity,
            flush=self._journal.sync,
            is_kept=self._is_kept,
        )

    def received(self) -> Received:
        """Return what a download in ranges goes on with."""
        return self._received(self.forget)

    def _received(self, on_end: Callable[[], None]) -> Received:
        known = self.facts.get("unfinished")
        is_whole = isinstance(known, dict) and set(known) == set(Unfinished.__slots__)
        return Received(
            Unfinished(**known) if is_whole and isinstance(known, dict) else None,
            {part.number: (part.size_bytes, part.crc32c) for part in self.parts.values()},
            on_begin=self._begin_file,
            on_range=lambda number, size_bytes, crc32c: self._add(KnownPart(number, size_bytes, crc32c)),
            on_end=on_end,
            is_kept=self._is_kept,
            identity=self._identity,
        )

    @property
    def _identity(self) -> tuple[int, int, int] | None:
        identity = self.facts.get("identity")
        return tuple(identity) if isinstance(identity, (list, tuple)) and len(identity) == 3 else None

    def _is_kept(self) -> bool:
        """Whether who goes on finds what there is of it; what was told while nothing could be kept is told now."""
        if not self._journal.is_kept:
            return False
        if self.facts and self._session != self._journal.sessions:
            self._tell_all()
        return True

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Keep *facts* beside those that are known, and no part."""
        self.facts.update(facts)
        self.parts.clear()
        self._session = self._journal.sessions
        self._journal.begin_large(self._name, self.facts)

    def _begin_file(self, unfinished: Unfinished) -> None:
        facts = {name: getattr(unfinished, name) for name in Unfinished.__slots__}
        # Whoever goes on, or forgets it, may stand in another folder.
        facts["temporary"] = os.path.abspath(unfinished.temporary)  # noqa: PTH100  # links stay as they are
        self.begin({"unfinished": facts, "boot": boot_number()})

    def _begin_anew(self) -> None:
        """Keep nothing but what the feed wants kept: the file is gone, and what was in it is not to be gone on with."""
        self.facts.pop("unfinished", None)
        self.begin({})

    @property
    def may_be_torn(self) -> bool:
        """Whether it is a copy that was whole before this machine was started anew, and never synced: a loss of power
        may have left the file its size and not its bytes."""
        copy, boot = self.facts.get("unfinished"), self.facts.get("boot")
        if boot == boot_number() or (boot is None and not isinstance(copy, dict)):
            return False
        is_whole = isinstance(copy, dict) and self.whole_crc32c(copy.get("size_bytes", 0)) is not None
        return is_whole or "arrived" in self.facts

    def arrived(self, crc32c: str, *, is_copy: bool) -> None:
        """Keep that all bytes of an object are there, as the copy of a file or not."""
        self.begin({"arrived": crc32c, "boot": boot_number()} if is_copy else {"arrived": crc32c})

    def whole_crc32c(self, size_bytes: int) -> int | None:
        """Return the checksum of the object when all its parts are there, else None."""
        checksum = total = 0
        for number in range(1, len(self.parts) + 1):
            part = self.parts.get(number)
            if part is None:
                return None
            checksum = combine_crc32c(checksum, part.crc32c, part.size_bytes)
            total += part.size_bytes
        return checksum if self.parts and total == size_bytes else None

    def forget(self) -> None:
        """Keep nothing of it any more, nor the file of a half-made one: it is final, or not to be gone on with."""
        if self.facts:
            self.facts.clear()
            self.parts.clear()
            self._journal.end_large(self._name)

    def _add(self, part: KnownPart) -> None:
        self.parts[part.number] = part
        if self._session == self._journal.sessions:
            self._journal.add_parts(self._name, (part,))
        else:
            self._tell_all()

    def _tell_all(self) -> None:
        """Keep all of it: what was told before may not have been kept, and what is kept may be of another run."""
        self._session = self._journal.sessions
        self._journal.begin_large(self._name, self.facts)
        self._journal.add_parts(self._name, tuple(self.parts.values()))
