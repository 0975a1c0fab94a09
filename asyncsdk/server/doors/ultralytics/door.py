"""The door itself: who asks, which path leads where, and errors as the service words them.

The key is a token of this platform, in ``x-api-key`` or as ``Authorization: Bearer``, which is heard first. Ids are
this platform's own, 24 hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyio import CapacityLimiter

from asyncsdk.protocol.users import WhoAmI
from asyncsdk.server.doors.host import Answer, DoorHost, Visit, bearer_token
from asyncsdk.server.doors.routes import Routes
from asyncsdk.server.doors.ultralytics import entities, files, training, work
from asyncsdk.server.http.api import MessageHandler
from asyncsdk.server.http.replies import Receive, Scope, Send, header
from asyncsdk.wires.ultralytics import paths

__all__ = ["UltralyticsDoor", "open_door"]


class UltralyticsDoor:
    """ASGI application of the door, at its root.

    Args:
        host: The platform.
    """

    def __init__(self, host: DoorHost) -> None:
        self._host = host
        self._routes = Routes()
        self._routes.add("POST", paths.AUTH_PATH, _authenticated)
        for module in (entities, files, training, work):
            module.add_routes(self._routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer() -> Answer:
            visit = await self._host.visit(scope, receive, _key(scope))
            return await self._routes.answer(visit)

        await self._host.answered(scope, send, answer, _refusal)


def open_door(backend: MessageHandler, limiter: CapacityLimiter, base_url: str | None) -> UltralyticsDoor:
    """Return the door of a platform; see `asyncsdk.server.http.app.OpenDoor`."""
    return UltralyticsDoor(DoorHost(backend, limiter, base_url))


def _refusal(error: Mapping[str, Any]) -> dict[str, Any]:
    return paths.refusal(error["message"], code=error["code"], ids=error.get("ids", ()))


async def _authenticated(visit: Visit) -> Answer:
    # Whose key it is, is told by us alone: the client looks at `success`.
    return Answer(paths.answer(entities.user_data(await visit.send(WhoAmI()))))


def _key(scope: Scope) -> str | None:
    key = (header(scope, paths.KEY_HEADER.encode()) or b"").decode("latin-1").strip()
    return bearer_token(scope) or key or None
