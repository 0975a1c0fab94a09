"""TLS: verified, named errors, bodies whole, and an end that is only believed when it was said."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest

from asyncsdk.errors import ConnectionFailed, IncompleteTransfer
from asyncsdk.transport.tls import TlsConfig
from tests.contract.transport.conftest import MakeServer, MakeTransport
from tests.support.http_server import HttpServer
from tests.support.wire.certificates import Certificates
from tests.support.wire.proxy import proxy
from tests.support.wire.scripts import OK, Ending, polite, reply, sized, then
from tests.support.wire.server import Wire
from tests.support.wire.sinks import Collect, get, put

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("only", VERSIONS, ids=lambda version: version.name)
async def test_bodies_go_both_ways_over_one_connection(
    make: MakeTransport, certificates: Certificates, only: ssl.TLSVersion
) -> None:
    """With TLS 1.2 and 1.3, by an authority from a file."""
    transport = make(tls=TlsConfig(ca_file=certificates.ca_file))
    async with HttpServer(certificates.server(only=only)) as store:
        for size in (0, 10, 16_384, 65_537, 3_000_000):
            await put(transport, store.url("/o"), data := os.urandom(size))
            assert store.objects["/o"] == data
            sink = Collect()
            await get(transport, store.url("/o"), on_head=lambda head, sink=sink: sink)  # type: ignore[misc]
            assert sink.data == data
        assert store.connections == 1


async def test_records_of_any_size_are_one_reply(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trusted: Path
) -> None:
    """One byte in each record, then everything in one, head, chunks and the next record's start."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    async def script(connection: Wire) -> None:
        await connection.request()
        for at in range(len(data)):
            connection.writer.write(data[at : at + 1])
        await connection.request()
        await connection.send(data)

    server = await wire(script, tls=certificates.server())
    transport = make()
    for _ in range(2):
        assert (await get(transport, server.url("/"))).body == b"abc"
    assert server.connections == 1


@pytest.mark.parametrize("trust", ["system", "other authority"])
async def test_a_certificate_nobody_vouches_for_is_refused_for_good(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trust: str
) -> None:
    """Trying again would give the same; nothing was sent."""
    server = await wire(polite(), tls=certificates.server())
    config = TlsConfig() if trust == "system" else TlsConfig(ca_file=certificates.other_ca_file)
    with pytest.raises(ConnectionFailed, match=r"TLS, ") as caught:
        await put(make(tls=config), server.url("/o"), b"x")
    assert not caught.value.retryable
    assert server.requests == []


async def test_a_certificate_for_another_host_is_refused(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trusted: Path
) -> None:
    """Names and addresses alike."""
    server = await wire(polite(), tls=certificates.server("other.example", "10.1.2.3"))
    for host in ("localhost", "127.0.0.1"):
        with pytest.raises(ConnectionFailed, match=r"TLS, .*(host|IP|address)") as caught:
            await get(make(), server.url("/", host=host))
        assert not caught.value.retryable
    assert server.requests == []


async def test_an_expired_certificate_is_refused(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trusted: Path
) -> None:
    """Although the authority is trusted."""
    server = await wire(polite(), tls=certificates.server(is_expired=True))
    with pytest.raises(ConnectionFailed, match="expired"):
        await get(make(), server.url("/"))


async def test_names_and_addresses_are_both_verified(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trusted: Path
) -> None:
    """A host name is sent to the server (SNI), an address is not; both are found in the certificate."""
    asked: list[str | None] = []
    context = certificates.server()
    context.sni_callback = lambda tls, name, context: asked.append(name)
    server = await wire(polite(), tls=context)
    transport = make()
    for host in ("localhost", "127.0.0.1"):
        assert (await get(transport, server.url("/", host=host))).body == b"ok"
    assert asked == ["localhost", None]


async def test_http_1_1_is_what_is_asked_for(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trusted: Path
) -> None:
    """By ALPN, so that a server never answers with HTTP/2."""
    context = certificates.server()
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen: list[str | None] = []

    async def script(connection: Wire) -> None:
        chosen.append(connection.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await polite()(connection)

    server = await wire(script, tls=context)
    await get(make(), server.url("/"))
    assert chosen == ["http/1.1"]


@pytest.mark.parametrize("only", VERSIONS, ids=lambda version: version.name)
async def test_a_server_that_demands_a_certificate_gets_ours(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, only: ssl.TLSVersion
) -> None:
    """And refuses whoever has none; that is final or not, but an error of ours."""
    server = await wire(polite(), tls=certificates.server(demands_client=True, only=only))
    config = TlsConfig(ca_file=certificates.ca_file, cert_file=certificates.client_file)
    assert (await put(make(tls=config), server.url("/"), b"x")).body == b"ok"
    with pytest.raises(ConnectionFailed):
        await put(make(tls=TlsConfig(ca_file=certificates.ca_file)), server.url("/"), b"x")
    assert len(server.requests) == 1


async def test_tls_1_1_is_refused(make: MakeTransport, certificates: Certificates, trusted: Path) -> None:
    """A handshake that offers nothing newer comes to nothing."""
    hello = (
        bytes.fromhex("1603020031020000 2d0302".replace(" ", ""))
        + bytes(32)
        + bytes.fromhex("00c01300000500ff01000100")
    )

    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(hello)  # ServerHello of TLS 1.1
        await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(old, "127.0.0.1", 0)
    try:
        with pytest.raises(ConnectionFailed, match="TLS, "):
            await get(make(), f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    finally:
        server.close()
        await server.wait_closed()


async def test_a_server_without_tls_is_a_failed_connection(
    make: MakeTransport, wire: MakeServer, trusted: Path
) -> None:
    """It answers the handshake in plain HTTP."""

    async def plain(connection: Wire) -> None:
        await connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await connection.rest()

    server = await wire(plain)
    with pytest.raises(ConnectionFailed, match="TLS, "):
        await get(make(), server.url("/").replace("http:", "https:"))


@pytest.mark.parametrize("only", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("ending", ["close", "drop", "reset"])
async def test_a_body_that_ends_with_the_connection_needs_its_goodbye(
    make: MakeTransport,
    wire: MakeServer,
    certificates: Certificates,
    trusted: Path,
    ending: Ending,
    only: ssl.TLSVersion,
) -> None:
    """Without close_notify anybody on the way may have cut it (RFC 9112 section 9.8): an error, and no reply."""
    server = await wire(reply(b"HTTP/1.1 200 OK\r\n\r\nhello", ending=ending), tls=certificates.server(only=only))
    sink = Collect()
    if ending == "close":
        answer = await get(make(), server.url("/"), on_head=lambda head: sink)
        assert (answer.size_bytes, sink.data) == (5, b"hello")
    else:
        with pytest.raises(ConnectionFailed):
            await get(make(), server.url("/"), on_head=lambda head: sink)


@pytest.mark.parametrize("ending", ["close", "drop"])
@pytest.mark.parametrize(
    "data",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        sized(b"ok", "Connection: close"),
    ],
    ids=["length", "chunked", "close"],
)
async def test_a_body_that_says_where_it_ends_needs_no_goodbye(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trusted: Path, data: bytes, ending: Ending
) -> None:
    """Many servers say none; the body was whole."""
    server = await wire(reply(data, ending=ending), polite(), tls=certificates.server())
    transport = make()
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert (await get(transport, server.url("/"))).body == b"ok"


@pytest.mark.parametrize("ending", ["close", "drop", "reset"])
async def test_a_body_cut_off_says_how_much_came(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trusted: Path, ending: Ending
) -> None:
    """With or without a goodbye."""
    server = await wire(reply(sized(b"hello")[:-2], ending=ending), tls=certificates.server())
    with pytest.raises(IncompleteTransfer) as caught:
        await get(make(), server.url("/"))
    assert (caught.value.declared, caught.value.received) == (5, 3)


@pytest.mark.parametrize("only", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("first", [sized(b"first"), b"HTTP/1.1 204 No Content\r\n\r\n"], ids=["body", "204"])
@pytest.mark.parametrize("extra", [sized(b"smuggled"), b"x"], ids=["reply", "byte"])
@pytest.mark.parametrize("is_apart", [False, True], ids=["same record", "record of its own"])
async def test_bytes_after_a_reply_answer_nobody(
    make: MakeTransport,
    wire: MakeServer,
    certificates: Certificates,
    trusted: Path,
    first: bytes,
    extra: bytes,
    only: ssl.TLSVersion,
    is_apart: bool,
) -> None:
    """In the same record or in one of its own behind it: decrypted or not, they are no answer to the next request."""

    async def script(connection: Wire) -> None:
        await connection.request()
        if is_apart:
            connection.writer.write(first)
            await connection.send(extra)
        else:
            await connection.send(first + extra)
        await connection.request()
        await connection.send(sized(b"smuggled"))

    server = await wire(script, polite(), tls=certificates.server(only=only))
    transport = make()
    await get(transport, server.url("/"))
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("ending", ["close", "drop", "reset"])
async def test_a_kept_connection_that_died_is_replaced_for_free(
    make: MakeTransport, wire: MakeServer, certificates: Certificates, trusted: Path, ending: Ending
) -> None:
    """As without TLS."""
    server = await wire(then(OK, ending=ending), polite(), tls=certificates.server())
    transport = make()
    for _ in range(2):
        assert (await put(transport, server.url("/"), b"x" * 100_000)).body == b"ok"
        await asyncio.sleep(0.05)
    assert server.connections == 2


async def test_a_tunnel_through_a_proxy_is_verified_to_its_end(
    make: MakeTransport,
    wire: MakeServer,
    certificates: Certificates,
    trusted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CONNECT with a password that the server behind never sees, then TLS to the name in the URL."""
    server = await wire(polite(), tls=certificates.server("store.invalid"))
    through = await wire(proxy(port=server.port, password="user:secret"))
    monkeypatch.setenv("https_proxy", f"http://user:secret@127.0.0.1:{through.port}")
    transport = make()
    for size in (1, 1_000_000):
        assert (await put(transport, "https://store.invalid/a%2f?b", b"x" * size)).body == b"ok"
    assert [seen.method for seen in through.requests] == ["CONNECT"]
    assert through.requests[0].target == "store.invalid:443"
    assert [seen.target for seen in server.requests] == ["/a%2f?b"] * 2
    assert "proxy-authorization" not in server.requests[0].headers
    with pytest.raises(ConnectionFailed, match="TLS, "):
        await get(transport, "https://other.invalid/")
