"""Workers inside of a client, for a platform in the same process: one for each kind that somebody waits for."""

from __future__ import annotations

import asyncio
import os

from asyncsdk.entities.session import Session
from asyncsdk.worker.worker import Worker

__all__ = ["LocalWorkers"]

_MAX_CONCURRENCY = 4


class LocalWorkers:
    """Starts workers when they are needed, and ends them with the client.

    Args:
        session: The client.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._workers: dict[str, Worker] = {}
        self._starting = asyncio.Lock()
        self._is_closed = False

    async def ensure(self, kind: str, *, start: bool) -> bool:
        """Have jobs of *kind* done here, and at once; whether they are.

        Args:
            kind: Kind of the jobs.
            start: Whether to start a worker when there is none.

        Raises:
            RunnerUnavailable: They cannot be done here.
        """
        async with self._starting:
            worker = self._workers.get(kind)
            if worker is not None and not worker.is_running:  # ended by an error that nobody foresaw
                await self._workers.pop(kind).aclose()
                worker = None
            if worker is None and start and not self._is_closed:
                worker = Worker(self._session, kinds=[kind], concurrency=min(_MAX_CONCURRENCY, os.cpu_count() or 1))
                await worker.__aenter__()
                self._workers[kind] = worker
        if worker is not None:
            worker.look()
        return worker is not None

    async def aclose(self) -> None:
        """End the workers; what they have not done is given back. Calling it again does nothing."""
        async with self._starting:
            self._is_closed = True
            workers, self._workers = self._workers, {}
            for worker in workers.values():
                await worker.aclose()
