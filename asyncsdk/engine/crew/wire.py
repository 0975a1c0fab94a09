"""What crosses between a parent and its worker processes: rows for transfers, outcomes and errors.

Rows are tuples of plain values: pickling the records themselves takes eight times as long. The caller's ``key`` never
crosses; a number does. How rows travel: `asyncsdk.engine.crew.channel`.

Rows hold signed URLs: nothing here writes one into an error or a log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from asyncsdk.engine.parted.state import Resume
from asyncsdk.engine.received import Received
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.work import SMALL_BYTES
from asyncsdk.errors import AsyncSDKError
from asyncsdk.targets import FileTarget, FormTarget, Origin, PutTarget, Target, UrlOrigin
from asyncsdk.transport.base import is_conditional

__all__ = [
    "CauseElsewhere",
    "can_cross",
    "end_of",
    "error_of",
    "kept",
    "note_crash",
    "noted",
    "outcome_of",
    "pack_end",
    "pack_error",
    "pack_outcome",
    "pack_transfer",
    "transfer_of",
]

Row = tuple[Any, ...]
Note = Callable[..., None]
Flush = Callable[[int], Awaitable[None]]


class CauseElsewhere(Exception):
    """What caused an error in a worker process, as text: exceptions of others need not survive being pickled."""


# --- transfers -----------------------------------------------------------------------------------------------


def can_cross(transfer: Upload | Download) -> bool:
    """Whether another process can move *transfer*: from a path or a few bytes to a URL, or from a URL to a path.

    Everything else stays: open files, streams and objects of the caller exist in one process only, many bytes would be
    copied twice, and files of this machine are a matter of its disk.
    """
    if isinstance(transfer, Upload):
        source = transfer.source
        target = transfer.target
        if isinstance(target, FileTarget) or (isinstance(target, FormTarget) and not target.is_repeatable):
            return False  # nobody knows how far a worker that crashed had got with it
        is_small = isinstance(source, (bytes, memoryview)) and memoryview(source).nbytes <= SMALL_BYTES
        return is_small or isinstance(source, (str, Path))
    return isinstance(transfer.origin, UrlOrigin) and isinstance(transfer.sink, (str, Path))


def pack_transfer(number: int, transfer: Upload | Download) -> Row:
    """Return the row of a transfer that `can_cross`."""
    if isinstance(transfer, Upload):
        source = transfer.source
        where = str(source) if isinstance(source, (str, Path)) else bytes(source)  # type: ignore[arg-type]  # see above
        name = None if transfer.name == where else str(transfer.name)
        resume = transfer.resume
        known = None
        if resume is not None:
            identity = None if resume.identity is None else tuple(resume.identity)
            facts = (resume.upload_id, resume.part_size, tuple(resume.parts), resume.may_leave)
            known = (*facts, identity, resume.flush is not None, resume.may_be_there)
        seen = None if transfer.read_from is None else (str(transfer.read_from[0]), *transfer.read_from[1])
        return (number, where, name, transfer.size_bytes, transfer.crc32c, pack_end(transfer.target), known, seen)
    received = transfer.received
    there = None if received is None or not received.may_leave else (received.unfinished, dict(received.ranges))
    return (number, str(transfer.sink), str(transfer.name), pack_end(transfer.origin), there, transfer.wants_identity)


def transfer_of(row: Row, note: Note, flush: Flush) -> Upload | Download:
    """Return the transfer of a row; its key is the number.

    Args:
        note: Called with the number when there is something to be remembered of it: what, and the facts; see `noted`.
        flush: Called with the number when what was noted of it must have been kept, if anybody keeps it.
    """
    if len(row) == 8:
        number, source, name, size, crc32c, target, known, seen = row
        resume = None
        if known is not None:
            upload_id, part_size, parts, keeps_parts, identity, is_kept, may_be_there = known
            on_begin, on_part = partial(note, number, "begin"), partial(note, number, "part")
            resume = Resume(upload_id, part_size, parts, on_begin, on_part, keeps_parts, identity)
            resume.may_be_there = may_be_there
            if is_kept:
                resume.flush = partial(flush, number)
        read_from = None if seen is None else (seen[0], seen[1:])
        return Upload(source, end_of(target), size, crc32c, number, name or "", resume, read_from=read_from)
    number, sink, name, origin, there, wants_identity = row
    received = None
    if there is not None:
        unfinished, ranges = there
        received = Received(
            unfinished,
            ranges,
            partial(note, number, "begin"),
            partial(note, number, "part"),
            partial(note, number, "end"),
        )
    end = end_of(origin)
    return Download(end, sink, key=number, name=name, received=received, wants_identity=wants_identity)


def noted(transfer: Upload | Download, what: str, facts: tuple[Any, ...]) -> None:
    """Remember for *transfer* what another process found out, and tell whoever wants to know."""
    if isinstance(transfer, Upload):
        resume = transfer.resume
        assert resume is not None
        if what == "begin":
            resume.upload_id, resume.part_size = facts
            resume.parts = []
            if resume.on_begin is not None:
                resume.on_begin(*facts)
            return
        if not isinstance(resume.parts, list):
            resume.parts = list(resume.parts)
        resume.parts.append(facts[0])
        if resume.on_part is not None:
            resume.on_part(*facts)
        return
    received = transfer.received
    assert received is not None
    if what == "begin":
        received.begin(*facts)
    elif what == "part":
        number, size, crc32c = facts
        if not isinstance(received.ranges, dict):
            received.ranges = dict(received.ranges)
        received.ranges[number] = size, crc32c
        received.add(number, size, crc32c)
    else:
        received.end()


def note_crash(transfer: Upload | Download) -> None:
    """Where an upload only takes what is new, remember that it may be there already."""
    if isinstance(transfer, Upload) and is_conditional(getattr(transfer.target, "headers", {})):
        if transfer.resume is None:
            transfer.resume = Resume(keeps_parts=False)
        transfer.resume.may_be_there = True


async def kept(transfer: Upload | Download) -> None:
    """Return when a kill loses nothing of what was noted for *transfer*, if somebody keeps it."""
    if isinstance(transfer, Upload) and transfer.resume is not None and transfer.resume.flush is not None:
        await transfer.resume.flush()


def pack_end(end: Target | Origin | None) -> Any:
    """Return what crosses in place of a target or origin."""
    if type(end) is PutTarget:
        return ("put", end.url, _plain(end.headers), end.method, end.expires_at)
    if type(end) is UrlOrigin:
        return ("get", end.url, _plain(end.headers), end.size_bytes, end.crc32c, end.etag, end.expires_at)
    headers = getattr(end, "headers", None)
    if headers is not None and type(headers) is not dict:
        return replace(end, headers=dict(headers))  # type: ignore[type-var]  # all of them are dataclasses
    return end


def end_of(packed: Any) -> Any:
    """Return the target or origin that `pack_end` packed."""
    if isinstance(packed, tuple):
        if packed[0] == "put":
            return PutTarget(packed[1], packed[2] or {}, packed[3], packed[4])
        return UrlOrigin(packed[1], packed[2] or {}, *packed[3:])
    return packed


def _plain(headers: Any) -> dict[str, str] | None:
    return (headers if type(headers) is dict else dict(headers)) if headers else None


# --- outcomes ------------------------------------------------------------------------------------------------


def pack_outcome(outcome: Outcome) -> Row:
    """Return the row of an outcome whose transfer came from `transfer_of`."""
    error = outcome.error
    return (
        outcome.transfer.key,
        outcome.status,
        outcome.size_bytes,
        outcome.seconds,
        outcome.attempts,
        outcome.etag,
        outcome.checksum,
        outcome.verified,
        outcome.reply,
        None if error is None else pack_error(error),
        None if outcome.waits is None else dict(outcome.waits),
        outcome.identity,
    )


def outcome_of(row: Row, transfer: Upload | Download) -> Outcome:
    """Return the outcome of a row, for the transfer that was given as its number."""
    _, status, size, seconds, attempts, etag, checksum, verified, reply, error, waits, identity = row
    return Outcome(
        transfer,
        status,
        None if error is None else error_of(error),
        size,
        seconds,
        attempts,
        etag,
        checksum,
        verified,
        reply,
        waits=waits,
        identity=identity,
    )


def pack_error(error: AsyncSDKError) -> tuple[AsyncSDKError, str | None]:
    """Return an error and, in words, what caused it."""
    cause = error.__cause__
    if cause is None:
        return error, None
    # Only our own errors and the system's are known to hold no secrets.
    is_known = isinstance(cause, (AsyncSDKError, OSError))
    return error, f"{type(cause).__name__}: {cause}" if is_known else type(cause).__name__


def error_of(packed: tuple[AsyncSDKError, str | None]) -> AsyncSDKError:
    """Return an error as it was where it happened; its cause is a `CauseElsewhere`."""
    error, cause = packed
    if cause is not None:
        error.__cause__ = CauseElsewhere(cause)
    return error
