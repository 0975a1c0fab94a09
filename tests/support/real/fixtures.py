"""Fixtures of the real servers, one start for a session; import those wanted into a ``conftest.py`` or a test module.

Tests that ask for one are skipped, with the reason, where it cannot be had; or fail, see `required`.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.real import azurite, gcs, rclone, swift
from tests.support.real.required import missing
from tests.support.real.running import RealServer

__all__ = ["azurite_server", "gcs_server", "rclone_server", "s3_server", "swift_server"]


def _run(module: ModuleType, factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    reason = module.unavailable()
    if reason is not None:
        missing(module.__name__.rpartition(".")[2], reason)
    with module.start(factory.mktemp(module.__name__.rpartition(".")[2])) as server:
        yield server


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """OpenStack Swift with s3api."""
    yield from _run(swift, tmp_path_factory)


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """``rclone serve s3``."""
    yield from _run(rclone, tmp_path_factory)


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """Azurite."""
    yield from _run(azurite, tmp_path_factory)


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """The emulator of Google Cloud Storage."""
    yield from _run(gcs, tmp_path_factory)


@pytest.fixture(params=["swift", "rclone"])
def s3_server(request: pytest.FixtureRequest) -> RealServer:
    """Each server that speaks S3."""
    server: RealServer = request.getfixturevalue(f"{request.param}_server")
    return server
