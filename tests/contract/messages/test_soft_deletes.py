"""Soft deletes: out of sight and reach, restorable, names kept; and links between models and datasets."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import Conflict, NotFound
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.checkpoints import FindCheckpoint, GetCheckpoint, ListCheckpoints, PrepareCheckpoint
from asyncsdk.protocol.datasets import (
    CreateDataset,
    DeleteDataset,
    GetDataset,
    ListDatasets,
    RestoreDataset,
    UpdateDataset,
)
from asyncsdk.protocol.items import DeleteItems, GetItem, ListItems, PrepareDownloads, UpdateItem
from asyncsdk.protocol.models import CreateModel, DeleteModel, GetModel, ListModels, RestoreModel, UpdateModel
from asyncsdk.protocol.predictions import CreatePredictionTask, GetPredictionTask, ListPredictionTasks
from asyncsdk.protocol.projects import (
    CreateProject,
    DeleteProject,
    GetProject,
    ListProjects,
    PrepareProjectImage,
    RestoreProject,
    UpdateProject,
)
from asyncsdk.protocol.uploads import CommitUploads, UploadEntry
from tests.contract.messages.test_entities import KINDS, Kind
from tests.support.messages import Stored, commit_entry, list_all, prepare, upload

RESTORE: dict[str, Any] = {
    "project": lambda i: RestoreProject(project_id=i),
    "dataset": lambda i: RestoreDataset(dataset_id=i),
    "model": lambda i: RestoreModel(model_id=i),
}
DELETE: dict[str, Any] = {
    "project": lambda i, hard: DeleteProject(project_id=i, hard=hard),
    "dataset": lambda i, hard: DeleteDataset(dataset_id=i, hard=hard),
    "model": lambda i, hard: DeleteModel(model_id=i, hard=hard),
}


@pytest.fixture(params=KINDS)
def kind_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kind(kind_name: str) -> Kind:
    return KINDS[kind_name]


async def listed(platform: Platform, message: Any) -> list[str]:
    return [record.id for record in (await platform.send(message)).entries]


async def test_what_was_deleted_softly_is_out_of_sight_and_comes_back(
    platform: Platform, kind: Kind, kind_name: str
) -> None:
    """As it was, but for the time of its last change. Restoring it twice is no error: a reply may be lost."""
    made = await platform.send(kind.create(name="n", description="d", metadata={"k": 1}))
    await platform.send(DELETE[kind_name](made.id, False))
    for message in (kind.get(made.id), kind.update(made.id, description="x"), DELETE[kind_name](made.id, False)):
        with pytest.raises(NotFound, match=made.id):
            await platform.send(message)
    assert await listed(platform, kind.list()) == []
    (gone,) = (await platform.send(kind.list(deleted=True))).entries
    assert gone.id == made.id
    assert gone.deleted_at >= made.updated_at
    assert gone.updated_at > made.updated_at
    back = await platform.send(RESTORE[kind_name](made.id))
    assert back == made.model_copy(update={"updated_at": back.updated_at})
    assert back.updated_at > gone.updated_at
    assert await platform.send(RESTORE[kind_name](made.id)) == back
    assert await platform.send(kind.get(made.id)) == back
    assert await listed(platform, kind.list(deleted=True)) == []


async def test_what_was_deleted_softly_can_be_deleted_for_good(platform: Platform, kind: Kind, kind_name: str) -> None:
    made = await platform.send(kind.create(name="n"))
    await platform.send(DELETE[kind_name](made.id, False))
    await platform.send(DELETE[kind_name](made.id, True))
    assert await listed(platform, kind.list(deleted=True)) == []
    for message in (RESTORE[kind_name](made.id), DELETE[kind_name](made.id, True)):
        with pytest.raises(NotFound):
            await platform.send(message)


async def test_a_name_stays_taken_and_the_conflict_says_why(platform: Platform, kind: Kind, kind_name: str) -> None:
    """Also when an existing one would do. Names of models repeat: another one is made."""
    made = await platform.send(kind.create(name="same"))
    other = await platform.send(kind.create(name="other"))
    await platform.send(DELETE[kind_name](made.id, False))
    if not kind.has_unique_names:
        second = await platform.send(kind.create(name="same", exist_ok=True))
        assert second.id != made.id
        assert (await platform.send(RESTORE[kind_name](made.id))).name == second.name
        return
    for message in (
        kind.create(name="same"),
        kind.create(name="same", exist_ok=True),
        kind.update(other.id, name="same"),
    ):
        with pytest.raises(Conflict, match=r"was deleted.*restore it, or delete it for good") as taken:
            await platform.send(message)
        assert taken.value.ids == (made.id,)
    await platform.send(DELETE[kind_name](made.id, True))
    await platform.send(kind.create(name="same"))


async def test_an_id_of_something_deleted_makes_nothing_new(platform: Platform, kind: Kind, kind_name: str) -> None:
    own = {kind.id_field: make_id()}
    made = await platform.send(kind.create(name="n", **own))
    await platform.send(DELETE[kind_name](made.id, False))
    with pytest.raises(Conflict, match="deleted"):
        await platform.send(kind.create(name="n", **own))


async def test_deleted_records_page_filter_and_sort(platform: Platform, kind: Kind, kind_name: str) -> None:
    for number in range(4):
        made = await platform.send(kind.create(name=f"n{number}"))
        if number % 2:
            await platform.send(DELETE[kind_name](made.id, False))
    page = await platform.send(kind.list(deleted=True, sort=("-deleted_at",), limit=1, total=True))
    assert (page.total, [record.name for record in page.entries]) == (2, ["n3"])
    rest = await platform.send(kind.list(deleted=True, sort=("-deleted_at",), limit=1, cursor=page.cursor))
    assert [record.name for record in rest.entries] == ["n1"]
    assert await listed(platform, kind.list(filter=Condition("deleted_at", "exists", True))) == []


async def test_a_project_takes_along_what_is_in_it_and_brings_back_just_that(platform: Platform) -> None:
    """What was deleted before the project stays deleted; it cannot come back without its project."""
    project = await platform.send(CreateProject(name="p"))
    here = {"project_id": project.id}
    dataset, before = [await platform.send(CreateDataset(name=name, **here)) for name in ("d", "before")]
    model, gone = [await platform.send(CreateModel(name=name, **here)) for name in ("m", "gone")]
    elsewhere = await platform.send(CreateDataset(name="elsewhere"))
    await platform.send(DeleteDataset(dataset_id=before.id, hard=False))
    await platform.send(DeleteModel(model_id=gone.id, hard=False))
    await platform.send(DeleteProject(project_id=project.id, hard=False))
    for message in (
        GetDataset(dataset_id=dataset.id),
        GetModel(model_id=model.id),
        CreateDataset(name="new", **here),
        CreateModel(name="new", **here),
        ListDatasets(**here),
        ListModels(**here),
        UpdateProject(project_id=project.id, name="q"),
        PrepareProjectImage(project_id=project.id, size_bytes=1),
    ):
        with pytest.raises(NotFound):
            await platform.send(message)
    assert await listed(platform, ListDatasets()) == [elsewhere.id]
    assert await listed(platform, ListModels()) == []
    assert set(await listed(platform, ListDatasets(deleted=True, **here))) == {dataset.id, before.id}
    for message in (RestoreDataset(dataset_id=dataset.id), RestoreModel(model_id=gone.id)):
        with pytest.raises(Conflict, match="'p'") as closed:
            await platform.send(message)
        assert closed.value.ids == (project.id,)
    await platform.send(RestoreProject(project_id=project.id))
    assert await listed(platform, ListDatasets(**here)) == [dataset.id]
    assert await listed(platform, ListModels(**here)) == [model.id]
    assert await listed(platform, ListDatasets(deleted=True)) == [before.id]
    assert await listed(platform, ListModels(deleted=True)) == [gone.id]
    await platform.send(RestoreDataset(dataset_id=before.id))


async def test_nothing_of_a_deleted_dataset_can_be_reached(platform: Platform) -> None:
    """Its items, tasks and uploads answer as if it were not there, and all of it is back when it is restored."""
    dataset = await platform.send(CreateDataset(name="d"))
    here = {"dataset_id": dataset.id}
    await upload(platform, dataset.id, {"a": b"bytes", "b": b"more"})
    task = await platform.send(CreatePredictionTask(**here, name="t", kind="classification", categories=("x",)))
    items = await list_all(platform, dataset.id)
    (prepared,) = await prepare(platform, dataset.id, [UploadEntry(path="c", size_bytes=1)])
    await platform.send(DeleteDataset(**here, hard=False))
    for message in (
        ListItems(**here),
        GetItem(**here, item_id=items[0].id),
        UpdateItem(**here, item_id=items[0].id, metadata={"k": 1}),
        DeleteItems(**here, item_ids=(items[0].id,)),
        PrepareDownloads(**here, item_ids=(items[0].id,)),
        ListPredictionTasks(**here),
        GetPredictionTask(**here, task_id=task.id),
        UpdateDataset(**here, description="x"),
        CommitUploads(**here, entries=(commit_entry("c", prepared.key, b"1"),)),
    ):
        with pytest.raises(NotFound):
            await platform.send(message)
    with pytest.raises(NotFound):
        await prepare(platform, dataset.id, [UploadEntry(path="c", size_bytes=1)])
    await platform.send(RestoreDataset(**here))
    assert await list_all(platform, dataset.id) == items


async def test_nothing_of_a_deleted_model_can_be_reached(platform: Platform) -> None:
    model = await platform.send(CreateModel(name="m"))
    here = {"model_id": model.id}
    await platform.send(DeleteModel(**here, hard=False))
    for message in (
        ListCheckpoints(**here),
        GetCheckpoint(**here, checkpoint_id=make_id()),
        FindCheckpoint(**here, which="last"),
        PrepareCheckpoint(**here),
        UpdateModel(**here, name="x"),
    ):
        with pytest.raises(NotFound, match=model.id):
            await platform.send(message)


async def test_bytes_stay_until_they_are_deleted_for_good(platform: Platform, count_objects: Stored) -> None:
    dataset = await platform.send(CreateDataset(name="d"))
    await upload(platform, dataset.id, {"a": b"bytes"})
    await platform.send(DeleteProject(project_id=dataset.project_id, hard=False))
    assert count_objects() == 1
    await platform.send(DeleteProject(project_id=dataset.project_id))
    assert count_objects() == 0


async def test_the_default_project_when_it_was_deleted_softly(platform: Platform) -> None:
    """It is not made a second time under its own nose."""
    dataset = await platform.send(CreateDataset(name="d"))
    await platform.send(DeleteProject(project_id=dataset.project_id, hard=False))
    with pytest.raises(Conflict, match="'default' was deleted") as taken:
        await platform.send(CreateDataset(name="e"))
    assert taken.value.ids == (dataset.project_id,)
    await platform.send(RestoreProject(project_id=dataset.project_id))
    await platform.send(CreateDataset(name="e"))


async def test_a_read_only_dataset_is_not_deleted_softly_either(platform: Platform) -> None:
    dataset = await platform.send(CreateDataset(name="d"))
    await platform.send(UpdateDataset(dataset_id=dataset.id, is_readonly=True))
    for message in (
        DeleteDataset(dataset_id=dataset.id, hard=False),
        DeleteProject(project_id=dataset.project_id, hard=False),
    ):
        with pytest.raises(Conflict, match="read-only"):
            await platform.send(message)
    assert await listed(platform, ListProjects()) == [dataset.project_id]
    await platform.send(GetProject(project_id=dataset.project_id))


async def test_a_model_is_linked_to_its_dataset(platform: Platform) -> None:
    """The link goes when the dataset is deleted for good, and only then."""
    one, other = [await platform.send(CreateDataset(name=name)) for name in ("one", "other")]
    model = await platform.send(CreateModel(name="m", dataset_id=one.id))
    assert model.dataset_id == one.id
    assert await listed(platform, ListModels(filter=Condition("dataset_id", "eq", one.id))) == [model.id]
    model = await platform.send(UpdateModel(model_id=model.id, dataset_id=other.id))
    assert model.dataset_id == other.id
    for message in (
        CreateModel(name="n", dataset_id="f" * 24),
        UpdateModel(model_id=model.id, dataset_id="f" * 24),
    ):
        with pytest.raises(NotFound, match="dataset"):
            await platform.send(message)
    await platform.send(DeleteDataset(dataset_id=other.id, hard=False))
    assert (await platform.send(GetModel(model_id=model.id))).dataset_id == other.id
    await platform.send(DeleteDataset(dataset_id=other.id))
    alone = await platform.send(GetModel(model_id=model.id))
    assert alone.dataset_id is None
    assert alone.updated_at > model.updated_at
