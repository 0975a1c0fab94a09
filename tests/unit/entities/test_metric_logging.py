"""Batched metrics: what is sent when, what waits when the platform fails, what the end of the block says."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.config import Settings
from asyncsdk.entities.metrics import AsyncMetrics
from asyncsdk.errors import AsyncSDKError, ConfigError, ConnectionFailed, MetricsNotSent, NotFound
from asyncsdk.protocol.metrics import LoggedMetrics, LogMetrics, MetricProblem

MODEL = "a" * 24
Value = tuple[str, int | None, float]


class Platform:
    """A session that keeps what is logged, or fails as it is told to."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings.load(home=home)
        self.batches: list[list[Value]] = []
        self.failures: list[BaseException] = []
        self.fails: Callable[[], BaseException | None] = lambda: self.failures.pop(0) if self.failures else None
        self.calls = 0

    async def send(self, message: Any) -> Any:
        assert isinstance(message, LogMetrics)
        self.calls += 1
        await asyncio.sleep(0)
        if (error := self.fails()) is not None:
            raise error
        entries = [(entry.name, entry.step, entry.value) for entry in message.entries]
        self.batches.append(entries)  # type: ignore[arg-type]  # values are finite here
        return LoggedMetrics(accepted=len(entries))

    @property
    def stored(self) -> list[Value]:
        return [value for batch in self.batches for value in batch]


@pytest.fixture
def platform(home: Path) -> Platform:
    return Platform(home)


@pytest.fixture
def metrics(platform: Platform) -> AsyncMetrics:
    return AsyncMetrics(platform, MODEL)  # type: ignore[arg-type]  # nothing of it is needed but these


def files(home: Path) -> list[Path]:
    return sorted(home.rglob("*.jsonl"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_many_values_go_in_few_batches_in_order(metrics: AsyncMetrics, platform: Platform) -> None:
    async with metrics.batched(interval=30) as log:
        for step in range(1000):
            log.log({"loss": step / 10, "lr": 1}, step=step)
        assert platform.calls == 0, "nothing is sent before the interval is over"
        assert log.report.pending == 2000
    assert len(platform.batches) == 1
    assert platform.stored == [(n, s, v) for s in range(1000) for n, v in (("loss", s / 10), ("lr", 1.0))]
    assert (log.report.sent, log.report.pending, log.report.failures) == (2000, 0, 0)


async def test_batches_keep_their_distance(metrics: AsyncMetrics, platform: Platform) -> None:
    """Counted, not timed: while a thousand values are logged one by one, far fewer batches are sent."""
    async with metrics.batched(interval=0.05) as log:
        for step in range(1000):
            log.log({"loss": step}, step=step)
            if step % 100 == 0:
                await asyncio.sleep(0.01)
        await until(lambda: log.report.pending == 0)
    assert 1 <= len(platform.batches) <= 20
    assert [step for _, step, _ in platform.stored] == list(range(1000))


async def test_a_failed_batch_goes_before_what_came_later(metrics: AsyncMetrics, platform: Platform) -> None:
    platform.failures = [ConnectionFailed("no"), NotFound("gone for a while")]
    async with metrics.batched(interval=0.01) as log:
        log.log({"a": 1}, step=0)
        await until(lambda: log.report.failures == 1)
        assert isinstance(log.report.error, ConnectionFailed)
        log.log({"a": 2}, step=1)
        await until(lambda: log.report.failures == 2)
        log.log({"a": 3}, step=2)
        await until(lambda: log.report.sent == 3)
        assert log.report.error is None
    assert platform.stored == [("a", 0, 1.0), ("a", 1, 2.0), ("a", 2, 3.0)]


async def test_of_values_that_wait_for_one_step_the_newest_is_sent(metrics: AsyncMetrics, platform: Platform) -> None:
    """Also when an older one is in a batch that fails meanwhile."""
    sending, may_fail = asyncio.Event(), asyncio.Event()
    send = platform.send

    async def fail_later(message: Any) -> Any:
        if not sending.is_set():
            sending.set()
            await may_fail.wait()
            raise ConnectionFailed("no")
        return await send(message)

    platform.send = fail_later  # type: ignore[method-assign]
    async with metrics.batched(interval=0.01) as log:
        log.log({"a": 1, "b": 1}, step=0)
        await sending.wait()
        log.log({"a": 2}, step=0)
        may_fail.set()
        await until(lambda: log.report.pending == 0)
    assert sorted(platform.stored) == [("a", 0, 2.0), ("b", 0, 1.0)]


async def test_every_thread_may_log(metrics: AsyncMetrics, platform: Platform) -> None:
    async with metrics.batched(interval=0.001) as log:

        def train(name: str) -> None:
            for step in range(500):
                log.log({name: step}, step=step)

        threads = [threading.Thread(target=train, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    for name in "abcd":
        assert [value for n, _, value in platform.stored if n == name] == [float(step) for step in range(500)]


async def test_flush_sends_at_once_and_raises_what_went_wrong(metrics: AsyncMetrics, platform: Platform) -> None:
    async with metrics.batched(interval=60) as log:
        log.log({"a": 1})
        platform.failures = [ConnectionFailed("no")]
        with pytest.raises(ConnectionFailed):
            await log.flush()
        assert log.report.pending == 1
        await log.flush()
        assert platform.stored == [("a", None, 1.0)]


async def test_flush_ends_though_more_is_logged_all_the_time(metrics: AsyncMetrics, platform: Platform) -> None:
    """It sends what was logged up to then; what came meanwhile goes with a later batch."""
    send, must_log = platform.send, True

    async def send_slowly(message: Any) -> Any:
        if must_log:
            log.log({"a": 1}, step=platform.calls + 1)
        return await send(message)

    platform.send = send_slowly  # type: ignore[method-assign]
    async with metrics.batched(interval=0.01) as log:
        log.log({"a": 1}, step=0)
        async with asyncio.timeout(20):
            await log.flush()
        must_log = False
        await until(lambda: log.report.pending == 0)
    assert [step for _, step, _ in platform.stored] == list(range(len(platform.stored)))


async def test_what_cannot_be_sent_is_kept_told_and_sent_later(
    metrics: AsyncMetrics, platform: Platform, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform.fails = lambda: ConnectionFailed("the server is away")
    with pytest.raises(MetricsNotSent, match="server is away") as caught:
        async with metrics.batched(interval=0.01) as log:
            log.log({"a": 1, "b": 2}, step=0)
            log.log({"a": 3}, step=1)
    assert (caught.value.count, caught.value.lost) == (3, 0)
    assert [caught.value.path] == [str(path) for path in files(home)]
    assert log.report.kept == 3
    assert "3 metrics were not sent" in caplog.text
    with pytest.raises(ConnectionFailed):
        await metrics.send_kept()
    assert len(files(home)) == 1
    platform.fails = lambda: None
    kept = await metrics.send_kept()
    assert (kept.sent, kept.files, kept.damaged) == (3, 1, 0)
    assert platform.stored == [("a", 0, 1.0), ("b", 0, 2.0), ("a", 1, 3.0)]
    assert files(home) == []
    assert (await metrics.send_kept()).files == 0


async def test_memory_is_bounded_and_the_oldest_go_through_a_file(
    metrics: AsyncMetrics, platform: Platform, home: Path
) -> None:
    platform.fails = lambda: ConnectionFailed("no")
    async with metrics.batched(interval=0.001, max_pending=100) as log:
        for step in range(1000):
            log.log({"a": step}, step=step)
            if step % 50 == 0:
                await asyncio.sleep(0.002)
        report = log.report
        assert report.pending <= 100
        assert report.pending + report.kept >= 1000
        assert [report.path] == files(home)
        platform.fails = lambda: None
        await log.flush()
        assert (log.report.kept, log.report.pending) == (0, 0)
        log.log({"a": -1}, step=1000)
    values = dict.fromkeys(range(1001), math.nan)
    values.update({step: value for _, step, value in platform.stored if step is not None})
    assert values == {**{step: float(step) for step in range(1000)}, 1000: -1.0}
    assert files(home) == []


async def test_values_that_no_disk_takes_are_counted_and_told(
    metrics: AsyncMetrics, platform: Platform, home: Path
) -> None:
    platform.fails = lambda: ConnectionFailed("no")
    home.mkdir()
    (home / "metrics").write_text("in the way")
    with pytest.raises(MetricsNotSent) as caught:
        async with metrics.batched(interval=0.01, max_pending=10) as log:
            for step in range(30):
                log.log({"a": step}, step=step)
    assert (caught.value.count, caught.value.path) == (0, None)
    assert caught.value.lost == log.report.lost >= 30


async def test_numbers_that_cannot_be_stored_never_stop_the_loop(
    metrics: AsyncMetrics, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted, told in the report, and warned of once for a series."""
    async with metrics.batched(interval=30) as log:
        for step in range(200):
            log.log({"loss": math.nan, "good": 1}, step=step)
    assert (log.report.refused, log.report.logged, len(log.report.problems)) == (200, 200, 100)
    assert log.report.problems[1] == "loss: step 1: nan cannot be stored"
    assert caplog.text.count("'loss' is refused") == 1
    assert len(platform.stored) == 200


async def test_what_the_platform_refuses_is_told_and_not_sent_again(metrics: AsyncMetrics, platform: Platform) -> None:
    async def refuse(message: Any) -> LoggedMetrics:
        platform.calls += 1
        return LoggedMetrics(accepted=0, problems=(MetricProblem(index=0, code="invalid_row", message="too odd"),))

    platform.send = refuse  # type: ignore[method-assign]
    async with metrics.batched(interval=0.01) as log:
        log.log({"a": 1})
    assert (log.report.problems, log.report.sent, platform.calls) == (("a: too odd",), 0, 1)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (3, 0),
        (None, 0),
        ([("a", 1)], 0),
        ({"": 1}, 0),
        ({"a": "1"}, 0),
        ({"a": None}, 0),
        ({"a": 1}, -1),
        ({"a": 1}, 1.5),
        ({"a\n": 1}, 0),
        ({3: 1}, 0),
    ],
)
async def test_what_makes_no_sense_is_refused_at_the_call(
    metrics: AsyncMetrics, platform: Platform, values: Any, step: Any
) -> None:
    async with metrics.batched() as log:
        with pytest.raises(ConfigError):
            log.log(values, step=step)
    with pytest.raises(ConfigError):
        await metrics.log(values, step=step)
    assert platform.calls == 0


async def test_numbers_of_other_libraries_are_numbers(metrics: AsyncMetrics, platform: Platform) -> None:
    """Whatever `float` and `operator.index` take, as scalars of arrays and tensors."""

    class Scalar:
        def __float__(self) -> float:
            return 0.25

    class Index:
        def __index__(self) -> int:
            return 7

    class Several:
        def __float__(self) -> float:
            raise RuntimeError("a tensor with 2 elements is no scalar")

    with pytest.raises(ConfigError, match="2 elements"):
        await metrics.log({"a": Several()})
    await metrics.log({"a": Scalar(), "b": True, "c": 10**30}, step=Index())
    async with metrics.batched(interval=30) as log:
        log.log({"a": Scalar()}, step=Index())
    assert platform.stored == [("a", 7, 0.25), ("b", 7, 1.0), ("c", 7, 1e30), ("a", 7, 0.25)]


async def test_a_block_that_raises_sends_the_rest_and_raises_its_own(metrics: AsyncMetrics, platform: Platform) -> None:
    with pytest.raises(ZeroDivisionError):
        async with metrics.batched(interval=30) as log:
            log.log({"a": 1})
            raise ZeroDivisionError
    assert platform.stored == [("a", None, 1.0)]
    platform.fails = lambda: ConnectionFailed("no")
    with pytest.raises(ZeroDivisionError) as caught:
        async with metrics.batched(interval=30) as log:
            log.log({"a": 1})
            raise ZeroDivisionError
    assert "1 metrics were not sent" in caught.value.__notes__[0]


async def test_a_cancelled_block_loses_nothing_either(metrics: AsyncMetrics, platform: Platform, home: Path) -> None:
    """Cancelled once it still sends; cancelled while it sends it keeps the rest."""

    async def train(is_ready: asyncio.Event) -> None:
        async with metrics.batched(interval=30) as log:
            log.log({"a": 1}, step=0)
            is_ready.set()
            await asyncio.sleep(60)

    ready = asyncio.Event()
    task = asyncio.create_task(train(ready))
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert platform.stored == [("a", 0, 1.0)]

    sending = asyncio.Event()

    async def hang(message: Any) -> Any:
        sending.set()
        await asyncio.sleep(60)

    platform.send = hang  # type: ignore[method-assign]
    ready = asyncio.Event()
    task = asyncio.create_task(train(ready))
    await ready.wait()
    task.cancel()
    await sending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(files(home)) == 1


async def test_the_end_of_the_block_is_bounded_in_time(metrics: AsyncMetrics, platform: Platform) -> None:
    async def hang(message: Any) -> Any:
        await asyncio.sleep(60)

    platform.send = hang  # type: ignore[method-assign]
    with pytest.raises(MetricsNotSent, match=r"longer than 0\.05 s"):
        async with metrics.batched(interval=0, close_timeout=0.05) as log:
            log.log({"a": 1})


async def test_an_end_that_does_not_wait_keeps_the_batch_under_way(
    metrics: AsyncMetrics, platform: Platform, home: Path
) -> None:
    """Without time for it, or cancelled a second time before the sender let go of it."""
    sending, may_let_go = asyncio.Event(), asyncio.Event()

    async def hang(message: Any) -> Any:
        sending.set()
        try:
            await asyncio.sleep(60)
        finally:  # as a connection that is closed
            await may_let_go.wait()

    platform.send = hang  # type: ignore[method-assign]
    with pytest.raises(MetricsNotSent) as caught:
        async with metrics.batched(interval=0, close_timeout=0) as log:
            log.log({"a": 1}, step=0)
            await sending.wait()
            log.log({"a": 2}, step=1)
    may_let_go.set()
    await asyncio.sleep(0.01)
    assert (caught.value.count, log.report.kept, log.report.pending, log.report.lost) == (2, 2, 0, 0)

    sending.clear()
    may_let_go.clear()
    block = metrics.batched(interval=0)
    log = await block.__aenter__()
    log.log({"a": 3}, step=2)
    await sending.wait()
    leaving = asyncio.create_task(block.__aexit__(None, None, None))
    asyncio.get_running_loop().call_soon(leaving.cancel)
    with pytest.raises(asyncio.CancelledError):
        await leaving
    may_let_go.set()
    await asyncio.sleep(0.01)
    assert (log.report.kept, log.report.pending) == (1, 0)
    assert sum(len(path.read_bytes().splitlines()) for path in files(home)) == 3


async def test_what_is_kept_in_many_files_is_sent_file_by_file(
    metrics: AsyncMetrics, platform: Platform, home: Path
) -> None:
    """One that fails stays with all after it; those before it are gone."""
    folder = home / "metrics" / MODEL
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{str(number) * 24}.jsonl").write_bytes(b'["a",%d,0.5,1000]\n' % number)
    answers: list[BaseException | None] = [None, ConnectionFailed("no")]
    platform.fails = lambda: answers.pop(0) if answers else None
    with pytest.raises(ConnectionFailed):
        await metrics.send_kept()
    assert [path.name[0] for path in files(home)] == ["1", "2"]
    assert (await metrics.send_kept()).sent == 2
    assert [step for _, step, _ in platform.stored] == [0, 1, 2]


async def test_a_block_is_entered_once_and_takes_nothing_outside(metrics: AsyncMetrics) -> None:
    block = metrics.batched()
    async with block as log:
        pass
    with pytest.raises(ConfigError, match="ended"):
        log.log({"a": 1})
    with pytest.raises(ConfigError, match="once"):
        await block.__aenter__()
    bad: list[dict[str, Any]] = [{"interval": -1.0}, {"interval": math.inf}, {"interval": "3"}, {"interval": None}]
    bad += [{"max_pending": 0}, {"max_pending": 1.5}, {"max_pending": "3"}, {"close_timeout": math.nan}]
    for numbers in bad:
        with pytest.raises(ConfigError):
            metrics.batched(**numbers)


async def test_a_table_wants_a_list_of_names(metrics: AsyncMetrics) -> None:
    """The letters of a name would be four series that nobody has, and the table empty without a word."""
    with pytest.raises(ConfigError, match="list"):
        await metrics.table(names="loss")
    with pytest.raises(ConfigError, match="1,000"):
        await metrics.table(names=[str(number) for number in range(1001)])


async def test_an_unforeseen_error_does_not_end_the_sending(metrics: AsyncMetrics, platform: Platform) -> None:
    platform.failures = [ValueError("nobody foresaw this")]
    async with metrics.batched(interval=0.01) as log:
        log.log({"a": 1})
        await until(lambda: log.report.sent == 1)


async def test_a_forked_child_is_told_that_nobody_sends_for_it(metrics: AsyncMetrics, platform: Platform) -> None:
    async with metrics.batched(interval=30) as log:
        log.log({"a": 1})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, when there are other threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                log.log({"a": 2})
            except AsyncSDKError as error:
                status = 0 if error.code == "forked" else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert platform.stored == [("a", None, 1.0)]


async def test_damaged_lines_of_a_killed_program_are_counted_and_the_others_sent(
    metrics: AsyncMetrics, platform: Platform, home: Path
) -> None:
    folder = home / "metrics" / MODEL
    folder.mkdir(parents=True)
    (folder / f"{'b' * 24}.jsonl").write_bytes(b'["a",1,0.5,1000]\n["a",2,NaN,1000]\n["a",3,0.25,1000]\n["a",4,0.1')
    kept = await metrics.send_kept()
    assert (kept.sent, kept.files, kept.damaged) == (2, 1, 2)
    assert platform.stored == [("a", 1, 0.5), ("a", 3, 0.25)]
    assert files(home) == []


async def test_a_file_that_a_running_program_writes_is_left_alone(
    metrics: AsyncMetrics, platform: Platform, home: Path
) -> None:
    platform.fails = lambda: ConnectionFailed("no")
    async with metrics.batched(interval=60, max_pending=2) as log:
        for step in range(10):
            log.log({"a": step}, step=step)
        platform.fails = lambda: None
        assert (await metrics.send_kept()).files == 0
        assert log.report.kept > 0
    assert [step for _, step, _ in platform.stored] == list(range(10))
