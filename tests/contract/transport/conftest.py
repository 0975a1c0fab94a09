"""Every transport, and servers that say anything.

What both promise is asserted for both. Where httpx (h11 below it) is laxer than the contract and cannot be made
stricter from outside, `HTTPX_IS_LAXER` says so by name, and its laxer answer is asserted all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from asyncsdk.transport.base import Transport
from tests.support.http_server import HttpServer
from tests.support.wire.candidates import TRANSPORTS
from tests.support.wire.certificates import Certificates
from tests.support.wire.server import WireServer

MakeTransport = Callable[..., Transport]
MakeServer = Callable[..., Awaitable[WireServer]]


@pytest.fixture(params=sorted(TRANSPORTS))
def kind(request: pytest.FixtureRequest) -> str:
    """Name of the transport under test."""
    name: str = request.param
    return name


@pytest.fixture
async def make(kind: str) -> AsyncIterator[MakeTransport]:
    """Makes transports of this kind, closed at the end."""
    made: list[Transport] = []

    def transport(**options: object) -> Transport:
        made.append(TRANSPORTS[kind](**options))
        return made[-1]

    yield transport
    for running in made:
        await running.aclose()


@pytest.fixture
async def transport(make: MakeTransport) -> Transport:
    """One with the usual settings."""
    return make()


@pytest.fixture
async def store() -> AsyncIterator[HttpServer]:
    """An object store."""
    async with HttpServer() as running:
        yield running


@pytest.fixture
async def wire() -> AsyncIterator[MakeServer]:
    """Starts scripted servers, stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*scripts: object, **options: object) -> WireServer:
            return await stack.enter_async_context(WireServer(*scripts, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and what it signed."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def trusted(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The authority of `certificates` is trusted by every transport made afterwards."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    return certificates.ca_file
