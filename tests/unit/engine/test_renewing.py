"""Signed URLs that expire while a run uses them, up and down, by a server's clock that is not ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncsdk.engine import Download, Engine, Origin, PutTarget, Target, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.errors import PermissionDenied
from tests.support.feeds import RecordingFeed
from tests.support.http_server import Action, Connection, HttpServer, Received
from tests.unit.engine.conftest import config

NOW = 1_900_000_000.0
REFUSALS = {
    "S3": (403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"),
    "Google": (400, b"<Error><Code>ExpiredToken</Code><Details>Invalid argument.</Details></Error>"),
    "Azure": (403, b"\xef\xbb\xbf<Error><Code>AuthenticationFailed</Code><Message>not in time</Message></Error>"),
    "nginx": (410, b"gone"),
    "ours": (403, b'{"error": {"code": "expired_url", "message": "this URL has expired"}}'),
}


def refuse_expired(server: HttpServer, status: int, body: bytes) -> Action:
    """Refuse URLs that have expired by the server's clock; Content-Type does not matter."""

    async def action(connection: Connection, request: Received) -> bool:
        if float(request.query["Expires"]) > (server.clock or 0):
            return False
        await connection.read_body(request)
        await connection.reply(status, body)
        return True

    return action


@pytest.mark.parametrize("minutes", [-15, 0, 15])
@pytest.mark.parametrize("service", sorted(REFUSALS))
async def test_every_services_refusal_is_explained_by_the_clock(
    server: HttpServer, tmp_path: Path, service: str, minutes: int
) -> None:
    """Expired there: renewed once each and done, wherever our own clock stands."""
    server.clock = NOW + 60 * minutes
    server.script("/u", *[refuse_expired(server, *REFUSALS[service])] * 9)
    server.script("/d", *[refuse_expired(server, *REFUSALS[service])] * 9)
    server.objects["/d"] = os.urandom(1000)

    def url(path: str, seconds: float) -> str:
        return server.url(f"{path}?Expires={int((server.clock or 0) + seconds)}")

    def renew(transfer: Upload | Download, first_part: int) -> Target | Origin:
        return PutTarget(url("/u", 600)) if isinstance(transfer, Upload) else UrlOrigin(url("/d", 600))

    feed = RecordingFeed(
        [Upload(b"abc", PutTarget(url("/u", -1))), Download(url("/d", -1), tmp_path / "d")], on_renew=renew
    )
    async with Engine(config()) as engine:
        report = await engine.collect(feed)
    report.raise_for_failures()
    assert server.objects["/u"] == b"abc"
    assert (tmp_path / "d").read_bytes() == server.objects["/d"]
    assert len(feed.renewals) == 2


PLAIN = {"Google", "ours"}
"""They have a word for it that means nothing else."""


@pytest.mark.parametrize("service", sorted(REFUSALS))
@pytest.mark.parametrize("minutes", [-15, 15])
async def test_a_refusal_of_a_fresh_url_is_final(server: HttpServer, service: str, minutes: int) -> None:
    """Fresh by the server's clock, though long expired by ours, or the other way round: one request, no renewal.

    A plain word for expiry is taken at that, once: what signed the URL may have ended before it.
    """
    server.clock = NOW + 60 * minutes
    status, body = REFUSALS[service]

    async def refuse(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        await connection.reply(status, body)
        return True

    server.script("/u", *[refuse] * 9)
    target = PutTarget(server.url(f"/u?Expires={int(server.clock + 60)}&signature=0123456789abcdef"))
    feed = RecordingFeed([Upload(b"abc", target)], on_renew=lambda transfer, first: target)
    async with Engine(config()) as engine:
        report = await engine.collect(feed)
    error = report.failures[0].error
    assert getattr(error, "status", 0) == status
    assert "0123456789abcdef" not in str(error)
    again = 1 if service in PLAIN else 0
    assert len(server.requests) == 1 + again
    assert len(feed.renewals) == again


async def test_a_url_that_is_expired_and_stays_so_is_an_error(server: HttpServer) -> None:
    """A renewal that brings no fresher one is tried once."""
    server.clock = NOW
    server.script("/u", *[refuse_expired(server, *REFUSALS["S3"])] * 9)
    stale = PutTarget(server.url(f"/u?Expires={int(NOW) - 5}"))
    feed = RecordingFeed(
        [Upload(b"abc", stale)], on_renew=lambda transfer, first: PutTarget(server.url(f"/u?Expires={int(NOW) - 4}"))
    )
    async with Engine(config()) as engine:
        report = await engine.collect(feed)
    assert isinstance(report.failures[0].error, PermissionDenied)
    assert len(feed.renewals) <= 2


async def test_ranges_are_renewed_ahead_of_the_end(server: HttpServer, tmp_path: Path) -> None:
    """A download whose URL ends in a few seconds goes on with a fresh one before any range is refused."""
    server.clock = NOW
    server.objects["/d"] = data = os.urandom(6 * MiB)
    server.script("*", *[refuse_expired(server, *REFUSALS["S3"])] * 50)

    def url(seconds: float) -> str:
        return server.url(f"/d?Expires={int(NOW + seconds)}")

    origin = UrlOrigin(url(5), size_bytes=len(data))
    feed = RecordingFeed(
        [Download(origin, tmp_path / "d")],
        on_renew=lambda transfer, first: UrlOrigin(url(3600), size_bytes=len(data)),
    )
    async with Engine(config(concurrency=1)) as engine:
        (await engine.collect(feed)).raise_for_failures()
    assert (tmp_path / "d").read_bytes() == data
    assert feed.renewals == [1]
    stale = [r for r in server.requests if r.query["Expires"] == str(int(NOW + 5))]
    assert len(stale) == 1  # until the first reply nobody knows what time it is there


async def test_small_files_are_renewed_ahead_in_the_express_lane(server: HttpServer, tmp_path: Path) -> None:
    """URLs that wait so long that they are about to expire are never asked for, once the time over there is known."""
    server.clock = NOW
    server.script("*", *[refuse_expired(server, *REFUSALS["S3"])] * 50)
    paths = [tmp_path / str(number) for number in range(20)]
    for path in paths:
        path.write_bytes(os.urandom(100))

    def target(name: str, seconds: float) -> PutTarget:
        return PutTarget(server.url(f"/{name}?Expires={int(NOW + seconds)}"), expires_at=NOW + seconds)

    async with Engine(config(concurrency=1)) as engine:
        (await engine.collect([Upload(paths[0], target("first", 3600))])).raise_for_failures()
        feed = RecordingFeed(
            [Upload(path, target(path.name, 5)) for path in paths],
            on_renew=lambda transfer, first: target(Path(transfer.name).name, 3600),
        )
        (await engine.collect(feed)).raise_for_failures()
    assert [server.objects[f"/{path.name}"] for path in paths] == [path.read_bytes() for path in paths]
    assert len(feed.renewals) == len(paths)
    assert {r.query["Expires"] for r in server.requests} == {str(int(NOW + 3600))}
