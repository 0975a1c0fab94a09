"""Bodies of requests and replies: whole, counted, verified, in order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.errors import SourceChanged
from asyncsdk.transport.base import MAX_KEPT_BODY_BYTES, BytesBody, FileBody, ReplyHead, Request, Timeouts, Transport
from tests.contract.transport.conftest import MakeServer
from tests.support.http_server import HttpServer, answer
from tests.support.wire.scripts import OK, polite, reply, sized
from tests.support.wire.server import Wire
from tests.support.wire.sinks import Collect, get, put

SIZES = [0, 1, 65_535, 65_536, 65_537, 262_145, 3_000_001, 9_000_001]
"""Around the sizes at which a transport may change its way."""


@pytest.mark.parametrize("size", SIZES)
async def test_file_and_bytes_bodies_arrive_whole_and_are_counted(
    store: HttpServer, transport: Transport, tmp_path: Path, size: int
) -> None:
    """From an offset on, checksummed as they leave, and ``on_sent`` adds up to their size."""
    data = os.urandom(size + 7)
    path = tmp_path / "file"
    path.write_bytes(data + b"not this")
    sent: list[int] = []
    with path.open("rb") as file:
        body = FileBody(file.fileno(), 7, 7 + size, checksum=Crc32c())
        await transport.send(Request("PUT", store.url("/f"), body=body, on_sent=sent.append))
        assert file.tell() == 0, "files are read with positioned reads only"
    assert store.objects["/f"] == data[7:]
    assert sum(sent) == size
    assert body.checksum is not None
    assert (body.checksum.value, body.checksum.size_bytes) == (crc32c(data[7:]), size)
    sent.clear()
    await transport.send(Request("PUT", store.url("/b"), body=BytesBody(memoryview(data)[7:]), on_sent=sent.append))
    assert store.objects["/b"] == data[7:]
    assert sum(sent) == size


async def test_a_file_without_checksum_arrives_whole(store: HttpServer, transport: Transport, tmp_path: Path) -> None:
    """The kernel may then carry it without anybody looking at it."""
    data = os.urandom(5_000_000)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        await transport.send(Request("PUT", store.url("/f"), body=FileBody(file.fileno(), 1, len(data))))
    assert store.objects["/f"] == data[1:]


@pytest.mark.parametrize("size", [100, 100_000, 6_000_000])
@pytest.mark.parametrize("checksum", [None, Crc32c])
async def test_a_file_that_became_shorter_is_a_changed_source(
    transport: Transport, wire: MakeServer, tmp_path: Path, size: int, checksum: type[Crc32c] | None
) -> None:
    """What is missing is never made up; the transport works on, over another connection."""
    server = await wire(polite())
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    with path.open("rb") as file:
        body = FileBody(file.fileno(), 0, size + 100, "file", checksum() if checksum else None)
        with pytest.raises(SourceChanged, match="file: ends after"):
            await transport.send(Request("PUT", server.url("/f"), body=body, timeouts=Timeouts(5, 3, 3)))
    assert (await put(transport, server.url("/g"), b"x")).status == 200
    assert [seen.target for seen in server.requests if seen.body] == ["/g"]


@pytest.mark.parametrize("size", SIZES)
async def test_a_sink_gets_the_body_and_the_reply_does_not(store: HttpServer, transport: Transport, size: int) -> None:
    """In order and whole; ``on_received`` adds up to its size."""
    store.objects["/o"] = data = os.urandom(size)
    sink, received, heads = Collect(), [], []

    def on_head(head: ReplyHead) -> Collect:
        heads.append((head.status, head.headers["Content-Length"]))
        return sink

    answer = await get(transport, store.url("/o"), on_head=on_head, on_received=received.append)
    assert (sink.data, answer.body, answer.size_bytes, sum(received)) == (data, b"", size, size)
    assert heads == [(200, str(size))]


@pytest.mark.parametrize("size", [0, 10, MAX_KEPT_BODY_BYTES, MAX_KEPT_BODY_BYTES + 1, 3_000_000])
async def test_what_nobody_wants_is_kept_up_to_64_kib(store: HttpServer, transport: Transport, size: int) -> None:
    """Its size is that of all of it."""
    store.objects["/o"] = data = os.urandom(size)
    answer = await get(transport, store.url("/o"), on_head=lambda head: None)
    assert answer.body == data[:MAX_KEPT_BODY_BYTES]
    assert answer.size_bytes == size


async def test_compressed_bodies_are_not_unpacked(store: HttpServer, transport: Transport) -> None:
    """What was stored is what is wanted."""
    store.script("/o", answer(200, b"not really gzip", {"Content-Encoding": "gzip"}))
    assert (await get(transport, store.url("/o"))).body == b"not really gzip"


async def test_a_chunked_body_split_at_every_byte_is_the_same_body(transport: Transport, wire: MakeServer) -> None:
    """Two segments, cut at every place there is, in head, sizes, extensions, data and trailers."""
    data = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
        b'5;a="b"\r\nhello\r\n00b\r\n, my world\n\r\n0\r\nX-Sum: 1\r\n\r\n'
    )

    async def script(connection: Wire) -> None:
        for cut in range(1, len(data)):
            await connection.request()
            connection.writer.write(data[:cut])
            await connection.send(b"", data[cut:], pause=0.001)
        await connection.rest()

    server = await wire(script)
    for _ in range(1, len(data)):
        sink, received = Collect(), []
        await get(transport, server.url("/"), on_head=lambda head, sink=sink: sink, on_received=received.append)  # type: ignore[misc]
        assert (bytes(sink.data), sum(received)) == (b"hello, my world\n", 16)
    assert server.connections == 1


async def test_a_reply_byte_by_byte_is_the_same_reply(transport: Transport, wire: MakeServer) -> None:
    """A segment for each byte."""
    data = sized(b"hello", "X-A: b")
    server = await wire(reply(*(data[i : i + 1] for i in range(len(data))), pause=0.0005))
    answer = await get(transport, server.url("/"))
    assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"hello", "b")


async def test_large_chunked_and_close_delimited_bodies_come_whole(transport: Transport, wire: MakeServer) -> None:
    """However they are framed, and however large their chunks."""
    body = os.urandom(3_000_000)
    steps = [1, 10, 100, 70_000, 1_000_000]
    chunks, at = [], 0
    while at < len(body):
        piece = body[at : at + steps[len(chunks) % len(steps)]]
        chunks.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at += len(piece)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    for data in ([chunked], [b"HTTP/1.1 200 OK\r\n\r\n", body]):
        server = await wire(reply(*data))
        sink = Collect()
        answer = await get(transport, server.url("/"), on_head=lambda head, sink=sink: sink)  # type: ignore[misc]
        assert (answer.size_bytes, bytes(sink.data) == body) == (len(body), True)


async def test_trailers_are_no_headers(transport: Transport, wire: MakeServer) -> None:
    """RFC 9112 section 7.1.2 allows to discard them; merged, they could change what was said before the body."""
    server = await wire(
        reply(b"HTTP/1.1 200 OK\r\nETag: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nETag: b\r\nX: y\r\n\r\n")
    )
    answer = await get(transport, server.url("/"))
    assert dict(answer.headers) == {"etag": "a", "transfer-encoding": "chunked"}


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_what_on_head_and_sinks_raise_comes_out_unchanged(
    transport: Transport, wire: MakeServer, framing: str
) -> None:
    """The connection is dropped, the transport works on."""
    body = bytes(2_000_000)
    start = b"HTTP/1.1 200 OK\r\n"
    data = {
        "length": start + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        "chunked": start + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        "close": start + b"\r\n" + body,
    }[framing]
    server = await wire(reply(data), reply(data), reply(OK))

    def refuse(head: ReplyHead) -> None:
        raise KeyError("mine")

    class Full:
        def write(self, data: bytes | memoryview) -> None:
            raise OSError(28, "full")

    with pytest.raises(KeyError, match="mine"):
        await get(transport, server.url("/o"), on_head=refuse)
    with pytest.raises(OSError, match="full"):
        await get(transport, server.url("/o"), on_head=lambda head: Full())
    assert (await get(transport, server.url("/o"))).body == b"ok"
