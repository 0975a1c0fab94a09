"""What every transport promises, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import ssl
import subprocess
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.errors import (
    AsyncSDKError,
    ConfigError,
    ConnectionFailed,
    IncompleteTransfer,
    MalformedResponse,
    RequestTimeout,
    SourceChanged,
)
from asyncsdk.transport.base import BytesBody, FileBody, Reply, ReplyHead, Request, Timeouts, Transport
from asyncsdk.transport.httpx_transport import HttpxTransport
from tests.support.http_server import (
    HttpServer,
    answer,
    close,
    cut_reply,
    early,
    raw,
    reply_then_close,
    stall,
)

QUICK = Timeouts(connect=5.0, idle=0.2, reply=0.2)


class Collect:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer() as running:
        yield running


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    running = HttpxTransport()
    yield running
    await running.aclose()


async def put(transport: Transport, url: str, data: bytes, **facts: object) -> Reply:
    return await transport.send(Request("PUT", url, body=BytesBody(data), **facts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "target",
    ["/a%2fb%2Fc?X-Sig=%7e~%41&y=a+b%20c", "/a//b/../c;p=1?x=[1]|2", "/?a=b?c/d", "/%E4%F6?%zz", "/a'b(c)*!$&,@:="],
)
async def test_the_url_goes_out_byte_for_byte(server: HttpServer, transport: Transport, target: str) -> None:
    await put(transport, server.url(target), b"x")
    assert server.requests[-1].head.split(b"\r\n")[0] == f"PUT {target} HTTP/1.1".encode()


async def test_a_fragment_stays_here_and_a_missing_path_is_the_root(server: HttpServer, transport: Transport) -> None:
    await put(transport, server.url("?a=b#secret"), b"x")
    assert server.requests[-1].target == "/?a=b"


async def test_only_the_headers_given_and_framing_are_sent(server: HttpServer, transport: Transport) -> None:
    await put(transport, server.url("/a"), b"12345", headers={"X-Signed": "1", "content-length": "9"})
    sent = {name.lower(): value for name, value in server.requests[-1].headers}
    assert sent == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "x-signed": "1",
        "content-length": "5",
    }


async def test_a_put_without_body_says_so(server: HttpServer, transport: Transport) -> None:
    await transport.send(Request("PUT", server.url("/a")))
    assert server.requests[-1].header("content-length") == "0"
    await transport.send(Request("GET", server.url("/a")))
    assert server.requests[-1].header("content-length") is None


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_001])
async def test_file_and_bytes_bodies_arrive_whole_and_are_counted(
    server: HttpServer, transport: Transport, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size + 7)
    path = tmp_path / "file"
    path.write_bytes(data)
    sent: list[int] = []
    fd = os.open(path, os.O_RDONLY)
    try:
        body = FileBody(fd, 7, 7 + size, checksum=Crc32c())
        await transport.send(Request("PUT", server.url("/f"), body=body, on_sent=sent.append))
    finally:
        os.close(fd)
    assert server.objects["/f"] == data[7:]
    assert sum(sent) == size
    assert body.checksum is not None
    assert body.checksum.value == crc32c(data[7:])
    await transport.send(Request("PUT", server.url("/b"), body=BytesBody(memoryview(data)[7:])))
    assert server.objects["/b"] == data[7:]


async def test_a_file_that_became_shorter_is_a_changed_source(
    server: HttpServer, transport: Transport, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(SourceChanged):
            await transport.send(Request("PUT", server.url("/f"), body=FileBody(fd, 0, 200, "file")))
    finally:
        os.close(fd)


async def test_a_sink_gets_the_body_and_the_reply_does_not(server: HttpServer, transport: Transport) -> None:
    server.objects["/o"] = data = os.urandom(1_000_000)
    sink, received = Collect(), []
    reply = await transport.send(
        Request("GET", server.url("/o"), on_head=lambda head: sink, on_received=received.append)
    )
    assert (sink.data, reply.body, reply.size_bytes, sum(received)) == (data, b"", len(data), len(data))


async def test_what_nobody_wants_is_kept_up_to_64_kib(server: HttpServer, transport: Transport) -> None:
    server.objects["/o"] = data = os.urandom(200_000)
    reply = await transport.send(Request("GET", server.url("/o")))
    assert reply.body == data[: 64 * 1024]
    assert reply.size_bytes == len(data)


async def test_compressed_bodies_are_not_unpacked(server: HttpServer, transport: Transport) -> None:
    server.script("/o", answer(200, b"not really gzip", {"Content-Encoding": "gzip"}))
    assert (await transport.send(Request("GET", server.url("/o")))).body == b"not really gzip"


async def test_one_connection_serves_requests_that_follow_each_other(server: HttpServer, transport: Transport) -> None:
    for _ in range(5):
        await put(transport, server.url("/a"), b"x")
    assert server.connections == 1


async def test_requests_at_the_same_time_use_as_many_connections(server: HttpServer, transport: Transport) -> None:
    server.delay = 0.02
    for _ in range(3):
        await asyncio.gather(*(put(transport, server.url(f"/{i}"), b"x") for i in range(6)))
    assert server.connections == 6


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_a_kept_connection_that_died_is_replaced_for_free(
    server: HttpServer, transport: Transport, size: int
) -> None:
    await put(transport, server.url("/a"), b"x")
    server.script("/b", close())
    sent: list[int] = []
    reply = await put(transport, server.url("/b"), b"y" * size, on_sent=sent.append)
    assert reply.status == 200
    assert len(server.of("PUT", "/b")) == 2
    assert sum(sent) == size


async def test_a_connection_closed_by_the_server_after_its_reply_is_not_used_again(
    server: HttpServer, transport: Transport
) -> None:
    server.script("/a", reply_then_close())
    await put(transport, server.url("/a"), b"x")
    assert (await put(transport, server.url("/b"), b"x")).status == 200


async def test_a_fresh_connection_that_dies_is_an_error(server: HttpServer, transport: Transport) -> None:
    server.script("/b", close())
    with pytest.raises(ConnectionFailed):
        await put(transport, server.url("/b?sig=SECRET"), b"y")
    assert len(server.requests) == 1


async def test_nobody_listening_is_a_failed_connection(transport: Transport) -> None:
    async with HttpServer() as gone:
        url = gone.url("/x?sig=SECRET")
    with pytest.raises(ConnectionFailed, match="refused"):
        await put(transport, url, b"y")


async def test_a_short_body_says_how_much_came(server: HttpServer, transport: Transport) -> None:
    server.objects["/o"] = b"x" * 1000
    server.script("/o", cut_reply(400))
    with pytest.raises(IncompleteTransfer) as caught:
        await transport.send(Request("GET", server.url("/o")))
    assert (caught.value.declared, caught.value.received) == (1000, 400)


async def test_no_http_is_a_malformed_reply(server: HttpServer, transport: Transport) -> None:
    server.script("/o", raw(b"SSH-2.0-sig=SECRET\r\n\r\n"))
    with pytest.raises(MalformedResponse):
        await transport.send(Request("GET", server.url("/o?sig=SECRET")))


async def test_silence_is_a_timeout_of_its_phase(server: HttpServer, transport: Transport) -> None:
    server.script("/o", stall())
    with pytest.raises(RequestTimeout) as caught:
        await transport.send(Request("GET", server.url("/o"), timeouts=QUICK))
    assert caught.value.phase == "reply"


async def test_a_server_that_reads_no_more_is_a_timeout_of_sending(server: HttpServer, transport: Transport) -> None:
    async def never_read(connection: object, request: object) -> bool:
        await asyncio.Event().wait()
        return True

    server.script("/o", never_read)
    with pytest.raises(RequestTimeout) as caught:
        await put(transport, server.url("/o"), bytes(64_000_000), timeouts=QUICK)
    assert caught.value.phase == "send"


async def test_an_early_reply_is_returned_and_its_connection_dropped(server: HttpServer, transport: Transport) -> None:
    server.script("/o", early(403, b"no", after=10))
    size = 64_000_000
    sent: list[int] = []
    reply = await put(transport, server.url("/o"), bytes(size), on_sent=sent.append)
    assert sum(sent) < size
    assert (reply.status, reply.body) == (403, b"no")
    assert (await put(transport, server.url("/b"), b"x")).status == 200
    assert server.connections == 2


async def test_informational_replies_are_passed_over(server: HttpServer, transport: Transport) -> None:
    server.script(
        "/o",
        raw(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    )
    reply = await transport.send(Request("GET", server.url("/o")))
    assert (reply.status, reply.body) == (200, b"ok")


@pytest.mark.parametrize("end", [b"4\r\nwiki\r\n0\r\n\r\n", b"2\r\nwi\r\n2\r\nki\r\n0\r\nX: y\r\n\r\n"])
async def test_chunked_bodies_are_read(server: HttpServer, transport: Transport, end: bytes) -> None:
    server.script("/o", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + end))
    assert (await transport.send(Request("GET", server.url("/o")))).body == b"wiki"


async def test_a_body_that_ends_with_the_connection_is_read(server: HttpServer, transport: Transport) -> None:
    server.script("/o", raw(b"HTTP/1.0 200 OK\r\n\r\nall of it"))
    assert (await transport.send(Request("GET", server.url("/o")))).body == b"all of it"


async def test_what_on_head_and_sinks_raise_comes_out_unchanged(server: HttpServer, transport: Transport) -> None:
    server.objects["/o"] = bytes(2_000_000)

    def refuse(head: ReplyHead) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await transport.send(Request("GET", server.url("/o"), on_head=refuse))

    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        await transport.send(Request("GET", server.url("/o"), on_head=lambda head: Full()))
    assert (await transport.send(Request("GET", server.url("/o")))).status == 200


async def test_after_a_cancellation_nothing_is_written_and_no_task_is_left(
    server: HttpServer, transport: Transport
) -> None:
    server.objects["/o"] = bytes(50_000_000)
    sink = Collect()
    task = asyncio.create_task(
        transport.send(Request("GET", server.url("/o"), on_head=lambda head: sink))  # type: ignore[arg-type]
    )
    while not sink.data:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    size = len(sink.data)
    left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and "_accept" not in repr(t)]
    assert left == []
    await asyncio.sleep(0.05)
    assert len(sink.data) == size
    server.objects["/o"] = b"small"
    assert (await transport.send(Request("GET", server.url("/o")))).body == b"small"


async def test_secrets_reach_neither_logs_nor_errors(
    server: HttpServer, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    # Made here, so that it does not stand in the lines of source that a traceback quotes.
    secret = os.urandom(16).hex()
    url = server.url(f"/o?sig={secret}")
    failures: list[AsyncSDKError] = []
    for action in (raw(f"HTTP/9.9 {secret}\r\n\r\n".encode()), raw(b"HTTP/1.1 200 OK\r\nContent-Le"), close()):
        server.script("/o", action)
        with pytest.raises(AsyncSDKError) as caught:
            await put(transport, url, b"x", headers={"Authorization": secret})
        failures.append(caught.value)
    with pytest.raises(ConfigError) as refused:
        await put(transport, url, b"x", headers={"X-Key": f"{secret}\r\nX: y"})
    failures.append(refused.value)
    server.script("/o", answer(302, headers={"Location": url}))
    await put(transport, url, b"x")
    for failure in failures:
        assert secret not in "".join(traceback.format_exception(failure))
    assert secret not in caplog.text
    async with httpx.AsyncClient(trust_env=False) as other:
        await other.put(server.url("/p"), content=b"x")
    assert "send_request_headers" in caplog.text  # the logs of others are as they were
    assert secret not in repr(Request("PUT", url, {"a": secret}))


async def test_a_closed_transport_refuses(server: HttpServer) -> None:
    transport = HttpxTransport()
    await put(transport, server.url("/a"), b"x")
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ConfigError):
        await put(transport, server.url("/a"), b"x")


async def test_an_http_proxy_gets_the_whole_url_unchanged(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url("/"))
    monkeypatch.setenv("no_proxy", "")
    transport = HttpxTransport()
    try:
        reply = await put(transport, "http://store.invalid/a%2fb?sig=%7e", b"x")
    finally:
        await transport.aclose()
    assert reply.status == 200
    assert server.requests[-1].head.startswith(b"PUT http://store.invalid/a%2fb?sig=%7e HTTP/1.1\r\n")
    assert server.requests[-1].header("host") == "store.invalid"


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl to make a certificate")
    made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(["openssl", *made.split(), *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    return context


async def test_tls_carries_bodies_both_ways_over_one_connection(certificate: ssl.SSLContext) -> None:
    transport = HttpxTransport(verify_tls=False)
    async with HttpServer(certificate) as server:
        for size in (10, 3_000_000):
            await put(transport, server.url("/o"), data := os.urandom(size))
            sink = Collect()
            await transport.send(Request("GET", server.url("/o"), on_head=lambda head, sink=sink: sink))  # type: ignore[misc]
            assert sink.data == data
        assert server.connections == 1
        await transport.aclose()


async def test_a_certificate_nobody_vouches_for_is_refused_for_good(certificate: ssl.SSLContext) -> None:
    transport = HttpxTransport()
    async with HttpServer(certificate) as server:
        with pytest.raises(ConnectionFailed, match=r"TLS, self.signed") as caught:
            await put(transport, server.url("/o"), b"x")
        assert not caught.value.retryable
        assert server.requests == []
        await transport.aclose()
