"""What goes out: the URL byte for byte, the headers given and no others, the framing."""

from __future__ import annotations

import pytest

from asyncsdk.errors import ConfigError
from asyncsdk.transport.base import BytesBody, Request, Transport
from tests.contract.transport.conftest import MakeServer, MakeTransport
from tests.support.http_server import HttpServer
from tests.support.wire.proxy import proxy
from tests.support.wire.scripts import polite
from tests.support.wire.sinks import get, put


@pytest.mark.parametrize(
    "target",
    ["/a%2fb%2Fc?X-Sig=%7e~%41&y=a+b%20c", "/a//b/../c;p=1?x=[1]|2", "/?a=b?c/d", "/%E4%F6?%zz", "/a'b(c)*!$&,@:="],
)
async def test_the_url_goes_out_byte_for_byte(store: HttpServer, transport: Transport, target: str) -> None:
    """A signature covers the target as it is written; nothing is normalised."""
    await put(transport, store.url(target), b"x")
    assert store.requests[-1].head.split(b"\r\n")[0] == f"PUT {target} HTTP/1.1".encode()


async def test_a_fragment_stays_here_and_a_missing_path_is_the_root(store: HttpServer, transport: Transport) -> None:
    """Fragments are never sent; RFC 9112 section 3.2.1 wants a slash for an empty path."""
    await put(transport, store.url("?a=b#secret"), b"x")
    assert store.requests[-1].target == "/?a=b"


async def test_only_the_headers_given_and_framing_are_sent(store: HttpServer, transport: Transport) -> None:
    """No user agent, no cookies, no connection header: what was not signed is not sent."""
    await put(transport, store.url("/a"), b"12345", headers={"X-Signed": "1", "content-length": "9"})
    sent = {name.lower(): value for name, value in store.requests[-1].headers}
    assert sent == {
        "host": f"127.0.0.1:{store.port}",
        "accept-encoding": "identity",
        "x-signed": "1",
        "content-length": "5",
    }


async def test_host_and_accept_encoding_can_be_replaced(store: HttpServer, transport: Transport) -> None:
    """Headers given replace the transport's own, and are there once."""
    await put(transport, store.url("/a"), b"x", headers={"HOST": "signed.example", "Accept-Encoding": "gzip"})
    sent = [(name.lower(), value) for name, value in store.requests[-1].headers]
    assert [value for name, value in sent if name == "host"] == ["signed.example"]
    assert [value for name, value in sent if name == "accept-encoding"] == ["gzip"]


async def test_the_host_header_is_sent_as_the_url_says_it(transport: Transport, wire: MakeServer) -> None:
    """The port stands in it unless it is the scheme's own."""
    server = await wire(polite())
    await get(transport, server.url("/", host="localhost"))
    assert server.requests[-1].headers["host"] == f"localhost:{server.port}"


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
async def test_a_request_that_could_have_a_body_says_that_it_has_none(
    store: HttpServer, transport: Transport, method: str
) -> None:
    """RFC 9110 section 8.6: such a method without a body says ``Content-Length: 0``."""
    await transport.send(Request(method, store.url("/a")))
    assert store.requests[-1].header("content-length") == "0"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_other_requests_say_nothing_of_a_body(transport: Transport, wire: MakeServer, method: str) -> None:
    """No ``Content-Length``, no ``Transfer-Encoding``."""
    server = await wire(polite(b""))
    await transport.send(Request(method, server.url("/a")))
    assert not {"content-length", "transfer-encoding"} & set(server.requests[-1].headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X": "a\nb"},
        {"X": "a\rb"},
        {"X": "a\0b"},
        {"X: a\r\nY": "b"},
        {"X Y": "a"},
        {"X:": "a"},
        {"": "a"},
        {"X": "\u20ac"},
        {"\u00c4": "a"},
    ],
    ids=ascii,
)
async def test_headers_that_would_split_a_request_are_refused(
    store: HttpServer, transport: Transport, headers: dict[str, str]
) -> None:
    """Nothing of such a request is sent, and the transport works on."""
    with pytest.raises(ConfigError):
        await put(transport, store.url("/a"), b"x", headers=headers)
    assert store.requests == []
    assert (await put(transport, store.url("/a"), b"x")).status == 200


@pytest.mark.parametrize("url", ["ftp://h/", "/only/a/path", "http://", "http://h:port/", "http:///a"])
async def test_what_is_no_url_is_refused(transport: Transport, url: str) -> None:
    """Before anything is connected."""
    with pytest.raises(ConfigError):
        await get(transport, url)


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/a\n", "/\0", "/\x7f", "/?\t"], ids=ascii)
async def test_a_target_that_would_split_the_request_line_is_refused(
    store: HttpServer, transport: Transport, target: str
) -> None:
    """Nothing of it is sent."""
    with pytest.raises(ConfigError):
        await get(transport, store.url(target))
    assert store.requests == []


async def test_a_refused_request_spoils_no_kept_connection(transport: Transport, wire: MakeServer) -> None:
    """What cannot be sent leaves the kept connection alone or drops it; the next request is answered either way."""
    server = await wire(polite())
    await get(transport, server.url("/a"))
    with pytest.raises(ConfigError):
        await get(transport, server.url("/b"), headers={"X": "a\r\nY: b"})
    assert (await get(transport, server.url("/c"))).body == b"ok"
    assert [seen.target for seen in server.requests] == ["/a", "/c"]


async def test_an_http_proxy_gets_the_whole_url_unchanged(
    make: MakeTransport, store: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain request goes to the proxy in absolute form."""
    monkeypatch.setenv("http_proxy", store.url("/"))
    monkeypatch.setenv("no_proxy", "")
    reply = await put(make(), "http://store.invalid/a%2fb?sig=%7e", b"x")
    assert reply.status == 200
    assert store.requests[-1].head.startswith(b"PUT http://store.invalid/a%2fb?sig=%7e HTTP/1.1\r\n")
    assert store.requests[-1].header("host") == "store.invalid"


async def test_a_proxy_that_asks_for_a_password_gets_it_from_its_url(
    make: MakeTransport, store: HttpServer, wire: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and password are decoded, and go to the proxy alone."""
    through = await wire(proxy(port=store.port, password="us/er:pa ss"))
    monkeypatch.setenv("http_proxy", f"http://us%2Fer:pa%20ss@127.0.0.1:{through.port}")
    transport = make()
    for _ in range(2):
        assert (await put(transport, "http://store.invalid/a?b", b"x")).status == 200
    assert store.requests[-1].target == "/a?b"
    assert store.requests[-1].header("proxy-authorization") is None
    assert store.requests[-1].header("host") == "store.invalid"


async def test_a_closed_transport_refuses(make: MakeTransport, store: HttpServer) -> None:
    """Closing twice is fine, sending afterwards is not."""
    transport = make()
    await put(transport, store.url("/a"), b"x")
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ConfigError):
        await transport.send(Request("PUT", store.url("/a"), body=BytesBody(b"x")))
