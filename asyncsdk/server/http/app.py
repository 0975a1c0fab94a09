"""The HTTP application: uploads in parts, REST API, description pages, and what all replies have in common."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cached_property
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.routing import Route, Router

from asyncsdk._version import __version__
from asyncsdk.errors import AsyncSDKError, NotFound
from asyncsdk.protocol import all_messages
from asyncsdk.server.http.api import MessageHandler, endpoints
from asyncsdk.server.http.bodies import ClientGone
from asyncsdk.server.http.docs_page import docs_page
from asyncsdk.server.http.objects import UploadEndpoint
from asyncsdk.server.http.openapi import openapi_document
from asyncsdk.server.http.replies import (
    FAILED,
    InternalError,
    MethodNotAllowed,
    Receive,
    Scope,
    Send,
    error_status,
    request_id_of,
    send_error,
    send_json,
    send_reply,
)
from asyncsdk.server.objects.signing import OBJECTS_PATH

__all__ = ["DOORS_PATH", "ASGIApplication", "App", "OpenDoor"]

ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

OpenDoor = Callable[[MessageHandler, CapacityLimiter, str | None], ASGIApplication]
"""Makes a door, which speaks another service's protocol at its root: from what handles messages, what bounds how many
are in threads at once, and what minted URLs start with (None: the request's own scheme and ``Host``)."""

DOORS_PATH = "/doors/"
"""Path of every door, followed by its name."""

logger = logging.getLogger("asyncsdk.server")

MESSAGES_AT_ONCE = 16
"""Messages in worker threads at once: reads of SQLite run side by side, writes queue anyway."""

STORE_MESSAGES_AT_ONCE = 16
"""The same of those that ask a bucket, beside the others: when it takes its time, tokens are checked all the same."""


class App:
    """ASGI application of a platform.

    Args:
        backend: Handles the messages.
        public_url: What minted URLs start with; None takes the request's own scheme and ``Host``.
        doors: What opens each of the doors, by its name; they are at ``/doors/NAME``.
    """

    def __init__(
        self,
        backend: MessageHandler,
        *,
        public_url: str | None = None,
        doors: Mapping[str, OpenDoor] | None = None,
    ) -> None:
        self._uploads = UploadEndpoint(backend.objects, backend.signer)
        messages = [message for message in all_messages() if message in backend.handled]
        self._messages = messages
        limiter, store_limiter = CapacityLimiter(MESSAGES_AT_ONCE), CapacityLimiter(STORE_MESSAGES_AT_ONCE)
        api = endpoints(backend, messages, limiter=limiter, store_limiter=store_limiter, base_url=public_url)
        pages = {"/openapi.json": self._openapi, "/docs": self._docs, "/health": self._health}
        # In order of definition: a path of fixed words must stand before one with placeholders in the same places.
        ordered = sorted(api.items(), key=lambda pair: pair[0].count("{"))
        routes = [Route(path, _Endpoint(page, ("GET", "HEAD"))) for path, page in pages.items()]
        routes += [Route(path, _Endpoint(endpoint)) for path, endpoint in ordered]
        self._doors = {name: opened(backend, limiter, public_url) for name, opened in (doors or {}).items()}
        self._router = Router(routes, redirect_slashes=False, default=_not_found)

    @cached_property
    def _document(self) -> dict[str, Any]:
        """The OpenAPI document: a tenth of a second to make, which a server that only answers messages saves."""
        return openapi_document(self._messages)

    @cached_property
    def _docs_page(self) -> tuple[bytes, str]:
        """The page of ``/docs`` and its content security policy."""
        return docs_page(self._document)

    def close(self) -> None:
        """Wait for threads that move bytes and end them."""
        self._uploads.close()

    def door(self, name: str) -> ASGIApplication:
        """Return the application that has one of the doors at its root."""
        opened = self._doors[name]

        async def at_root(scope: Scope, receive: Receive, send: Send) -> None:
            await self._answer(opened, scope, receive, send)

        return at_root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, slash, rest = scope["path"].removeprefix(DOORS_PATH).partition("/")
        if scope["path"].startswith(DOORS_PATH) and name in self._doors:
            inner = {**scope, "path": slash + rest or "/", "root_path": f"{DOORS_PATH}{name}"}
            await self._answer(self._doors[name], inner, receive, send)
        else:
            await self._answer(self._router, scope, receive, send)

    async def _answer(self, application: ASGIApplication, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this application speaks HTTP, not {scope['type']}")
        request_id = request_id_of(scope)
        started = 0

        async def send_named(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            if scope["path"].startswith(OBJECTS_PATH):
                await self._uploads(scope, receive, send_named)
            else:
                await application(scope, receive, send_named)
        except ClientGone:
            logger.debug("request %s: %s %s: the client is gone", request_id, scope["method"], scope["path"])
        except AsyncSDKError as error:
            if error_status(error) in {500, 507}:
                logger.exception(FAILED, request_id, scope["method"], scope["path"])
            if started:
                raise
            await send_error(send_named, scope, error, request_id)
        except Exception:  # whatever it is, the client gets an answer and the log gets the reason
            logger.exception(FAILED, request_id, scope["method"], scope["path"])
            if started:
                raise  # half a reply is out: only breaking the connection tells the client
            await send_error(send_named, scope, InternalError(), request_id)
        logger.debug("request %s: %s %s: %d", request_id, scope["method"], scope["path"], started)

    async def _openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, await to_thread.run_sync(lambda: self._document))

    async def _docs(self, scope: Scope, receive: Receive, send: Send) -> None:
        page, policy = await to_thread.run_sync(lambda: self._docs_page)
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        await send_reply(send, 200, page, headers)

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, {"status": "ok", "version": __version__})


class _Endpoint:
    """Keeps Starlette from taking a method of this class, or another ASGI application, for a function of a request.

    Args:
        application: What answers.
        methods: Those it takes; None when it sees to that itself.
    """

    def __init__(self, application: ASGIApplication, methods: tuple[str, ...] | None = None) -> None:
        self._application = application
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._methods is not None and scope["method"] not in self._methods:
            raise MethodNotAllowed(scope["method"], self._methods)
        await self._application(scope, receive, send)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound("there is nothing at this path; /docs lists what there is")
