"""URLs under which objects can be read without the engine: for a browser, a download tool, a training container."""

from __future__ import annotations

from asyncsdk.entities.session import Session
from asyncsdk.errors import NotFound
from asyncsdk.protocol.archives import PrepareArchiveDownload
from asyncsdk.protocol.checkpoints import CheckpointRecord, PrepareCheckpointDownload
from asyncsdk.targets import FileOrigin, Origin

__all__ = ["archive_url", "checkpoint_url"]


async def checkpoint_url(session: Session, record: CheckpointRecord) -> str:
    """Return the URL of a checkpoint's weights; see `AsyncModel.weights_url`."""
    message = PrepareCheckpointDownload(model_id=record.model_id, checkpoint_id=record.id)
    return _url_of((await session.send(message)).origin)


async def archive_url(session: Session, dataset_id: str | None) -> str:
    """Return the URL of a dataset's archive; see `AsyncModel.dataset_url`."""
    if dataset_id is None:
        raise NotFound("this model is linked to no dataset; update it with dataset=...")
    return _url_of((await session.send(PrepareArchiveDownload(dataset_id=dataset_id))).origin)


def _url_of(origin: Origin) -> str:
    return origin.path.absolute().as_uri() if isinstance(origin, FileOrigin) else origin.url
