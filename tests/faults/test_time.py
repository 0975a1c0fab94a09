"""Signed URLs that expire, and clocks that are wrong: renewed when that explains the refusal, else told at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from asyncsdk.engine import (
    Download,
    Engine,
    MiB,
    MultipartTarget,
    Origin,
    Outcome,
    PutTarget,
    Target,
    Transfer,
    Upload,
    UrlOrigin,
)
from asyncsdk.errors import AsyncSDKError, BadRequest, PermissionDenied
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Clock, Expired, Refuse
from tests.support.faults.server import FaultServer
from tests.support.feeds import RecordingFeed

SERVICES = {"s3": PermissionDenied, "gcs": BadRequest, "azure": PermissionDenied, "own": PermissionDenied}
PLAIN = {"gcs", "own"}
"""Those that have a word for it which means nothing else."""

COUNT = 5
KINDS = {"put": 1000, "get": 1000, "parts": 2 * MiB + 5, "ranges": 2 * MiB + 5}
"""What is moved, and how many bytes of it."""


class Renewing(RecordingFeed):
    """A feed of uploads and downloads to ``/N?version=old``; fresh URLs say ``version=new``."""

    def __init__(self, server: FaultServer, out: Path, kind: str, *, expires_in: float) -> None:
        self._server = server
        self._kind = kind
        moves: list[Transfer] = []
        for number in range(COUNT):
            there = self._there(number, "old", time.time() + expires_in)
            if isinstance(there, UrlOrigin):
                moves.append(Download(there, out / f"{number}", key=number))
            else:
                moves.append(Upload(bytes(KINDS[kind]), there, key=number))
        super().__init__(moves, on_renew=self._fresh)

    def _fresh(self, transfer: Upload | Download, first_part: int) -> Target | Origin:
        return self._there(int(transfer.key), "new", time.time() + 7200)

    def _there(self, number: int, version: str, expires_at: float) -> PutTarget | MultipartTarget | UrlOrigin:
        url = self._server.url(f"/{number}?version={version}")
        if self._kind == "put":
            return PutTarget(url, expires_at=expires_at)
        if self._kind == "parts":
            whole = f"{url}&uploadId=u{number}"
            self._server.store.uploads.setdefault(f"u{number}", {})
            urls = tuple(f"{whole}&partNumber={part}" for part in (1, 2, 3))
            return MultipartTarget(f"u{number}", MiB, urls, whole, whole, (whole,), expires_at=expires_at)
        return UrlOrigin(url, size_bytes=KINDS[self._kind], expires_at=expires_at)


async def move(
    engine: Engine, server: FaultServer, out: Path, kind: str, *, expires_in: float
) -> tuple[list[Outcome], int]:
    """Move everything; returns the outcomes, and how many URLs were renewed."""
    for number in range(COUNT):
        if kind in {"get", "ranges"}:
            server.store[f"/{number}"] = bytes(KINDS[kind])
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
    """Words about a URL that is good for an hour by the server's clock are no matter of time, unless they are plain.

    Then it gets one fresh URL, and no more when that is refused in the same words.
    """
    server.plan = Plan([Rule(Expired(service))])  # type: ignore[arg-type]
    outcomes, renewals = await move(engine, server, out, kind, expires_in=3600)
    assert all(isinstance(outcome.error, SERVICES[service]) for outcome in outcomes)
    is_plain = service in PLAIN
    assert {outcome.attempts for outcome in outcomes} == {2 if is_plain else 1}
    assert renewals == (COUNT if is_plain else 0)


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize("service", sorted(PLAIN))
async def test_a_token_that_ends_before_its_url_costs_a_fresh_url(
    server: FaultServer, engine: Engine, out: Path, service: str, kind: str
) -> None:
    """The server's plain word for it is enough, though the URL itself says that it is good for an hour."""
    server.plan = Plan([Rule(Expired(service), target="*version=old*")])  # type: ignore[arg-type]
    outcomes, renewals = await move(engine, server, out, kind, expires_in=3600)
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert renewals == COUNT


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(
    ("skew", "expires_in", "is_renewed"),
    [(900, 1200, False), (900, 600, True), (-900, -300, False), (-900, -1000, True)],
    ids=["ahead, good there", "ahead, over there", "behind, good there", "behind, over there"],
)
async def test_urls_are_judged_by_the_clock_of_their_server(
    server: FaultServer, engine: Engine, out: Path, kind: str, skew: int, expires_in: int, is_renewed: bool
) -> None:
    """What has ended here and is good there is sent as it is; what is good here and has ended there never goes out."""
    server.plan = Plan([Clock(skew)])
    outcomes, _ = await move(engine, server, out, kind, expires_in=3600)
    assert all(outcome.ok and outcome.attempts == 1 for outcome in outcomes)
    server.requests.clear()
    outcomes, renewals = await move(engine, server, out, kind, expires_in=expires_in)
    assert all(outcome.ok and outcome.attempts == 1 for outcome in outcomes)
    assert renewals == (COUNT if is_renewed else 0)
    old = [seen for seen in server.requests if "version=old" in seen.target]
    assert len(old) == (0 if is_renewed else len(server.requests))


@pytest.mark.parametrize("kind", ["put", "get"])
async def test_a_refusal_that_the_servers_own_clock_contradicts_is_final(
    server: FaultServer, engine: Engine, out: Path, kind: str
) -> None:
    """Ended by our clock, good by the server's, and called expired in words that mean other things too: no matter of
    time."""
    server.plan = Plan([Rule(Expired("s3", ahead_seconds=-900))])
    outcomes, renewals = await move(engine, server, out, kind, expires_in=-300)
    assert all(isinstance(outcome.error, PermissionDenied) and outcome.attempts == 1 for outcome in outcomes)
    assert (renewals, len(server.requests)) == (0, COUNT)


async def test_a_403_that_is_no_expiry_stops_at_once(server: FaultServer, engine: Engine, out: Path) -> None:
    """A signature that is wrong is wrong: one request, the server's own word, nothing of the query in the error."""
    body = "<Error><Code>SignatureDoesNotMatch</Code><Message>It does not match.</Message></Error>"
    server.plan = Plan([Refuse(403, body=body)])
    outcomes, renewals = await move(engine, server, out, "put", expires_in=3600)
    assert renewals == 0
    for outcome in outcomes:
        assert isinstance(outcome.error, AsyncSDKError)
        assert outcome.error.server_code == "SignatureDoesNotMatch"
        assert "version" not in str(outcome.error)
