"""The rules of redirects by themselves: over a transport that answers from a list."""

from __future__ import annotations

import pytest

from asyncsdk.engine.redirects import REDIRECTS, send_following
from asyncsdk.engine.replies import Redirected
from asyncsdk.errors import MalformedResponse
from asyncsdk.transport.base import BytesBody, Headers, Reply, Request

BASE = "http://a/b/c/d;p?q"


class Answers:
    """Redirects to each of *locations*, then says yes."""

    def __init__(self, *locations: str, status: int = 302) -> None:
        self._locations = list(locations)
        self._status = status
        self.asked: list[Request] = []

    async def send(self, request: Request) -> Reply:
        self.asked.append(request)
        if not self._locations:
            return Reply(200, Headers([]), b"yes", 3)
        return Reply(self._status, Headers([("Location", self._locations.pop(0))]), b"moved", 5)

    async def aclose(self) -> None:
        """It holds nothing."""


async def led_to(base: str, location: str) -> str:
    """Return the URL that is asked after a redirect from *base*."""
    transport = Answers(location)
    await send_following(transport, Request("GET", base))
    return transport.asked[-1].url


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q#s"),
        ("g#s", "http://a/b/c/g#s"),
        ("g?y#s", "http://a/b/c/g?y#s"),
        (";x", "http://a/b/c/;x"),
        (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../g", "http://a/b/g"),
        ("../..", "http://a/"),
        ("../../g", "http://a/g"),
        ("../../../g", "http://a/g"),
        ("/./g", "http://a/g"),
        ("/../g", "http://a/g"),
        ("g.", "http://a/b/c/g."),
        ("..g", "http://a/b/c/..g"),
        ("./../g", "http://a/b/g"),
        ("./g/.", "http://a/b/c/g/"),
        ("g/./h", "http://a/b/c/g/h"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
        # What the standard library's function changes:
        ("g//h/../i", "http://a/b/c/g//i"),
        ("/g//h?", "http://a/g//h?"),
        # Absolute ones stay as they are:
        ("http://a/x/../%7e%2f?sig=a+b%2F#f", "http://a/x/../%7e%2f?sig=a+b%2F#f"),
        ("HTTP://A/g", "HTTP://A/g"),
        # Bytes beyond ASCII are the bytes that came:
        ("/caf\xc3\xa9", "http://a/caf%C3%A9"),
    ],
)
async def test_references_are_resolved(location: str, url: str) -> None:
    """As RFC 3986 section 5.4 lists it."""
    assert await led_to(BASE, location) == url


@pytest.mark.parametrize(
    ("base", "location", "url"),
    [
        ("http://a", "g", "http://a/g"),
        ("http://a?q", "g", "http://a/g"),
        ("http://a?q", "?y", "http://a?y"),
        ("http://a//k/", "../x", "http://a//x"),
        ("https://a:8443/k", "/x", "https://a:8443/x"),
    ],
)
async def test_bases_of_every_form(base: str, location: str, url: str) -> None:
    """Without a path, with a query, with empty segments, with a port."""
    assert await led_to(base, location) == url


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("status", sorted(REDIRECTS))
async def test_who_follows_what(method: str, status: int) -> None:
    """Reading follows all, everything else only what asks for the same request; the method never changes."""
    transport = Answers("/there", status=status)
    body = BytesBody(b"x") if method in {"PUT", "POST"} else None
    request = Request(method, "http://example.com/o", {"Authorization": "x"}, body)
    if method in {"GET", "HEAD"} or status in {307, 308}:
        reply = await send_following(transport, request)
        assert isinstance(reply, Redirected)
        assert (reply.status, reply.body, reply.size_bytes) == (200, b"yes", 3)
        assert [asked.method for asked in transport.asked] == [method, method]
        assert (transport.asked[1].body, transport.asked[1].headers) == (body, {"Authorization": "x"})
    else:
        with pytest.raises(MalformedResponse, match=f"a {method} is sent again after 307 and 308 only"):
            await send_following(transport, request)
        assert len(transport.asked) == 1


LOCAL = [
    "localhost",
    "LocalHost.",
    "x.localhost",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "169.254.169.254",
    "[::1]",
    "[::]",
    "[fe80::1]",
    "[::ffff:127.0.0.1]",
]


@pytest.mark.parametrize("host", LOCAL)
async def test_no_other_server_reaches_this_machine(host: str) -> None:
    """Nor what only its link reaches; from there to there it may go."""
    transport = Answers(f"http://{host}:8080/x")
    with pytest.raises(MalformedResponse, match="this machine"):
        await send_following(transport, Request("GET", "http://example.com/o"))
    assert len(transport.asked) == 1
    assert await led_to("http://127.0.0.1/o", f"http://{host}:8080/x") == f"http://{host}:8080/x"


@pytest.mark.parametrize("host", ["10.0.0.7", "192.168.1.1", "[fd00::1]", "example.org", "127.example.org"])
async def test_private_networks_are_reached(host: str) -> None:
    """Storage on the premises."""
    assert await led_to("https://example.com/o", f"https://{host}/x") == f"https://{host}/x"


@pytest.mark.parametrize(
    ("base", "location", "stays"),
    [
        ("https://example.com/o", "https://example.com:443/x", True),
        ("https://example.com/o", "https://EXAMPLE.com/x", True),
        ("https://example.com/o", "https://user@example.com/x", True),
        ("https://example.com/o", "//example.com/x", True),
        ("http://example.com/o", "https://example.com/x", False),
        ("https://example.com/o", "https://example.com:8443/x", False),
        ("https://example.com/o", "https://example.com@evil.example/x", False),
        ("https://example.com/o", "https://example.com.evil.example/x", False),
        ("https://example.com/o", "https://sub.example.com/x", False),
        ("https://example.com/o", "//evil.example/x", False),
    ],
)
async def test_what_an_origin_is(base: str, location: str, stays: bool) -> None:
    """Scheme, host and port, however they are written."""
    transport = Answers(location)
    await send_following(transport, Request("GET", base, {"authorization": "x", "RANGE": "bytes=0-1"}))
    assert dict(transport.asked[1].headers) == {**({"authorization": "x"} if stays else {}), "RANGE": "bytes=0-1"}


async def test_without_a_redirect_nothing_changes() -> None:
    """The reply is the transport's own."""
    transport = Answers()
    reply = await send_following(transport, Request("GET", BASE))
    assert type(reply) is Reply
    assert len(transport.asked) == 1
