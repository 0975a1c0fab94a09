"""The REST API: one route per message, derived from it.

Per request: the token is checked before the body is read; then one hop into a worker thread validates the message, has
it handled and writes the reply.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson
from anyio import CapacityLimiter, to_thread
from pydantic import TypeAdapter

from asyncsdk.errors import BadRequest, Unauthenticated
from asyncsdk.protocol.base import Message
from asyncsdk.server.http.bodies import read_body
from asyncsdk.server.http.replies import MethodNotAllowed, Receive, Scope, Send, header, send_reply
from asyncsdk.server.objects.arrivals import Arrival
from asyncsdk.server.objects.clouds.passing import PassingArrival
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.minting import Minter
from asyncsdk.server.objects.signing import Signer
from asyncsdk.server.objects.store import ObjectStore

__all__ = [
    "API_PREFIX",
    "MAX_BODY_BYTES",
    "MessageEndpoint",
    "MessageHandler",
    "endpoints",
    "own_url",
    "read_message",
    "reply_adapter",
]

API_PREFIX = "/v1"

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Of one message: 1,000 entries with paths and metadata of several KiB each fit."""

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class MessageHandler(Protocol):
    """What the HTTP application needs of a platform's backend. Everything blocks."""

    @property
    def handled(self) -> Collection[type[Message[Any]]]:
        """The messages it handles."""

    @property
    def objects(self) -> LocalObjects:
        """The object store behind this server's own signed URLs."""

    @property
    def store(self) -> ObjectStore:
        """Where objects are kept: `objects`, or a bucket."""

    @property
    def signer(self) -> Signer:
        """Makes and checks upload keys and object URLs."""

    def minter(self, base_url: str | None) -> Minter:
        """Return what mints targets and origins; *base_url* is how the client reaches this server."""

    def arrival(self, object_id: str) -> Arrival | PassingArrival:
        """Return what takes the bytes of an object that comes through a door."""

    def authenticate(self, token: str) -> Any:
        """Return the principal that *token* belongs to; None when it is nobody's."""

    def handle(self, message: Message[Any], principal: Any, minter: Minter) -> Any:
        """Return the reply to *message*, or raise the error that says why not."""

    def asks_store(self, message_type: type[Message[Any]]) -> bool:
        """Whether a message may take as long as a bucket does."""

    def sweep_if_due(self) -> Any:
        """Remove what was never committed and is old, unless that was done within a day."""


@cache
def reply_adapter(message_type: type[Message[Any]]) -> TypeAdapter[Any]:
    """Return what validates and writes replies of a message."""
    return TypeAdapter(message_type.reply_type)


class MessageEndpoint:
    """ASGI application for the messages of one path.

    Args:
        backend: Handles them.
        by_method: The messages, by HTTP method.
        limiter: Bounds how many are in threads at once.
        store_limiter: The same of those that ask a bucket.
        base_url: What minted URLs start with; None takes the request's own scheme and ``Host``.
    """

    def __init__(
        self,
        backend: MessageHandler,
        by_method: Mapping[str, type[Message[Any]]],
        *,
        limiter: CapacityLimiter,
        store_limiter: CapacityLimiter,
        base_url: str | None,
    ) -> None:
        self._backend = backend
        self._by_method = by_method
        self._limiter = limiter
        self._store_limiter = store_limiter
        self._base_url = base_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _bearer_token(scope)
        principal = await to_thread.run_sync(self._backend.authenticate, token, limiter=self._limiter)
        if principal is None:
            raise Unauthenticated("the server does not know this token")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        message_type = self._by_method.get(method)
        if message_type is None:
            raise MethodNotAllowed(scope["method"], self._by_method)
        body = b""
        if message_type.route.has_body:
            body = await read_body(scope, receive, limit=MAX_BODY_BYTES)
        minter = self._backend.minter(self._base_url or own_url(scope))

        def answer() -> bytes:
            message = read_message(message_type, scope["path_params"], scope["query_string"], body)
            reply = self._backend.handle(message, principal, minter)
            return reply_adapter(message_type).dump_json(reply)

        limiter = self._store_limiter if self._backend.asks_store(message_type) else self._limiter
        reply = await to_thread.run_sync(answer, limiter=limiter)
        await send_reply(send, 200, reply, [(b"content-type", b"application/json"), (b"cache-control", b"no-store")])


def endpoints(
    backend: MessageHandler,
    messages: Iterable[type[Message[Any]]],
    *,
    limiter: CapacityLimiter,
    store_limiter: CapacityLimiter,
    base_url: str | None,
) -> dict[str, MessageEndpoint]:
    """Return one endpoint per path (with the prefix ``/v1``) for those of *messages* that the backend handles."""
    by_path: dict[str, dict[str, type[Message[Any]]]] = {}
    for message_type in messages:
        if message_type in backend.handled:
            route = message_type.route
            by_path.setdefault(API_PREFIX + route.path, {})[route.method] = message_type
    return {
        path: MessageEndpoint(backend, by_method, limiter=limiter, store_limiter=store_limiter, base_url=base_url)
        for path, by_method in by_path.items()
    }


def read_message(
    message_type: type[Message[Any]], path_values: Mapping[str, str], query: bytes, body: bytes
) -> Message[Any]:
    """Return the message that a request carries.

    Raises:
        BadRequest: It carries none; the message names the fields, and never their values.
        InvalidName: A name or path cannot be used.
    """
    values = _body_fields(body) if message_type.route.has_body else _query_fields(message_type, query)
    if message_type.route.has_body and query:
        raise BadRequest("the fields of this operation travel in the body; send no query")
    if twice := values.keys() & path_values.keys():
        raise BadRequest(f"{', '.join(sorted(twice))}: stands in the path already")
    return message_type(**values, **path_values)


def _body_fields(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(values, dict):
        raise BadRequest("the body must be a JSON object with the fields of the operation")
    return values


def _query_fields(message_type: type[Message[Any]], query: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise BadRequest("the query cannot be read; write it as name=value&name=value, percent-encoded") from None
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in message_type.model_fields or name in values:
            raise BadRequest(f"{name[:100]}: {'stands twice in the query' if name in values else 'no such field'}")
        try:
            values |= message_type.from_query({name: text})
        except ValueError:
            raise BadRequest(f"{name}: must be written as JSON") from None
    return values


def _bearer_token(scope: Scope) -> str:
    value = header(scope, b"authorization") or b""
    scheme, _, token = value.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send a token: Authorization: Bearer TOKEN")
    return token.strip()


def own_url(scope: Scope) -> str:
    """Return scheme, host and port of this server as the client wrote them.

    Raises:
        BadRequest: The header ``Host`` names no host.
    """
    host = (header(scope, b"host") or b"").decode("latin-1")
    if not _HOST.fullmatch(host):
        raise BadRequest("the header Host must be a host name or address, with or without a port")
    return f"{scope['scheme']}://{host}"
