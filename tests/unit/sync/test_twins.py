"""Blocking entities are records: equality, hash, pickle and copies go by the record and hold no client."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.errors import ConfigError
from asyncsdk.protocol.base import EntityRecord, Message
from asyncsdk.protocol.datasets import DatasetRecord, GetDataset
from asyncsdk.sync.entities.datasets import Dataset
from asyncsdk.sync.twins import to_async

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RECORD = DatasetRecord(id="0" * 24, created_at=NOW, updated_at=NOW, project_id="1" * 24, name="photos")


class RecordingSession:
    """Answers every message with one record; cannot be pickled."""

    def __init__(self) -> None:
        self.messages: list[Message[Any]] = []

    async def send(self, message: Message[Any]) -> Any:
        self.messages.append(message)
        return RECORD.model_copy(update={"name": "renamed"})

    @property
    def engine(self) -> Any:
        raise AssertionError("these verbs move no bytes")

    def __reduce__(self) -> Any:
        raise TypeError("a session was dragged along")


@pytest.fixture
def session() -> RecordingSession:
    return RecordingSession()


@pytest.fixture
def dataset(session: RecordingSession) -> Dataset:
    return Dataset._of(AsyncDataset._bind(RECORD, session))


def test_twins_are_instances_of_the_same_record(dataset: Dataset) -> None:
    """A blocking dataset is a record of the same class, with the same fields, equal to both."""
    assert isinstance(dataset, DatasetRecord)
    assert dataset.name == "photos"
    assert dataset == RECORD
    assert dataset == AsyncDataset._bind(RECORD, RecordingSession())
    assert hash(dataset) == hash(AsyncDataset._bind(RECORD, RecordingSession()))
    assert dataset != Dataset._bind(RECORD.model_copy(update={"name": "other"}), RecordingSession())


def test_verbs_give_new_blocking_objects(dataset: Dataset, session: RecordingSession) -> None:
    """A verb sends the twin's message and gives a blocking object with the same session; the old one is unchanged."""
    fresh = dataset.refresh()
    assert type(fresh) is Dataset
    assert (fresh.name, dataset.name) == ("renamed", "photos")
    assert session.messages == [GetDataset(dataset_id=RECORD.id)]
    fresh.refresh()
    assert len(session.messages) == 2


def test_pickle_holds_the_record_alone(dataset: Dataset) -> None:
    """A pickled dataset comes back equal, without its client; a verb then says how to get one."""
    again = pickle.loads(pickle.dumps(dataset))
    assert type(again) is Dataset
    assert again == dataset
    with pytest.raises(ConfigError, match=RECORD.id) as caught:
        again.refresh()
    assert "collection" in str(caught.value)


def test_copies_keep_their_session(dataset: Dataset, session: RecordingSession) -> None:
    """Copies are equal and usable."""
    for duplicate in (copy.copy(dataset), copy.deepcopy(dataset)):
        assert duplicate == dataset
        duplicate.refresh()
    assert len(session.messages) == 2


def test_either_twin_reaches_the_asynchronous_side(dataset: Dataset) -> None:
    """A blocking entity becomes its twin, also in a list; ids and records pass through."""
    assert type(to_async(dataset)) is AsyncDataset
    assert [type(entry) for entry in to_async([dataset, "id"])] == [AsyncDataset, str]
    assert to_async(RECORD) is RECORD
    assert isinstance(to_async(dataset), EntityRecord)


def test_values_become_blocking_by_what_they_are(session: RecordingSession) -> None:
    """Results of jobs: entities, also inside of lists, become their twins; everything else stays as it is."""
    from asyncsdk.entities.workers import AsyncWorker
    from asyncsdk.sync.entities.workers import Worker
    from asyncsdk.sync.twins import blocking

    worker = AsyncWorker.model_construct(id="a" * 24, name="w")
    worker._session = session
    assert type(blocking(worker)) is Worker
    assert [type(one) for one in blocking([worker, worker])] == [Worker, Worker]
    value = {"n": 1}
    assert blocking(value) is value
