"""What the engine is asked to do, and what it says of it afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from asyncsdk.engine.parted.state import Resume
from asyncsdk.engine.received import Received
from asyncsdk.engine.seen import SeenFile
from asyncsdk.engine.waits import WaitReason
from asyncsdk.errors import AsyncSDKError, ConfigError, redact_url
from asyncsdk.targets import FileOrigin, FileTarget, MultipartTarget, Origin, Target, UrlOrigin

__all__ = [
    "Download",
    "Outcome",
    "OutcomeStatus",
    "Refused",
    "Skipped",
    "Source",
    "StreamSink",
    "Transfer",
    "Upload",
    "describe_origin",
    "describe_source",
    "describe_target",
    "parse_crc32c",
]

Source = Path | str | bytes | bytearray | memoryview | IO[bytes] | AsyncIterable[bytes]
"""Where bytes of an upload come from: a path, bytes, an open binary file (read from where it stands), or an
asynchronous iterable of bytes of unknown length."""


@dataclass(slots=True)
class StreamSink:
    """Takes a download piece by piece, in order, in the event loop.

    Args:
        send: Called with every piece (at most one part); the next one waits until it returns.
    """

    send: Callable[[bytes], Awaitable[None]]


class Transfer:
    """What a feed gives: an `Upload`, `Download`, `Skipped` or `Refused`.

    Attributes:
        name: What it is called in reports.
        key: The caller's own name for it.
    """

    __slots__ = ()
    name: str
    key: Any


@dataclass(slots=True, eq=False)
class Upload(Transfer):
    """Send one object.

    Args:
        source: Where the bytes come from. A stream is read into memory of the byte budget, a part at a time (an object
            for a single request: up to a quarter of the budget), which stays set aside while the rest of a part is
            awaited. So do not let one wait for many downloads of the same process: all could wait for each other's
            memory. Downloads to files do not need any.
        target: Where they go.
        size_bytes: Size, when known beforehand; None: found from the source, or unknown for a stream.
        crc32c: Eight hexadecimal digits, when known beforehand: the bytes sent must have it.
        key: The caller's own name for it, carried to the outcome, never looked at.
        name: What to call it in reports; found from the source when empty.
        resume: What is known of an upload in parts that was begun before, and who wants to know of this one; None: it
            ends with this process, and leaves no parts behind when it fails.
        received: The same of a path that is copied to a `FileTarget`.
        read_from: The file that the bytes of ``source`` were read from, and its size, mtime (ns) and inode before that:
            it is looked at again when they were sent, as a path would be. For bytes.
    """

    source: Source = field(repr=False)
    target: Target
    size_bytes: int | None = None
    crc32c: str | None = None
    key: Any = None
    name: str = ""
    resume: Resume | None = None
    received: Received | None = None
    read_from: SeenFile | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, bytearray):
            self.source = memoryview(self.source)
        if not isinstance(self.target, Target):
            raise ConfigError(f"target must be one of asyncsdk.targets, not {type(self.target).__name__}")
        if self.crc32c is not None:
            parse_crc32c(self.crc32c)
        if not self.name:
            self.name = describe_source(self.source)


@dataclass(slots=True, eq=False)
class Download(Transfer):
    """Fetch one object.

    Args:
        origin: A URL, or an origin with size, checksum and ETag when they are known.
        sink: A path (temporary file beside it, then renamed), None (kept in memory: ``Outcome.data``), or a
            `StreamSink`.
        key: The caller's own name for it, carried to the outcome, never looked at.
        name: What to call it in reports; found from the sink or the URL when empty.
        received: What is there of a file that was begun before, and who wants to know of this one; None: it ends with
            this process, and leaves nothing behind when it fails. For paths.
        wants_identity: Whether ``Outcome.identity`` is wanted, where it is to be had for half a microsecond.
    """

    origin: Origin
    sink: Path | str | StreamSink | None
    key: Any = None
    name: str = ""
    received: Received | None = None
    wants_identity: bool = False

    def __init__(
        self,
        origin: Origin | str,
        sink: Path | str | StreamSink | None = None,
        *,
        key: Any = None,
        name: str = "",
        received: Received | None = None,
        wants_identity: bool = False,
    ) -> None:
        self.received = received
        self.wants_identity = wants_identity
        self.origin = UrlOrigin(origin) if isinstance(origin, str) else origin
        if not isinstance(self.origin, (UrlOrigin, FileOrigin)):
            raise ConfigError(f"origin must be a URL, UrlOrigin or FileOrigin, not {type(origin).__name__}")
        if self.origin.crc32c is not None:
            parse_crc32c(self.origin.crc32c)
        self.sink = sink
        self.key = key
        self.name = name or (str(sink) if isinstance(sink, (str, Path)) else describe_origin(self.origin))


@dataclass(slots=True, eq=False)
class Skipped(Transfer):
    """Nothing to move: a feed says so, and it becomes an outcome like any other."""

    name: str
    size_bytes: int = 0
    key: Any = None
    reply: Any = None


@dataclass(slots=True, eq=False)
class Refused(Transfer):
    """Never to be moved: a bad name, a missing source, a refusal of the platform."""

    name: str
    error: AsyncSDKError
    key: Any = None


OutcomeStatus = Literal["done", "skipped", "failed"]


@dataclass(slots=True)
class Outcome:
    """What became of one transfer. Final when it is handed out: settled with the platform where there is one.

    Attributes:
        transfer: As it was given.
        status: ``done``, ``skipped`` (nothing needed to move) or ``failed``.
        error: Why it failed, else None.
        size_bytes: Bytes of the object.
        seconds: From the start of its first attempt to its end.
        attempts: Requests tried for it (for an object in parts, of the part tried most often); 0 when none was needed.
        etag: Validator the server gave.
        checksum: ``crc32c:e3069283`` of the bytes that moved.
        verified: Whether the checksum was compared with one from the other end.
        reply: What the platform said when it was settled; the body of the server's reply when there is no platform.
        data: The bytes, for a download into memory.
        waits: Seconds its requests waited, by `WaitReason`, summed over them (an object in parts may wait for more than
            one at a time). Pauses between attempts, and waits for slots, memory and limits per second are exact, the
            others are sampled. None for what went through by one request at once: nobody looks at clocks for those.
        identity: Size, mtime (ns) and inode of the file that a small download was written to, for those that asked
            (`Download`); else None.
    """

    transfer: Transfer
    status: OutcomeStatus
    error: AsyncSDKError | None = None
    size_bytes: int = 0
    seconds: float = 0.0
    attempts: int = 0
    etag: str | None = None
    checksum: str | None = None
    verified: bool = False
    reply: Any = None
    data: bytes | None = field(default=None, repr=False)
    waits: Mapping[WaitReason, float] | None = None
    identity: tuple[int, int, int] | None = None

    @property
    def ok(self) -> bool:
        """Whether the object is where it should be: done or skipped."""
        return self.error is None

    @property
    def name(self) -> str:
        """What the transfer is called."""
        return self.transfer.name

    @property
    def crc32c(self) -> str | None:
        """The eight hexadecimal digits of ``checksum``."""
        return None if self.checksum is None else self.checksum.removeprefix("crc32c:")


def parse_crc32c(text: str) -> int:
    """Return the value of eight hexadecimal digits; `ConfigError` when it is something else."""
    try:
        if len(text) == 8:
            return int.from_bytes(bytes.fromhex(text), "big")
    except ValueError:
        pass  # said below, for both
    raise ConfigError(f"a crc32c is written as eight hexadecimal digits, not {text!r}")


def describe_source(source: Source) -> str:
    """Return what to call *source* in errors and reports."""
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<stream>"


def describe_origin(origin: Origin) -> str:
    """Return what to call *origin* in errors and reports."""
    return redact_url(origin.url) if isinstance(origin, UrlOrigin) else str(origin.path)


def describe_target(target: Target) -> str:
    """Return what to call *target* in errors and reports."""
    if isinstance(target, FileTarget):
        return str(target.folder / target.name)
    if isinstance(target, MultipartTarget):
        return redact_url(target.part_urls[0]) if target.part_urls else "<multipart upload>"
    return redact_url(target.url)
