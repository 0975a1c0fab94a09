"""What is cancelled waits for its thread, which uses files that go next."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from asyncsdk.worker.attempt import Attempt
from asyncsdk.worker.pacing import in_turn


async def test_a_failure_beside_it_waits_for_the_thread() -> None:
    """`in_turn` cancels through a scope, again and again: the thread is waited for all the same."""
    began, ended = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        threading.Event().wait(0.3)
        ended.set()

    with ThreadPoolExecutor(2) as threads:
        attempt: Any = SimpleNamespace(_threads=threads)

        async def work(number: int) -> None:
            if number:
                await asyncio.to_thread(began.wait)
                raise ValueError("beside it")
            await Attempt.in_thread(attempt, slow)

        with pytest.raises(ValueError, match="beside it"):
            await in_turn([0, 1], work, at_once=2)
        assert ended.is_set()
