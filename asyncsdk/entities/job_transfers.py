"""How the files of jobs travel: inputs before the job exists, outputs while it runs, either down again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from asyncsdk.domain.ids import make_id
from asyncsdk.domain.paths import path_below
from asyncsdk.engine import Download, Feed, Outcome, ProgressCallback, Source, Transfer, Upload
from asyncsdk.entities.local_files import is_source, known_size
from asyncsdk.entities.patience import Hurried, patient
from asyncsdk.entities.session import Session
from asyncsdk.entities.single_objects import SingleDownload, renewed, run_one, upload_id_of
from asyncsdk.errors import AsyncSDKError, ConfigError, LeftUndone, MalformedResponse
from asyncsdk.protocol.artifacts import (
    ArtifactRecord,
    CommitArtifact,
    PrepareArtifact,
    PrepareArtifactDownload,
)
from asyncsdk.protocol.base import MAX_BULK_ENTRIES
from asyncsdk.protocol.jobs import (
    JobInput,
    JobRecord,
    PlannedInput,
    PrepareJobInputs,
)
from asyncsdk.protocol.uploads import PreparedUpload
from asyncsdk.targets import Origin, Target

__all__ = ["download_artifact", "prepare_inputs", "upload_inputs", "upload_output"]


class _UploadFeed(Hurried):
    """Objects for one job, prepared before; whoever made the feed commits them."""

    def __init__(self, session: Session, job_id: str, uploads: Sequence[tuple[Upload, str]]) -> None:
        self._session = session
        self._job_id = job_id
        self._waiting = [upload for upload, _ in uploads]
        self._keys = {id(upload): key for upload, key in uploads}

    async def take(self, want: int) -> Sequence[Transfer]:
        taken, self._waiting = self._waiting[:want], self._waiting[want:]
        return taken

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        assert isinstance(transfer, Upload)
        key, upload_id = self._keys[id(transfer)], upload_id_of(transfer.target)
        return await renewed(self._session, self._job_id, key, transfer.size_bytes, upload_id, first_part)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


async def prepare_inputs(
    session: Session, job_id: str, sources: Mapping[str, Source], *, kind: str, format: str | None
) -> list[tuple[Upload, str]]:
    """Return uploads of the inputs of a job that is to be created, with their keys. No byte is sent.

    Args:
        session: The client.
        job_id: Id of the job to be.
        sources: Paths, bytes, open binary files or asynchronous iterables of bytes, by name.
        kind: The kind of the job.
        format: The format that its payload names.

    Raises:
        NoWorker: Nobody does such jobs.
        SourceNotFound, SourceUnreadable: One of the files is not there, or cannot be read.
    """
    session = patient(session)
    for name, source in sources.items():
        if not is_source(source):
            raise ConfigError(f"input {name!r} is a path, bytes, an open binary file or an iterable of bytes")
    planned = [PlannedInput(name=name, size_bytes=await known_size(source)) for name, source in sources.items()]
    replies: list[PreparedUpload] = []
    for start in range(0, len(planned), MAX_BULK_ENTRIES):
        entries = tuple(planned[start : start + MAX_BULK_ENTRIES])
        message = PrepareJobInputs(job_id=job_id, kind=kind, format=format, entries=entries)
        replies.extend((await session.send(message)).entries)
    uploads: list[tuple[Upload, str]] = []
    for (name, source), plan, reply in zip(sources.items(), planned, replies, strict=True):
        target, key = _accepted(reply, name)
        uploads.append((Upload(source, target, size_bytes=plan.size_bytes), key))
    return uploads


async def upload_inputs(
    session: Session, job_id: str, names: Iterable[str], uploads: Sequence[tuple[Upload, str]]
) -> tuple[JobInput, ...]:
    """Send the inputs of a job, several at once.

    Args:
        session: The client.
        job_id: Id of the job to be.
        names: Names of the inputs.
        uploads: As `prepare_inputs` returned them, in the same order.

    Raises:
        SourceUnreadable, SourceChanged: One of the files cannot be read, or changed meanwhile.
    """
    session = patient(session)
    outcomes = await _move(session, _UploadFeed(session, job_id, uploads), len(uploads))
    found = {id(outcome.transfer): outcome for outcome in outcomes}
    result = []
    for name, (upload, key) in zip(names, uploads, strict=True):
        outcome = found[id(upload)]
        assert outcome.crc32c is not None  # every upload is summed
        result.append(JobInput(name=name, key=key, size_bytes=outcome.size_bytes, crc32c=outcome.crc32c))
    return tuple(result)


async def upload_output(
    session: Session, job: JobRecord, path: str | PathLike[str], name: str, *, worker_id: str
) -> ArtifactRecord:
    """Send a file and make it an output of a job that this worker has; durable when it returns."""
    client, session = session, patient(session)
    size = await known_size(Path(path))
    held = {"job_id": job.id, "worker_id": worker_id, "attempt": job.attempts}
    target, key = _accepted(await session.send(PrepareArtifact(**held, size_bytes=size)), name)
    upload = Upload(Path(path), target, size_bytes=size)
    (outcome,) = await _move(session, _UploadFeed(session, job.id, [(upload, key)]), 1)
    assert outcome.crc32c is not None  # every upload is summed
    message = CommitArtifact(
        **held,
        artifact_id=make_id(),
        name=name,
        key=key,
        size_bytes=outcome.size_bytes,
        crc32c=outcome.crc32c,
    )
    return await patient(client).send(message)  # that of the run waits no longer: the run is over


async def download_artifact(
    session: Session,
    record: ArtifactRecord,
    destination: str | PathLike[str],
    *,
    on_progress: ProgressCallback | None = None,
) -> Path:
    """Download a file of a job; in a folder that exists it takes the name it has in the job. Returns where it is."""
    session = patient(session)
    path = Path(destination)
    path = path_below(path, record.name) if path.is_dir() else path

    async def origin() -> Origin:
        message = PrepareArtifactDownload(job_id=record.job_id, artifact_id=record.id)
        found: Origin = (await session.send(message)).origin
        return found

    await run_one(session, SingleDownload(session, origin, path), on_progress, bytes_total=record.size_bytes)
    return path


def _accepted(reply: PreparedUpload, name: str) -> tuple[Target, str]:
    if reply.problem is not None:
        raise reply.problem.to_error(name=name)
    if reply.key is None or reply.target is None:
        raise MalformedResponse("the platform prepared a file of a job without saying where it goes")
    target: Target = reply.target
    return target, reply.key


async def _move(session: Session, feed: Feed, count: int) -> list[Outcome]:
    """Move the objects of *feed*; raises the error of one that failed, when all are settled."""
    async with session.engine.run(feed, objects_total=count) as outcomes:
        found = [outcome async for outcome in outcomes]
    failed: list[AsyncSDKError] = [outcome.error for outcome in found if outcome.error is not None]
    if failed:
        raise failed[0]
    if len(found) < count:
        raise LeftUndone(len(found))
    return found
