"""Faults below HTTP: connections refused, silent or cut, and certificates that are no good."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, Outcome, PutTarget, TransferConfig, Upload
from asyncsdk.errors import ConnectionFailed, RequestError, RequestTimeout
from asyncsdk.transport.base import Timeouts
from asyncsdk.transport.tls import TlsConfig
from tests.faults.conftest import ATTEMPTS, config
from tests.support.faults.plan import Connection, ConnectionFault, Plan
from tests.support.faults.server import FaultServer, bad_certificates
from tests.support.wire.certificates import Certificates

COUNT = 5


def trusting(certificates: Certificates) -> TransferConfig:
    """Return settings that trust the authority of the tests, and wait half a second for a connection."""
    timeouts = Timeouts(connect=0.5, idle=2.0, reply=2.0)
    return config(tls=TlsConfig(ca_file=certificates.ca_file), timeouts=timeouts, concurrency=1)


async def send_some(engine: Engine, server: FaultServer) -> list[Outcome]:
    async with engine.run([Upload(b"x" * 1000, PutTarget(server.url(f"/{n}"))) for n in range(COUNT)]) as outcomes:
        return [outcome async for outcome in outcomes]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("fault", ["refuse", "silent", "cut"])
async def test_a_bad_connection_costs_an_attempt(
    certificates: Certificates, good: ssl.SSLContext, fault: ConnectionFault, secure: bool
) -> None:
    """The first two connections go wrong; a third is made, and everything gets there."""
    plan = Plan(connections=[Connection(fault, nth=[1, 2])])
    async with FaultServer(plan, tls=good if secure else None) as server, Engine(trusting(certificates)) as engine:
        outcomes = await send_some(engine, server)
        assert [outcome.error for outcome in outcomes if not outcome.ok] == []
        assert len(list(server.store)) == COUNT
        assert server.connections == 3
        assert plan.met == {fault: 2}


@pytest.mark.parametrize("fault", ["refuse", "silent", "cut"])
async def test_connections_that_stay_bad_are_told(
    certificates: Certificates, good: ssl.SSLContext, fault: ConnectionFault
) -> None:
    """When no connection works all transfers are tried as often as may be, and have a typed error."""
    async with (
        FaultServer(Plan(connections=[Connection(fault)]), tls=good) as server,
        Engine(trusting(certificates)) as engine,
    ):
        outcomes = await send_some(engine, server)
    assert len(outcomes) == COUNT
    assert all(isinstance(outcome.error, (ConnectionFailed, RequestTimeout)) for outcome in outcomes)
    assert {outcome.attempts for outcome in outcomes} == {ATTEMPTS}
    assert server.requests == []


@pytest.mark.parametrize("fault", ["expired", "wrong_host", "self_signed"])
async def test_a_bad_certificate_ends_it(
    certificates: Certificates, good: ssl.SSLContext, tmp_path: Path, fault: ConnectionFault
) -> None:
    """Nothing is sent to a server that cannot say who it is, and the error says that the certificate is why."""
    plan = Plan(connections=[Connection(fault)])
    async with (
        FaultServer(plan, tls=good, bad=bad_certificates(certificates)) as server,
        Engine(trusting(certificates)) as engine,
    ):
        outcomes = await send_some(engine, server)
    assert all(isinstance(outcome.error, RequestError) for outcome in outcomes)
    assert all("certificate" in str(outcome.error).lower() for outcome in outcomes)
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert server.requests == []
