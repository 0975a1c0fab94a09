"""Runners that do next to nothing, and jobs in one line, for tests of the queue and of workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from asyncsdk.domain.ids import make_id
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.jobs import ClaimedJob, ClaimJob, CreateJob, JobRecord
from asyncsdk.protocol.workers import BeatWorker, CreateWorker, WorkerRecord
from asyncsdk.worker.runners import Work

__all__ = ["EchoRunner", "claim", "new_job", "new_worker"]


class EchoRunner:
    """Gives the payload back, after doing what it says: ``sleep``, ``block`` (in a thread), ``fail``, ``lines``."""

    kind = "echo"

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []

    def offers(self) -> Mapping[str, JsonValue]:
        return {}

    async def run(self, work: Work) -> JsonValue:
        self.begun.append(work.job.id)
        given: dict[str, Any] = work.job.payload
        try:
            await work.report(progress=0.5, stage="halfway", message="going on")
            for number in range(given.get("lines", 0)):
                await work.log(f"line {number}")
            for name in work.inputs:
                data = (await work.input(name)).read_bytes()
                (work.folder / "out").write_bytes(data[::-1])
                await work.add_output(work.folder / "out", f"{name}.reversed")
            if "block" in given:
                await work.in_thread(_block, work, given["block"])
            await asyncio.sleep(given.get("sleep", 0))
        except asyncio.CancelledError:
            self.cancelled.append(work.job.id)
            raise
        if "fail" in given:
            raise ValueError(given["fail"])
        return {"echo": given}


def _block(work: Work, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work.raise_if_cancelled()
        time.sleep(0.005)


async def new_worker(platform: Platform, name: str = "w", labels: tuple[str, ...] = (), **offers: Any) -> WorkerRecord:
    """Make a worker known that offers ``echo``, or what is given."""
    made = await platform.send(CreateWorker(name=name, labels=labels))
    return await platform.send(BeatWorker(worker_id=made.id, offers=offers or {"echo": {}}))


async def new_job(platform: Platform, **facts: Any) -> JobRecord:
    return await platform.send(CreateJob(job_id=make_id(), **{"kind": "echo", **facts}))


async def claim(platform: Platform, worker: WorkerRecord, **facts: Any) -> ClaimedJob:
    return await platform.send(ClaimJob(worker_id=worker.id, claim_id=make_id(), **facts))
