"""Agents and what they say of a model: beats in any order and number, silence, goodbyes; `ModelRecord.status`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, NotFound
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.agents import AgentRecord, BeatAgent, ListAgents
from asyncsdk.protocol.checkpoints import CommitCheckpoint, PrepareCheckpoint
from asyncsdk.protocol.models import CreateModel, DeleteModel, GetModel, ListModels, ModelRecord
from tests.support.messages import checksum, put

NOBODY = "f" * 24
HOUR = 3600.0
BRIEF = 0.01
"""An interval that is over, three times, in a blink."""


@pytest.fixture
async def model(platform: Platform) -> ModelRecord:
    return await platform.send(CreateModel(name="detector"))


async def beat(platform: Platform, model_id: str, **facts: Any) -> AgentRecord:
    given = {"name": "python-3.11.7-local", "interval_seconds": HOUR, **facts}
    return await platform.send(BeatAgent(model_id=model_id, **given))


async def checkpoint(platform: Platform, model_id: str, **facts: Any) -> None:
    data = b"weights"
    prepared = await platform.send(PrepareCheckpoint(model_id=model_id, size_bytes=len(data)))
    await put(prepared.target, data)
    sent = {"key": prepared.key, "size_bytes": len(data), "crc32c": checksum(data)}
    await platform.send(CommitCheckpoint(model_id=model_id, checkpoint_id=make_id(), **sent, **facts))


async def state(platform: Platform, model_id: str) -> tuple[str, bool]:
    record = await platform.send(GetModel(model_id=model_id))
    return record.status, record.is_resumable


async def test_the_platform_names_the_agent(platform: Platform, model: ModelRecord) -> None:
    first = await beat(platform, model.id)
    assert (first.model_id, first.name, first.status, first.beats) == (model.id, "python-3.11.7-local", "alive", 1)
    again = await beat(platform, model.id, agent_id=first.id)
    assert (again.id, again.beats) == (first.id, 2)
    assert again.last_beat_at >= first.last_beat_at
    stranger = await beat(platform, model.id, agent_id=NOBODY)
    assert stranger.id not in {first.id, NOBODY}


async def test_an_agent_of_another_model_is_not_taken_over(platform: Platform, model: ModelRecord) -> None:
    other = await platform.send(CreateModel(name="other"))
    theirs = await beat(platform, other.id)
    for facts in ({"agent_id": theirs.id}, {"proposed_id": theirs.id}):
        mine = await beat(platform, model.id, **facts)
        assert (mine.id != theirs.id, mine.model_id) == (True, model.id)
    (same,) = (await platform.send(ListAgents(model_id=other.id))).entries
    assert (same.id, same.beats) == (theirs.id, 1)


async def test_a_first_beat_that_comes_twice_makes_one_agent(platform: Platform, model: ModelRecord) -> None:
    proposed = make_id()
    first = await beat(platform, model.id, proposed_id=proposed, number=1)
    assert first.id == proposed
    assert await beat(platform, model.id, proposed_id=proposed, number=1) == first
    assert (await platform.send(ListAgents(model_id=model.id, total=True))).total == 1


async def test_a_beat_that_was_overtaken_changes_nothing(platform: Platform, model: ModelRecord) -> None:
    """Above all it does not bring an agent back that said goodbye after it."""
    agent = await beat(platform, model.id, number=1)
    stopped = await beat(platform, model.id, agent_id=agent.id, number=3, stopped=True)
    assert (stopped.status, stopped.beats) == ("stopped", 3)
    assert await beat(platform, model.id, agent_id=agent.id, number=2) == stopped
    begun = await beat(platform, model.id, agent_id=agent.id, number=4)
    assert (begun.status, begun.stopped_at, begun.beats) == ("alive", None, 4)


async def test_status_follows_agents_and_checkpoints(platform: Platform, model: ModelRecord) -> None:
    assert await state(platform, model.id) == ("created", False)
    agent = await beat(platform, model.id)
    assert await state(platform, model.id) == ("training", False)
    await beat(platform, model.id, agent_id=agent.id, stopped=True)
    assert await state(platform, model.id) == ("created", False)
    await checkpoint(platform, model.id, epoch=0)
    assert await state(platform, model.id) == ("training", True)
    await beat(platform, model.id, agent_id=agent.id, interval_seconds=BRIEF)
    await asyncio.sleep(BRIEF * 6)
    assert await state(platform, model.id) == ("lost", True)
    (lost,) = (await platform.send(ListAgents(model_id=model.id))).entries
    assert (lost.status, lost.stopped_at) == ("lost", None)
    await checkpoint(platform, model.id, epoch=1, is_final=True)
    assert await state(platform, model.id) == ("trained", False)


async def test_the_agent_heard_last_decides_whether_a_model_is_lost(platform: Platform, model: ModelRecord) -> None:
    await beat(platform, model.id, interval_seconds=BRIEF)
    await asyncio.sleep(BRIEF * 6)
    assert (await state(platform, model.id))[0] == "lost"
    other = await beat(platform, model.id)
    assert (await state(platform, model.id))[0] == "training"
    await beat(platform, model.id, agent_id=other.id, stopped=True)
    assert (await state(platform, model.id))[0] == "created"


async def test_what_a_model_has(platform: Platform, model: ModelRecord) -> None:
    def has(record: ModelRecord) -> tuple[bool, bool, bool]:
        return record.has_last, record.has_best, record.has_final

    assert has(model) == (False, False, False)
    await checkpoint(platform, model.id, epoch=0)
    assert has(await platform.send(GetModel(model_id=model.id))) == (True, False, False)
    await checkpoint(platform, model.id, epoch=1, is_best=True)
    assert has(await platform.send(GetModel(model_id=model.id))) == (True, True, False)


async def test_models_are_found_and_ordered_by_status(platform: Platform, model: ModelRecord) -> None:
    busy = await platform.send(CreateModel(name="busy"))
    await beat(platform, busy.id)
    done = await platform.send(CreateModel(name="done"))
    await checkpoint(platform, done.id, is_final=True)
    for status, expected in (("created", model), ("training", busy), ("trained", done)):
        (found,) = (await platform.send(ListModels(filter=Condition("status", "eq", status)))).entries
        assert (found.id, found.status) == (expected.id, status)
    names = []
    cursor = None
    for _ in range(3):
        page = await platform.send(ListModels(sort=("status",), limit=1, cursor=cursor))
        names += [record.name for record in page.entries]
        cursor = page.cursor
    assert (names, cursor) == (["detector", "done", "busy"], None)
    with_weights = await platform.send(ListModels(filter=Condition("has_last", "eq", True)))
    assert [record.id for record in with_weights.entries] == [done.id]


async def test_agents_are_listed_with_the_one_heard_last_first(platform: Platform, model: ModelRecord) -> None:
    one = await beat(platform, model.id, name="one")
    await asyncio.sleep(0.005)
    two = await beat(platform, model.id, name="two")
    assert [agent.id for agent in (await platform.send(ListAgents(model_id=model.id))).entries] == [two.id, one.id]
    await beat(platform, model.id, agent_id=one.id, name="one", stopped=True)
    alive = ListAgents(model_id=model.id, filter=Condition("status", "eq", "alive"))
    assert [agent.id for agent in (await platform.send(alive)).entries] == [two.id]


@pytest.mark.parametrize("facts", [{"interval_seconds": 0}, {"name": ""}, {"interval_seconds": 1e9}, {"number": 0}])
async def test_beats_that_make_no_sense_are_refused(
    platform: Platform, model: ModelRecord, facts: dict[str, Any]
) -> None:
    with pytest.raises(BadRequest):
        await beat(platform, model.id, **facts)


@pytest.mark.parametrize("hard", [True, False])
async def test_a_model_that_is_gone_has_no_agents(platform: Platform, model: ModelRecord, hard: bool) -> None:
    await beat(platform, model.id)
    await platform.send(DeleteModel(model_id=model.id, hard=hard))
    for message in (
        ListAgents(model_id=model.id),
        BeatAgent(model_id=model.id, name="n", interval_seconds=1),
    ):
        with pytest.raises(NotFound):
            await platform.send(message)
