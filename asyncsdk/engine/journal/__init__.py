"""The journal: what a run has done, kept on the disk, so that the same call goes on after a kill.

One file for each run below ``ASYNCSDK_HOME/journal``. It holds digests of names, sizes, times, checksums, and what the
platform calls bytes on their way; never a URL, a header or a token.
"""

from asyncsdk.engine.journal.clearing import Clearing
from asyncsdk.engine.journal.entries import Entry, Finished, Identity, digest_of
from asyncsdk.engine.journal.journal import Journal
from asyncsdk.engine.journal.large import LargeState, is_copied_at_once
from asyncsdk.engine.journal.owners import boot_number
from asyncsdk.engine.journal.records import RetriedReport, RunRecord, RunSummary, journal_folder

__all__ = [
    "Clearing",
    "Entry",
    "Finished",
    "Identity",
    "Journal",
    "LargeState",
    "RetriedReport",
    "RunRecord",
    "RunSummary",
    "boot_number",
    "digest_of",
    "is_copied_at_once",
    "journal_folder",
]
