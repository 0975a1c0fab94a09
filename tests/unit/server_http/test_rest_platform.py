"""The client's side: requests made of messages, typed errors made of refusals, repetition of what may pass."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import (
    BadRequest,
    ConfigError,
    Conflict,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    RequestTimeout,
    ResponseError,
    ServerError,
    Unauthenticated,
)
from asyncsdk.platforms import rest
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol.base import Empty
from asyncsdk.protocol.projects import CreateProject, DeleteProject, GetProject, ListProjects, UpdateProject
from asyncsdk.protocol.users import WhoAmI
from tests.support.server import RunningServer

Handler = Callable[[httpx.Request], httpx.Response]
USER = {"id": "0" * 24, "name": "owner", "role": "owner"}


@pytest.fixture
async def platform(server: RunningServer) -> AsyncIterator[RestPlatform]:
    made = RestPlatform(server.url, server.token)
    yield made
    await made.aclose()
    await made.aclose()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits before repetitions, which are not really waited for."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(rest, "sleep", sleep)
    return waited


async def answer(handler: Handler, message: Any) -> Any:
    platform = RestPlatform("http://server.example", "token", transport=httpx.MockTransport(handler))
    try:
        return await platform.send(message)
    finally:
        await platform.aclose()


def in_turn(*replies: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        reply = replies[min(len(seen), len(replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(reply.status_code, content=reply.content, headers=reply.headers)

    return handler, seen


async def test_messages_travel_and_replies_are_typed(platform: RestPlatform) -> None:
    made = await platform.send(CreateProject(name=f"streets {make_id()}", project_id=make_id(), metadata={"a": [1]}))
    assert await platform.send(GetProject(project_id=made.id)) == made
    condition = Condition("name", "in", [made.name, "é & = ? +"])
    page = await platform.send(ListProjects(filter=condition, sort=("-name",), limit=5, total=True))
    assert (page.entries, page.total) == ((made,), 1)
    changed = await platform.send(UpdateProject(project_id=made.id, if_updated_at=made.updated_at, description="é"))
    assert changed.description == "é"
    assert changed.updated_at > made.updated_at
    await platform.send(DeleteProject(project_id=made.id))
    with pytest.raises(NotFound) as caught:
        await platform.send(GetProject(project_id=made.id))
    assert caught.value.request_id
    assert platform.supports(WhoAmI)


async def test_refusals_are_the_typed_errors(server: RunningServer, platform: RestPlatform) -> None:
    name = f"taken {make_id()}"
    made = await platform.send(CreateProject(name=name))
    with pytest.raises(Conflict) as caught:
        await platform.send(CreateProject(name=name))
    assert caught.value.ids == (made.id,)
    stranger = RestPlatform(server.url, "wrong")
    with pytest.raises(Unauthenticated) as denied:
        await stranger.send(WhoAmI())
    await stranger.aclose()
    assert "wrong" not in f"{denied.value!r} {denied.value.body}"
    assert server.token not in repr(platform)


async def test_no_server_says_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    platform = RestPlatform(f"http://127.0.0.1:{port}", "token")
    with pytest.raises(ConnectionFailed, match="asyncsdk serve"):
        await platform.send(WhoAmI())
    await platform.aclose()


async def test_a_server_that_says_nothing_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        platform = RestPlatform(f"http://127.0.0.1:{silent.getsockname()[1]}", "token", timeout=0.05)
        with pytest.raises(RequestTimeout) as caught:
            await platform.send(WhoAmI())
        assert caught.value.phase == "reply"
        await platform.aclose()


@pytest.mark.parametrize(
    "failure",
    [httpx.Response(500), httpx.Response(503), httpx.Response(429), httpx.ReadError("cut"), httpx.ConnectError("no")],
)
async def test_what_may_pass_is_repeated(failure: httpx.Response | Exception, waits: list[float]) -> None:
    handler, seen = in_turn(failure, failure, httpx.Response(200, json=USER))
    assert (await answer(handler, WhoAmI())).name == "owner"
    assert len(seen) == 3
    assert len(waits) == 2
    assert 0 <= waits[0] <= 0.2
    assert 0 <= waits[1] <= 0.4


async def test_repeating_ends(waits: list[float]) -> None:
    handler, seen = in_turn(httpx.Response(503))
    with pytest.raises(ServerError):
        await answer(handler, WhoAmI())
    assert (len(seen), len(waits)) == (4, 3)


async def test_the_wait_a_server_asks_for_is_kept_in_either_form(waits: list[float]) -> None:
    """Never less, and up to a tenth more, by the server's own clock where it names a date."""
    date = {"date": formatdate(2_000_000_000, usegmt=True), "retry-after": formatdate(2_000_000_050, usegmt=True)}
    handler, _ = in_turn(
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(503, headers=date),
        httpx.Response(200, json=USER),
    )
    await answer(handler, WhoAmI())
    assert 7.0 < waits[0] <= 7.7
    assert 50.0 < waits[1] <= 55.0


async def test_a_wait_that_is_too_long_is_told_and_not_cut_short(waits: list[float]) -> None:
    """One message waits a minute at most; nobody asks again before the server said."""
    handler, seen = in_turn(httpx.Response(503, headers={"retry-after": "61"}), httpx.Response(200, json=USER))
    with pytest.raises(ServerError, match="a pause of 61 s") as caught:
        await answer(handler, WhoAmI())
    assert caught.value.retry_after == 61
    assert (len(seen), waits) == (1, [])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 501, 507])
async def test_what_cannot_pass_is_not_repeated(status: int) -> None:
    handler, seen = in_turn(httpx.Response(status))
    with pytest.raises(ResponseError) as caught:
        await answer(handler, WhoAmI())
    assert (caught.value.status, len(seen)) == (status, 1)


async def test_creating_is_repeated_only_with_an_id_of_ones_own() -> None:
    for message, expected in ((CreateProject(name="a"), 1), (CreateProject(name="a", project_id=make_id()), 4)):
        handler, seen = in_turn(httpx.ReadError("cut"))
        with pytest.raises(ConnectionFailed):
            await answer(handler, message)
        assert len(seen) == expected
        assert len({request.content for request in seen}) == 1


@pytest.mark.parametrize(
    ("failure", "is_success"),
    [
        (httpx.ReadError("cut"), True),
        (httpx.ReadTimeout("late"), True),
        (httpx.Response(502), True),
        (httpx.Response(200, content=b"<html>"), True),
        (httpx.ConnectError("no"), False),
        (httpx.Response(429), False),
    ],
)
async def test_a_delete_repeated_after_it_may_have_been_heard_finds_nothing_and_succeeds(
    failure: httpx.Response | Exception, is_success: bool
) -> None:
    handler, seen = in_turn(failure, httpx.Response(404))
    if is_success:
        assert await answer(handler, DeleteProject(project_id=make_id())) == Empty()
    else:
        with pytest.raises(NotFound):
            await answer(handler, DeleteProject(project_id=make_id()))
    assert len(seen) == 2


async def test_a_delete_that_finds_nothing_at_once_and_other_messages_are_not_found() -> None:
    with pytest.raises(NotFound):
        await answer(in_turn(httpx.Response(404))[0], DeleteProject(project_id=make_id()))
    for message in (GetProject(project_id=make_id()), UpdateProject(project_id=make_id(), description="x")):
        with pytest.raises(NotFound):
            await answer(in_turn(httpx.ReadError("cut"), httpx.Response(404))[0], message)


async def test_redirects_are_not_followed() -> None:
    handler, seen = in_turn(httpx.Response(307, headers={"location": "http://elsewhere.example/v1/whoami"}))
    with pytest.raises(MalformedResponse, match="redirects are not followed"):
        await answer(handler, WhoAmI())
    assert {request.url.host for request in seen} == {"server.example"}


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"id": "https://signed.example/?signature=abc"}'])
async def test_an_answer_that_cannot_be_read_is_malformed_and_not_quoted(content: bytes) -> None:
    handler, _ = in_turn(httpx.Response(200, content=content))
    with pytest.raises(MalformedResponse) as caught:
        await answer(handler, WhoAmI())
    assert "signature" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_an_error_of_another_shape_is_still_typed() -> None:
    for content in (b"<html>no</html>", b'{"error": "no"}', b'{"error": {"code": 5, "ids": 5}}', b"[1]", b"\xff"):
        handler, _ = in_turn(httpx.Response(404, content=content, headers={"x-request-id": "r1"}))
        with pytest.raises(NotFound, match="404") as caught:
            await answer(handler, WhoAmI())
        assert caught.value.code == "not_found"
        assert caught.value.request_id == "r1"


async def test_no_log_line_holds_the_token_or_a_query(
    server: RunningServer, platform: RestPlatform, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await platform.send(ListProjects(filter=Condition("name", "eq", "whispered"), limit=7))
    assert "/v1/projects" in caplog.text, "httpx wrote its line"
    for secret in ("whispered", "limit", server.token):
        assert secret not in caplog.text


async def test_a_server_below_a_path_is_reached_with_its_queries() -> None:
    handler, seen = in_turn(httpx.Response(200, json={"entries": []}))
    platform = RestPlatform("http://server.example/base/", "token", transport=httpx.MockTransport(handler))
    await platform.send(ListProjects(limit=7))
    await platform.aclose()
    assert seen[0].url.path == "/base/v1/projects"
    assert seen[0].extensions["target"] == b"/base/v1/projects?limit=7"
    assert seen[0].headers["authorization"] == "Bearer token"


@pytest.mark.parametrize(
    ("url", "token"),
    [("ftp://a", "t"), ("http://", "t"), ("http://a?b", "t"), ("http://a", ""), ("http://a", "a b"), ("http://a", "é")],
)
def test_a_url_or_token_that_cannot_be_one_is_refused(url: str, token: str) -> None:
    with pytest.raises(ConfigError):
        RestPlatform(url, token)


async def test_bulk_replies_are_read(platform: RestPlatform, tmp_path: Path) -> None:
    """A thousand prepared uploads make a reply that is validated outside the loop."""
    from asyncsdk.protocol.datasets import CreateDataset
    from asyncsdk.protocol.uploads import PrepareUploads, UploadEntry
    from asyncsdk.targets import PutTarget

    dataset = await platform.send(CreateDataset(name=f"photos {make_id()}"))
    entries = tuple(UploadEntry(path=f"{index}.jpg", size_bytes=index) for index in range(1000))
    reply = await platform.send(PrepareUploads(dataset_id=dataset.id, entries=entries))
    assert len(reply.entries) == 1000
    assert all(isinstance(entry.target, PutTarget) for entry in reply.entries)
    with pytest.raises(BadRequest):
        await platform.send(PrepareUploads.model_construct(dataset_id=dataset.id, entries=()))
