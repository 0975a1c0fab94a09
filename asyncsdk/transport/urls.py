"""Taking URLs apart without changing a byte of what was signed, and the way to a host."""

from __future__ import annotations

import base64
import ipaddress
import re
import urllib.request
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes, urlsplit

from asyncsdk.errors import ConfigError, redact_url

__all__ = ["Address", "Proxies", "Proxy", "parse_proxy", "split_url"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PARTS = re.compile(r"[^:/?#]+://[^/?#]*")
_EVERY_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))


@dataclass(frozen=True, slots=True)
class Address:
    """Where requests of one scheme, host and port go.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Name (ASCII) or IP address, without brackets.
        authority: As the ``Host`` header says it.
    """

    scheme: str
    host: str
    authority: str

    def __hash__(self) -> int:
        return hash(self.authority)  # what differs most, and a string knows its hash

    @property
    def port(self) -> int:
        """Port, the scheme's own where the URL names none."""
        port = self.authority.rpartition("]")[2].partition(":")[2]
        return int(port) if port else _DEFAULT_PORTS[self.scheme]

    @property
    def root(self) -> str:
        """URL of its root."""
        return f"{self.scheme}://{self.authority}/"


def split_url(url: str) -> tuple[Address, bytes]:
    """Return the address of *url* and its request target, byte for byte; only non-ASCII characters are encoded.

    Raises:
        ConfigError: It is no absolute HTTP URL.
    """
    match = _PARTS.match(url)
    origin = url if match is None else match[0]
    address = _address(origin)
    target = url[len(origin) :]
    if "#" in target:
        target = target.partition("#")[0]
    if not target.startswith("/"):
        target = f"/{target}"
    if target.isascii():
        return address, target.encode("ascii")
    try:
        return address, quote(target, safe=_EVERY_ASCII).encode("ascii")
    except UnicodeError:  # half of a surrogate pair
        raise ConfigError(f"{redact_url(url)!a} is no URL that can be requested") from None


@lru_cache(maxsize=256)
def _address(origin: str) -> Address:
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"http", "https"}:
        raise ConfigError(f"{redact_url(origin)!r} is no URL that can be requested")
    host = _ascii(host)
    if not host:
        raise ConfigError(f"{redact_url(origin)!a} is no URL that can be requested")
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port is None or port == _DEFAULT_PORTS[parts.scheme] else f"{shown}:{port}"
    return Address(parts.scheme, host, authority)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        address: Of the proxy itself; scheme ``https``: TLS to the proxy.
        authorization: Value of ``Proxy-Authorization``; empty without credentials. Not in its repr.
    """

    address: Address
    authorization: str = field(default="", repr=False)


class Proxies:
    """Which proxy, if any, requests to an address go through: as the environment says when this is made.

    ``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy``, in either case; the settings of macOS and Windows
    where no variable is set. ``no_proxy`` is a list with commas: ``*`` for all; a name (``example.com``,
    ``.example.com`` or ``*.example.com``) for it and everything below; an IP address or a network (``10.0.0.0/8``) for
    hosts given by number; each may end in ``:port``. Loopback addresses are always reached directly.
    """

    def __init__(self) -> None:
        environment = urllib.request.getproxies_environment()
        self._by_scheme = environment or urllib.request.getproxies()
        self._is_of_system = not environment
        self._direct = tuple(filter(None, (_rule(text) for text in self._by_scheme.get("no", "").split(","))))

    def for_address(self, address: Address) -> str | None:
        """Return the proxy's URL, credentials included, or None for a direct connection."""
        proxy = self._by_scheme.get(address.scheme) or self._by_scheme.get("all")
        if not proxy or _is_loopback(address.host) or self._is_direct(address):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _is_direct(self, address: Address) -> bool:
        host = address.host.lower().rstrip(".")
        if any(rule.fits(host, address.port) for rule in self._direct):
            return True
        return self._is_of_system and bool(urllib.request.proxy_bypass(address.authority))


def parse_proxy(url: str) -> Proxy:
    """Read the URL of an HTTP proxy, ``http://`` or ``https://``; user and password are percent-decoded.

    Raises:
        ConfigError: It is none, or speaks another protocol (SOCKS). Shows no credentials.
    """
    shown = redact_url(url)
    try:
        parts = urlsplit(url)
        user, password = parts.username, parts.password
    except ValueError:
        raise ConfigError("the proxy that the environment names is no URL") from None
    if parts.scheme not in {"http", "https"}:
        raise ConfigError(
            f"the proxy {shown!r} from the environment cannot be used: only http:// and https:// proxies are; "
            "for SOCKS, give the engine an HttpxTransport and install httpx[socks]"
        )
    try:
        address = _address(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    except ConfigError:
        raise ConfigError(f"the proxy {shown!r} from the environment is no URL of a proxy") from None
    if user is None and password is None:
        return Proxy(address)
    words = unquote_to_bytes(user or "") + b":" + unquote_to_bytes(password or "")
    return Proxy(address, f"Basic {base64.b64encode(words).decode('ascii')}")


@dataclass(frozen=True, slots=True)
class _Rule:
    """One entry of ``no_proxy``."""

    name: str = ""  # empty: any
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    def fits(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            try:
                return ipaddress.ip_address(host) in self.network
            except ValueError:
                return False
        return not self.name or host == self.name or host.endswith(f".{self.name}")


def _rule(text: str) -> _Rule | None:
    """Return what *text* says; None when it says nothing."""
    text = text.strip().lower()
    if not text:
        return None
    port: int | None = None
    before, colon, after = text.rpartition(":")
    if colon and after.isdecimal() and (before.endswith("]") or ":" not in before):
        text, port = before, int(after)
    text = text.strip("[]")
    try:
        return _Rule(network=ipaddress.ip_network(text, strict=False), port=port)
    except ValueError:
        name = text.removeprefix("*").strip(".")
    if not name and text != "*":
        return None
    return _Rule(name=_ascii(name) or name, port=port)


def _ascii(host: str) -> str:
    """Return *host* as name servers know it; empty when it cannot be."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
