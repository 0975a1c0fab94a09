"""Users as others see them, and images of projects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.errors import BadRequest, NotFound, PermissionDenied
from asyncsdk.platforms.base import Platform
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol.projects import (
    CommitProjectImage,
    CreateProject,
    DeleteProject,
    GetProject,
    PrepareProjectImage,
    PrepareProjectImageDownload,
    ProjectRecord,
    RestoreProject,
)
from asyncsdk.protocol.users import GetUser, ListUsers, WhoAmI
from asyncsdk.server.backend import Backend
from tests.support.messages import Stored, checksum, put, read
from tests.support.server import RunningServer

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(100))

# --- images ---


@pytest.fixture
async def project(platform: Platform) -> ProjectRecord:
    return await platform.send(CreateProject(name="streets"))


async def sent(platform: Platform, project_id: str, data: bytes, name: str = "cover.png") -> CommitProjectImage:
    """Prepare and send *data*; returns the message that makes it the image."""
    prepared = await platform.send(PrepareProjectImage(project_id=project_id, size_bytes=len(data)))
    assert prepared.verdict == "upload"
    await put(prepared.target, data)
    return CommitProjectImage(
        project_id=project_id, key=prepared.key, size_bytes=len(data), crc32c=checksum(data), filename=name
    )


async def image_of(platform: Platform, project_id: str) -> tuple[bytes, str]:
    prepared = await platform.send(PrepareProjectImageDownload(project_id=project_id))
    return await read(prepared.origin), prepared.filename


async def test_an_image_comes_back_as_it_was(platform: Platform, project: ProjectRecord) -> None:
    assert project.image_filename is None
    with pytest.raises(NotFound, match="no image"):
        await image_of(platform, project.id)
    changed = await platform.send(await sent(platform, project.id, PNG))
    assert changed.image_filename == "cover.png"
    assert changed.updated_at > project.updated_at
    assert await image_of(platform, project.id) == (PNG, "cover.png")
    assert await platform.send(GetProject(project_id=project.id)) == changed


async def test_committing_an_image_again_changes_nothing(platform: Platform, project: ProjectRecord) -> None:
    message = await sent(platform, project.id, PNG)
    first = await platform.send(message)
    assert await platform.send(message) == first
    assert await image_of(platform, project.id) == (PNG, "cover.png")


async def test_the_image_before_is_let_go(platform: Platform, project: ProjectRecord, count_objects: Stored) -> None:
    await platform.send(await sent(platform, project.id, PNG))
    await platform.send(await sent(platform, project.id, JPEG, "street.jpg"))
    assert await image_of(platform, project.id) == (JPEG, "street.jpg")
    assert count_objects() == 1


async def test_the_image_goes_with_its_project(
    platform: Platform, project: ProjectRecord, count_objects: Stored
) -> None:
    await platform.send(await sent(platform, project.id, PNG))
    await platform.send(DeleteProject(project_id=project.id, hard=False))
    assert count_objects() == 1
    await platform.send(RestoreProject(project_id=project.id))
    assert (await image_of(platform, project.id))[0] == PNG
    await platform.send(DeleteProject(project_id=project.id))
    assert count_objects() == 0


@pytest.mark.parametrize("content", [b"no picture at all, only text", b"%PDF-1.7 ...", b"<svg></svg>", b"\x89PNG"])
async def test_what_is_no_image_is_refused(platform: Platform, project: ProjectRecord, content: bytes) -> None:
    with pytest.raises(BadRequest, match="no PNG"):
        await platform.send(await sent(platform, project.id, content))
    assert (await platform.send(GetProject(project_id=project.id))).image_filename is None


async def test_an_image_that_never_arrived_is_not_found(platform: Platform, project: ProjectRecord) -> None:
    prepared = await platform.send(PrepareProjectImage(project_id=project.id, size_bytes=len(PNG)))
    facts: dict[str, Any] = {"size_bytes": len(PNG), "crc32c": checksum(PNG), "filename": "a.png"}
    with pytest.raises(NotFound, match="never arrived"):
        await platform.send(CommitProjectImage(project_id=project.id, key=prepared.key, **facts))


async def test_a_key_of_another_project_is_refused(platform: Platform, project: ProjectRecord) -> None:
    other = await platform.send(CreateProject(name="other"))
    message = await sent(platform, project.id, PNG)
    with pytest.raises(PermissionDenied):
        await platform.send(message.model_copy(update={"project_id": other.id}))


@pytest.mark.parametrize("size_bytes", [0, 32 * 1024 * 1024 + 1])
def test_images_have_a_size(size_bytes: int) -> None:
    with pytest.raises(BadRequest, match="size_bytes"):
        PrepareProjectImage(project_id="0" * 24, size_bytes=size_bytes)


# --- users ---


async def test_the_owner_is_among_the_users(platform: Platform) -> None:
    me = await platform.send(WhoAmI())
    (only,) = (await platform.send(ListUsers())).entries
    assert (only.id, only.name, only.role) == (me.id, "owner", "owner")
    assert only.created_at is not None
    assert await platform.send(GetUser(user_id=me.id)) == only
    with pytest.raises(NotFound):
        await platform.send(GetUser(user_id="f" * 24))


@pytest.fixture
async def three(data: Path) -> AsyncIterator[dict[str, RestPlatform]]:
    """Platforms of an owner, an editor and a viewer of one server."""
    with RunningServer(data) as server:
        backend = Backend.open(data)
        tokens = {"owner": server.token}
        for role in ("editor", "viewer"):
            user = backend.create_user(f"a {role}", role)
            tokens[role] = backend.create_token(user.user_id, "test")
        backend.close()
        platforms = {role: RestPlatform(server.url, token) for role, token in tokens.items()}
        yield platforms
        for platform in platforms.values():
            await platform.aclose()


async def test_owners_see_everybody_others_themselves(three: dict[str, RestPlatform]) -> None:
    everybody = (await three["owner"].send(ListUsers())).entries
    assert [user.name for user in everybody] == ["a editor", "a viewer", "owner"]
    editors = await three["owner"].send(ListUsers(filter=Condition("role", "eq", "editor"), total=True))
    assert (editors.total, editors.entries[0].name) == (1, "a editor")
    for role in ("editor", "viewer"):
        me = await three[role].send(WhoAmI())
        seen = await three[role].send(ListUsers(total=True))
        assert ([user.id for user in seen.entries], seen.total) == ([me.id], 1)
        assert (await three[role].send(GetUser(user_id=me.id))).name == f"a {role}"
        for other in ("f" * 24, *(user.id for user in everybody if user.id != me.id)):
            with pytest.raises(PermissionDenied, match="only owners"):
                await three[role].send(GetUser(user_id=other))
