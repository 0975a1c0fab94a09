"""Files that changed since they were announced, moved by worker processes: examined anew where the feed is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, TransferConfig
from asyncsdk.engine import RetryPolicy
from asyncsdk.entities import uploading
from tests.support.server import RunningServer

FILES = 30


@pytest.mark.parametrize("size", [200_000, 1000], ids=["opened later", "read before"])
@pytest.mark.parametrize("processes", [1, 2])
async def test_what_was_announced_is_announced_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, size: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / f"{number}").write_bytes(os.urandom(size))
    examine, looks = uploading.examine, []

    def examine_and_change(items: Any, *most_bytes: int) -> Any:
        found = examine(items, *most_bytes)
        if not looks:
            for path in source.iterdir():
                with path.open("ab") as file:
                    file.write(b"!")
        looks.append(len(items))
        return found

    monkeypatch.setattr(uploading, "examine", examine_and_change)
    retry = RetryPolicy(max_attempts=4, wait_initial_seconds=0.001)
    config = TransferConfig(source_changed="retry", retry=retry, processes=processes)
    with RunningServer(tmp_path / "platform") as served:
        async with AsyncClient(served.url, token=served.token, config=config) as client:
            if processes > 1:
                crew = client.engine._open().crew
                assert crew is not None
                crew.start()
                async with asyncio.timeout(60):
                    while len(crew.pids) < processes:
                        await asyncio.sleep(0.01)
            dataset = await client.datasets.create("d")
            report = await dataset.upload(source)
            report.raise_for_failures()
            assert report.done == FILES
            assert {item.size_bytes async for item in dataset.items.list()} == {size + 1}
    assert looks == [FILES, *[1] * FILES]
