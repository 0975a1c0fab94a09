"""Signed URLs that expire, and clocks that are wrong: renewed when that explains the refusal, else told at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from asyncsdk.engine import Download, Engine, Origin, Outcome, PutTarget, Target, Transfer, Upload, UrlOrigin
from asyncsdk.errors import AsyncSDKError, BadRequest, PermissionDenied
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Clock, Expired, Refuse
from tests.support.faults.server import FaultServer
from tests.support.feeds import RecordingFeed

SERVICES = {"s3": PermissionDenied, "gcs": BadRequest, "azure": PermissionDenied, "own": PermissionDenied}
COUNT = 5


class Renewing(RecordingFeed):
    """A feed of uploads and downloads to ``/N?version=old``; fresh URLs say ``version=new``."""

    def __init__(self, server: FaultServer, out: Path, kind: str, *, expires_in: float) -> None:
        expires_at = time.time() + expires_in
        self._server = server
        moves: list[Transfer]
        old = [server.url(f"/{number}?version=old") for number in range(COUNT)]
        if kind == "put":
            moves = [Upload(b"x" * 1000, PutTarget(url, expires_at=expires_at), key=n) for n, url in enumerate(old)]
        else:
            moves = [
                Download(UrlOrigin(url, size_bytes=1000, expires_at=expires_at), out / str(n), key=n)
                for n, url in enumerate(old)
            ]
        super().__init__(moves, on_renew=self._fresh)

    def _fresh(self, transfer: Upload | Download, first_part: int) -> Target | Origin:
        url = self._server.url(f"/{transfer.key}?version=new")
        until = time.time() + 7200
        if isinstance(transfer, Upload):
            return PutTarget(url, expires_at=until)
        return UrlOrigin(url, size_bytes=1000, expires_at=until)


async def move(
    engine: Engine, server: FaultServer, out: Path, kind: str, *, expires_in: float
) -> tuple[list[Outcome], int]:
    """Move everything; returns the outcomes, and how many URLs were renewed."""
    for number in range(COUNT):
        if kind == "get":
            server.store[f"/{number}"] = b"x" * 1000
    feed = Renewing(server, out, kind, expires_in=expires_in)
    async with engine.run(feed) as outcomes:
        return [outcome async for outcome in outcomes], len(feed.renewals)


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize("service", sorted(SERVICES))
async def test_an_expired_url_is_renewed(
    server: FaultServer, engine: Engine, out: Path, service: str, kind: str
) -> None:
    """A refusal that the URL's own expiry explains costs a fresh URL for each object, and no failure."""
    server.plan = Plan([Rule(Expired(service, ahead_seconds=900), target="*version=old*")])  # type: ignore[arg-type]
    outcomes, renewals = await move(engine, server, out, kind, expires_in=300)
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert renewals == COUNT
    assert len(list(server.store)) == COUNT


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize("service", sorted(SERVICES))
async def test_a_refusal_before_the_expiry_is_final(
    server: FaultServer, engine: Engine, out: Path, service: str, kind: str
) -> None:
    """The same words about a URL that is good for an hour by the server's clock are no matter of time."""
    server.plan = Plan([Rule(Expired(service), target="*version=old*")])  # type: ignore[arg-type]
    outcomes, renewals = await move(engine, server, out, kind, expires_in=3600)
    assert all(isinstance(outcome.error, SERVICES[service]) for outcome in outcomes)
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert renewals == 0


@pytest.mark.parametrize("kind", ["put", "get"])
async def test_our_clock_ahead_of_the_servers_is_no_expiry(
    server: FaultServer, engine: Engine, out: Path, kind: str
) -> None:
    """A URL that has ended by our clock but not by the server's is sent as it is, once the server's clock is known."""
    server.plan = Plan([Clock(-900)])
    outcomes, _ = await move(engine, server, out, kind, expires_in=3600)
    assert all(outcome.ok and outcome.attempts == 1 for outcome in outcomes)
    server.plan = Plan([Rule(Expired("s3", ahead_seconds=-900), target="*version=old*")])
    outcomes, renewals = await move(engine, server, out, kind, expires_in=-300)
    assert renewals in {0, COUNT}  # renewed ahead of time or refused for good, never tried again and again
    assert all(outcome.ok for outcome in outcomes) if renewals else all(outcome.error for outcome in outcomes)


async def test_a_403_that_is_no_expiry_stops_at_once(server: FaultServer, engine: Engine, out: Path) -> None:
    """A signature that is wrong is wrong: one request, the server's own word, nothing of the query in the error."""
    body = "<Error><Code>SignatureDoesNotMatch</Code><Message>It does not match.</Message></Error>"
    server.plan = Plan([Refuse(403, body=body)])
    outcomes, renewals = await move(engine, server, out, "put", expires_in=3600)
    assert renewals == 0
    for outcome in outcomes:
        assert isinstance(outcome.error, AsyncSDKError)
        assert outcome.error.code == "SignatureDoesNotMatch"
        assert "version" not in str(outcome.error)
