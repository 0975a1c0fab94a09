"""Events: what happens is told once, in order, redacted, and in a form that does not change."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.engine import Download, Engine, Event, PutTarget, Refused, Skipped, Transfer, Upload, UrlOrigin, events
from asyncsdk.engine.config import MiB
from asyncsdk.engine.waits import WaitReason
from asyncsdk.errors import ConfigError, InvalidName, SourceNotFound
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import Connection, HttpServer, Received, answer
from tests.unit.engine.conftest import config

SECRET = "s3cr3t"


async def happened(transfers: Any, **changes: object) -> list[Event]:
    """Run *transfers* and return the events."""
    seen: list[Event] = []
    async with Engine(config(**changes)) as engine:
        await engine.collect(transfers, on_event=seen.append, objects_total=7)
    assert isinstance(seen[0], events.RunStarted)
    assert isinstance(seen[-1], events.RunEnded)
    assert len({event.run for event in seen}) == 1
    assert [event.time for event in seen] == sorted(event.time for event in seen)
    assert SECRET not in json.dumps([event.to_json() for event in seen])
    return seen


def of(seen: Sequence[Event], kind: str) -> list[Any]:
    return [event for event in seen if event.kind == kind]


def put(server: HttpServer, path: str, source: Path) -> Upload:
    return Upload(source, PutTarget(server.url(f"{path}?sig={SECRET}")))


async def test_small_objects_are_told_when_they_finished(server: HttpServer, tmp_path: Path) -> None:
    """Done, skipped, refused, failed; the end says what the report says."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    server.script("/denied", answer(403, b"no"))
    transfers: list[Transfer] = [
        put(server, "/o", tmp_path / "file"),
        put(server, "/denied", tmp_path / "file"),
        put(server, "/p", tmp_path / "nothing"),
        Skipped("there", 5),
        Refused("bad/../name", InvalidName("bad/../name", "leads elsewhere")),
    ]
    seen = await happened(transfers)
    assert (
        seen[0].to_json().items() >= {"event": "run_started", "objects_total": 7, "concurrency": 4, "schema": 1}.items()
    )
    finished = {event.name: event for event in of(seen, "object_finished")}
    assert (finished["there"].status, finished["there"].size_bytes) == ("skipped", 5)
    (done,) = [event for event in finished.values() if event.status == "done"]
    assert (done.size_bytes, done.attempts, done.number, done.verified) == (100, 1, None, False)
    failed = {event.code for event in of(seen, "object_failed")}
    assert failed == {"permission_denied", "source_not_found", "invalid_name"}
    assert not of(seen, "object_started")
    end = seen[-1]
    assert isinstance(end, events.RunEnded)
    assert (end.done, end.skipped, end.failed, end.bytes_done) == (1, 1, 3, 100)
    assert (end.is_complete, end.code) == (True, None)


async def test_large_objects_are_told_when_they_start(server: HttpServer, tmp_path: Path) -> None:
    """Their number ties the two events together."""
    (tmp_path / "big").write_bytes(bytes(3 * MiB))
    server.objects["/big"] = bytes(3 * MiB)
    origin = UrlOrigin(server.url(f"/big?sig={SECRET}"), size_bytes=3 * MiB)
    target = multipart_target(server, 3, version=SECRET)
    seen = await happened([Upload(tmp_path / "big", target), Download(origin, None)])
    started = {event.number: event for event in of(seen, "object_started")}
    finished = {event.number: event for event in of(seen, "object_finished")}
    assert set(started) == set(finished) == {1, 2}
    assert {event.direction: event.name for event in started.values()} == {
        event.direction: finished[event.number].name for event in started.values()
    }
    assert {event.direction for event in started.values()} == {"upload", "download"}
    assert {event.size_bytes for event in finished.values()} == {3 * MiB}
    waits = finished[1].to_json().get("waits", {})
    assert set(waits) <= set(map(str, WaitReason))


async def test_retries_and_refusals_for_too_many_are_told(server: HttpServer, tmp_path: Path) -> None:
    """With the wait; that a server asks for fewer requests is told once a second at most."""
    (tmp_path / "file").write_bytes(b"x")
    for number in range(5):
        server.script(f"/{number}", answer(429, headers={"Retry-After": "0"}))
    server.script("/5", answer(500), answer(500))
    seen = await happened([put(server, f"/{number}", tmp_path / "file") for number in range(6)])
    retried = of(seen, "retried")
    assert sorted((event.code, event.attempt) for event in retried) == [
        *[("rate_limited", 1)] * 5, ("server_error", 1), ("server_error", 2),
    ]  # fmt: skip
    assert all(event.wait_seconds >= 0 and event.message for event in retried)
    throttled = of(seen, "throttled")
    assert len(throttled) == 1
    assert throttled[0].to_json().items() >= {"code": "rate_limited", "retry_after": 0.0, "count": 1}.items()


async def test_fresh_urls_are_told(server: HttpServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    server.script("/old", answer(403))
    stale = PutTarget(server.url(f"/old?sig={SECRET}"), expires_at=1.0)
    fresh = PutTarget(server.url(f"/new?sig={SECRET}"), expires_at=4e9)
    feed = RecordingFeed([Upload(tmp_path / "file", stale)], on_renew=lambda transfer, first_part: fresh)
    seen = await happened(feed)
    assert [event.first_part for event in of(seen, "renewed")] == [1]
    assert of(seen, "object_finished")


async def test_what_ends_a_run_is_told(tmp_path: Path) -> None:
    """The last event comes also when the feed fails; the error is raised as ever."""

    def broken() -> Any:
        yield Skipped("one")
        raise SourceNotFound("gone")

    seen: list[Event] = []
    async with Engine(config()) as engine:
        with pytest.raises(SourceNotFound):
            await engine.collect(broken(), on_event=seen.append)
    end = seen[-1]
    assert isinstance(end, events.RunEnded)
    assert (end.is_complete, end.code) == (False, "source_not_found")


async def test_a_cancelled_run_says_so(server: HttpServer) -> None:
    """It was no error, and it was not the end of the feed either."""
    begun = asyncio.Event()

    async def hold(connection: Connection, request: Received) -> bool:
        begun.set()
        await asyncio.Event().wait()
        return True

    server.script("/o", hold)
    seen: list[Event] = []
    async with Engine(config()) as engine:
        task = asyncio.create_task(engine.collect([Download(server.url("/o"))], on_event=seen.append))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    end = seen[-1]
    assert isinstance(end, events.RunEnded)
    assert (end.is_complete, end.code) == (False, "cancelled")


@pytest.mark.parametrize("kind", ["run_started", "retried", "object_finished"])
async def test_what_the_callback_raises_ends_the_run(server: HttpServer, tmp_path: Path, kind: str) -> None:
    """Unchanged; an error of this package is not taken for one of the transfer. It is not called again."""
    (tmp_path / "file").write_bytes(b"x")
    server.script("/o", answer(500))
    told: list[str] = []

    def refuse(event: Event) -> None:
        told.append(event.kind)
        if event.kind == kind:
            raise ConfigError("not with me")

    async with Engine(config()) as engine:
        with pytest.raises(ConfigError, match="not with me"):
            await engine.collect([put(server, "/o", tmp_path / "file")], on_event=refuse)
    assert told[-1] == kind


KINDS = [value for value in vars(events).values() if isinstance(value, type) and issubclass(value, Event)]


def test_kinds_and_fields_are_documented() -> None:
    """The reference names every kind and every field: nobody changes one without saying so."""
    page = (Path(__file__).parents[3] / "docs" / "reference" / "events.md").read_text()
    assert len(KINDS) == 13  # with the base
    for kind in KINDS:
        if kind is Event:
            continue
        section = page.partition(f"## `{kind.kind}`")[2].partition("\n## ")[0]
        assert section, kind.kind
        missing = [
            own.name for own in dataclasses.fields(kind)
            if own.name not in {"run", "time"} and f"`{own.name}`" not in section
        ]  # fmt: skip
        assert not missing, (kind.kind, missing)


def test_values_of_a_line_are_plain() -> None:
    """Numbers rounded to microseconds, absent values left out."""
    event = events.ObjectFailed(
        run="r", time=1.23456789, name="n", code="c", message="m", seconds=1 / 3, attempts=2,
        waits={WaitReason.SLOT: 0.12345678},
    )  # fmt: skip
    assert event.to_json() == {
        "event": "object_failed", "run": "r", "time": 1.234568, "name": "n", "code": "c", "message": "m",
        "seconds": 0.333333, "attempts": 2, "waits": {"slot": 0.123457},
    }  # fmt: skip
