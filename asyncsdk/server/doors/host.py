"""What every door stands on: who asks, having messages handled, replies, and errors in the service's own form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from anyio import CapacityLimiter, sleep, to_thread

from asyncsdk.errors import AsyncSDKError, BadRequest, ServerError, Unauthenticated
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.uploads import STILL_CHECKING
from asyncsdk.server.http.api import MAX_BODY_BYTES, MessageHandler, own_url
from asyncsdk.server.http.bodies import ClientGone, read_body
from asyncsdk.server.http.replies import (
    FAILED,
    InternalError,
    Receive,
    Scope,
    Send,
    error_body,
    error_reply,
    error_status,
    header,
    request_id_of,
    send_reply,
)
from asyncsdk.server.objects.minting import FileMinter

__all__ = ["Answer", "DoorHost", "Visit", "bearer_token"]

logger = logging.getLogger("asyncsdk.server")

R = TypeVar("R")
T = TypeVar("T")

MOVERS = 8
"""Objects of one door that are put into a bucket at once."""

_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered: JSON, and headers beside it."""

    body: Any
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


class DoorHost:
    """The platform as doors see it.

    Args:
        backend: Handles messages.
        limiter: Bounds how many are in threads at once.
        base_url: What minted URLs start with; None takes the request's own scheme and ``Host``.
    """

    def __init__(self, backend: MessageHandler, limiter: CapacityLimiter, base_url: str | None) -> None:
        self.backend = backend
        self._limiter = limiter
        self._movers = CapacityLimiter(MOVERS)
        self._base_url = base_url

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Return what *function* returns, called in a worker thread; it is waited for even when the request ends."""
        return await to_thread.run_sync(function, limiter=self._limiter)

    async def in_mover(self, function: Callable[[], T]) -> T:
        """As `in_thread`, for what may take as long as a bucket does: messages do not wait for it."""
        return await to_thread.run_sync(function, limiter=self._movers)

    async def visit(self, scope: Scope, receive: Receive, token: str | None) -> Visit:
        """Return a request whose token was checked.

        Raises:
            Unauthenticated: There is none, or nobody has it.
        """
        if token is None:
            raise Unauthenticated("the request brings no key")
        backend = self.backend
        principal = await self.in_thread(lambda: backend.authenticate(token))
        if principal is None:
            raise Unauthenticated("the server does not know this key")
        return Visit(self, scope, receive, principal)

    def base_url(self, scope: Scope) -> str:
        """Return what URLs start with that are given to who sent this request."""
        return self._base_url or own_url(scope)

    async def answered(
        self,
        scope: Scope,
        send: Send,
        answer: Callable[[], Any],
        refusal: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        """Send what *answer* (awaited) returns, or its error; the log gets our own faults.

        Args:
            scope: Of the request.
            send: Takes the reply.
            answer: Answers.
            refusal: Makes a body of what may be told of an error: ``code``, ``message``, for some ``ids``.
        """
        try:
            found: Answer = await answer()
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the reason
            found = self._refused(scope, error, refusal)
        await send_reply(send, found.status, orjson.dumps(found.body), [_JSON, *found.headers])

    def _refused(self, scope: Scope, error: Exception, refusal: Callable[[Mapping[str, Any]], Any]) -> Answer:
        request_id = request_id_of(scope)
        told = error if isinstance(error, AsyncSDKError) else InternalError()
        status = error_status(told)
        if status in {500, 507}:
            logger.error(FAILED, request_id, scope["method"], scope["path"], exc_info=error)
        reply = error_reply(told, request_id, is_expecting=header(scope, b"expect") is not None)
        headers = [pair for pair in reply.headers if pair[0] != b"content-type"]
        return Answer(refusal(error_body(told, request_id)["error"]), reply.status, tuple(headers))


class Visit:
    """One request at a door, on behalf of somebody.

    Attributes:
        method: The HTTP method, in capitals.
        path: Below the door, decoded.
        principal: On whose behalf.
    """

    def __init__(self, host: DoorHost, scope: Scope, receive: Receive, principal: Any) -> None:
        self.host = host
        self.scope = scope
        self.receive = receive
        self.principal = principal
        self.method: str = scope["method"]
        self.path: str = scope["path"]

    @property
    def params(self) -> Mapping[str, str]:
        """The query; of a name that is there twice, the last.

        Raises:
            BadRequest: It cannot be read.
        """
        try:
            return dict(parse_qsl(self.scope["query_string"].decode("ascii"), errors="strict", max_num_fields=100))
        except ValueError:
            raise BadRequest("the query cannot be read; write it as name=value&name=value, percent-encoded") from None

    async def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            BadRequest: It is none, or larger than 16 MiB.
        """
        body = await read_body(self.scope, self.receive, limit=MAX_BODY_BYTES)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the body is no JSON: {error.msg} at character {error.pos}") from None

    async def send(self, message: Message[R], *, to_files: bool = False) -> R:
        """Return the platform's reply to *message*.

        Args:
            message: What is to be done.
            to_files: Whether its bytes come to this process: nothing is asked of a bucket then, nothing begun there.

        Raises:
            ResponseError: It refused.
        """
        backend = self.host.backend
        minter = FileMinter(backend.objects) if to_files else backend.minter(self.host.base_url(self.scope))
        in_thread = self.host.in_mover if backend.asks_store(type(message)) else self.host.in_thread
        while True:
            try:
                reply: R = await in_thread(lambda: backend.handle(message, self.principal, minter))
            except ServerError as error:
                if error.server_code != STILL_CHECKING:
                    raise
                await sleep(error.retry_after or 1.0)  # reading goes on, or fails
            else:
                return reply


def bearer_token(scope: Scope) -> str | None:
    """Return the token of ``Authorization: Bearer``; None without one."""
    value = header(scope, b"authorization") or b""
    scheme, _, token = value.decode("latin-1").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
