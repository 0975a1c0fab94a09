"""Projects, datasets, models, prediction tasks: create, get, list, update, delete, on every platform the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, Conflict, NotFound
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol import all_messages
from asyncsdk.protocol.checkpoints import GetCheckpoint, ListCheckpoints
from asyncsdk.protocol.datasets import CreateDataset, DeleteDataset, GetDataset, ListDatasets, UpdateDataset
from asyncsdk.protocol.items import DeleteItems, ListItems, UpdateItem
from asyncsdk.protocol.models import CreateModel, DeleteModel, GetModel, ListModels, UpdateModel
from asyncsdk.protocol.predictions import (
    CreatePredictionTask,
    DeletePredictionTask,
    GetPredictionTask,
    ListPredictions,
    ListPredictionTasks,
    UpdatePredictionTask,
    UploadPredictionRows,
)
from asyncsdk.protocol.projects import CreateProject, DeleteProject, GetProject, ListProjects, UpdateProject
from asyncsdk.protocol.users import WhoAmI
from tests.support.messages import commit_entry, list_all, prepare, upload

NOBODY = "f" * 24


@dataclass(frozen=True)
class Kind:
    """How one kind of entity is made, found, changed and removed."""

    create: Callable[..., Any]
    get: Callable[[str], Any]
    list: Callable[..., Any]
    update: Callable[..., Any]
    delete: Callable[[str], Any]
    id_field: str
    has_unique_names: bool = True


KINDS = {
    "project": Kind(
        CreateProject,
        lambda i: GetProject(project_id=i),
        ListProjects,
        lambda i, **f: UpdateProject(project_id=i, **f),
        lambda i: DeleteProject(project_id=i),
        "project_id",
    ),
    "dataset": Kind(
        CreateDataset,
        lambda i: GetDataset(dataset_id=i),
        ListDatasets,
        lambda i, **f: UpdateDataset(dataset_id=i, **f),
        lambda i: DeleteDataset(dataset_id=i),
        "dataset_id",
    ),
    "model": Kind(
        CreateModel,
        lambda i: GetModel(model_id=i),
        ListModels,
        lambda i, **f: UpdateModel(model_id=i, **f),
        lambda i: DeleteModel(model_id=i),
        "model_id",
        has_unique_names=False,
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


async def test_every_operation_is_supported(platform: Platform) -> None:
    assert [m.__name__ for m in all_messages() if not platform.supports(m)] == []


async def test_who_am_i(platform: Platform) -> None:
    me = await platform.send(WhoAmI())
    assert (me.name, me.role) == ("owner", "owner")
    assert me.platform_version


async def test_what_is_created_can_be_got(platform: Platform, kind: Kind) -> None:
    me = await platform.send(WhoAmI())
    metadata = {"a": {"b": [1, 2.5, None, True, "\u00e9"]}}
    made = await platform.send(kind.create(name="first \u00e9", description="what it is", metadata=metadata))
    assert (made.name, made.description, made.metadata, made.extra) == ("first \u00e9", "what it is", metadata, {})
    assert (made.created_by, made.created_at) == (me.id, made.updated_at)
    assert await platform.send(kind.get(made.id)) == made


async def test_a_taken_name_is_a_conflict_that_says_whose(platform: Platform, kind: Kind) -> None:
    """Unless the existing one is asked for; names of models may repeat."""
    made = await platform.send(kind.create(name="same"))
    assert await platform.send(kind.create(name="same", description="other", exist_ok=True)) == made
    if not kind.has_unique_names:
        second = await platform.send(kind.create(name="same"))
        with pytest.raises(Conflict) as several:
            await platform.send(kind.create(name="same", exist_ok=True))
        assert set(several.value.ids) == {made.id, second.id}
        return
    with pytest.raises(Conflict) as taken:
        await platform.send(kind.create(name="same"))
    assert taken.value.ids == (made.id,)
    other = await platform.send(kind.create(name="other"))
    with pytest.raises(Conflict) as taken:
        await platform.send(kind.update(other.id, name="same"))
    assert taken.value.ids == (made.id,)
    await platform.send(kind.update(made.id, name="same"))
    await platform.send(kind.create(name="Same"))


async def test_creating_again_with_the_same_id_is_the_same_entity(platform: Platform, kind: Kind) -> None:
    """A create whose reply was lost can be repeated; an id of something else is a conflict."""
    own = {kind.id_field: make_id()}
    made = await platform.send(kind.create(name="mine", **own))
    assert made.id == own[kind.id_field]
    assert await platform.send(kind.create(name="mine", description="ignored", **own)) == made
    with pytest.raises(Conflict) as taken:
        await platform.send(kind.create(name="another", **own))
    assert taken.value.ids == (made.id,)
    assert (await platform.send(kind.list(total=True))).total == 1


async def test_what_is_not_there_is_not_found(platform: Platform, kind: Kind) -> None:
    for message in (kind.get(NOBODY), kind.update(NOBODY, description="x"), kind.delete(NOBODY)):
        with pytest.raises(NotFound, match=NOBODY):
            await platform.send(message)


async def test_an_update_changes_only_what_is_given(platform: Platform, kind: Kind) -> None:
    made = await platform.send(kind.create(name="n", description="d", metadata={"k": 1}))
    changed = await platform.send(kind.update(made.id, description=""))
    assert (changed.name, changed.description, changed.metadata) == ("n", "", {"k": 1})
    assert changed.updated_at > made.updated_at
    assert changed.created_at == made.created_at
    renamed = await platform.send(kind.update(made.id, name="m", metadata={}))
    assert (renamed.name, renamed.metadata) == ("m", {})
    assert await platform.send(kind.get(made.id)) == renamed


async def test_times_of_change_always_grow(platform: Platform, kind: Kind) -> None:
    """Also when changes follow each other within a millisecond; what changes nothing moves no time."""
    made = await platform.send(kind.create(name="n"))
    times = [made.updated_at]
    for number in range(5):
        changed = await platform.send(kind.update(made.id, description=str(number)))
        times.append(changed.updated_at)
    assert all(before < after for before, after in pairwise(times))
    same = await platform.send(kind.update(made.id, description="4"))
    assert same.updated_at == times[-1]


async def test_an_update_of_something_that_changed_is_refused(platform: Platform, kind: Kind) -> None:
    made = await platform.send(kind.create(name="n"))
    changed = await platform.send(kind.update(made.id, description="1", if_updated_at=made.updated_at))
    with pytest.raises(Conflict) as stale:
        await platform.send(kind.update(made.id, description="2", if_updated_at=made.updated_at))
    assert (stale.value.status, stale.value.server_code) == (412, "precondition_failed")
    assert await platform.send(kind.get(made.id)) == changed
    later = made.updated_at + timedelta(milliseconds=1) * 10**6
    with pytest.raises(Conflict):
        await platform.send(kind.update(made.id, description="2", if_updated_at=later))


async def test_an_update_that_comes_again_after_its_reply_was_lost_meets_its_own_change(
    platform: Platform, kind: Kind
) -> None:
    made = await platform.send(kind.create(name="n"))
    message = kind.update(made.id, description="1", metadata={"k": [1]}, if_updated_at=made.updated_at)
    changed = await platform.send(message)
    assert await platform.send(message) == changed


async def test_deleting_what_is_gone_is_an_error(platform: Platform, kind: Kind) -> None:
    made = await platform.send(kind.create(name="n"))
    await platform.send(kind.delete(made.id))
    for message in (kind.get(made.id), kind.delete(made.id)):
        with pytest.raises(NotFound):
            await platform.send(message)
    await platform.send(kind.create(name="n"))


async def test_listings_page_filter_sort_and_count(platform: Platform, kind: Kind) -> None:
    for number in range(7):
        await platform.send(kind.create(name=f"n{number}", metadata={"odd": number % 2 == 1, "n": number}))
    odd = Condition("metadata.odd", "eq", True)
    names: list[str] = []
    cursor = None
    for size in (2, 1):
        page = await platform.send(kind.list(filter=odd, sort=("-name",), limit=2, cursor=cursor, total=True))
        assert (len(page.entries), page.total) == (size, 3)
        names += [record.name for record in page.entries]
        cursor = page.cursor
    assert (names, cursor) == (["n5", "n3", "n1"], None)
    usual = [record.name for record in (await platform.send(kind.list())).entries]
    assert usual == [f"n{n}" for n in (range(7) if kind.has_unique_names else reversed(range(7)))]


async def test_a_listing_refuses_what_it_does_not_know(platform: Platform, kind: Kind) -> None:
    await platform.send(kind.create(name="a"))
    await platform.send(kind.create(name="b"))
    cursor = (await platform.send(kind.list(limit=1))).cursor
    for facts in (
        {"filter": Condition("colour", "eq", "red")},
        {"sort": ("colour",)},
        {"cursor": "nonsense"},
        {"cursor": cursor, "sort": ("-name",)},
    ):
        with pytest.raises(BadRequest):
            await platform.send(kind.list(**facts))


@pytest.mark.parametrize("create", [CreateDataset, CreateModel])
async def test_without_a_project_the_default_one_is_used(platform: Platform, create: Any) -> None:
    """It is made when it is first needed, also after it was deleted."""
    assert (await platform.send(ListProjects())).entries == ()
    first = await platform.send(create(name="a"))
    second = await platform.send(create(name="b"))
    (project,) = (await platform.send(ListProjects())).entries
    assert (project.name, first.project_id, second.project_id) == ("default", project.id, project.id)
    await platform.send(DeleteProject(project_id=project.id))
    assert (await platform.send(create(name="a"))).project_id != project.id
    with pytest.raises(NotFound):
        await platform.send(create(name="c", project_id=NOBODY))


async def test_names_of_datasets_are_unique_in_their_project_only(platform: Platform) -> None:
    one, other = [await platform.send(CreateProject(name=name)) for name in ("one", "other")]
    a = await platform.send(CreateDataset(name="same", project_id=one.id))
    b = await platform.send(CreateDataset(name="same", project_id=other.id))
    for project, dataset in ((one, a), (other, b)):
        assert (await platform.send(ListDatasets(project_id=project.id))).entries == (dataset,)
    assert (await platform.send(ListDatasets(total=True))).total == 2
    with pytest.raises(Conflict):
        await platform.send(CreateDataset(name="same", project_id=one.id, dataset_id=b.id))
    with pytest.raises(NotFound):
        await platform.send(ListDatasets(project_id=NOBODY))


async def test_a_model_keeps_what_it_is_given(platform: Platform) -> None:
    facts: dict[str, Any] = {"framework": "torch", "labels": {"car": 0, "person": 1}, "config": {"depth": 50}}
    made = await platform.send(CreateModel(name="m", **facts))
    assert {name: getattr(made, name) for name in facts} == facts
    changed = await platform.send(UpdateModel(model_id=made.id, labels={"dog": 2}))
    assert (changed.labels, changed.config) == ({"dog": 2}, {"depth": 50})
    assert (await platform.send(ListModels(filter=Condition("framework", "eq", "torch"), total=True))).total == 1


async def test_json_that_cannot_be_kept_is_a_bad_request(platform: Platform) -> None:
    """Integers over 64 bits have no form in the store."""
    made = await platform.send(CreateProject(name="p"))
    with pytest.raises(BadRequest):
        await platform.send(UpdateProject(project_id=made.id, metadata={"n": 2**70}))
    assert await platform.send(GetProject(project_id=made.id)) == made


async def test_deleting_a_project_takes_everything_in_it(platform: Platform, data: Any) -> None:
    """Datasets, items, tasks, predictions and models; objects are removed from the disk, and nobody else's."""
    project = await platform.send(CreateProject(name="doomed"))
    dataset = await platform.send(CreateDataset(name="d", project_id=project.id))
    other = await platform.send(CreateDataset(name="kept"))
    for each in (dataset, other):
        await upload(platform, each.id, {"a": b"bytes", "b": b"more"})
    task = CreatePredictionTask(dataset_id=dataset.id, name="t", kind="classification", categories=("x",))
    await platform.send(task)
    rows = ({"path": "a", "predictions": [{"category": "x", "score": 1}]},)
    await platform.send(UploadPredictionRows(dataset_id=dataset.id, task="t", rows=rows))
    model = await platform.send(CreateModel(name="m", project_id=project.id))
    await platform.send(DeleteProject(project_id=project.id))
    for message in (
        GetDataset(dataset_id=dataset.id),
        ListItems(dataset_id=dataset.id),
        ListPredictions(dataset_id=dataset.id, task="t"),
        GetModel(model_id=model.id),
        ListCheckpoints(model_id=model.id),
        GetCheckpoint(model_id=model.id, checkpoint_id=NOBODY),
    ):
        with pytest.raises(NotFound):
            await platform.send(message)
    assert [item.path for item in await list_all(platform, other.id)] == ["a", "b"]
    assert len([path for path in (data / "objects").rglob("*") if path.is_file()]) == 2


async def test_a_read_only_dataset_refuses_every_write(platform: Platform) -> None:
    dataset = await platform.send(CreateDataset(name="d"))
    await upload(platform, dataset.id, {"a": b"1"})
    task = await platform.send(
        CreatePredictionTask(dataset_id=dataset.id, name="t", kind="classification", categories=("x",))
    )
    (item,) = await list_all(platform, dataset.id)
    await platform.send(UpdateDataset(dataset_id=dataset.id, is_readonly=True))
    here = {"dataset_id": dataset.id}
    rows = ({"path": "a", "predictions": []},)
    for message in (
        UpdateItem(**here, item_id=item.id, metadata={}),
        DeleteItems(**here, item_ids=(item.id,)),
        UploadPredictionRows(**here, task="t", rows=rows),
        CreatePredictionTask(**here, name="u", kind="classification", categories=("x",)),
        UpdatePredictionTask(**here, task_id=task.id, metadata={"k": 1}),
        DeletePredictionTask(**here, task_id=task.id),
        UpdateDataset(**here, metadata={"k": 0}),
        UpdateDataset(**here, is_readonly=True, metadata={"k": 0}),
        DeleteDataset(**here),
        DeleteProject(project_id=dataset.project_id),
    ):
        with pytest.raises(Conflict, match="read-only"):
            await platform.send(message)
    with pytest.raises(Conflict, match="read-only"):
        await upload(platform, dataset.id, {"b": b"2"})
    assert await list_all(platform, dataset.id) == [item]
    assert (await platform.send(UpdateDataset(**here, description="kept", metadata={}))).description == "kept"
    await platform.send(UpdateDataset(**here, is_readonly=False, metadata={"k": 1}))
    await upload(platform, dataset.id, {"b": b"2"})


# --- prediction tasks ---


@pytest.fixture
async def task(platform: Platform, dataset: Any) -> Any:
    message = CreatePredictionTask(
        dataset_id=dataset.id, name="detect", kind="object-detection", categories=("car", "person")
    )
    return await platform.send(message)


async def test_a_task_is_created_once(platform: Platform, dataset: Any, task: Any) -> None:
    facts: dict[str, Any] = {"dataset_id": dataset.id, "kind": "classification", "categories": ("x",)}
    assert (task.categories, task.version, task.kind) == (("car", "person"), 1, "object-detection")
    with pytest.raises(Conflict) as taken:
        await platform.send(CreatePredictionTask(name="detect", **facts))
    assert taken.value.ids == (task.id,)
    assert await platform.send(CreatePredictionTask(name="detect", exist_ok=True, **facts)) == task
    assert await platform.send(CreatePredictionTask(name="detect", task_id=task.id, **facts)) == task
    with pytest.raises(Conflict):
        await platform.send(CreatePredictionTask(name="other", task_id=task.id, **facts))
    with pytest.raises(NotFound):
        await platform.send(CreatePredictionTask(name="t", **{**facts, "dataset_id": NOBODY}))
    with pytest.raises(BadRequest, match="'x'"):
        await platform.send(CreatePredictionTask(name="t", **{**facts, "categories": ("x", "y", "x")}))


async def test_a_task_counts_its_versions(platform: Platform, dataset: Any, task: Any) -> None:
    here = {"dataset_id": dataset.id, "task_id": task.id}
    changed = await platform.send(UpdatePredictionTask(**here, categories=("car", "bus")))
    assert (changed.categories, changed.version) == (("car", "bus"), 2)
    assert (await platform.send(UpdatePredictionTask(**here, metadata={}))).version == 2
    repeated = UpdatePredictionTask(**here, categories=("car", "bus"), if_updated_at=task.updated_at)
    assert await platform.send(repeated) == changed
    with pytest.raises(Conflict):
        await platform.send(UpdatePredictionTask(**here, metadata={"k": 1}, if_updated_at=task.updated_at))
    assert await platform.send(GetPredictionTask(**here)) == changed
    assert (await platform.send(ListPredictionTasks(dataset_id=dataset.id))).entries == (changed,)


async def test_a_task_belongs_to_its_dataset(platform: Platform, task: Any) -> None:
    other = await platform.send(CreateDataset(name="other"))
    here = {"dataset_id": other.id, "task_id": task.id}
    for message in (GetPredictionTask(**here), UpdatePredictionTask(**here), DeletePredictionTask(**here)):
        with pytest.raises(NotFound):
            await platform.send(message)
    await platform.send(DeletePredictionTask(dataset_id=task.dataset_id, task_id=task.id))
    with pytest.raises(NotFound):
        await platform.send(GetPredictionTask(dataset_id=task.dataset_id, task_id=task.id))


async def test_prepared_bytes_of_a_deleted_dataset_cannot_be_committed(platform: Platform, dataset: Any) -> None:
    from asyncsdk.protocol.uploads import CommitUploads, UploadEntry

    (prepared,) = await prepare(platform, dataset.id, [UploadEntry(path="a", size_bytes=1)])
    await platform.send(DeleteDataset(dataset_id=dataset.id))
    with pytest.raises(NotFound):
        await platform.send(CommitUploads(dataset_id=dataset.id, entries=(commit_entry("a", prepared.key, b"1"),)))
