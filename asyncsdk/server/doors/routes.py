"""Which function answers which path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from asyncsdk.errors import NotFound
from asyncsdk.server.doors.host import Answer, Visit
from asyncsdk.server.http.replies import MethodNotAllowed

__all__ = ["Answerer", "Routes"]

Answerer = Callable[..., Awaitable[Answer]]
"""Takes the visit, and the values of the path's placeholders by their names."""


class Routes:
    """Paths with placeholders (``/v1/models/{model_id}``) and what answers them; the first that fits does."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Answerer]] = []

    def add(self, method: str, path: str, answerer: Answerer) -> None:
        """Have *answerer* answer *method* at *path*."""
        pattern = re.compile(re.sub(r"\\\{([a-z_]+)\\\}", r"(?P<\1>[^/]+)", re.escape(path)))
        self._routes.append((method, pattern, answerer))

    async def answer(self, visit: Visit) -> Answer:
        """Return what the function of the visit's path answers.

        Raises:
            NotFound: There is none for the path.
            MethodNotAllowed: There is, for other methods.
        """
        method = "GET" if visit.method == "HEAD" else visit.method
        others = set()
        for accepted, pattern, answerer in self._routes:
            match = pattern.fullmatch(visit.path)
            if match is None:
                continue
            if accepted == method:
                return await answerer(visit, **match.groupdict())
            others.add(accepted)
        if others:
            raise MethodNotAllowed(visit.method, others)
        raise NotFound("there is nothing at this path")
