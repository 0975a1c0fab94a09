"""Taking URLs apart without changing a byte of what was signed, and the way to a host."""

from __future__ import annotations

import ipaddress
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

from asyncsdk.errors import ConfigError, redact_url

__all__ = ["Address", "Proxies", "split_url"]

_EVERY_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))


@dataclass(frozen=True, slots=True)
class Address:
    """Where requests of one scheme, host and port go.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Name or IP address, without brackets.
        authority: As the ``Host`` header says it.
    """

    scheme: str
    host: str
    authority: str

    @property
    def root(self) -> str:
        """URL of its root."""
        return f"{self.scheme}://{self.authority}/"


def split_url(url: str) -> tuple[Address, bytes]:
    """Return the address of *url* and its request target, byte for byte; only non-ASCII characters are encoded.

    Raises:
        ConfigError: It is no absolute HTTP URL.
    """
    start = url.find("://") + 3
    end = min((at for at in (url.find(mark, start) for mark in "/?#") if at >= 0), default=len(url))
    address = _address(url[:end])
    target = url[end:].partition("#")[0]
    if not target.startswith("/"):
        target = f"/{target}"
    try:
        return address, (target if target.isascii() else quote(target, safe=_EVERY_ASCII)).encode("ascii")
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
    shown = f"[{host}]" if ":" in host else host
    if not shown.isascii():
        try:
            shown = shown.encode("idna").decode("ascii")
        except UnicodeError:
            raise ConfigError(f"{redact_url(origin)!a} is no URL that can be requested") from None
    default_port = 80 if parts.scheme == "http" else 443
    authority = shown if port is None or port == default_port else f"{shown}:{port}"
    return Address(parts.scheme, host, authority)


class Proxies:
    """Which proxy, if any, requests to an address go through: environment variables, as `urllib.request` reads them.

    Loopback addresses are always reached directly.
    """

    def __init__(self) -> None:
        self._by_scheme = urllib.request.getproxies()

    def for_address(self, address: Address) -> str | None:
        """Return the proxy's URL, or None for a direct connection."""
        proxy = self._by_scheme.get(address.scheme) or self._by_scheme.get("all")
        if not proxy or _is_loopback(address.host) or urllib.request.proxy_bypass(address.authority):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
