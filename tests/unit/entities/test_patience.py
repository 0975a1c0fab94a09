"""Messages of long work: which failures they wait out, how long, and who ends the waiting."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.config import Settings
from asyncsdk.engine import Engine, RetryPolicy, TransferConfig
from asyncsdk.entities import patience
from asyncsdk.entities.patience import PatientSession, patient, presence_of
from asyncsdk.errors import (
    AsyncSDKError,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    RateLimited,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerError,
)
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.datasets import CreateDataset, GetDataset

URL = "http://platform.test"
ASKED = GetDataset(dataset_id="0" * 24)


class Client:
    """A session that fails as it is told, then answers; it tells of both as the client does."""

    def __init__(self, *failures: AsyncSDKError, url: str | None = URL, outage_seconds: float = 60.0) -> None:
        self.failures = list(failures)
        self.settings = Settings(url=url, token="t", home=Path("unused"), data=Path("unused"))
        self.engine = Engine(TransferConfig(outage_seconds=outage_seconds))
        self.sent = 0
        self.is_out = False

    async def send(self, message: Message[Any]) -> Any:
        self.sent += 1
        presence = presence_of(self)
        if self.is_out or self.failures:
            error = self.failures.pop(0) if self.failures else ConnectionFailed("no connection")
            assert isinstance(error, (RequestError, ResponseError))
            presence.failed(error)
            raise error
        presence.answered()
        return "reply"

    async def ensure_worker(self, kind: str, *, start: bool = True) -> bool:
        return False


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_POLICY", RetryPolicy(wait_initial_seconds=0.002, wait_max_seconds=16.0))


def reached(client: Client) -> PatientSession:
    presence_of(client).answered()
    session = patient(client)
    assert isinstance(session, PatientSession)
    return session


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionFailed("refused"),
        RequestTimeout("reply", 60.0, URL),
        ServerError("500"),
        ServerError("503", status=503, retry_after=0.01),
        RateLimited("429", retry_after=0),
    ],
    ids=["no connection", "no answer", "500", "503", "429"],
)
async def test_what_may_pass_is_waited_for(failure: AsyncSDKError, caplog: pytest.LogCaptureFixture) -> None:
    """Said once when it begins, once when it is over."""
    client = Client(*[failure] * 7)
    with caplog.at_level(logging.WARNING, "asyncsdk.entities"):
        assert await reached(client).send(ASKED) == "reply"
    assert client.sent == 8
    assert ["out" in record.message for record in caplog.records] == [True, False]


@pytest.mark.parametrize("failure", [NotFound("404"), MalformedResponse("what?"), ResponseError("507", status=507)])
async def test_a_verdict_is_told_at_once(failure: AsyncSDKError) -> None:
    client = Client(failure, failure)
    with pytest.raises(type(failure)):
        await reached(client).send(ASKED)
    assert client.sent == 1


async def test_what_may_not_be_sent_twice_is_not() -> None:
    client = Client(ConnectionFailed("broke"))
    message = CreateDataset(name="d")
    assert not message.is_repeatable
    with pytest.raises(ConnectionFailed):
        await reached(client).send(message)
    assert client.sent == 1


async def test_a_platform_that_never_answered_is_not_waited_for() -> None:
    client = Client(ConnectionFailed("refused"))
    with pytest.raises(ConnectionFailed):
        await patient(client).send(ASKED)
    assert client.sent == 1


async def test_a_refusal_is_an_answer() -> None:
    client = Client(ServerError("503", status=503))
    assert await patient(client).send(ASKED) == "reply"


def test_a_platform_in_this_process_and_no_patience_need_nothing() -> None:
    for client in (Client(url=None), Client(outage_seconds=0)):
        assert patient(client) is client
    session = patient(Client())
    assert patient(session) is session


async def test_after_outage_seconds_the_error_is_told_and_nobody_waits_again() -> None:
    """The next message of the same outage does not begin to wait anew."""
    client = Client(outage_seconds=0.2)
    client.is_out = True
    session = reached(client)
    with pytest.raises(ConnectionFailed):
        await session.send(ASKED)
    assert client.sent > 2
    client.sent = 0
    with pytest.raises(ConnectionFailed):
        await session.send(ASKED)
    assert client.sent == 1
    client.is_out = False
    assert await session.send(ASKED) == "reply"
    client.failures = [ConnectionFailed("again")]
    assert await session.send(ASKED) == "reply"  # another outage


async def test_a_pause_that_is_too_long_is_told_with_its_seconds() -> None:
    client = Client(RateLimited("slow down", retry_after=3600))
    with pytest.raises(RateLimited, match="3600 s") as caught:
        await reached(client).send(ASKED)
    assert caught.value.retry_after == 3600
    assert client.sent == 1


async def test_a_pause_that_fits_is_honoured_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(self: patience.Presence, seconds: float, also: object, *, hears: bool) -> None:
        assert not hears  # what another message is told does not shorten it
        slept.append(seconds)

    monkeypatch.setattr(patience.Presence, "wait", sleep)
    client = Client(RateLimited("slow down", retry_after=500), outage_seconds=600)
    assert await reached(client).send(ASKED) == "reply"
    assert 500 <= slept[0] <= 550


@pytest.mark.parametrize(("status", "seconds"), [(503, 0.3), (500, 600.0)])
async def test_one_that_is_refused_for_ever_ends_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, seconds: float
) -> None:
    """Others are answered meanwhile, which does not let it wait anew; and the log is not filled with it. One that the
    platform cannot digest waits for less than an outage does."""
    monkeypatch.setattr(patience, "_ALONE_SECONDS", 0.3 if status == 500 else 600.0)
    client = Client(outage_seconds=seconds)
    session = reached(client)
    poison = GetDataset(dataset_id="1" * 24)
    send = client.send

    async def answer(message: Message[Any]) -> Any:
        client.failures = [ServerError("no", status=status)] if message is poison else []
        return await send(message)

    client.send = answer  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, "asyncsdk.entities"):
        refused = asyncio.create_task(session.send(poison))
        answered = 0
        async with asyncio.timeout(30):
            while not refused.done():
                assert await session.send(ASKED) == "reply"
                answered += 1
                await asyncio.sleep(0.001)
    assert isinstance(refused.exception(), ServerError)
    assert answered > 10
    assert client.sent - answered > 2
    assert ["out" in record.message for record in caplog.records] == [True, False]


async def test_another_outage_is_told_though_nothing_was_answered_since(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(outage_seconds=0.1)
    client.is_out = True
    session = reached(client)
    with caplog.at_level(logging.WARNING, "asyncsdk.entities"):
        for _ in range(2):
            with pytest.raises(ConnectionFailed):
                await session.send(ASKED)
            monkeypatch.setattr(patience, "_FORGOTTEN_SECONDS", 0.0)
    assert len(caplog.records) > 1


async def test_who_waits_hears_of_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_WAKE_SECONDS", 0.001)
    client = Client(ConnectionFailed("refused"))
    session = PatientSession(client, 600.0, uniform=lambda low, high: 300.0 if high != 0.001 else high)
    presence_of(client).answered()
    waiting = asyncio.create_task(session.send(ASKED))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert await client.send(ASKED) == "reply"
    async with asyncio.timeout(10):
        assert await waiting == "reply"


async def test_hurried_it_is_tried_once_more() -> None:
    client = Client()
    client.is_out = True
    presence_of(client).answered()
    session = PatientSession(client, 600.0, uniform=lambda low, high: 300.0)
    waiting = asyncio.create_task(session.send(ASKED))
    await asyncio.sleep(0.01)
    session.wait_no_longer()
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionFailed):
            await waiting
    assert client.sent == 2
    with pytest.raises(ConnectionFailed):
        await session.send(ASKED)
    assert client.sent == 3


async def test_cancelled_it_waits_no_moment_longer() -> None:
    client = Client()
    client.is_out = True
    presence_of(client).answered()
    session = PatientSession(client, 600.0, uniform=lambda low, high: 300.0)
    waiting = asyncio.create_task(session.send(ASKED))
    await asyncio.sleep(0.01)
    waiting.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert client.sent == 1
