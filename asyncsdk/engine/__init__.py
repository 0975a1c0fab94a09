"""The engine: moves bytes through signed URLs. Has never heard of a dataset. All its public names are here."""

from asyncsdk.engine.config import GiB, KiB, MiB, RetryPolicy, TransferConfig
from asyncsdk.engine.engine import Engine
from asyncsdk.engine.feed import Feed, IterableFeed
from asyncsdk.engine.progress import OutcomeCallback, Progress, ProgressCallback
from asyncsdk.engine.report import Failure, Report
from asyncsdk.engine.streaming import ByteStream
from asyncsdk.engine.transfers import Download, Outcome, Refused, Skipped, Source, StreamSink, Transfer, Upload
from asyncsdk.targets import FileOrigin, FileTarget, MultipartTarget, Origin, PutTarget, Target, UrlOrigin
from asyncsdk.transport.base import Timeouts
from asyncsdk.transport.tls import TlsConfig

__all__ = [
    "ByteStream",
    "Download",
    "Engine",
    "Failure",
    "Feed",
    "FileOrigin",
    "FileTarget",
    "GiB",
    "IterableFeed",
    "KiB",
    "MiB",
    "MultipartTarget",
    "Origin",
    "Outcome",
    "OutcomeCallback",
    "Progress",
    "ProgressCallback",
    "PutTarget",
    "Refused",
    "Report",
    "RetryPolicy",
    "Skipped",
    "Source",
    "StreamSink",
    "Target",
    "Timeouts",
    "TlsConfig",
    "Transfer",
    "TransferConfig",
    "Upload",
    "UrlOrigin",
]
