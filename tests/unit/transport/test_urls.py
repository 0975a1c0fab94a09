"""URLs taken apart, and proxies."""

from __future__ import annotations

import pytest

from asyncsdk.errors import ConfigError
from asyncsdk.transport.urls import Proxies, split_url


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://h", "h", b"/"),
        ("https://h:443/a", "h", b"/a"),
        ("http://h:443/a", "h:443", b"/a"),
        ("http://user:word@H:8080/%7e?x=%2F#frag", "h:8080", b"/%7e?x=%2F"),
        ("http://[::1]:9/a?b/c", "[::1]:9", b"/a?b/c"),
        ("http://h?x=http://other/", "h", b"/?x=http://other/"),
        ("http://h/ü?ß=%C3", "h", b"/%C3%BC?%C3%9F=%C3"),
        ("http://bücher.example/", "xn--bcher-kva.example", b"/"),
    ],
)
def test_a_url_is_split_without_changing_a_byte(url: str, authority: str, target: bytes) -> None:
    address, found = split_url(url)
    assert (address.authority, found) == (authority, target)


@pytest.mark.parametrize("url", ["http://", "http:///a", "http://h:port/", "ftp://h/", "http://[::1/"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        split_url(url)


def test_proxies_come_from_the_environment_and_loopback_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "proxy:3128")
    monkeypatch.setenv("https_proxy", "http://secure:3128")
    monkeypatch.setenv("no_proxy", "internal.example,10.0.0.1")
    proxies = Proxies()

    def chosen(url: str) -> str | None:
        return proxies.for_address(split_url(url)[0])

    assert chosen("http://store.example/") == "http://proxy:3128"
    assert chosen("https://store.example/") == "http://secure:3128"
    for direct in ("http://a.internal.example/", "http://10.0.0.1/", "http://127.0.0.9/", "http://localhost:1/"):
        assert chosen(direct) is None
    assert chosen("http://[::1]/") is None
