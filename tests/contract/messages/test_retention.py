"""Which checkpoints of older epochs stay: by a model's policy at each commit, and by pruning."""

from __future__ import annotations

import pytest

from asyncsdk.errors import BadRequest, NotFound
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.checkpoints import ListCheckpoints, PruneCheckpoints, Retention
from asyncsdk.protocol.models import CreateModel, GetModel, ModelRecord, UpdateModel
from tests.contract.messages.test_checkpoints import save, send
from tests.support.messages import Stored


async def model_with(platform: Platform, retention: Retention | None) -> ModelRecord:
    return await platform.send(CreateModel(name="detector", retention=retention))


async def epochs(platform: Platform, model: ModelRecord) -> list[int | None]:
    return [one.epoch for one in (await platform.send(ListCheckpoints(model_id=model.id))).entries]


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7]),
        (Retention(), [0, 1, 2, 3, 4, 5, 6, 7]),
        (Retention(keep_last=2), [1, 3, 6, 7]),
        (Retention(keep_every=4), [0, 1, 3, 4, 7]),
        (Retention(keep_last=3, keep_every=4), [0, 1, 3, 4, 5, 6, 7]),
        (Retention(keep_last=100), [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
    ids=str,
)
async def test_a_commit_applies_the_policy(
    platform: Platform, retention: Retention | None, kept: list[int], count_objects: Stored
) -> None:
    """Best (1), final (3) and last stay whatever it says; the bytes of the others leave the disk."""
    model = await model_with(platform, retention)
    assert model.retention == retention
    for epoch in range(8):
        await save(platform, model.id, b"%d" % epoch, epoch=epoch, is_best=epoch in {0, 1}, is_final=epoch == 3)
    assert await epochs(platform, model) == kept
    assert count_objects() == len(kept)


async def test_those_without_an_epoch_stay_and_the_newest_are_those_committed_last(platform: Platform) -> None:
    """A training that begins again at an earlier epoch keeps its own checkpoints, not those of before."""
    model = await model_with(platform, Retention(keep_last=2))
    for epoch in (8, 9, None, 3, 4):
        await save(platform, model.id, b"x", epoch=epoch)
    assert await epochs(platform, model) == [None, 3, 4]
    await save(platform, model.id, b"x")
    assert await epochs(platform, model) == [None, 3, 4, None]


async def test_a_commit_repeated_after_a_lost_reply_removes_nothing_more(platform: Platform) -> None:
    model = await model_with(platform, Retention(keep_last=1))
    await save(platform, model.id, b"1", epoch=1)
    message = await send(platform, model.id, b"2", epoch=2)
    made = await platform.send(message)
    assert await platform.send(message) == made
    assert await epochs(platform, model) == [2]


async def test_a_policy_can_be_changed_and_waits_for_the_next_commit(platform: Platform) -> None:
    model = await model_with(platform, None)
    for epoch in range(4):
        await save(platform, model.id, b"x", epoch=epoch)
    changed = await platform.send(UpdateModel(model_id=model.id, retention=Retention(keep_last=1)))
    assert (changed.retention, changed.updated_at > model.updated_at) == (Retention(keep_last=1), True)
    assert await platform.send(UpdateModel(model_id=model.id, retention=Retention(keep_last=1))) == changed
    assert await epochs(platform, model) == [0, 1, 2, 3]
    await save(platform, model.id, b"x", epoch=4)
    assert await epochs(platform, model) == [4]
    await platform.send(UpdateModel(model_id=model.id, retention=Retention()))
    assert (await platform.send(GetModel(model_id=model.id))).retention == Retention()
    await save(platform, model.id, b"x", epoch=5)
    assert await epochs(platform, model) == [4, 5]


async def test_pruning_tells_what_it_removes(platform: Platform, count_objects: Stored) -> None:
    """Nothing when it is dry; then just that, once; the numbers given win over the model's own."""
    model = await model_with(platform, None)
    made = [await save(platform, model.id, b"x", epoch=epoch, is_best=epoch == 1) for epoch in range(5)]
    prune = PruneCheckpoints(model_id=model.id, keep_last=2, dry_run=True)
    assert (await platform.send(prune)).entries == (made[0], made[2])
    assert await epochs(platform, model) == [0, 1, 2, 3, 4]
    assert (await platform.send(prune.model_copy(update={"dry_run": False}))).entries == (made[0], made[2])
    assert await epochs(platform, model) == [1, 3, 4]
    assert count_objects() == 3
    assert (await platform.send(prune.model_copy(update={"dry_run": False}))).entries == ()
    own = PruneCheckpoints(model_id=model.id)
    with pytest.raises(BadRequest, match="keep_last"):
        await platform.send(own)
    await platform.send(UpdateModel(model_id=model.id, retention=Retention(keep_last=1)))
    assert (await platform.send(own)).entries == (made[3],)


async def test_a_policy_must_make_sense(platform: Platform) -> None:
    for facts in ({"keep_last": 0}, {"keep_every": 0}, {"keep_last": -1}):
        with pytest.raises(BadRequest):
            PruneCheckpoints(model_id="f" * 24, **facts)
        with pytest.raises(BadRequest):
            CreateModel(name="x", retention=facts)
    with pytest.raises(NotFound):
        await platform.send(PruneCheckpoints(model_id="f" * 24, keep_last=1))
