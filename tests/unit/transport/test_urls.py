"""URLs taken apart, and proxies."""

from __future__ import annotations

import pytest

from asyncsdk.errors import ConfigError
from asyncsdk.transport.urls import Address, Proxies, Proxy, parse_proxy, split_url


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


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://h/", "h", 80),
        ("https://h/", "h", 443),
        ("https://h:80/", "h", 80),
        ("http://[::1]/", "::1", 80),
        ("https://[::1]:9/", "::1", 9),
        ("http://bücher.example:81/", "xn--bcher-kva.example", 81),
    ],
)
def test_host_and_port_are_what_a_socket_takes(url: str, host: str, port: int) -> None:
    """ASCII, without brackets, and a number where the URL has none."""
    address, _ = split_url(url)
    assert (address.host, address.port) == (host, port)


@pytest.mark.parametrize(
    ("rules", "url", "is_direct"),
    [
        ("*", "http://any.example/", True),
        ("a.example, *", "http://any.example/", True),
        ("example.com", "http://example.com/", True),
        ("example.com", "http://EXAMPLE.com./", True),
        ("Example.COM", "http://www.example.com/", True),
        (".example.com", "http://example.com/", True),
        ("*.example.com", "http://www.example.com/", True),
        ("example.com", "http://notexample.com/", False),
        ("example.com", "http://example.com.evil.example/", False),
        ("example.com:8080", "http://example.com:8080/", True),
        ("example.com:8080", "http://www.example.com:8080/", True),
        ("example.com:8080", "http://example.com/", False),
        ("example.com:443", "https://example.com/", True),
        ("example.com:80", "http://example.com/", True),
        ("10.0.0.0/8", "http://10.20.30.40/", True),
        ("10.0.0.0/8", "http://11.0.0.1/", False),
        ("10.0.0.0/8", "http://10.example/", False),
        ("10.1.2.3/8", "http://10.200.0.1:99/", True),
        ("192.0.2.7", "http://192.0.2.7/", True),
        ("192.0.2.7", "http://192.0.2.70/", False),
        ("192.0.2.7:81", "http://192.0.2.7/", False),
        ("192.0.2.7:81", "http://192.0.2.7:81/", True),
        ("2001:db8::/32", "http://[2001:db8::1]/", True),
        ("2001:db8::1", "http://[2001:0db8::1]/", True),
        ("[2001:db8::1]", "http://[2001:db8::1]:99/", True),
        ("[2001:db8::1]:99", "http://[2001:db8::1]:98/", False),
        ("[2001:db8::1]:99", "http://[2001:db8::1]:99/", True),
        ("bücher.example", "http://bücher.example/", True),
        (" , ,.,", "http://any.example/", False),
        ("", "http://any.example/", False),
    ],
)
def test_no_proxy_names_hosts_networks_and_ports(
    monkeypatch: pytest.MonkeyPatch, rules: str, url: str, is_direct: bool
) -> None:
    """Names with everything below them, numbers and networks, each with or without a port."""
    monkeypatch.setenv("all_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", rules)
    assert (Proxies().for_address(split_url(url)[0]) is None) is is_direct


def test_what_is_bypassed_by_the_standard_library_is_bypassed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knows `urllib.request` finds nothing missing."""
    import urllib.request

    rules = "one.example,.two.example,three.example:8080,192.0.2.1,localhost.example"
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", rules)
    names = ["one.example", "two.example", "three.example", "xone.example"]
    hosts = [f"{sub}{name}{port}" for sub in ("", "www.") for name in names for port in ("", ":8080", ":81")]
    hosts += ["192.0.2.1", "192.0.2.1:81", "192.0.2.11"]
    proxies = Proxies()
    for host in hosts:
        if urllib.request.proxy_bypass_environment(host):
            assert proxies.for_address(split_url(f"http://{host}/")[0]) is None, host


@pytest.mark.parametrize(
    ("url", "root", "authorization"),
    [
        ("http://p:3128", "http://p:3128/", ""),
        ("https://p/", "https://p/", ""),
        ("http://user:word@p:1/x", "http://p:1/", "Basic dXNlcjp3b3Jk"),
        ("http://us%40er:w%3Ard%25@p", "http://p/", "Basic dXNAZXI6dzpyZCU="),
        ("http://user@p", "http://p/", "Basic dXNlcjo="),
        ("http://[::1]:3128", "http://[::1]:3128/", ""),
    ],
)
def test_a_proxy_is_an_address_and_credentials(url: str, root: str, authorization: str) -> None:
    """User and password are percent-decoded; the path means nothing."""
    proxy = parse_proxy(url)
    assert (proxy.address.root, proxy.authorization) == (root, authorization)


def test_credentials_of_a_proxy_are_not_shown() -> None:
    """Neither by its repr nor by what refuses it."""
    assert repr(parse_proxy("http://user:word@p")) == repr(Proxy(Address("http", "p", "p")))
    for url in ("socks5://user:word@p", "http://user:word@", "http://user:word@p:x", "http://user:word@[::1"):
        with pytest.raises(ConfigError) as caught:
            parse_proxy(url)
        assert "word" not in str(caught.value)
