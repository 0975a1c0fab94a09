"""Requests, replies and refusals of the wire."""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson

from asyncsdk._version import __version__
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ConfigError,
    MalformedResponse,
    NotFound,
    RequestError,
    ResponseError,
    redact_url,
    response_error,
)
from asyncsdk.platforms.requests import is_final, may_be_done, send_request, wait_seconds
from asyncsdk.transport.retry_after import parse_retry_after
from asyncsdk.transport.tls import TlsConfig, shared_context
from asyncsdk.wires.ultralytics.paths import KEY_HEADER, data_of, refusal_text

__all__ = ["Calls"]

T = TypeVar("T")

_MAX_KEPT_BODY = 64 * 1024


class Calls:
    """Sends requests to the service. The key goes to that server only: redirects are not followed.

    What failed in a way that may pass is repeated up to three times, as long as it is safe: what creates something is
    repeated only when it cannot have been heard.

    Args:
        url: Root of the API.
        api_key: Of the user.
        timeout: Longest single wait, in seconds.
        tls: Whom to trust behind ``https``; None: what the system trusts.
        transport: Of httpx, in place of the network; for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float,
        tls: TlsConfig | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"the URL of the service looks like https://host, not {redact_url(url)!r}")
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ConfigError("the API key must be one word of printable ASCII")
        self.url = url.rstrip("/")
        self.key_headers: Mapping[str, str] = {KEY_HEADER: api_key}
        self._client = httpx.AsyncClient(
            headers={"User-Agent": f"asyncsdk/{__version__}", "Accept": "application/json"},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=16, keepalive_expiry=30.0),
            follow_redirects=False,
            verify=shared_context(parts.scheme, tls or TlsConfig()),
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        *,
        json: Any = None,
        content: tuple[str, bytes] | None = None,
        params: Mapping[str, str] | None = None,
        is_repeatable: bool = True,
    ) -> T:
        """Return what *read* makes of the ``data`` of the answer.

        Args:
            method: In capitals.
            path: Below the root.
            read: Raises `ValueError` when the data makes no sense.
            json: Body, as JSON.
            content: Body with its type, in place of *json*.
            params: Query.
            is_repeatable: Whether doing it twice does nothing more.

        Raises:
            ResponseError: The service refused.
            RequestError: It did not answer.
        """
        body = await self.body(method, path, json=json, content=content, params=params, is_repeatable=is_repeatable)
        try:
            return read(data_of(body))
        except ValueError as error:
            raise MalformedResponse(f"the answer to {method} {path} cannot be read: {error}") from None

    async def body(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: tuple[str, bytes] | None = None,
        params: Mapping[str, str] | None = None,
        is_repeatable: bool = True,
    ) -> Any:
        """Return the JSON of the answer; see `call`. Of a DELETE that was repeated, finding nothing more is success."""
        headers = dict(self.key_headers)
        data: bytes | None = None
        if content is not None:
            headers["Content-Type"], data = content
        elif json is not None:
            headers["Content-Type"], data = "application/json", _dump(json)
        attempt, is_maybe_done = 1, False
        while True:
            try:
                reply = await self._send(method, path, params or {}, data, headers)
                if not reply.is_success:
                    raise _refusal(reply)
                return _json(reply, f"{method} {path}")
            except (RequestError, ResponseError) as error:
                if is_maybe_done and isinstance(error, NotFound) and method == "DELETE":
                    return {"data": {}}
                is_maybe_done = is_maybe_done or may_be_done(error)
                if is_final(error, attempt) or (is_maybe_done and not is_repeatable):
                    raise
                await sleep(wait_seconds(error, attempt))
            attempt += 1

    async def head(self, url: str) -> httpx.Headers:
        """Return what is told of the object behind a signed URL, to which no key goes.

        Raises:
            ResponseError: It is refused.
            RequestError: Nobody answered.
        """
        parts = urlsplit(url)
        plain = parts._replace(query="").geturl()
        attempt = 1
        while True:
            try:
                reply = await send_request(
                    self._client,
                    "HEAD",
                    plain,
                    params=parts.query,
                    content=None,
                    headers=None,
                    no_connection="that is where the service says its objects are",
                )
                if not reply.is_success:
                    raise response_error(reply.status_code, f"HEAD {redact_url(url)}: status {reply.status_code}")
                return reply.headers
            except (RequestError, ResponseError) as error:
                if is_final(error, attempt):
                    raise
                await sleep(wait_seconds(error, attempt))
            attempt += 1

    async def _send(
        self, method: str, path: str, params: Mapping[str, str], data: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        return await send_request(
            self._client,
            method,
            self.url + path,
            params=params,
            content=data,
            headers=headers,
            no_connection="is the URL right, and the server running?",
        )


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the message cannot be sent as JSON: {error}") from None


def _json(reply: httpx.Response, what: str) -> Any:
    try:
        return orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        raise MalformedResponse(
            f"the answer to {what} is no JSON; does this URL lead to the API?", status=reply.status_code
        ) from None


def _refusal(reply: httpx.Response) -> AsyncSDKError:
    body: Any
    try:
        body = orjson.loads(reply.content[:_MAX_KEPT_BODY])
    except orjson.JSONDecodeError:
        body = reply.text[:_MAX_KEPT_BODY]
    hint = "; redirects are not followed, give the URL they lead to" if reply.is_redirect else ""
    told = body if isinstance(body, dict) else {}
    ids = told.get("ids")
    said = refusal_text(body) or f"the service answered {reply.status_code} {reply.reason_phrase}{hint}".rstrip()
    error = response_error(
        reply.status_code,
        said,
        code=told["code"] if isinstance(told.get("code"), str) else None,
        ids=tuple(map(str, ids)) if isinstance(ids, list) else (),
        request_id=reply.headers.get("x-request-id", ""),
        body=body,
        retry_after=parse_retry_after(reply.headers),
    )
    if reply.is_redirect:  # it would lead there again
        error.retryable = False
    return error
