from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A really running server, one for all tests of a module."""
    with RunningServer(tmp_path_factory.mktemp("data")) as running:
        yield running
