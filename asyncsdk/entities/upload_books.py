"""What an upload of items keeps in its journal, and what it finds there when it goes on.

A file counts as the one that was sent when size, time and inode are the same; then it is neither read nor sent again.
What the platform says goes above the journal: items that are final are prepared with their checksum, as if they had
been read, and those of which nobody knows are committed again under the keys they had.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from os import PathLike
from typing import TYPE_CHECKING

import anyio.to_thread
import orjson

from asyncsdk.checksums import crc32c_hex
from asyncsdk.domain.ids import is_id, make_id
from asyncsdk.engine.journal import (
    Entry,
    Finished,
    Identity,
    Journal,
    LargeState,
    boot_number,
    digest_of,
    is_copied_at_once,
)
from asyncsdk.targets import FileTarget

if TYPE_CHECKING:
    from asyncsdk.engine import Outcome, Upload
    from asyncsdk.entities.examining import PreparedItem

__all__ = ["UploadBooks", "as_new", "is_known", "new_item_id"]

_KEY_DIGITS = 24 + 32
_RECEIPT_BYTES = _KEY_DIGITS // 2 + 12
_COPIED = b"c"
"""Ends the receipt of what was copied into a folder of this machine."""


class UploadBooks:
    """The journal of an upload of items.

    Args:
        journal: Of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        journal.describe_by(_finished, notes_are_final=False)

    @property
    def has_entries(self) -> bool:
        """Whether anything is known from before."""
        return self._journal.has_entries

    # --- going on --------------------------------------------------------------------------------------------

    async def recall(self, items: Sequence[PreparedItem]) -> None:
        """Find out which of *items* were sent before, and are the same: these get what is known of them."""
        looked = [known for known in items if isinstance(known.item.source, (str, PathLike))]
        identities = await anyio.to_thread.run_sync(_identities, [known.item.source for known in looked])
        names = [_name(known) for known in looked]
        entries = await self._journal.find(names)
        begun = frozenset(await self._journal.begun([known.path for known in looked]))
        for known, name, identity in zip(looked, names, identities, strict=True):
            entry = entries.get(name)
            if identity is None:
                continue
            if entry is not None and entry.identity != identity:
                entry = None
            if known.path in begun and (entry is None or not entry.is_settled):
                if not await self._recall_large(known, identity):
                    continue
                if entry is not None and known.large is not None and known.key != _read_receipt(entry.receipt)[0]:
                    continue  # what arrived was refused, and it was begun anew since
                known.large = None if entry is not None else known.large
            if entry is not None:
                _know(known, identity, entry.crc32c)
                known.is_settled = entry.is_settled
                if known.is_settled or not _may_be_torn(entry):
                    known.key, known.item_id = _read_receipt(entry.receipt)
                known.is_recalled = known.is_settled or bool(known.key)

    async def _recall_large(self, known: PreparedItem, identity: Identity) -> bool:
        """Find out what is known of a large object; returns whether what arrived of it is to be trusted."""
        state = await self._journal.recall_large(known.path)
        facts = state.facts
        key, item_id = facts.get("key"), facts.get("item_id")
        is_ours = isinstance(key, str) and isinstance(item_id, str) and is_id(item_id)
        if tuple(facts.get("identity", ())) != identity or not is_ours:
            state.forget()
            return True
        if state.may_be_torn:
            state.forget()  # copied once more, under another key: what stands under this one may be committed by nobody
            return False
        _know(known, identity, None)
        known.crc32c = facts.get("crc32c")
        known.key, known.item_id, known.large = str(key), str(item_id), state
        return True

    # --- keeping ---------------------------------------------------------------------------------------------

    def follow(self, known: PreparedItem, upload: Upload) -> None:
        """Let the *upload* of an item go on with what is there, and tell of what arrives, unless it goes in one."""
        if known.large is None and not is_copied_at_once(upload):
            new_item_id(known)
            known.large = self.begin_large(known)
        if known.large is not None:
            known.large.follow(upload)

    def begin_large(self, known: PreparedItem) -> LargeState:
        """Return where the parts of an item are told that goes out in parts for the first time."""
        facts = {"key": known.key, "item_id": known.item_id, "crc32c": known.crc32c, "identity": known.identity}
        return self._journal.new_large(known.path, facts)

    def arrived(self, outcome: Outcome) -> None:
        """Keep, soon, that the bytes of *outcome* arrived."""
        if outcome.transfer.key.identity is not None:
            self._journal.note(outcome)

    async def flush(self) -> None:
        """Return when everything that arrived is kept: nothing is committed before."""
        await self._journal.flush()

    def came_out_wrong(self, known: PreparedItem) -> None:
        """Forget an upload whose object has other bytes than were sent: what is finished cannot be gone on with."""
        if known.large is not None:
            known.large.forget()

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Keep which of *outcomes* were committed."""
        digests = []
        for outcome in outcomes:
            known: PreparedItem = outcome.transfer.key
            if outcome.error is None:
                digests.append(known.digest)
                if known.large is not None:
                    known.large.forget()
        self._journal.settle(digests)

    def skipped(self, outcomes: Sequence[Outcome]) -> None:
        """Keep that items needed no move, so that their files need not be read to know it again."""
        self._journal.add_settled(outcomes)


def _identities(sources: Iterable[object]) -> list[Identity | None]:
    return [_identity(source) for source in sources]


def _identity(source: object) -> Identity | None:
    try:
        return Identity.of(os.stat(source))  # type: ignore[arg-type]  # noqa: PTH116  # paths only; 3 us cheaper
    except (OSError, ValueError):  # examining it will say what is wrong with it
        return None


def _know(known: PreparedItem, identity: Identity, crc32c: int | None) -> None:
    known.identity = identity
    known.size_bytes = identity.size_bytes
    known.crc32c = None if crc32c is None else crc32c_hex(crc32c)


def _finished(outcomes: Iterable[Outcome]) -> Iterable[Finished]:
    for outcome in outcomes:
        known: PreparedItem = outcome.transfer.key
        checksum = outcome.checksum  # "crc32c:0a1b2c3d"; done here as it is done for every file
        crc32c = known.crc32c if checksum is None else checksum[7:]
        if known.identity is not None and crc32c is not None:
            known.digest = digest = digest_of(_name(known))
            receipt = _receipt(known)
            if receipt and isinstance(getattr(outcome.transfer, "target", None), FileTarget):
                receipt += _COPIED
            yield digest, known.identity, int(crc32c, 16), receipt


def _name(known: PreparedItem) -> str:
    """Return what the journal calls an item: with other metadata it is another, and is made once more."""
    metadata = known.item.metadata
    if not metadata:
        return known.path
    try:
        text = orjson.dumps(metadata if isinstance(metadata, dict) else dict(metadata), option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):  # it will be refused
        return known.path
    return f"{known.path}\0{blake2b(text, digest_size=16).hexdigest()}"


def _receipt(known: PreparedItem) -> bytes:
    """Return key and id of an item as bytes; nothing for one that was not sent, or a key of another form."""
    key = known.key
    if len(key) != _KEY_DIGITS + 1:
        return b""
    try:
        return bytes.fromhex(key[:24] + key[25:] + (known.item_id or new_item_id(known)))
    except ValueError:  # a platform with other keys: the journal then saves reading the file, not sending it
        return b""


def _read_receipt(receipt: bytes) -> tuple[str, str]:
    """Return key and id of an item; nothing for one that was not sent."""
    if receipt[_RECEIPT_BYTES:] not in {b"", _COPIED} or len(receipt) < _RECEIPT_BYTES:
        return "", ""
    digits = receipt[:_RECEIPT_BYTES].hex()
    return f"{digits[:24]}-{digits[24:_KEY_DIGITS]}", digits[_KEY_DIGITS:]


def _may_be_torn(entry: Entry) -> bool:
    """Whether it is a copy of before this machine was started anew, see `LargeState.may_be_torn`."""
    return entry.receipt[_RECEIPT_BYTES:] == _COPIED and entry.boot != boot_number()


def new_item_id(known: PreparedItem) -> str:
    """Return the id that the item of *known* gets if it is new: always the same."""
    if not known.item_id:
        known.item_id = make_id()
    return known.item_id


def is_known(outcome: Outcome) -> bool:
    """Whether the journal has it already, or cannot have it: nothing of it is known but its name."""
    return bool(getattr(outcome.transfer.key, "is_recalled", True))


def as_new(known: PreparedItem) -> PreparedItem:
    """Return *known* without what an earlier run had begun with it; its bytes are the same."""
    if known.large is not None:
        known.large.forget()
    known.key = known.item_id = ""
    known.is_recalled = known.is_settled = False
    known.large = None
    return known
