"""Requests of the control plane over httpx: sent, their failures as ours, and the wait before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Mapping
from urllib.parse import urlencode

import httpx

from asyncsdk.errors import (
    ConnectionFailed,
    MalformedResponse,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerError,
    redact_url,
)
from asyncsdk.transport.retry_after import wait_as_asked

__all__ = ["MAX_ATTEMPTS", "is_final", "may_be_done", "send_request", "wait_seconds"]

MAX_ATTEMPTS = 4
WAIT_INITIAL_SECONDS = 0.2
WAIT_MAX_SECONDS = 5.0
RETRY_AFTER_MAX_SECONDS = 60.0
"""A longer pause is not waited for by one message, and not cut short either: its error is told. Long work may wait."""


async def send_request(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    params: Mapping[str, str] | str,
    content: bytes | None,
    headers: Mapping[str, str] | None,
    no_connection: str,
) -> httpx.Response:
    """Return the reply to one request, whatever its status.

    Args:
        client: Sends it.
        method: In capitals.
        url: Without a query.
        params: The query, or its text as it is to be sent; it stays out of logs and errors.
        content: The body.
        headers: Beside the client's own.
        no_connection: What to look at when there is no connection; ends the error's message.

    Raises:
        RequestTimeout: Nothing moved for too long.
        ConnectionFailed: There is no connection, or it broke.
    """
    address = httpx.URL(url)
    # httpx writes every URL to its log; given apart from it, the query stays out of there.
    query = params if isinstance(params, str) else urlencode(params)
    extensions = {"target": address.raw_path + b"?" + query.encode()} if query else None
    timeout = client.timeout
    try:
        return await client.request(method, address, content=content, headers=headers, extensions=extensions)
    except httpx.ConnectTimeout as error:
        raise RequestTimeout("connect", timeout.connect, url) from error
    except httpx.PoolTimeout as error:
        raise RequestTimeout("slot", timeout.pool, url) from error
    except httpx.WriteTimeout as error:
        raise RequestTimeout("send", timeout.write, url) from error
    except httpx.TimeoutException as error:
        raise RequestTimeout("reply", timeout.read, url) from error
    except httpx.ConnectError as error:
        server = redact_url(f"{address.scheme}://{address.netloc.decode()}")
        raise ConnectionFailed(f"no connection to {server} ({_reason(error)}); {no_connection}") from error
    except httpx.HTTPError as error:
        raise ConnectionFailed(f"the connection to {redact_url(url)} broke: {_reason(error)}") from error


def may_be_done(error: RequestError | ResponseError) -> bool:
    """Whether the server may have done what was asked although *error* is all that is known of it."""
    if isinstance(error, RequestError):
        return not isinstance(error.__cause__, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    return isinstance(error, (ServerError, MalformedResponse))


def is_final(error: RequestError | ResponseError, attempt: int, attempts: int = MAX_ATTEMPTS) -> bool:
    """Whether nothing is tried again after attempt number *attempt* of *attempts*."""
    asked = error.retry_after if isinstance(error, ResponseError) else None
    return not error.retryable or attempt >= attempts or (asked is not None and asked > RETRY_AFTER_MAX_SECONDS)


def wait_seconds(error: RequestError | ResponseError, attempt: int) -> float:
    """Return how long to wait after attempt number *attempt*: what the server asks for and up to a tenth more, and at
    least a random time up to a bound that doubles (full jitter)."""
    asked = error.retry_after if isinstance(error, ResponseError) else None
    backoff = random.uniform(0, min(WAIT_MAX_SECONDS, WAIT_INITIAL_SECONDS * 2 ** (attempt - 1)))  # noqa: S311
    return wait_as_asked(asked, backoff)


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
