"""A process that moves things and may be killed: ``python -m tests.support.killed_run VERB URL TOKEN ID PATH LOG N``.

Every outcome that is final is a line of LOG before the next one; a checkpoint's is its id. With N greater than 1, so
many worker processes are there before anything moves.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace

from asyncsdk import AsyncClient
from asyncsdk.engine import Outcome, RetryPolicy, TransferConfig

__all__ = ["main"]

CONFIG = TransferConfig(
    concurrency=4,
    concurrency_max=4,
    part_size=1024 * 1024,
    multipart_threshold=2 * 1024 * 1024,
    settle_size=20,
    settle_seconds=0.02,
    retry=RetryPolicy(wait_initial_seconds=0.01),
)


async def main(verb: str, url: str, token: str, entity_id: str, path: str, log: str, processes: str = "1") -> None:
    """Do what *verb* says and write down what is final."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def on_outcome(outcome: Outcome) -> None:
        os.write(descriptor, f"{outcome.status} {outcome.name}\n".encode())

    async with AsyncClient(url, token=token, config=replace(CONFIG, processes=int(processes))) as client:
        if int(processes) > 1:
            crew = client.engine._open().crew
            assert crew is not None
            crew.start()
            while len(crew.pids) < int(processes):
                await asyncio.sleep(0.01)
        if verb == "upload":
            dataset = await client.datasets.get(entity_id)
            (await dataset.upload(path, on_outcome=on_outcome)).raise_for_failures()
        elif verb == "overwrite":
            dataset = await client.datasets.get(entity_id)
            (await dataset.upload(path, on_existing="overwrite", on_outcome=on_outcome)).raise_for_failures()
        elif verb == "fail":
            dataset = await client.datasets.get(entity_id)
            (await dataset.upload(path, on_existing="fail", on_outcome=on_outcome)).raise_for_failures()
        elif verb == "download":
            dataset = await client.datasets.get(entity_id)
            (await dataset.download(path, on_outcome=on_outcome)).raise_for_failures()
        elif verb == "upload_archive":
            await (await client.datasets.get(entity_id)).upload_archive(path, unpack=False)
        elif verb == "upload_checkpoint":
            model = await client.models.get(entity_id)
            checkpoint = await model.upload_checkpoint(path)
            os.write(descriptor, f"done {checkpoint.id}\n".encode())
        else:
            model = await client.models.get(entity_id)
            checkpoint = await model.download_checkpoint(path, which="last")
            os.write(descriptor, f"done {checkpoint.id}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
