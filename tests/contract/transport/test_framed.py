"""Bodies with bytes before and after them: whole, in order, counted; only what is framed is checksummed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.errors import SourceChanged
from asyncsdk.transport.base import BytesBody, FileBody, FramedBody, Request, Timeouts, Transport
from tests.contract.transport.conftest import MakeServer, MakeTransport
from tests.support.http_server import HttpServer, close
from tests.support.wire.certificates import Certificates
from tests.support.wire.scripts import polite

SIZES = [0, 1, 65_000, 65_537, 262_145, 3_000_001, 20_000_001]


@pytest.mark.parametrize("is_safe", [False, True])
@pytest.mark.parametrize("size", SIZES)
async def test_it_arrives_in_order(
    make: MakeTransport, certificates: Certificates, trusted: Path, tmp_path: Path, size: int, is_safe: bool
) -> None:
    """From a file and from memory, plain and under TLS, with frames that are large themselves."""
    assert trusted
    transport = make()
    data = os.urandom(size + 3)
    (tmp_path / "file").write_bytes(data)
    async with HttpServer(certificates.server() if is_safe else None) as store:
        for before, after in ((b"<", b">"), (os.urandom(700_000), os.urandom(300_000))):
            sent: list[int] = []
            with (tmp_path / "file").open("rb") as file:
                inner = FileBody(file.fileno(), 3, 3 + size, checksum=Crc32c())
                body = FramedBody(before, inner, after)
                await transport.send(Request("PUT", store.url("/f"), body=body, on_sent=sent.append))
            assert store.objects["/f"] == before + data[3:] + after
            assert sum(sent) == body.size_bytes
            assert inner.checksum is not None
            assert (inner.checksum.value, inner.checksum.size_bytes) == (crc32c(data[3:]), size)
            framed = FramedBody(before, BytesBody(memoryview(data)[3:]), after)
            await transport.send(Request("PUT", store.url("/b"), body=framed))
            assert store.objects["/b"] == before + data[3:] + after


@pytest.mark.parametrize("size", [100, 1_000_000])
async def test_a_dead_connection_costs_nothing(
    store: HttpServer, transport: Transport, tmp_path: Path, size: int
) -> None:
    """It is sent once more, from its start, counted and checksummed once."""
    (tmp_path / "file").write_bytes(data := os.urandom(size))
    await transport.send(Request("PUT", store.url("/warm"), body=BytesBody(b"x")))
    store.script("/f", close())
    sent: list[int] = []
    with (tmp_path / "file").open("rb") as file:
        inner = FileBody(file.fileno(), 0, size, checksum=Crc32c())
        body = FramedBody(b"<<", inner, b">>")
        await transport.send(Request("PUT", store.url("/f"), body=body, on_sent=sent.append))
    assert store.objects["/f"] == b"<<" + data + b">>"
    assert sum(sent) == size + 4
    assert inner.checksum is not None
    assert (inner.checksum.value, inner.checksum.size_bytes) == (crc32c(data), size)


@pytest.mark.parametrize("size", [100, 6_000_000])
async def test_a_framed_file_that_became_shorter_is_a_changed_source(
    transport: Transport, wire: MakeServer, tmp_path: Path, size: int
) -> None:
    """The frame is never closed around less than was announced."""
    server = await wire(polite())
    (tmp_path / "file").write_bytes(b"x" * size)
    with (tmp_path / "file").open("rb") as file:
        body = FramedBody(b"<", FileBody(file.fileno(), 0, size + 100, "file", Crc32c()), b">")
        with pytest.raises(SourceChanged, match="file: ends after"):
            await transport.send(Request("PUT", server.url("/f"), body=body, timeouts=Timeouts(5, 3, 3)))
    assert not [seen for seen in server.requests if seen.body]
