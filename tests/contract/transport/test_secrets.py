"""Signatures and tokens reach neither errors, nor logs, nor representations."""

from __future__ import annotations

import logging
import os
import traceback

import httpx
import pytest

from asyncsdk.errors import AsyncSDKError, ConfigError
from asyncsdk.transport.base import BytesBody, Request, Timeouts, Transport
from tests.contract.transport.conftest import MakeServer, MakeTransport
from tests.support.http_server import HttpServer, answer, close, raw, stall
from tests.support.wire.proxy import proxy
from tests.support.wire.scripts import polite
from tests.support.wire.server import Wire
from tests.support.wire.sinks import put

SHORT = Timeouts(connect=5, idle=0.1, reply=0.1)


async def test_secrets_reach_neither_logs_nor_errors(
    store: HttpServer, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the URL, of headers, of what the server says back; with every kind of failure."""
    caplog.set_level(logging.DEBUG)
    # Made here, so that it does not stand in the lines of source that a traceback quotes.
    secret = os.urandom(16).hex()
    url = store.url(f"/o?sig={secret}")
    store.objects["/o"] = secret.encode() * 100
    failures: list[AsyncSDKError] = []
    ok = "HTTP/1.1 200 OK\r\n"
    actions = [
        raw(f"HTTP/9.9 {secret}\r\n\r\n".encode()),
        raw(f"{secret}\r\n\r\n".encode()),
        raw(f"{ok}{secret}\r\n\r\n".encode()),
        raw(f"{ok}Content-Length: {secret}\r\n\r\n".encode()),
        raw(f"{ok}Transfer-Encoding: {secret}\r\n\r\n".encode()),
        raw(f"{ok}Transfer-Encoding: chunked\r\n\r\n{secret}{secret}\r\n".encode()),
        raw(f"{ok}Content-Length: 99\r\nX: {secret}\r\n\r\n{secret}".encode()),
        raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        close(),
        raw(f"{ok}Content-Length: 3200\r\n\r\n{secret}".encode()),
        stall(),
    ]
    for action in actions:
        store.script("/o", action)
        with pytest.raises(AsyncSDKError) as caught:
            await put(transport, url, b"x", headers={"Authorization": secret}, timeouts=SHORT)
        failures.append(caught.value)
    for headers in ({"X-Key": f"{secret}\r\nX: y"}, {f"{secret}\n": "a"}):
        with pytest.raises(ConfigError) as refused:
            await put(transport, url, b"x", headers=headers)
        failures.append(refused.value)
    with pytest.raises(ConfigError) as refused:
        await put(transport, store.url(f"/o o?sig={secret}"), b"x")
    failures.append(refused.value)
    store.script("/o", answer(302, headers={"Location": url, "Set-Cookie": secret}))
    reply = await put(transport, url, b"x")
    for failure in failures:
        assert secret not in "".join(traceback.format_exception(failure))
        assert secret not in repr(failure)
        assert secret not in str(vars(failure))
    assert secret not in caplog.text
    for shown in (Request("PUT", url, {"a": secret}, BytesBody(secret.encode())), transport):
        assert secret not in repr(shown)
    assert secret not in repr(reply.headers)


async def test_a_redirect_is_not_followed(store: HttpServer, transport: Transport) -> None:
    """Whoever follows it decides which headers go along."""
    store.script("/o", answer(307, headers={"Location": store.url("/p")}))
    assert (await put(transport, store.url("/o"), b"x", headers={"Authorization": "token"})).status == 307
    assert [seen.path for seen in store.requests] == ["/o"]


async def test_the_logs_of_others_are_as_they_were(
    store: HttpServer, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """Only requests of ours are left out of them."""
    caplog.set_level(logging.DEBUG)
    await put(transport, store.url("/a"), b"x")
    assert "send_request_headers" not in caplog.text
    async with httpx.AsyncClient(trust_env=False) as other:
        await other.put(store.url("/p"), content=b"x")
    assert "send_request_headers" in caplog.text


async def test_a_tunnel_is_asked_for_by_host_and_port_alone(
    make: MakeTransport, wire: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy on the way to an ``https`` URL learns neither path nor signature nor headers."""
    secret = os.urandom(16).hex()

    async def refusing(connection: Wire) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    through = await wire(refusing)
    monkeypatch.setenv("https_proxy", through.url())
    with pytest.raises(AsyncSDKError):
        await put(make(), f"https://store.invalid/{secret}?{secret}", b"x", headers={"Authorization": secret})
    assert through.requests[0].head.startswith(b"CONNECT store.invalid:443 HTTP/1.1\r\n")
    assert secret.encode() not in through.requests[0].head


async def test_the_password_of_a_proxy_is_not_told(
    make: MakeTransport,
    store: HttpServer,
    wire: MakeServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not when it is wrong, not when nobody listens, not when it cannot be used at all."""
    caplog.set_level(logging.DEBUG)
    secret = os.urandom(16).hex()
    through = await wire(proxy(port=store.port, password="an:other"))
    gone = await wire(polite())
    await gone.__aexit__(None, None, None)
    said = ""
    for port, target in ((through.port, "https://store.invalid/"), (gone.port, "http://store.invalid/")):
        monkeypatch.setenv(f"{target.partition(':')[0]}_proxy", f"http://user:{secret}@127.0.0.1:{port}")
        with pytest.raises(AsyncSDKError) as caught:
            await put(make(), target, b"x")
        said += "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert secret not in said + caplog.text
