"""One request handed to the ASGI application, and its reply brought back.

Source: ASGI specification, HTTP connection scope, version 2.3.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from urllib.parse import unquote

from asyncsdk.server.http.front.heads import RequestHead
from asyncsdk.server.http.front.rendering import CONTINUE, DateLine, render_head
from asyncsdk.server.http.replies import Receive, Scope, Send

__all__ = ["HELD_BYTES", "Application", "Client", "Handover", "scope_of"]

logger = logging.getLogger("asyncsdk.server")

HELD_BYTES = 128 * 1024
"""Bytes of a body that wait for the application; then the client has to."""

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLOSE = b"connection: close\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"


class Client(Protocol):
    """The connection, as whoever answers a request sees it."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody is there to answer."""

    def write(self, data: bytes) -> None:
        """Send, or keep until the client takes it."""

    async def drained(self) -> None:
        """Return when little of what was written is still kept, or the client is gone."""

    def read_on(self) -> None:
        """Let more of the body come."""

    def keeps_alive(self) -> bool:
        """Whether another request may follow the reply that begins now."""

    def answered(self, *, keep_alive: bool) -> None:
        """Go on after the reply."""

    def break_off(self) -> None:
        """Close at once: half a reply is out, and only that tells the client."""


class Handover:
    """One request in the hands of the application.

    Args:
        application: Answers.
        scope: Of the request.
        head: Of the request.
        client: Whom to answer.
        date: The line of the header ``date``.
    """

    def __init__(
        self, application: Application, scope: Scope, head: RequestHead, client: Client, date: DateLine
    ) -> None:
        self._application = application
        self._scope = scope
        self._head = head
        self._client = client
        self._date = date
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._body_is_whole = not head.has_body
        self._end_is_told = False
        self._owes_continue = head.expects_continue and head.has_body
        self._news: asyncio.Future[None] | None = None
        self._start: MutableMapping[str, Any] | None = None
        self._head_is_out = False
        self._is_complete = False
        self._is_chunked = False
        self._keep_alive = False
        self._left: int | None = None  # bytes the reply still owes

    # --- called by the connection -----------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the client should wait with the rest of the body."""
        return self._held >= HELD_BYTES

    def feed(self, pieces: list[bytes], *, is_whole: bool) -> None:
        """Take more of the body; with *is_whole* these are its last bytes."""
        self._owes_continue = False
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)  # chunks of two bytes take thirty times their size
        if data:
            self._chunks.append(data)
            self._held += len(data)
        self._body_is_whole = is_whole
        self.tell()

    def tell(self) -> None:
        """Wake the application when it waits for news of the client."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def run(self) -> None:
        """Have the request answered; the connection goes on afterwards."""
        try:
            await self._application(self._scope, self._receive, self._send)
        except Exception:  # noqa: BLE001 - the application has logged it, and told the client where it could
            if not self._client.is_gone:
                logger.debug("%s %s: the reply broke off", self._scope["method"], self._scope["path"])
            self._client.break_off()
            return
        except BaseException:  # the client must not wait for the rest, whatever ended it; raised again
            self._client.break_off()
            raise
        if self._is_complete:
            self._client.answered(keep_alive=self._keep_alive)
        else:  # it found the client gone
            self._client.break_off()

    # --- called by the application ------------------------------------------------------------------------------------

    async def _receive(self) -> MutableMapping[str, Any]:
        while not (self._chunks or self._client.is_gone or self._is_complete):
            if self._body_is_whole and not self._end_is_told:
                break
            if self._owes_continue:
                self._owes_continue = False
                self._client.write(CONTINUE)
            self._client.read_on()
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        if (self._client.is_gone or self._is_complete) and not self._chunks:
            return {"type": "http.disconnect"}
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        self._end_is_told = self._body_is_whole
        return {"type": "http.request", "body": data, "more_body": not self._body_is_whole}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if self._start is not None:
                raise RuntimeError("the reply has begun already")
            self._start = message
            return
        if self._start is None or self._is_complete:
            raise RuntimeError("a reply's body comes between its start and its end")
        body: bytes = message.get("body", b"")
        is_last = not message.get("more_body", False)
        head = b""
        if not self._head_is_out:
            self._head_is_out = True
            head = self._render(self._start)
        if self._head.method == "HEAD":
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (is_last and self._left):
                raise RuntimeError("the reply has another length than it says")
        elif self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"0\r\n\r\n" if is_last else b""
        self._is_complete = is_last
        if not self._client.is_gone:
            self._client.write(head + body)
        if is_last:
            self.tell()
        else:
            await self._client.drained()

    def _render(self, start: MutableMapping[str, Any]) -> bytes:
        status: int = start["status"]
        headers: list[tuple[bytes, bytes]] = list(start["headers"])
        sent = {name.lower(): value for name, value in headers}
        extra = b""
        self._keep_alive = self._client.keeps_alive() and sent.get(b"connection", b"").lower() != b"close"
        if self._owes_continue:  # the client may send the body now, or not: only a new connection is sure
            self._keep_alive = False
        if status in {204, 304}:
            self._left = 0
        elif b"content-length" in sent:
            self._left = int(sent[b"content-length"])
        elif self._head.is_http_1_0:
            self._keep_alive = False  # the end of the connection is the end of the body
        else:
            self._is_chunked = True
            extra = _CHUNKED
        if not self._keep_alive and b"connection" not in sent:
            extra += _CLOSE
        return render_head(status, headers, self._date(), extra=extra)


def scope_of(head: RequestHead, client: tuple[Any, ...] | None, server: tuple[Any, ...] | None) -> Scope:
    """Return the ASGI scope of a request. *client* and *server* are socket addresses, None when not known."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.0" if head.is_http_1_0 else "1.1",
        "method": head.method,
        "scheme": "http",
        "path": unquote(head.path.decode("latin-1")),
        "raw_path": head.path,
        "query_string": head.query,
        "root_path": "",
        "headers": head.headers,
        "client": client and tuple(client[:2]),
        "server": server and tuple(server[:2]),
    }
