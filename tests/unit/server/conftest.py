"""A backend of one's own, asked without a server in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.datasets import CreateDataset, DatasetRecord
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects.arrivals import Arrival, Expected
from asyncsdk.server.objects.minting import FileMinter

BYTES = b"five."
DIGEST = crc32c_hex(crc32c(BYTES))
DAY_MS = 24 * 3600 * 1000

Send = Callable[[Message[Any]], Any]
"""Has the backend answer a message of its owner."""


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend = Backend.open(tmp_path / "data")
    yield backend
    backend.close()


@pytest.fixture
def send(backend: Backend) -> Send:
    return lambda message: backend.handle(message, backend.owner(), FileMinter(backend.objects))


@pytest.fixture
def dataset(send: Send) -> DatasetRecord:
    made: DatasetRecord = send(CreateDataset(name="photos"))
    return made


def arrive(backend: Backend, key: str, data: bytes = BYTES) -> dict[str, Any]:
    """Bring *data* to where *key* leads; returns what a commit says of it."""
    with Arrival(backend.objects, key[:24], Expected(len(data))) as arrival:
        arrival.write([data])
        arrival.finish()
    return {"key": key, "size_bytes": len(data), "crc32c": crc32c_hex(crc32c(data))}
