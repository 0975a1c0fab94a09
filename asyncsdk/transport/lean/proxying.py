"""Asking an HTTP proxy for a tunnel.

Source: RFC 9110 section 9.3.6 (CONNECT).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from asyncsdk.errors import ConnectionFailed, MalformedResponse
from asyncsdk.transport.failures import proxy_refused
from asyncsdk.transport.urls import Address, Proxy

__all__ = ["open_tunnel", "proxy_headers"]

_MAX_HEAD_BYTES = 16 * 1024
"""Of its reply and all informational ones before it."""

_HEAD = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")


def proxy_headers(proxy: Proxy) -> bytes:
    """Return the header lines that every request to *proxy* itself carries; empty without credentials."""
    return f"Proxy-Authorization: {proxy.authorization}\r\n".encode("ascii") if proxy.authorization else b""


async def open_tunnel(
    proxy: Proxy,
    address: Address,
    send: Callable[[bytes], Awaitable[None]],
    receive: Callable[[], Awaitable[bytes]],
) -> None:
    """Have *proxy* connect to *address*; from then on, what is sent and received is between us and that server.

    Args:
        proxy: Is connected to.
        address: Where to.
        send: Sends all it is given.
        receive: Returns what comes, at most some KiB; empty at the end.

    Raises:
        ConnectionFailed: The proxy refuses (final for its 4xx, 407 among them), or closes the connection.
        MalformedResponse: What it says is no HTTP, or longer than 16 KiB.
    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    target = f"{host}:{address.port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode("ascii")
    await send(head + proxy_headers(proxy) + b"\r\n")
    heard = b""
    left = _MAX_HEAD_BYTES
    while True:
        while (end := heard.find(b"\r\n\r\n")) < 0:
            if not b"HTTP/1.".startswith(heard[:7]):
                raise _no_http(proxy, address)
            data = await receive()
            if not data:
                raise ConnectionFailed(
                    f"no connection to {address.root}: the proxy {proxy.address.root} closed it without an answer"
                )
            heard += data
            left -= len(data)
            if left < 0:
                raise _no_http(proxy, address)
        match = _HEAD.match(heard)
        if match is None:
            raise _no_http(proxy, address)
        status = int(match[1])
        heard = heard[end + 4 :]
        if status >= 200:
            break
    if status >= 300:
        raise proxy_refused(status, address.root)
    if heard:  # the server speaks after us, so these bytes are not from it
        raise _no_http(proxy, address)


def _no_http(proxy: Proxy, address: Address) -> MalformedResponse:
    return MalformedResponse(
        f"no connection to {address.root}: what the proxy {proxy.address.root} answered is no HTTP/1.1"
    )
