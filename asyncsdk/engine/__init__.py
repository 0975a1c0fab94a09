"""The engine: moves bytes through signed URLs. Has never heard of a dataset. All its public names are here."""

from asyncsdk.engine.config import Bandwidth, Concurrency, GiB, KiB, MiB, RetryPolicy, TransferConfig
from asyncsdk.engine.engine import Engine
from asyncsdk.engine.events import (
    ConcurrencyChanged,
    Drained,
    Event,
    EventCallback,
    JournalChanged,
    ObjectFailed,
    ObjectFinished,
    ObjectStarted,
    Renewed,
    Resuming,
    Retried,
    RunEnded,
    RunStarted,
    Throttled,
)
from asyncsdk.engine.feed import Feed, IterableFeed
from asyncsdk.engine.limits import Limits, Step
from asyncsdk.engine.parted.state import Resume, SentPart
from asyncsdk.engine.progress import OutcomeCallback, Progress, ProgressCallback
from asyncsdk.engine.report import Failure, Report
from asyncsdk.engine.streaming import ByteStream
from asyncsdk.engine.transfers import Download, Outcome, Refused, Skipped, Source, StreamSink, Transfer, Upload
from asyncsdk.engine.waits import Bottleneck, WaitReason
from asyncsdk.targets import (
    BlobTarget,
    FileOrigin,
    FileTarget,
    FormTarget,
    MultipartTarget,
    Origin,
    PutTarget,
    ResumableTarget,
    Target,
    UrlOrigin,
)
from asyncsdk.transport.base import Timeouts
from asyncsdk.transport.tls import TlsConfig

__all__ = [
    "Bandwidth",
    "BlobTarget",
    "Bottleneck",
    "ByteStream",
    "Concurrency",
    "ConcurrencyChanged",
    "Download",
    "Drained",
    "Engine",
    "Event",
    "EventCallback",
    "Failure",
    "Feed",
    "FileOrigin",
    "FileTarget",
    "FormTarget",
    "GiB",
    "IterableFeed",
    "JournalChanged",
    "KiB",
    "Limits",
    "MiB",
    "MultipartTarget",
    "ObjectFailed",
    "ObjectFinished",
    "ObjectStarted",
    "Origin",
    "Outcome",
    "OutcomeCallback",
    "Progress",
    "ProgressCallback",
    "PutTarget",
    "Refused",
    "Renewed",
    "Report",
    "ResumableTarget",
    "Resume",
    "Resuming",
    "Retried",
    "RetryPolicy",
    "RunEnded",
    "RunStarted",
    "SentPart",
    "Skipped",
    "Source",
    "Step",
    "StreamSink",
    "Target",
    "Throttled",
    "Timeouts",
    "TlsConfig",
    "Transfer",
    "TransferConfig",
    "Upload",
    "UrlOrigin",
    "WaitReason",
]
