"""Event loops of our own, with uvloop and without."""

from __future__ import annotations

import asyncio
import sys
import types

import pytest

from asyncsdk.cli.interrupts import run_interruptible
from asyncsdk.loops import new_event_loop


async def kind_of_loop() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_uvloop_is_used_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it gives is what is returned."""
    made: list[asyncio.AbstractEventLoop] = []
    fake = types.ModuleType("uvloop")
    fake.new_event_loop = lambda: made.append(asyncio.SelectorEventLoop()) or made[-1]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uvloop", fake)
    loop = new_event_loop()
    assert made == [loop]
    loop.close()


def test_nothing_is_missed_when_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's own loop."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    assert type(loop).__module__.startswith("asyncio.")
    loop.close()


@pytest.mark.parametrize("is_there", [True, False])
def test_commands_run_on_it(monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    """Either way."""
    if is_there:
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    else:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    kinds: list[type[asyncio.AbstractEventLoop]] = []

    async def work() -> int:
        kinds.append(await kind_of_loop())
        return 7

    assert run_interruptible(work, lambda number: None) == 7
    assert kinds[0].__module__.partition(".")[0] == ("uvloop" if is_there else "asyncio")
