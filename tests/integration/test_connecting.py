"""How connections come to be: addresses, proxies, TLS; on real sockets of this machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import logging
import socket
import ssl
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from asyncsdk.errors import AsyncSDKError, ConfigError, ConnectionFailed, MalformedResponse, RequestTimeout
from asyncsdk.transport.base import Request
from asyncsdk.transport.httpx_transport import HttpxTransport
from asyncsdk.transport.lean.connecting import Connector, Link
from asyncsdk.transport.lean.pipe import TlsPipe
from asyncsdk.transport.tls import TlsConfig
from asyncsdk.transport.urls import Proxies, split_url
from tests.support.suspensions import cancel_at
from tests.support.wire.certificates import Certificates
from tests.support.wire.proxy import proxy
from tests.support.wire.server import Script, Wire, WireServer

StartServer = Callable[..., Awaitable[WireServer]]

PATIENCE_SECONDS = 20.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def start() -> AsyncIterator[StartServer]:
    """Starts scripted servers, stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def one(*scripts: Script, **options: Any) -> WireServer:
            return await stack.enter_async_context(WireServer(*scripts, **options))

        yield one


@pytest.fixture
def silent() -> Iterator[list[tuple[str, int]]]:
    """Two addresses that never answer: listeners whose queues are full, so that the kernel drops what else comes."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for _ in range(2):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            addresses.append(listener.getsockname())
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(addresses[-1])
        yield addresses


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """Every socket that the code under test makes, and no other."""
    made: list[socket.socket] = []

    class Recorded(socket.socket):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    theirs = SimpleNamespace(**{**vars(socket), "socket": Recorded})
    monkeypatch.setattr("asyncsdk.transport.lean.eyeballs.socket", theirs)
    return made


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> list[str]:
    """Let every name of this test have these addresses; returns the names that were asked for."""
    asked = []

    async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (ip, number, 0, 0))
            if ":" in ip
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, number))
            for ip, number in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


def unused_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


async def hello(wire: Wire) -> None:
    """Answers every request with its target."""
    while True:
        seen = await wire.request()
        await wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(seen.target)}\r\n\r\n{seen.target}".encode())
        if seen.headers.get("connection") == "close":
            return


async def connect(url: str, tls: TlsConfig | None = None, timeout_seconds: float = PATIENCE_SECONDS) -> Link:
    return await Connector(tls or TlsConfig(), Proxies()).connect(split_url(url)[0], timeout_seconds)


async def talk(link: Link, target: str = "/hello") -> bytes:
    """Send a request, return what comes back, close the link."""
    loop = asyncio.get_running_loop()
    request = f"GET {target} HTTP/1.1\r\nHost: h\r\n".encode() + link.proxy_headers + b"\r\n"
    buffer = memoryview(bytearray(4096))
    with link.sock:
        assert link.sock.getblocking() is False
        assert link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await loop.sock_sendall(link.sock, request if link.tls is None else link.tls.encrypt(request))
        found = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not found.endswith(b"/hello"):
                data = await loop.sock_recv(link.sock, 4096)
                if not data:
                    break
                if link.tls is None:
                    found += data
                    continue
                link.tls.feed(data)
                while count := link.tls.read_into(buffer):
                    found += buffer[:count]
    return found


def use_proxy(monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str = "") -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, url)
    monkeypatch.setenv("no_proxy", no_proxy)


# --- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_ip_address_is_not_looked_up(start: StartServer, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Either family, straight to the address."""
    server = await start(hello, host=host)
    asked = resolve(monkeypatch)
    link = await connect(server.url(host=f"[{host}]" if ":" in host else host))
    assert (link.tls, link.forward, link.proxy_headers) == (None, False, b"")
    assert (await talk(link)).endswith(b"/hello")
    assert asked == []


async def test_a_name_is_looked_up(start: StartServer) -> None:
    """By the system's resolver."""
    server = await start(hello)
    assert (await talk(await connect(server.url(host="localhost")))).endswith(b"/hello")


async def test_a_refused_address_is_followed_by_the_next_at_once(
    start: StartServer, monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket]
) -> None:
    """Families take turns, whatever the resolver's order; each failure starts the next without waiting."""
    monkeypatch.setattr("asyncsdk.transport.lean.eyeballs.ATTEMPT_DELAY_SECONDS", 3600)
    server = await start(hello)
    resolve(monkeypatch, ("::1", unused_port("::1")), ("::1", unused_port("::1")), ("127.0.0.1", server.port))
    link = await connect("http://two.invalid/")
    assert link.sock.family == socket.AF_INET
    assert [sock.family for sock in opened] == [socket.AF_INET6, socket.AF_INET]
    assert [sock.fileno() for sock in opened if sock is not link.sock] == [-1]
    assert (await talk(link)).endswith(b"/hello")


@pytest.mark.parametrize("good", ["127.0.0.1", "::1"])
async def test_a_silent_address_gets_company_and_loses(
    start: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[socket.socket],
    silent: list[tuple[str, int]],
    good: str,
) -> None:
    """After a short wait the next address is tried beside it; the loser is closed."""
    server = await start(hello, host=good)
    resolve(monkeypatch, silent[0], (good, server.port), silent[1])
    link = await connect("http://two.invalid/")
    assert opened[0] is not link.sock
    assert [sock.fileno() for sock in opened if sock is not link.sock] == [-1] * (len(opened) - 1)
    assert (await talk(link)).endswith(b"/hello")


async def test_when_all_fail_the_most_telling_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error, in the words of the system, retryable; an unreachable network tells less than a refusal."""
    refused = unused_port()

    class Unreachable(socket.socket):
        def connect_ex(self, address: Any) -> int:
            return super().connect_ex(address) if address[1] == refused else errno.ENETUNREACH

    theirs = SimpleNamespace(**{**vars(socket), "socket": Unreachable})
    monkeypatch.setattr("asyncsdk.transport.lean.eyeballs.socket", theirs)
    resolve(monkeypatch, ("::1", 1), ("127.0.0.1", refused), ("::1", 2))
    with pytest.raises(ConnectionFailed, match=r"no connection to http://two\.invalid/: Connection refused") as caught:
        await connect("http://two.invalid/?sig=1")
    assert caught.value.retryable
    resolve(monkeypatch, ("::1", 1), ("127.0.0.1", 2))
    with pytest.raises(ConnectionFailed, match="Network is unreachable"):
        await connect("http://two.invalid/?sig=1")


async def test_a_name_without_an_address_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot exist, one without addresses and one that nobody knows are three things."""
    with pytest.raises(ConfigError, match="no host can have that name"):
        await connect(f"http://{'a' * 70}.invalid/")
    resolve(monkeypatch)
    with pytest.raises(ConnectionFailed, match=r"no connection to http://none\.invalid/"):
        await connect("http://none.invalid/")

    async def unknown(host: str, port: int, **options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(ConnectionFailed, match="Name or service not known"):
        await connect("http://none.invalid/")


@pytest.mark.parametrize("count", [1, 2])
async def test_silence_everywhere_ends_with_the_deadline(
    monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket], silent: list[tuple[str, int]], count: int
) -> None:
    """A timeout of phase connect, and no socket left."""
    resolve(monkeypatch, *silent[:count])
    with pytest.raises(RequestTimeout, match=r"0\.4 s in phase 'connect' \(http://silent.invalid/\)") as caught:
        await connect("http://silent.invalid/?sig=1", timeout_seconds=0.4)
    assert caught.value.retryable
    assert {sock.fileno() for sock in opened} == {-1}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_slow_lookup_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lookup counts too."""

    async def never(host: str, port: int, **options: Any) -> list[Any]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    with pytest.raises(RequestTimeout, match="connect"):
        await connect("http://slow.invalid/", timeout_seconds=0.05)


# --- cancelling ----------------------------------------------------------------------------------------------


async def watch_nothing() -> set[int]:
    """Return the descriptors that the event loop watches, when what was closed has been forgotten."""
    for _ in range(5):
        await asyncio.sleep(0)
    return set(asyncio.get_running_loop()._selector.get_map())  # type: ignore[attr-defined]


async def test_cancelled_while_addresses_race_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket], silent: list[tuple[str, int]]
) -> None:
    """Two attempts under way: both sockets closed, nothing watched, no task, no timer."""
    monkeypatch.setattr("asyncsdk.transport.lean.eyeballs.ATTEMPT_DELAY_SECONDS", 0.01)
    before = await watch_nothing()
    resolve(monkeypatch, *silent)
    task = asyncio.ensure_future(connect("http://silent.invalid/"))
    while len(opened) < 2:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {sock.fileno() for sock in opened} == {-1}
    assert await watch_nothing() == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("way", ["plain", "tls", "tunnel", "tls tunnel"])
async def test_cancelled_at_every_suspension_every_socket_is_closed(
    start: StartServer,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[socket.socket],
    way: str,
) -> None:
    """Wherever it is cancelled (lookup, connection, proxy, handshakes), nothing stays open; else it works."""
    tls = TlsConfig(ca_file=certificates.ca_file)
    backend = await start(hello, tls=None if way == "plain" else certificates.server("store.invalid", "localhost"))
    url = backend.url(host="localhost")
    if "tunnel" in way:
        middle = await start(proxy(port=backend.port), tls=certificates.server() if "tls" in way else None)
        use_proxy(monkeypatch, middle.url(host="localhost"))
        url = "https://store.invalid/"

    async def once() -> None:
        assert (await talk(await connect(url, tls))).endswith(b"/hello")

    for k in range(1, 100):
        is_whole = await cancel_at(k, once)
        assert {sock.fileno() for sock in opened} <= {-1}
        if is_whole:
            break
    else:
        pytest.fail("it never came to its end")
    assert k >= 3
    assert len(opened) >= 3


async def test_winning_in_the_turn_of_the_cancellation_leaks_nothing(
    start: StartServer, opened: list[socket.socket]
) -> None:
    """The connection is there, and nobody wants it any more: it is closed."""
    server = await start(hello)
    loop = asyncio.get_running_loop()
    for turns in range(1, 6):
        task = asyncio.ensure_future(connect(server.url()))

        def later(left: int, task: asyncio.Task[Link] = task) -> None:
            if left:
                loop.call_soon(later, left - 1, task)
            else:
                task.cancel()

        later(turns)
        with contextlib.suppress(asyncio.CancelledError):
            (await task).sock.close()
    assert {sock.fileno() for sock in opened} == {-1}


# --- TLS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
async def test_tls_with_an_authority_of_our_own(
    start: StartServer, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """A name and an address, either version, HTTP/1.1 agreed; with TLS 1.2 the fastest cipher."""
    context = certificates.server("localhost", "127.0.0.1", only=version)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    agreed: list[str | None] = []

    async def script(wire: Wire) -> None:
        agreed.append(wire.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await hello(wire)

    server = await start(script, tls=context)
    for host in ("localhost", "127.0.0.1"):
        link = await connect(server.url(host=host), TlsConfig(ca_file=certificates.ca_file))
        assert link.tls is not None
        assert link.tls.version == version.name.replace("_", ".")
        if version is ssl.TLSVersion.TLSv1_2:
            assert "AES128-GCM" in link.tls.cipher
        assert (await talk(link)).endswith(b"/hello")
    assert agreed == ["http/1.1", "http/1.1"]


async def test_the_dot_after_a_full_name_is_not_part_of_it(
    start: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends a name for the resolver; certificates do not know it."""
    server = await start(hello, tls=certificates.server("store.invalid"))
    resolve(monkeypatch, ("127.0.0.1", server.port))
    link = await connect(server.url(host="store.invalid."), TlsConfig(ca_file=certificates.ca_file))
    assert (await talk(link)).endswith(b"/hello")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unknown authority", "unable to get local issuer certificate"),
        ("wrong name", "Hostname mismatch"),
        ("wrong address", "IP address mismatch"),
        ("expired", "certificate has expired"),
    ],
)
@pytest.mark.parametrize("kind", ["lean", "httpx"])
async def test_a_certificate_that_proves_nothing_is_refused_for_good(
    start: StartServer, certificates: Certificates, opened: list[socket.socket], case: str, words: str, kind: str
) -> None:
    """The same words from both transports; no request is sent, no retry asked for, no socket left."""
    names = {"wrong name": ["other.invalid"], "wrong address": ["127.0.0.2"]}.get(case, [])
    context = certificates.server(*names, is_expired=case == "expired")
    ca_file = certificates.other_ca_file if case == "unknown authority" else certificates.ca_file
    server = await start(hello, tls=context)
    url = server.url("/?sig=1", host="127.0.0.1" if case == "wrong address" else "localhost")
    with pytest.raises(ConnectionFailed, match=f"TLS, .*{words}") as caught:
        if kind == "lean":
            await connect(url, TlsConfig(ca_file=ca_file))
        else:
            transport = HttpxTransport(tls=TlsConfig(ca_file=ca_file))
            try:
                await transport.send(Request("GET", url))
            finally:
                await transport.aclose()
    assert not caught.value.retryable
    assert "sig" not in str(caught.value)
    assert server.requests == []
    if kind == "lean":
        assert {sock.fileno() for sock in opened} == {-1}


async def test_verification_can_be_turned_off_and_says_so(
    start: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Any certificate will do, and one line in the log says it, once."""
    monkeypatch.setattr("asyncsdk.transport.tls._has_warned", False)
    server = await start(hello, tls=certificates.server("other.invalid", is_expired=True))
    for _ in range(2):
        assert (await talk(await connect(server.url(), TlsConfig(verify=False)))).endswith(b"/hello")
    assert caplog.text.count("not verified") == 1


async def test_a_server_that_demands_a_certificate_gets_ours(start: StartServer, certificates: Certificates) -> None:
    """With TLS 1.2 its absence fails the handshake; with 1.3 the server can only say so afterwards."""
    ours = TlsConfig(ca_file=certificates.ca_file, cert_file=certificates.client_file)
    none = TlsConfig(ca_file=certificates.ca_file)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        server = await start(hello, tls=certificates.server(only=version, demands_client=True))
        assert (await talk(await connect(server.url(), ours))).endswith(b"/hello")
        if version is ssl.TLSVersion.TLSv1_2:
            with pytest.raises(ConnectionFailed, match="TLS, "):
                await connect(server.url(), none)
        else:
            with contextlib.suppress(OSError):
                assert await talk(await connect(server.url(), none)) == b""
        assert len(server.requests) == 1


async def test_old_tls_is_refused_for_good(start: StartServer, certificates: Certificates) -> None:
    """A server that speaks TLS 1.1 at best; no retry would change it."""
    context = certificates.server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    async def script(wire: Wire) -> None:
        # asyncio's own TLS closes without the alert that other servers send.
        pipe = TlsPipe(context, None, server_side=True)
        pipe.feed(await wire.reader.read(4096))
        with pytest.raises(ssl.SSLError):
            pipe.shake_hands()
        await wire.send(pipe.take_output())

    server = await start(script)
    with pytest.raises(ConnectionFailed, match=r"TLS, .*PROTOCOL") as caught:
        await connect(f"https://127.0.0.1:{server.port}/", TlsConfig(ca_file=certificates.ca_file))
    assert not caught.value.retryable


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x03\x00\x02\x02\x28"])
async def test_what_is_no_handshake_is_an_error(
    start: StartServer, certificates: Certificates, opened: list[socket.socket], answer: bytes
) -> None:
    """Plain HTTP, a connection that closes, a refusal by alert: typed, and every socket closed."""

    async def script(wire: Wire) -> None:
        await wire.reader.read(10)
        await wire.send(answer)

    server = await start(script)
    with pytest.raises(ConnectionFailed, match=r"no connection to https://127\.0\.0\.1"):
        await connect(f"https://127.0.0.1:{server.port}/")
    assert {sock.fileno() for sock in opened} == {-1}


async def test_a_handshake_that_never_ends_ends_with_the_deadline(start: StartServer) -> None:
    """The server takes what we say and is silent."""

    async def script(wire: Wire) -> None:
        await wire.rest()

    server = await start(script)
    with pytest.raises(RequestTimeout, match="connect"):
        await connect(f"https://127.0.0.1:{server.port}/", timeout_seconds=0.2)


# --- proxies -------------------------------------------------------------------------------------------------

SECRET = "p%40ss:w%2Frd"
BASIC = base64.b64encode(b"us er:p@ss:w/rd").decode()


def with_credentials(server: WireServer) -> str:
    return server.url(host=f"us%20er:{SECRET}@127.0.0.1")


@pytest.mark.parametrize("secure", [False, True], ids=["http proxy", "https proxy"])
async def test_plain_urls_are_forwarded(
    start: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """No tunnel: the link says that requests carry the whole URL, and what the proxy wants to be told with each."""
    backend = await start(hello)
    middle = await start(
        proxy(port=backend.port, password="us er:p@ss:w/rd"), tls=certificates.server() if secure else None
    )
    use_proxy(monkeypatch, with_credentials(middle))
    link = await connect("http://store.invalid/", TlsConfig(ca_file=certificates.ca_file))
    assert link.forward
    assert link.proxy_headers == f"Proxy-Authorization: Basic {BASIC}\r\n".encode()
    assert (link.tls is not None) is secure
    assert BASIC not in repr(link)
    assert (await talk(link, "http://store.invalid/hello")).startswith(b"HTTP/1.1 200 OK")
    assert [seen.target for seen in backend.requests] == ["/hello"]


@pytest.mark.parametrize("kind", ["lean", "httpx"])
@pytest.mark.parametrize("secure", [False, True], ids=["http proxy", "https proxy"])
async def test_secure_urls_go_through_a_tunnel(
    start: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, secure: bool, kind: str
) -> None:
    """CONNECT with credentials, then TLS to the server itself; inside TLS to the proxy if that speaks it."""
    backend = await start(hello, tls=certificates.server("store.invalid"))
    middle = await start(
        proxy(port=backend.port, password="us er:p@ss:w/rd"), tls=certificates.server() if secure else None
    )
    use_proxy(monkeypatch, with_credentials(middle))
    tls = TlsConfig(ca_file=certificates.ca_file)
    if kind == "lean":
        link = await connect("https://store.invalid/", tls)
        assert not link.forward
        assert link.proxy_headers == b""
        assert (await talk(link)).endswith(b"/hello")
    else:
        transport = HttpxTransport(tls=tls)
        reply = await transport.send(Request("GET", "https://store.invalid/hello"))
        assert reply.body == b"/hello"
        await transport.aclose()
    assert [seen.target for seen in middle.requests] == ["store.invalid:443"]
    assert b"\r\nHost: store.invalid:443\r\n" in middle.requests[0].head
    assert "proxy-authorization" not in backend.requests[0].headers


async def test_our_certificate_is_not_shown_to_a_proxy(
    start: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that asks for one gets none; the server behind it does."""
    seen: dict[str, object] = {}
    context = certificates.server()
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(certificates.ca_file)
    backend = await start(hello, tls=certificates.server("store.invalid", demands_client=True))
    forward = proxy(port=backend.port)

    async def script(wire: Wire) -> None:
        seen["certificate"] = wire.writer.get_extra_info("peercert")
        await forward(wire)

    middle = await start(script, tls=context)
    use_proxy(monkeypatch, middle.url())
    tls = TlsConfig(ca_file=certificates.ca_file, cert_file=certificates.client_file)
    assert (await talk(await connect("https://store.invalid/", tls))).endswith(b"/hello")
    assert not seen["certificate"]


def saying(*pieces: bytes, pause: float = 0.0) -> Script:
    """Serve as a proxy that answers CONNECT with these bytes, then waits for the other side to go."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(*pieces, pause=pause)
        await wire.rest()

    return script


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(407, False), (403, False), (400, False), (408, True), (429, True), (502, True), (504, True)],
)
@pytest.mark.parametrize("kind", ["lean", "httpx"])
async def test_a_proxy_that_refuses_is_quoted_by_its_status(
    start: StartServer,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[socket.socket],
    status: int,
    retryable: bool,
    kind: str,
) -> None:
    """Refused credentials are final, a proxy in trouble is not; both transports say it in the same words."""
    middle = await start(saying(f"HTTP/1.1 {status} No Way\r\nContent-Length: 6\r\n\r\nsecret".encode()))
    use_proxy(monkeypatch, with_credentials(middle))
    said = f"the proxy refused with status {status} to connect to https://store.invalid/"
    with pytest.raises(ConnectionFailed, match=said) as caught:
        if kind == "lean":
            await connect("https://store.invalid/")
        else:
            transport = HttpxTransport()
            try:
                await transport.send(Request("GET", "https://store.invalid/"))
            finally:
                await transport.aclose()
    assert caught.value.retryable is retryable
    assert "secret" not in str(caught.value)
    if kind == "lean":
        assert {sock.fileno() for sock in opened} == {-1}


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n",),
        (b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n",),
        (b"HTTP/1.1 299\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        tuple(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
)
async def test_every_good_answer_opens_the_tunnel(
    start: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]
) -> None:
    """Any 2xx, however it is cut and whatever it says of a body that it cannot have; after any 1xx."""
    backend = await start(hello, tls=certificates.server("store.invalid"))
    forward = proxy(port=backend.port)

    async def script(wire: Wire) -> None:
        original = wire.send

        async def send(*data: bytes, pause: float = 0.0) -> None:
            if data[0].startswith(b"HTTP/1.1 200 Connection"):
                await original(*pieces, pause=0.002)
            else:
                await original(*data, pause=pause)

        wire.send = send  # type: ignore[method-assign]
        await forward(wire)

    use_proxy(monkeypatch, (await start(script)).url())
    link = await connect("https://store.invalid/", TlsConfig(ca_file=certificates.ca_file))
    assert (await talk(link)).endswith(b"/hello")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 17_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000,
        b"HTTP/1.1 200 OK\r\n\r\nearly",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
    ids=lambda answer: str(answer[:24]),
)
async def test_garbage_from_a_proxy_is_refused(
    start: StartServer, monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket], answer: bytes
) -> None:
    """What is no HTTP, too long, or comes before anybody asked the server anything."""
    middle = await start(saying(answer))
    use_proxy(monkeypatch, middle.url())
    with pytest.raises(MalformedResponse, match=r"no connection to https://store.invalid/: what the proxy http://127"):
        await connect("https://store.invalid/")
    assert {sock.fileno() for sock in opened} == {-1}


async def test_a_proxy_that_hangs_up_or_hangs(start: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed errors for both; the deadline covers the proxy's answer too."""

    async def hang_up(wire: Wire) -> None:
        await wire.head()

    middle = await start(hang_up, saying(b"HTTP/1.1 20"))
    use_proxy(monkeypatch, middle.url())
    with pytest.raises(ConnectionFailed, match="closed it without an answer"):
        await connect("https://store.invalid/")
    with pytest.raises(RequestTimeout, match="connect"):
        await connect("https://store.invalid/", timeout_seconds=0.2)


async def test_a_proxy_that_is_not_there_is_named(
    start: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says that the proxy is what cannot be reached or trusted, without the credentials for it."""
    port = unused_port()
    use_proxy(monkeypatch, f"http://user:{SECRET}@127.0.0.1:{port}")
    refused = rf"no connection to the proxy http://127.0.0.1:{port}/: Connection refused"
    with pytest.raises(ConnectionFailed, match=refused):
        await connect("http://store.invalid/")
    middle = await start(hello, tls=certificates.server())
    use_proxy(monkeypatch, middle.url())
    with pytest.raises(ConnectionFailed, match=r"the proxy https://127.*: TLS, ") as caught:
        await connect("https://store.invalid/")
    assert not caught.value.retryable


@pytest.mark.parametrize("url", ["socks5://user:secret@127.0.0.1:1080", "socks5h://127.0.0.1", "ftp://127.0.0.1"])
async def test_a_proxy_that_is_no_http_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Said before anything is connected to, with what can be done."""
    use_proxy(monkeypatch, url)
    with pytest.raises(ConfigError, match=r"only http:// and https:// proxies") as caught:
        await connect("https://store.invalid/")
    assert "secret" not in str(caught.value)


async def test_no_proxy_goes_straight(start: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is excepted, and loopback always."""
    server = await start(hello)
    use_proxy(monkeypatch, f"http://127.0.0.1:{unused_port()}", no_proxy="near.invalid")
    resolve(monkeypatch, ("127.0.0.1", server.port))
    for host in ("near.invalid", "at.near.invalid", "localhost"):
        link = await connect(f"http://{host}:{server.port}/")
        assert not link.forward
        assert (await talk(link)).endswith(b"/hello")
    with pytest.raises(ConnectionFailed, match="the proxy"):
        await connect(f"http://far.invalid:{server.port}/")


async def test_credentials_reach_neither_errors_nor_logs(
    start: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong with a proxy, its user and password are not told to anybody."""
    caplog.set_level(logging.DEBUG)
    secret = "hush-hush"
    answers = [
        b"HTTP/1.1 407 No\r\n\r\n",
        b"HTTP/1.1 502 No\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nx",
        b"",
    ]
    middle = await start(*[saying(answer) for answer in answers])
    urls = [middle.url(host=f"user:{secret}@127.0.0.1")] * len(answers)
    urls += [f"http://user:{secret}@127.0.0.1:{unused_port()}", f"socks5://user:{secret}@127.0.0.1:1"]
    urls += [f"http://user:{secret}@[::1", f"http://user:{secret}@127.0.0.1:port", f"http://user:{secret}@"]
    shown = ""
    for url in urls:
        use_proxy(monkeypatch, url)
        with pytest.raises(AsyncSDKError) as caught:
            await connect("https://store.invalid/", timeout_seconds=0.5)
        shown += repr(caught.value) + "".join(traceback.format_exception(caught.value)) + caplog.text
        shown += repr(Proxies())
    encoded = base64.b64encode(f"user:{secret}".encode()).decode()
    assert secret not in shown.replace('secret = "hush-hush"', "")
    assert encoded not in shown
