"""What tests of the blocking API share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asyncsdk.sync import bridge

__all__ = ["count_calls"]


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of every blocking call from now on."""
    calls: list[str] = []
    start = bridge.Call.start

    def counted(self: bridge.Call, function: Callable[[], Awaitable[Any]]) -> None:
        calls.append(self.name)
        start(self, function)

    monkeypatch.setattr(bridge.Call, "start", counted)
    return calls
