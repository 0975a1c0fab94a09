"""Feeds and targets for tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from asyncsdk.engine import Download, MultipartTarget, Origin, Outcome, Target, Transfer, Upload
from asyncsdk.engine.config import MiB
from tests.support.http_server import HttpServer

__all__ = ["RecordingFeed", "multipart_target"]


class RecordingFeed:
    """A feed over an iterable that writes down what it was asked."""

    def __init__(
        self,
        transfers: Iterable[Transfer],
        *,
        on_renew: Callable[[Upload | Download, int], Target | Origin | None] | None = None,
        on_settle: Callable[[Sequence[Outcome]], Sequence[Outcome]] | None = None,
    ) -> None:
        self._transfers = iter(transfers)
        self._on_renew = on_renew
        self._on_settle = on_settle
        self.wants: list[int] = []
        self.taken = 0
        self.renewals: list[int] = []
        self.settled: list[list[Outcome]] = []

    async def take(self, want: int) -> Sequence[Transfer]:
        self.wants.append(want)
        batch = list(islice(self._transfers, want))
        self.taken += len(batch)
        return batch

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        self.renewals.append(first_part)
        return None if self._on_renew is None else self._on_renew(transfer, first_part)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        self.settled.append(list(outcomes))
        return outcomes if self._on_settle is None else self._on_settle(outcomes)


def multipart_target(
    server: HttpServer,
    parts: int,
    *,
    upload_id: str = "U1",
    path: str = "/m",
    part_size: int = MiB,
    first_part: int = 1,
    expires_at: float | None = None,
    completes: bool = True,
    version: str = "1",
) -> MultipartTarget:
    """Return a target for *parts* parts at *server*."""
    whole = server.url(f"{path}?uploadId={upload_id}&v={version}")
    urls = tuple(f"{whole}&partNumber={number}" for number in range(first_part, first_part + parts))
    return MultipartTarget(
        upload_id, part_size, urls, whole if completes else "", whole, first_part=first_part, expires_at=expires_at
    )
