"""Archives: one zip that holds a whole dataset, and the job that makes items and annotations of it.

The bytes travel as those of a checkpoint: prepare, send, commit. A dataset has one archive; the next takes its place.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field

from asyncsdk.domain.ids import Id
from asyncsdk.domain.paths import Name
from asyncsdk.protocol.base import Crc32cHex, Message, Post, Record, Value
from asyncsdk.protocol.uploads import OriginField, PreparedUpload, UploadKey

__all__ = [
    "UNPACK_KIND",
    "ArchiveProblem",
    "ArchiveRecord",
    "CommitArchive",
    "PrepareArchive",
    "PrepareArchiveDownload",
    "PreparedArchiveDownload",
    "UnpackPayload",
    "UnpackedArchive",
]

UNPACK_KIND = "unpack_archive"
"""Kind of the jobs that unpack."""


class ArchiveRecord(Record):
    """The archive of a dataset.

    Attributes:
        dataset_id: The dataset.
        filename: Name of the file it came from.
        size_bytes: Size of the object.
        crc32c: Checksum of the object, eight hexadecimal digits.
        etag: Validator of the object.
    """

    dataset_id: Id
    filename: str
    size_bytes: int
    crc32c: Crc32cHex
    etag: str


class PrepareArchive(Message[PreparedUpload]):
    """Mint a target for the archive of a dataset. Writes nothing.

    Its verdict is ``upload``; ``skip`` when the dataset has the same archive already, by size and checksum;
    ``compare`` when it has one of the same size, and the checksum was not told: prepare again with it.

    What the commit will say of it may be told here already: there are services that must be told with the bytes.
    Others pass over it. So it is with ``unpack``, whether a job is to be made of it then: a service that has no such
    jobs refuses before bytes move.
    """

    route: ClassVar = Post("/datasets/{dataset_id}/archive/prepare")
    dataset_id: Id
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    crc32c: Crc32cHex | None = None
    filename: Name | None = None
    unpack: bool = False


class CommitArchive(Message[ArchiveRecord]):
    """Make sent bytes the archive of a dataset, in place of the one before. Durable when it answers; idempotent.

    Only that they begin as a zip does is looked at here.
    """

    route: ClassVar = Post("/datasets/{dataset_id}/archive/commit")
    dataset_id: Id
    key: UploadKey
    size_bytes: Annotated[int, Field(ge=0)]
    crc32c: Crc32cHex
    filename: Name


class PreparedArchiveDownload(Record):
    """Where the archive can be read for a while, and the name it has."""

    origin: OriginField
    filename: str


class PrepareArchiveDownload(Message[PreparedArchiveDownload]):
    """Return where the archive of a dataset can be read for a while."""

    route: ClassVar = Post("/datasets/{dataset_id}/archive/prepare-download")
    dataset_id: Id


# --- the job -------------------------------------------------------------------------------------------------


class UnpackPayload(Value):
    """What a job of the kind ``unpack_archive`` is to do.

    Attributes:
        dataset_id: The dataset, which has the archive and gets the items.
        size_bytes: Of the archive that is meant; None, without ``crc32c``: the one there is.
        crc32c: Its checksum. The job fails when the dataset has another archive by then.
    """

    dataset_id: Id
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    crc32c: Crc32cHex | None = None

    @classmethod
    def of(cls, archive: ArchiveRecord) -> Self:
        """Return the payload for an archive that was committed."""
        return cls(dataset_id=archive.dataset_id, size_bytes=archive.size_bytes, crc32c=archive.crc32c)


class ArchiveProblem(Record):
    """Why something in an archive was refused.

    Attributes:
        path: The entry, as the archive names it.
        line: The line of a label file; None: the entry as a whole.
        code: Stable word: ``invalid_name``, ``invalid_entry``, ``invalid_row``...
        message: A sentence.
    """

    path: str
    line: int | None = None
    code: str
    message: str


class UnpackedArchive(Record):
    """The result of a job of the kind ``unpack_archive``.

    Attributes:
        items: Files of the archive that are items of the dataset now, those that were before included.
        annotations: Labels of the archive that are annotations now, those that were before included.
        removed: Annotations that an earlier archive had for these items, and this one has not.
        ignored: Entries that are no data: what macOS puts into archives.
        refused: Entries and lines of labels that were refused.
        problems: Why, of the first 100.
    """

    items: int = 0
    annotations: int = 0
    removed: int = 0
    ignored: int = 0
    refused: int = 0
    problems: tuple[ArchiveProblem, ...] = ()
