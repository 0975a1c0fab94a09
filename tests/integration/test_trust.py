"""Whom a client trusts: the same for calls of the platform as for bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import TlsConfig, TransferConfig
from asyncsdk.errors import ConfigError, ConnectionFailed
from asyncsdk.transport.tls import shared_context
from tests.support.faults.relay import Relay
from tests.support.server import RunningServer
from tests.support.wire.certificates import Certificates


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data") as running:
        yield running


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
async def tls_url(server: RunningServer, certificates: Certificates) -> AsyncIterator[str]:
    """A server behind a proxy that does TLS, with a certificate of an authority of our own."""
    async with Relay(int(server.url.rpartition(":")[2]), ssl=certificates.server()) as relay:
        yield relay.url


async def test_an_authority_of_our_own_vouches_for_the_platform_too(
    tls_url: str, server: RunningServer, certificates: Certificates
) -> None:
    """What is said of trust for transfers holds for the platform's own calls."""
    config = TransferConfig(tls=TlsConfig(ca_file=certificates.ca_file))
    async with AsyncClient(tls_url, token=server.token, config=config) as client:
        assert (await client.whoami()).role == "owner"


@pytest.mark.parametrize("other", [False, True], ids=["system", "another authority"])
async def test_nobody_else_is_trusted(
    tls_url: str, server: RunningServer, certificates: Certificates, other: bool
) -> None:
    """A certificate that nobody vouches for ends the first call, by name."""
    tls = TlsConfig(ca_file=certificates.other_ca_file) if other else TlsConfig()
    async with AsyncClient(tls_url, token=server.token, config=TransferConfig(tls=tls)) as client:
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            await client.whoami()


def test_certificates_are_read_once(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients with the same settings share what they trust; other settings, also of the environment, do not."""
    ours = TlsConfig(ca_file=certificates.ca_file)
    assert shared_context("https", ours) is shared_context("https", TlsConfig(ca_file=certificates.ca_file))
    assert shared_context("https", ours) is not shared_context("https", TlsConfig(ca_file=certificates.other_ca_file))
    before = shared_context("https", TlsConfig())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    assert shared_context("https", TlsConfig()).cert_store_stats()["x509_ca"] == 1
    assert shared_context("https", TlsConfig()) is not before
    assert shared_context("http", TlsConfig()).cert_store_stats()["x509_ca"] == 0
    with pytest.raises(ConfigError, match="ca_file"):
        shared_context("https", TlsConfig(ca_file="missing.pem"))
