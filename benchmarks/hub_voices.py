"""One client at one piece of work, in a process of its own: ``python hub_voices.py VOICE WORK < ORDER``.

Run by `benchmarks.hub`, the official client in its own environment: nothing of this project is imported at the top. The
order is JSON on standard input; what it took, and what the client believes was stored, is JSON on standard output.
CPU and wall are of the work alone, without starting Python and importing; the peak of memory is the process's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

__all__ = ["main"]


def official(order: dict[str, Any]) -> Any:
    """Return the official client's work as a function that returns how often it was told of a failure."""
    os.environ["ULTRALYTICS_HUB_API"] = order["door"]
    os.environ["LOGGER_LEVEL"] = "CRITICAL"
    from hub_sdk import HUBClient  # type: ignore[import-not-found]  # only in its own environment

    client = HUBClient({"api_key": order["token"]})
    model = client.model()
    model.id = order["model"]

    def metrics() -> tuple[int, int]:
        answers = [model.upload_metrics({n: json.dumps({"loss": n / 7})}) for n in range(order["count"])]
        return sum(answer is None for answer in answers), 0

    def checkpoints() -> tuple[int, int]:
        answers = [model.upload_model(epoch, order["file"]) for epoch in range(order["count"])]
        return sum(answer is None for answer in answers), 0

    def predict() -> tuple[int, int]:
        answers = [model.predict(file, {"topk": 1}) for file in order["files"]]
        return sum(answer is None for answer in answers), 0

    return {"metrics": metrics, "checkpoints": checkpoints, "predict": predict}[order["work"]]


def ours(order: dict[str, Any]) -> Any:
    """Return our client's work, through the door or on our own API."""
    import asyncio

    from asyncsdk import AsyncClient
    from asyncsdk.entities.models import AsyncModel
    from asyncsdk.errors import AsyncSDKError
    from asyncsdk.protocol.models import GetModel

    speaks: dict[str, Any] = {"url": order["url"], "token": order["token"]}
    if order["voice"] == "adapter":
        speaks = {"platform": "ultralytics", "url": order["door"], "api_key": order["token"]}

    async def metrics(model: AsyncModel, number: int) -> None:
        await model.metrics.log({"loss": number / 7}, step=number)

    async def checkpoints(model: AsyncModel, number: int) -> None:
        await model.upload_checkpoint(order["file"], epoch=number)

    async def one_by_one(model: AsyncModel) -> int:
        failed = 0
        for number in range(order["count"]):
            try:
                await {"metrics": metrics, "checkpoints": checkpoints}[order["work"]](model, number)
            except AsyncSDKError:
                failed += 1
        return failed

    async def batched(model: AsyncModel) -> int:
        async with model.metrics.batched(interval=0.1) as log:
            for number in range(order["count"]):
                log.log({"loss": number / 7}, step=number)
        return 0

    async def predict(model: AsyncModel) -> int:
        found = [result async for result in model.predict_many(order["files"], {"topk": 1})]
        return sum(not result.ok for result in found)

    async def run() -> tuple[int, int]:
        async with AsyncClient(**speaks) as client:
            model = AsyncModel._bind(await client.send(GetModel(model_id=order["model"])), client)
            whole = {"predict": predict, "batched": batched}
            failed = await whole.get(order["work"], one_by_one)(model)
        return 0, failed

    return lambda: asyncio.run(run())


def main() -> None:
    """Do the work and say what it took."""
    order = json.loads(sys.stdin.read())
    work = official(order) if order["voice"] == "official" else ours(order)
    cpu, wall = time.process_time(), time.perf_counter()
    silent, raised = work()
    with open("/proc/self/status") as status:  # noqa: PTH123 - runs where nothing else does
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    told = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak_kib": peak,
        "returned_none": silent,
        "raised": raised,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
