"""What crosses between a parent and its worker processes: frames on pipes, rows, errors."""

from __future__ import annotations

import asyncio
import os
import pickle
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from asyncsdk import errors
from asyncsdk.engine import (
    Download,
    FileOrigin,
    FileTarget,
    MultipartTarget,
    Outcome,
    PutTarget,
    StreamSink,
    Upload,
    UrlOrigin,
)
from asyncsdk.engine.config import Bandwidth, MiB, TransferConfig
from asyncsdk.engine.crew.channel import MAX_FRAME_BYTES, CannotCross, Channel, pickled
from asyncsdk.engine.crew.shares import Share, has_rates, share_out, shares_of, worker_config
from asyncsdk.engine.crew.wire import (
    CauseElsewhere,
    can_cross,
    end_of,
    kept,
    noted,
    outcome_of,
    pack_end,
    pack_outcome,
    pack_transfer,
    transfer_of,
)
from asyncsdk.engine.journal import Identity
from asyncsdk.engine.limits import Limits
from asyncsdk.engine.parted.state import Resume, SentPart
from asyncsdk.engine.received import Received, Unfinished
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch, ConnectionFailed, NotFound, RequestTimeout
from asyncsdk.targets import BlobTarget, FormTarget, ResumableTarget

SECRET = "s3cr3t"
URL = f"https://host/path?signature={SECRET}"


def crossed(row: Any) -> Any:
    """Return what arrives on the other side."""
    return pickle.loads(pickle.dumps(row, 5))


def noting(number: int, what: str, *facts: object) -> None:
    """Expect nothing to be remembered."""
    raise AssertionError(f"{what} of {number}")


async def never(number: int) -> None:
    """Expect nothing to be kept."""
    raise AssertionError(f"flush of {number}")


# --- transfers -----------------------------------------------------------------------------------------------

ENDS = [
    PutTarget(URL, {"X-A": "1"}, "POST", 12.5),
    PutTarget(URL),
    PutTarget(URL, MappingProxyType({"X-A": "1"})),
    MultipartTarget("U", 5, (URL, URL), URL, URL, (URL, URL), {"X": "y"}, 3, 9.0),
    MultipartTarget("U", 5, (URL,), headers=MappingProxyType({"X": "y"})),
    ResumableTarget(URL),
    BlobTarget(URL, headers=MappingProxyType({"X": "y"})),
    FormTarget(URL, (("key", SECRET),)),
]
ORIGINS = [UrlOrigin(URL, {"X-A": "1"}, 7, "00000001", '"e"', 12.5), UrlOrigin(URL)]


@pytest.mark.parametrize("end", [*ENDS, *ORIGINS, None], ids=repr)
def test_targets_and_origins_cross(end: Any) -> None:
    """They are equal on the other side, whatever kind of mapping their headers were."""
    assert end_of(crossed(pack_end(end))) == end


@pytest.mark.parametrize(
    ("source", "arrives"),
    [("a/path", "a/path"), (Path("a/path"), "a/path"), (b"bytes", b"bytes"), (bytearray(b"bytes"), b"bytes")],
)
@pytest.mark.parametrize("name", ["", "a name"])
def test_uploads_cross(source: Any, arrives: Any, name: str) -> None:
    """With everything but the caller's key, in whose place stands the number."""
    seen = None if isinstance(source, (str, Path)) else ("a/path", (5, 10**18, 7))
    given = Upload(source, ENDS[0], 5, "00000001", key=object(), name=name, read_from=seen)
    came = transfer_of(crossed(pack_transfer(3, given)), noting, never)
    assert isinstance(came, Upload)
    assert came.read_from == seen
    assert (came.source, came.target, came.size_bytes, came.crc32c) == (arrives, ENDS[0], 5, "00000001")
    assert (came.key, came.name) == (3, given.name)


@pytest.mark.parametrize("sink", ["a/path", Path("a/path")])
def test_downloads_cross(sink: Any) -> None:
    """The same the other way."""
    for wants_identity in (False, True):
        given = Download(ORIGINS[0], sink, key=object(), wants_identity=wants_identity)
        came = transfer_of(crossed(pack_transfer(3, given)), noting, never)
        assert isinstance(came, Download)
        assert (came.origin, came.sink, came.key, came.name) == (ORIGINS[0], "a/path", 3, given.name)
        assert came.wants_identity is wants_identity


def test_the_identity_of_a_file_crosses() -> None:
    """A worker looked at the file that it wrote, so that the parent need not."""
    transfer = Download(ORIGINS[0], "a/path", key=3)
    outcome = Outcome(transfer, "done", size_bytes=7, identity=(7, 1_700_000_000_000_000_001, 5))
    assert outcome_of(crossed(pack_outcome(outcome)), transfer).identity == outcome.identity


async def _pieces() -> Any:
    yield b""


async def _send(piece: bytes) -> None:
    pass


@pytest.mark.parametrize(
    ("transfer", "can"),
    [
        (Upload("path", ENDS[0]), True),
        (Upload(Path("path"), ENDS[3]), True),
        (Upload(bytes(65_536), ENDS[0]), True),
        (Upload(memoryview(bytes(65_536)).cast("I"), ENDS[0]), True),
        (Upload(bytes(65_537), ENDS[0]), False),
        (Upload("path", FileTarget(Path("folder"), "name")), False),
        (Upload(_pieces(), ENDS[3]), False),
        (Upload("path", FormTarget(URL)), True),
        (Upload("path", FormTarget(URL, is_repeatable=False)), False),
        (Download(URL, "sink"), True),
        (Download(URL, Path("sink")), True),
        (Download(URL), False),
        (Download(URL, StreamSink(_send)), False),
        (Download(FileOrigin(Path("file")), "sink"), False),
    ],
)
def test_what_can_cross(transfer: Upload | Download, can: bool) -> None:
    """From a path or a few bytes to a URL, and from a URL to a path."""
    assert can_cross(transfer) is can


# --- outcomes and errors -------------------------------------------------------------------------------------


ELSEWHERE = (errors.JobEnded, errors.RunnerUnavailable, errors.MetricsNotSent, errors.InvalidImage)
"""Errors of jobs, metrics and images: no transfer ends with one, so none crosses."""


def samples() -> list[AsyncSDKError]:
    """Return an error of every class there is."""
    special: dict[type[AsyncSDKError], tuple[Any, ...]] = {
        errors.UnsupportedOperation: ("here", "there"),
        errors.RequestTimeout: ("send", 3.0, URL),
        errors.ChecksumMismatch: ("crc32c:1", "crc32c:2"),
        errors.IncompleteTransfer: (5, 3),
        errors.InvalidName: ("na/me", "is no name"),
        errors.StoreError: ("path", "is broken"),
        errors.JournalCorrupt: ("path", "is broken"),
        errors.WorkerCrashed: ("name", "signal 9", 3),
    }
    found: list[AsyncSDKError] = []
    for name in errors.__all__:
        kind = getattr(errors, name)
        if not (isinstance(kind, type) and issubclass(kind, AsyncSDKError)):
            continue
        if issubclass(kind, ELSEWHERE):
            continue
        if kind is errors.InvalidRow:
            found.append(errors.InvalidRow("is wrong", line=3, file="rows"))
        else:
            found.append(kind(*special.get(kind, ("a message",))))
    return found


@pytest.mark.parametrize("error", samples(), ids=lambda error: type(error).__name__)
def test_every_error_crosses(error: AsyncSDKError) -> None:
    """It comes back with the same class, text, code, facts and notes; what caused it comes in words."""
    error.retryable = not error.retryable
    error.add_note("a note")
    error.__cause__ = OSError(5, "Input/output error")
    transfer = Upload(b"", ENDS[0], key=3)
    outcome = outcome_of(crossed(pack_outcome(Outcome(transfer, "failed", error=error))), transfer)
    came = outcome.error
    assert came is not None
    assert (type(came), str(came), came.args, came.code) == (type(error), str(error), error.args, error.code)
    assert vars(came) == vars(error)
    assert came.__notes__ == ["a note"]
    assert isinstance(came.__cause__, CauseElsewhere)
    assert str(came.__cause__) == "OSError: [Errno 5] Input/output error"


def test_facts_of_errors_cross() -> None:
    """Status, body, request, parts: whoever looks sees the same."""
    refused = NotFound("no", status=410, code="gone", request_id="r", body={"a": [1, None]}, retry_after=1.5)
    wrong = ChecksumMismatch("a", "b", source="s", destination="d", part=3, bytes_done=7)
    for error in (refused, wrong, RequestTimeout("reply", 2.0, URL)):
        transfer = Upload(b"", ENDS[0], key=3)
        came = outcome_of(crossed(pack_outcome(Outcome(transfer, "failed", error=error))), transfer).error
        assert came is not None
        assert vars(came) == vars(error)
        assert came.__cause__ is None


def test_causes_tell_no_secrets() -> None:
    """What others' exceptions say may hold anything; only their class crosses."""
    error = ConnectionFailed("broken")
    error.__cause__ = ValueError(URL)
    transfer = Upload(b"", ENDS[0], key=3)
    came = outcome_of(crossed(pack_outcome(Outcome(transfer, "failed", error=error))), transfer).error
    assert came is not None
    assert str(came.__cause__) == "ValueError"


def test_outcomes_cross() -> None:
    """Every field but the bytes, which stay where they are; the transfer is the one that was given."""
    given = Upload(b"", ENDS[0], key="the caller's")
    there = Upload(b"", ENDS[0], key=3)
    outcome = Outcome(there, "done", None, 5, 1.5, 2, '"e"', "crc32c:00000001", True, b"reply")
    came = outcome_of(crossed(pack_outcome(outcome)), given)
    assert came == Outcome(given, "done", None, 5, 1.5, 2, '"e"', "crc32c:00000001", True, b"reply")


# --- frames --------------------------------------------------------------------------------------------------


class Ends:
    """Two channels that speak to each other, and what they said."""

    def __init__(self) -> None:
        here, there = os.pipe(), os.pipe()
        self.came: list[tuple[Any, ...]] = []
        self.ended = asyncio.Event()
        self.channel = Channel(there[0], here[1], self.came.append, self.ended.set)
        self.reads, self.writes = here[0], there[1]

    def close(self) -> None:
        self.channel.close()
        os.close(self.reads)
        if self.writes >= 0:
            os.close(self.writes)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def frame(message: object) -> bytes:
    data = pickle.dumps(message, 5)
    return len(data).to_bytes(4, "little") + data


async def test_frames_in_pieces_and_in_bulk() -> None:
    """However the bytes come, the messages are the same, in order."""
    ends = Ends()
    try:
        messages = [("a", number, "x" * number) for number in range(50)]
        data = b"".join(map(frame, messages))
        for start in range(0, 500, 7):
            os.write(ends.writes, data[start : start + 7])
            await asyncio.sleep(0)
        os.write(ends.writes, data[504:])
        await until(lambda: len(ends.came) == 50)
        assert ends.came == messages
    finally:
        ends.close()


async def test_more_than_a_pipe_holds() -> None:
    """What does not fit waits, in order, and nothing blocks meanwhile."""
    ends = Ends()
    try:
        messages = [("large", bytes([number]) * 1_000_000) for number in range(5)]
        for message in messages:
            ends.channel.send(message)
        whole = b"".join(map(frame, messages))
        os.set_blocking(ends.reads, False)
        got = b""
        while len(got) < len(whole):
            await asyncio.sleep(0)
            try:
                got += os.read(ends.reads, 100_000)
            except BlockingIOError:
                continue
        assert got == whole
        ends.channel.send(("small",))
        assert os.read(ends.reads, 100) == frame(("small",))
    finally:
        ends.close()


async def test_the_end_is_told_once_after_everything_else() -> None:
    """What was said before the end counts; half a frame does not."""
    ends = Ends()
    try:
        os.write(ends.writes, frame(("last",)) + frame(("half",))[:-1])
        os.close(ends.writes)
        ends.writes = -1
        await asyncio.wait_for(ends.ended.wait(), 10)
        assert ends.came == [("last",)]
    finally:
        ends.close()


async def test_nonsense_is_an_end() -> None:
    """A length that no frame has is taken for the end, not for memory to be found."""
    ends = Ends()
    try:
        os.write(ends.writes, (MAX_FRAME_BYTES + 1).to_bytes(4, "little"))
        await asyncio.wait_for(ends.ended.wait(), 10)
    finally:
        ends.close()


async def test_nobody_listens() -> None:
    """To a process that has ended, nothing is sent, and that is no error here: its own end says so."""
    ends = Ends()
    os.close(ends.reads)
    ends.reads = os.open(os.devnull, os.O_RDONLY)
    try:
        ends.channel.send(("lost", bytes(10)))
        ends.channel.send(("lost", bytes(10)))
        ends.channel.finish()
        ends.channel.send(("lost",))
    finally:
        ends.close()


class Text(str):
    """A string of the caller's own."""

    __slots__ = ()


@pytest.mark.parametrize(
    "held", [Text("x"), Text, lambda: 0, MappingProxyType({})], ids=["subclass", "class", "function", "proxy"]
)
def test_only_what_the_other_side_knows_is_sent(held: object) -> None:
    """An object of the caller's class would be looked for in modules that a worker has not imported."""
    with pytest.raises(CannotCross):
        pickled(("rows", 1, [("a", held)]))


def test_paths_and_names_of_any_class_cross() -> None:
    """They are made plain."""
    for row in (
        pack_transfer(1, Upload(Text("path"), ENDS[1], name=Text("name"))),
        pack_transfer(1, Download(URL, Text("path"), name=Text("name"))),
    ):
        assert pickled(row)


async def test_what_cannot_be_read_is_an_end() -> None:
    """Neither a mistake nor a lost message goes by unseen."""
    ends = Ends()
    try:
        os.write(ends.writes, (5).to_bytes(4, "little") + b"12345")
        await asyncio.wait_for(ends.ended.wait(), 10)
    finally:
        ends.close()


async def test_a_message_that_cannot_be_handled_is_not_given_twice() -> None:
    """What a handler raises goes to the event loop, and the next message is the next."""
    here, there = os.pipe(), os.pipe()
    came = []

    def handle(message: tuple[Any, ...]) -> None:
        came.append(message)
        if message == ("bad",):
            raise ZeroDivisionError

    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    channel = Channel(there[0], here[1], handle, lambda: None)
    try:
        os.write(there[1], frame(("bad",)) + frame(("good",)))
        await until(lambda: raised)
        os.write(there[1], frame(("more",)))
        await until(lambda: len(came) == 3)
        assert came == [("bad",), ("good",), ("more",)]
    finally:
        channel.close()
        os.close(here[0])
        os.close(there[1])


def test_nothing_shows_secrets() -> None:
    """Neither records nor rows of records that anybody prints by accident."""
    shown = repr([Upload(b"", ENDS[0]), Download(ORIGINS[0], "s")]) + repr(ENDS[3])
    assert SECRET not in shown


# --- shares --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "count", "shares"), [(16, 3, [6, 5, 5]), (6, 2, [3, 3]), (1, 3, [1, 1, 1]), (4, 4, [1, 1, 1, 1])]
)
def test_shares(total: int, count: int, shares: list[int]) -> None:
    """Even, the rest to the first, nobody without one."""
    assert share_out(total, count) == shares


def test_settings_of_a_worker() -> None:
    """Those of the engine, with its shares; it starts no workers of its own, and the parent looks at the clock."""
    config = TransferConfig(
        processes=3, concurrency=16, part_size=4 * MiB, memory_bytes=100 * MiB, cleanup_seconds=3, deadline_seconds=9
    )
    found = worker_config(config, 0, 48 * MiB)
    assert (found.processes, found.concurrency, found.large_objects) == (1, 6, 2)
    assert (found.memory_bytes, found.part_size, found.cleanup_seconds) == (8 * MiB, 4 * MiB, 3)
    assert found.deadline_seconds is None
    assert crossed(found) == found
    found = worker_config(TransferConfig(processes=3, concurrency_max=20), 2, 480 * MiB)
    assert (found.concurrency, found.concurrency_max, found.memory_bytes) == ("auto", 6, 80 * MiB)


def test_shares_follow_the_limits() -> None:
    """What is changed while it runs is shared out anew, and a worker's engine is held to it."""
    limits = Limits(TransferConfig(processes=2, concurrency=6))
    assert not has_rates(limits)
    assert shares_of(limits, 2) == [Share(3), Share(3)]
    limits.concurrency = 3
    limits.bandwidth = Bandwidth(up=1001)
    limits.requests_per_second = 5.0
    assert has_rates(limits)
    assert shares_of(limits, 2) == [Share(2, 501, None, 2.5), Share(1, 500, None, 2.5)]
    there = Limits(worker_config(TransferConfig(processes=2, concurrency=6), 0, MiB))
    crossed(shares_of(limits, 2)[0]).apply(there)
    assert (there.concurrency, there.bandwidth, there.requests_per_second) == (2, Bandwidth(501), 2.5)
    automatic = Limits(TransferConfig(processes=2))
    assert shares_of(automatic, 2) == [Share("auto"), Share("auto")]


# --- what can be gone on with --------------------------------------------------------------------------------


def test_what_is_known_of_an_upload_crosses() -> None:
    """And what a worker finds out comes back to whoever wants to know."""
    told: list[Any] = []
    parts = (SentPart(1, 5, "00000001", '"e"', True),)
    given = Upload("path", ENDS[3], resume=Resume("U", 5, parts, lambda *facts: told.append(facts), told.append))
    notes: list[tuple[Any, ...]] = []
    came = transfer_of(crossed(pack_transfer(3, given)), lambda *note: notes.append(note), never)
    assert isinstance(came, Upload)
    assert came.resume is not None
    assert (came.resume.upload_id, came.resume.part_size, came.resume.parts) == ("U", 5, parts)
    assert (came.resume.identity, came.resume.flush) == (None, None)
    assert came.resume.on_part is not None
    assert came.resume.on_begin is not None
    second = SentPart(2, 5, "00000002")
    came.resume.on_part(second)
    came.resume.on_begin("V", 7)
    came.resume.on_part(second)
    seen = []
    for number, what, *facts in crossed(notes):
        assert number == 3
        noted(given, what, tuple(facts))
        assert given.resume is not None
        seen.append((given.resume.upload_id, given.resume.part_size, list(given.resume.parts)))
    assert told == [second, ("V", 7), second]
    assert seen == [("U", 5, [*parts, second]), ("V", 7, []), ("V", 7, [second])]


async def test_which_file_it_is_and_who_keeps_it_crosses() -> None:
    """A worker compares the file that it opens, and waits until the parent has kept what it noted."""
    flushed: list[int] = []

    async def flush() -> None:
        flushed.append(0)

    async def ask(number: int) -> None:
        flushed.append(number)

    given = Upload("path", ENDS[3], resume=Resume("U", 5, identity=Identity(9, 10**18 + 1, 7), flush=flush))
    came = transfer_of(crossed(pack_transfer(3, given)), noting, ask)
    assert isinstance(came, Upload)
    assert came.resume is not None
    assert came.resume.identity == (9, 10**18 + 1, 7)
    assert came.resume.flush is not None
    await came.resume.flush()
    await kept(given)
    await kept(Upload("path", ENDS[3]))
    assert flushed == [3, 0]


def test_what_is_there_of_a_download_crosses() -> None:
    """The same for ranges of a half-received file."""
    told: list[Any] = []
    before, later = Unfinished("a", 10, 5, '"e"', None), Unfinished("b", 10, 5, '"f"', None)
    received = Received(
        before,
        {1: (5, 7)},
        lambda *facts: told.append(facts),
        lambda *facts: told.append(facts),
        lambda: told.append(0),
    )
    given = Download(URL, "sink", received=received)
    notes: list[tuple[Any, ...]] = []
    came = transfer_of(crossed(pack_transfer(3, given)), lambda *note: notes.append(note), never)
    assert isinstance(came, Download)
    assert came.received is not None
    assert (came.received.unfinished, came.received.ranges) == (before, {1: (5, 7)})
    came.received.add(2, 5, 9)
    came.received.begin(later)
    came.received.add(1, 5, 11)
    came.received.end()
    seen = []
    for _, what, *facts in crossed(notes):
        noted(given, what, tuple(facts))
        seen.append((received.unfinished, dict(received.ranges)))
    assert told == [(2, 5, 9), (later,), (1, 5, 11), 0]
    assert seen == [(before, {1: (5, 7), 2: (5, 9)}), (later, {}), (later, {1: (5, 11)}), (None, {1: (5, 11)})]
