"""Many objects while a share of all requests goes wrong: every one gets there, and the retries are in proportion."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Download, Engine, PutTarget, RetryPolicy, Transfer, Upload, UrlOrigin
from tests.faults.conftest import config
from tests.support.faults.breaks import Flip, Lost, Reset, Truncate
from tests.support.faults.data import noise
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Interim, Refuse
from tests.support.faults.server import FaultServer

COUNT = 300
PATIENT = RetryPolicy(max_attempts=12, wait_initial_seconds=0.001, wait_max_seconds=0.002, retry_after_max_seconds=0.05)
"""A fifth of a fifth of a fifth ... of so many requests is one in hundreds of thousands of runs."""


def everything(share: float) -> list[Rule]:
    """Return faults of all kinds that together meet about *share* of the requests."""
    kinds = (
        Refuse(503),
        Refuse(503, early=True),
        Refuse(429, retry_after=0),
        Lost(),
        Reset(-2, "up"),
        Reset(-2, "down"),
        Flip("up"),
        Flip("down"),
        Truncate(-2),
        Interim(),
    )
    return [Rule(kind, probability=share / len(kinds)) for kind in kinds]


STORMS = {
    **{f"{share:.0%} of 503": [Rule(Refuse(503), probability=share)] for share in (0.01, 0.05, 0.2)},
    "5% of everything": everything(0.05),
    "20% of everything": everything(0.2),
}


@pytest.mark.parametrize("name", sorted(STORMS))
async def test_everything_gets_through(server: FaultServer, out: Path, name: str) -> None:
    """All objects go up and come back with their bytes; no more requests than faults explain."""
    sources = {f"/{number}": noise(100 + number * 37, number) for number in range(COUNT)}
    server.plan = Plan(STORMS[name], seed=7)
    uploads: list[Transfer] = [Upload(data, PutTarget(server.url(path))) for path, data in sources.items()]
    origins = {
        path: UrlOrigin(server.url(path), size_bytes=len(data), crc32c=crc32c_hex(crc32c(data)))
        for path, data in sources.items()
    }
    downloads: list[Transfer] = [Download(origin, out / path[1:]) for path, origin in origins.items()]
    async with Engine(config(retry=PATIENT)) as engine:
        for transfers in (uploads, downloads):
            async with engine.run(transfers) as outcomes:
                assert [outcome.error async for outcome in outcomes if not outcome.ok] == []
    assert {path: server.store[path] for path in sources} == sources
    assert {f"/{file.name}": file.read_bytes() for file in out.iterdir()} == sources
    assert server.plan.met.total() > 0
    assert len(server.requests) <= 2 * COUNT + server.plan.met.total()
