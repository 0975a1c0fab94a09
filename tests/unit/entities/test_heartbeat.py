"""Heartbeats against a platform that answers, refuses, is silent: no beat is fatal, the last one says goodbye."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from asyncsdk.domain import environment as module
from asyncsdk.domain.environment import agent_name, environment
from asyncsdk.domain.ids import make_id
from asyncsdk.entities import heartbeat as heartbeats
from asyncsdk.entities.heartbeat import AsyncHeartbeat
from asyncsdk.errors import BadRequest, ConfigError, ConnectionFailed, NotFound
from asyncsdk.protocol.agents import BeatAgent

MODEL = "0" * 24
AGENT = make_id()
BRIEF = 0.02


class Platform:
    """Answers beats as told, one answer after the other; then as the last one."""

    def __init__(self, *answers: Exception | float | None) -> None:
        self.answers = list(answers)
        self.beats: list[BeatAgent] = []

    async def send(self, message: BeatAgent) -> Any:
        self.beats.append(message)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await asyncio.sleep(answer)
        return type("Reply", (), {"id": AGENT})()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.beats) < count:
                await asyncio.sleep(0.005)


def heart(platform: Any, **facts: Any) -> AsyncHeartbeat:
    return AsyncHeartbeat(platform, MODEL, **{"interval": BRIEF, "on_sigterm": False, **facts})


def gone() -> ConnectionFailed:
    return ConnectionFailed("no network")


@pytest.fixture(autouse=True)
def sigterm_is_left_as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "_RETRY_MIN_SECONDS", 0.01)


async def test_it_beats_and_says_goodbye() -> None:
    """Numbers grow, the id that the platform gave is used from the second beat on, only the last one says goodbye."""
    platform = Platform()
    async with heart(platform, name="me") as beating:
        assert (beating.agent_id, beating.is_beating) == (AGENT, True)
        await platform.wait_for(3)
    assert not beating.is_beating
    assert [beat.number for beat in platform.beats] == list(range(1, len(platform.beats) + 1))
    assert [beat.agent_id for beat in platform.beats[:2]] == [None, AGENT]
    assert {beat.proposed_id for beat in platform.beats} == {platform.beats[0].proposed_id}
    assert [beat.stopped for beat in platform.beats[-2:]] == [False, True]
    assert {(beat.name, beat.interval_seconds, beat.model_id) for beat in platform.beats} == {("me", BRIEF, MODEL)}


async def test_lost_beats_are_tried_again_long_before_the_next_is_due(caplog: pytest.LogCaptureFixture) -> None:
    platform = Platform(None, gone(), gone(), gone(), gone())
    with caplog.at_level(logging.INFO, "asyncsdk"):
        async with heart(platform, interval=0.1) as beating:
            async with asyncio.timeout(20):
                while not beating.missed:
                    await asyncio.sleep(0.001)
                while beating.missed:
                    await asyncio.sleep(0.001)
            assert len(platform.beats) >= 6
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.split("lost")[0][-2] for text in told] == ["1", "2", "4"]
    assert any("heard again after 4 lost beats" in record.getMessage() for record in caplog.records)


async def test_a_mistake_of_the_platform_ends_no_training(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is raised, refusals and bugs too, is told in the log; the block goes on."""
    platform = Platform(None, NotFound("gone"), ValueError("bug"), BadRequest("no"))
    async with heart(platform):
        await platform.wait_for(5)
    assert "bug" in caplog.text


async def test_without_a_network_training_begins_all_the_same() -> None:
    platform = Platform(gone(), gone())
    async with heart(platform) as beating:
        assert (beating.missed, beating.agent_id) == (1, None)
        await platform.wait_for(3)
        async with asyncio.timeout(20):
            while beating.agent_id is None:
                await asyncio.sleep(0.001)
    assert platform.beats[2].proposed_id == platform.beats[0].proposed_id


async def test_a_platform_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "FIRST_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(heartbeats, "_BEAT_MIN_SECONDS", 0.05)
    platform = Platform(3600.0, 3600.0)
    async with heart(platform) as beating:
        assert beating.missed == 1
        await platform.wait_for(4)


@pytest.mark.parametrize("error", [NotFound("no such model"), ConfigError("closed")])
async def test_what_can_never_arrive_is_told_at_once(error: Exception) -> None:
    """Before training has begun; nothing beats, and nobody listens to signals."""
    before = set(asyncio.all_tasks())
    with pytest.raises(type(error)):
        async with heart(Platform(error), on_sigterm=True):
            pytest.fail("the block was entered")
    assert set(asyncio.all_tasks()) == before


@pytest.mark.parametrize("facts", [{"interval": 0}, {"interval": -1}, {"interval": 1e9}, {"name": "x" * 256}])
async def test_what_cannot_be_is_told_when_it_is_made(facts: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        heart(Platform(), **facts)


async def test_a_goodbye_that_is_lost_is_told_and_fails_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "LAST_BEAT_SECONDS", 0.2)
    platform = Platform(None, *(gone() for _ in range(1000)))
    async with heart(platform, interval=60):
        pass
    assert "the last beat is lost (no network)" in caplog.text
    assert len(platform.beats) > 2


async def test_a_goodbye_is_tried_again() -> None:
    platform = Platform(None, gone(), gone())
    async with heart(platform, interval=60):
        pass
    assert [beat.stopped for beat in platform.beats] == [False, True, True, True]


async def test_it_starts_again_as_the_same_agent() -> None:
    platform = Platform()
    beating = heart(platform, interval=60)
    await beating.start()
    await beating.stop()
    await beating.stop()
    async with beating:
        pass
    assert [beat.stopped for beat in platform.beats] == [False, True, False, True]
    assert [beat.agent_id for beat in platform.beats] == [None, AGENT, AGENT, AGENT]
    assert [beat.number for beat in platform.beats] == [1, 2, 3, 4]


async def test_one_that_beats_is_not_started_twice() -> None:
    """And the attempt takes nothing from the one that beats, its ear for SIGTERM least of all."""
    beating = heart(Platform(), on_sigterm=True)
    async with beating:
        listening = signal.getsignal(signal.SIGTERM)
        with pytest.raises(ConfigError, match="already"):
            await beating.start()
        assert beating.is_beating
        assert signal.getsignal(signal.SIGTERM) is listening


async def test_what_is_taken_for_a_number_of_seconds_is_waited_for_as_one(caplog: pytest.LogCaptureFixture) -> None:
    platform = Platform()
    async with heart(platform, interval=str(BRIEF)) as beating:
        await platform.wait_for(3)
        assert beating.is_beating


async def test_one_that_is_started_twice_at_once_beats_once() -> None:
    """The second start is refused while the first beat is under way; a second task would beat for ever."""
    platform = Platform(0.05)
    beating = heart(platform, interval=60)
    results = await asyncio.gather(beating.start(), beating.start(), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), ConfigError]
    await beating.stop()
    assert [beat.stopped for beat in platform.beats] == [False, True]


async def test_one_that_is_stopped_while_it_starts_says_goodbye_and_beats_no_more() -> None:
    platform = Platform(0.05)
    beating = heart(platform)
    starting = asyncio.create_task(beating.start())
    await platform.wait_for(1)
    await beating.stop()
    await starting
    assert not beating.is_beating
    assert [beat.stopped for beat in platform.beats] == [False, True]
    async with beating:
        assert beating.is_beating, "it can be started again"


async def test_what_the_block_raises_comes_out_unchanged() -> None:
    platform = Platform()
    error = KeyError("of the training")
    with pytest.raises(KeyError) as caught:
        async with heart(platform, interval=60):
            raise error
    assert caught.value is error
    assert caught.value.__context__ is None
    assert platform.beats[-1].stopped


async def test_a_cancelled_block_says_goodbye() -> None:
    platform = Platform()

    async def train() -> None:
        async with heart(platform, interval=60):
            await asyncio.sleep(3600)

    task = asyncio.create_task(train())
    await platform.wait_for(1)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [beat.stopped for beat in platform.beats] == [False, True]


def test_a_loop_that_ends_without_a_stop_says_goodbye() -> None:
    platform = Platform()

    async def train() -> None:
        await heart(platform, interval=60).start()

    asyncio.run(train())
    assert [beat.stopped for beat in platform.beats] == [False, True]


async def test_without_the_flag_no_signal_is_touched() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with heart(Platform(), on_sigterm=False):
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("elsewhere", [signal.SIGINT, signal.SIGHUP])
async def test_other_signals_are_never_touched(elsewhere: signal.Signals) -> None:
    before = signal.getsignal(elsewhere)
    async with heart(Platform(), on_sigterm=True):
        assert signal.getsignal(elsewhere) is before


async def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        async with heart(Platform(), on_sigterm=True):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_off_the_main_thread_no_signal_is_touched() -> None:
    platform = Platform()

    async def train() -> None:
        async with heart(platform, interval=60, on_sigterm=True):
            await asyncio.sleep(0)

    before = signal.getsignal(signal.SIGTERM)
    await asyncio.to_thread(asyncio.run, train())
    assert signal.getsignal(signal.SIGTERM) is before
    assert [beat.stopped for beat in platform.beats] == [False, True]


@pytest.mark.parametrize("first", ["outer", "inner"])
async def test_two_of_them_leave_the_signal_as_it_was_in_whatever_order(first: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    outer, inner = heart(Platform(), on_sigterm=True), heart(Platform(), on_sigterm=True)
    await outer.start()
    await inner.start()
    for beating in (outer, inner) if first == "outer" else (inner, outer):
        await beating.stop()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_handler_set_inside_of_the_block_stays() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def handler(number: int, frame: object) -> None:
        """Of the program."""

    try:
        async with heart(Platform(), on_sigterm=True):
            signal.signal(signal.SIGTERM, handler)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


# --- where it runs ---


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(module.sys.modules, "IPython", raising=False)
    monkeypatch.setattr(module.platform, "python_version", lambda: "3.11.7")
    return monkeypatch


def in_kernel(kernel: object) -> Any:
    return type("IPython", (), {"get_ipython": staticmethod(lambda: type("Shell", (), {"kernel": kernel}))})


def test_the_agent_says_where_it_runs(plain: pytest.MonkeyPatch) -> None:
    assert (environment(), agent_name()) == ("plain", "python-3.11.7-local")
    plain.setitem(module.sys.modules, "IPython", in_kernel(None))  # IPython in a terminal
    assert environment() == "plain"
    plain.setitem(module.sys.modules, "IPython", in_kernel(object()))
    assert (environment(), agent_name()) == ("jupyter", "python-3.11.7-jupyter")
    plain.setenv("COLAB_RELEASE_TAG", "release-colab_20260101")
    assert (environment(), agent_name()) == ("colab", "python-3.11.7-colab")
    plain.delenv("COLAB_RELEASE_TAG")
    plain.setenv("COLAB_BACKEND_VERSION", "next")
    assert environment() == "colab"


async def test_the_name_is_that_of_this_program_unless_given(plain: pytest.MonkeyPatch) -> None:
    platform = Platform()
    async with heart(platform, interval=60):
        pass
    assert platform.beats[0].name == "python-3.11.7-local"
