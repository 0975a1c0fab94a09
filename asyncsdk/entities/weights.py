"""Which weights of a model are meant by a choice."""

from __future__ import annotations

from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError, NotFound
from asyncsdk.protocol.checkpoints import MAX_EPOCH, CheckpointRecord, FindCheckpoint, GetCheckpoint, WhichCheckpoint
from asyncsdk.protocol.model_work import CheckpointChoice

__all__ = ["check_choice", "find_weights"]

_BEST: tuple[WhichCheckpoint, ...] = ("best", "final", "last")


def check_choice(checkpoint: WhichCheckpoint | int) -> None:
    """Do nothing when *checkpoint* can name a checkpoint.

    Raises:
        ConfigError: It cannot.
    """
    given: object = checkpoint  # callers without a type checker give anything
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= MAX_EPOCH:
        return
    if given not in _BEST:
        raise ConfigError(f"checkpoint is 'best', 'last', 'final' or the number of an epoch, not {given!r:.60}")


async def find_weights(session: Session, choice: CheckpointChoice) -> CheckpointRecord:
    """Return the checkpoint that is meant; ``best`` means the final one when none is best, then the last one.

    Raises:
        NotFound: There is none.
    """
    if choice.checkpoint_id is not None:
        return await session.send(GetCheckpoint(model_id=choice.model_id, checkpoint_id=choice.checkpoint_id))
    which = choice.checkpoint
    if isinstance(which, int):
        return await session.send(FindCheckpoint(model_id=choice.model_id, epoch=which))
    if which == "best":
        for candidate in _BEST[:-1]:
            try:
                return await session.send(FindCheckpoint(model_id=choice.model_id, which=candidate))
            except NotFound:
                continue  # the next best
        which = "last"
    return await session.send(FindCheckpoint(model_id=choice.model_id, which=which))
