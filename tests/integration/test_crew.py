"""Worker processes: real ones, against real servers, compared with an engine that has none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import (
    Download,
    Engine,
    Origin,
    Outcome,
    Progress,
    PutTarget,
    StreamSink,
    Target,
    Transfer,
    TransferConfig,
    Upload,
    UrlOrigin,
)
from asyncsdk.engine.config import MiB
from asyncsdk.engine.crew.processes import _spawn, _undo
from asyncsdk.engine.events import Event, Retried
from asyncsdk.engine.parted.state import Resume, SentPart
from asyncsdk.errors import ConfigError, DeadlineExceeded, NotFound
from tests.integration.test_lanes_agree import CONFIG, SEED, Place, play, situations
from tests.support.crew import crew_of, engine_with_workers, is_gone, until
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import HttpServer, answer, stall

CREW = replace(CONFIG, processes=3)
pytestmark = pytest.mark.timeout(180)


async def agree(count: int, seed: int, folder: Path) -> None:
    """Compare one process with three."""
    played = situations(seed, count)
    results = []
    for processes in (1, 3):
        place = folder / str(processes)
        place.mkdir()
        async with HttpServer() as server, contextlib.AsyncExitStack() as stack:
            engine = engine_with_workers(CREW) if processes > 1 else Engine(CONFIG)
            results.append(await play(await stack.enter_async_context(engine), Place(server, place), played))
    facts = [situation.facts for situation in played]
    runs = [item for start in range(0, count, 6) for item in [*facts[start : start + 6], facts[start : start + 6]]]
    differences = [
        f"{what}:\n  1 process   {one}\n  3 processes {other}"
        for what, one, other in zip(runs, *results, strict=True)
        if one != other
    ]
    assert not differences, f"{len(differences)} of {count} differ\n" + "\n".join(differences)


async def test_one_process_and_three_agree(tmp_path: Path) -> None:
    """300 random situations: the same outcomes, errors, attempts, checksums, files, and bytes that count."""
    await agree(300, SEED + 7, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_one_process_and_three_agree_at_length(tmp_path: Path) -> None:
    """5,000 situations."""
    await agree(5_000, SEED + 8, tmp_path)


async def run_all(
    engine: Engine, transfers: list[Transfer] | RecordingFeed, progress: list[Progress] | None = None
) -> dict[object, Outcome]:
    """Return the outcomes of a run by key; one each."""
    outcomes: dict[object, Outcome] = {}
    async with engine.run(transfers, on_progress=None if progress is None else progress.append) as run:
        async for outcome in run:
            assert outcome.transfer.key not in outcomes
            outcomes[outcome.transfer.key] = outcome
    return outcomes


# --- everything that there is to move ------------------------------------------------------------------------


async def test_all_kinds_in_one_run(tmp_path: Path) -> None:
    """Small and large, both ways, in several parts, by paths, bytes, streams and into memory: each where it can be."""
    dice = random.Random(1)
    large = dice.randbytes(3 * MiB + 5)
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "small").write_bytes(b"small")
    received: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield large[:MiB]
        yield large[MiB:]

    async def receive(piece: bytes) -> None:
        received.append(piece)

    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        server.objects |= {"/large": large, "/small": b"small"}
        many = [Upload(b"%d" % n, PutTarget(server.url(f"/many/{n}")), key=n) for n in range(200)]
        progress: list[Progress] = []
        outcomes = await run_all(
            engine,
            [
                Upload(tmp_path / "large", multipart_target(server, 4), key="parts"),
                Upload(pieces(), multipart_target(server, 4, upload_id="U2", path="/s"), key="stream"),
                Upload(tmp_path / "small", PutTarget(server.url("/put")), key="put"),
                Upload(large, PutTarget(server.url("/bytes")), key="bytes"),
                Download(UrlOrigin(server.url("/large"), size_bytes=len(large)), tmp_path / "ranges", key="ranges"),
                Download(server.url("/large"), tmp_path / "unknown", key="unknown"),
                Download(server.url("/small"), str(tmp_path / "a" / "b"), key="small"),
                Download(server.url("/small"), key="memory"),
                Download(server.url("/small"), StreamSink(receive), key="sink"),
                *many,
            ],
            progress,
        )
        assert [outcome.error for outcome in outcomes.values() if outcome.error] == []
        assert len(outcomes) == 209
        assert server.objects["/m"] == server.objects["/s"] == server.objects["/bytes"] == large
        assert server.objects["/put"] == b"small"
        assert all(server.objects[f"/many/{n}"] == b"%d" % n for n in range(200))
    assert (tmp_path / "ranges").read_bytes() == (tmp_path / "unknown").read_bytes() == large
    assert (tmp_path / "a" / "b").read_bytes() == outcomes["memory"].data == b"".join(received) == b"small"
    assert outcomes["ranges"].checksum == outcomes["parts"].checksum == f"crc32c:{crc32c_hex(crc32c(large))}"
    assert all(outcome.size_bytes is not None and outcome.seconds >= 0 for outcome in outcomes.values())
    assert progress[-1].bytes_done == sum(outcome.size_bytes for outcome in outcomes.values())
    assert not list(tmp_path.rglob("*.part"))


async def test_workers_do_the_work(tmp_path: Path) -> None:
    """What can cross is moved by the workers, all of them; what cannot is not."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        server.delay = 0.005  # each is busy for a while with what it has
        pids = {}
        for member in crew_of(engine)._members:
            assert member is not None
            give = member.send
            pids[member.pid] = 0

            def counting(message: tuple[object, ...], give: object = give, pid: int | None = member.pid) -> None:
                pids[pid] += len(message[2]) if message[0] == "rows" else 0  # type: ignore[arg-type]
                give(message)  # type: ignore[operator]

            member.send = counting  # type: ignore[method-assign]
        await run_all(engine, [Upload(b"x", PutTarget(server.url(f"/{n}")), key=n) for n in range(300)])
        assert sum(pids.values()) == 300
        assert min(pids.values()) > 30, "all of them share"
        connections = server.connections
        await run_all(engine, [Download(server.url("/1"), key=1)])
        assert sum(pids.values()) == 300
        assert server.connections > connections, "the parent has one of its own now"


async def test_short_runs_start_nothing() -> None:
    """Before a run has lasted a second, there are no workers; then there are, and later runs find them."""
    async with HttpServer() as server, Engine(CREW) as engine:
        await run_all(engine, [Upload(b"x", PutTarget(server.url(f"/{n}")), key=n) for n in range(50)])
        assert crew_of(engine).pids == []

        async def feed() -> AsyncIterator[Transfer]:
            for number in range(1000):
                yield Upload(b"x", PutTarget(server.url(f"/{number}")), key=number)
                if len(crew_of(engine).pids) == 3:
                    return
                await asyncio.sleep(0.05)

        async with engine.run(feed()) as run:
            assert [outcome.error async for outcome in run if outcome.error] == []
        assert len(crew_of(engine).pids) == 3


async def test_relative_paths_are_those_of_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the parent changes into later counts for the workers, too."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text(name)
            monkeypatch.chdir(tmp_path / name)
            server.objects["/name"] = name.encode()
            outcomes = await run_all(
                engine,
                [
                    Upload("file", PutTarget(server.url(f"/{name}")), key=1),
                    Download(server.url("/name"), Path("came"), key=2),
                    Upload("missing", PutTarget(server.url("/missing")), key=3),
                ],
            )
            assert server.objects[f"/{name}"] == name.encode()
            assert (tmp_path / name / "came").read_text() == name
            assert str(outcomes[3].error).startswith("missing: ")
        monkeypatch.undo()


async def test_two_runs_side_by_side() -> None:
    """Each gets its own outcomes, and neither waits for the other to end."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        server.delay = 0.001
        first, second = await asyncio.gather(
            *(
                run_all(engine, [Upload(b"x", PutTarget(server.url(f"/{run}/{n}")), key=(run, n)) for n in range(150)])
                for run in (1, 2)
            )
        )
    assert set(first) == {(1, n) for n in range(150)}
    assert set(second) == {(2, n) for n in range(150)}
    assert all(outcome.ok for outcome in (*first.values(), *second.values()))


class Text(str):
    """A string of the caller's own."""

    __slots__ = ()


async def test_what_workers_cannot_read_stays(tmp_path: Path) -> None:
    """A transfer that holds an object of the caller's own class is moved here, those beside it are not."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        odd = [
            Upload(b"x", PutTarget(server.url(f"/{n}"), {"X-Odd": Text("odd")} if n % 3 else {}), key=n)
            for n in range(60)
        ]
        outcomes = await run_all(engine, [*odd])
        assert all(outcome.ok for outcome in outcomes.values())
        assert len(server.objects) == 60


# --- renewals ------------------------------------------------------------------------------------------------


async def test_renewals_go_through_the_parent(tmp_path: Path) -> None:
    """Fresh targets, origins and further part URLs come from the feed, which sees the transfer it gave."""
    (tmp_path / "large").write_bytes(bytes(3 * MiB))
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        server.objects["/get"] = b"got"
        for path in ("/put", "/get"):
            server.script(path, answer(403, b"expired"))
        transfers = [
            Upload(b"x", PutTarget(server.url("/put"), expires_at=1e9), key="put"),
            Download(UrlOrigin(server.url("/get"), expires_at=1e9), tmp_path / "get", key="get"),
            Upload(tmp_path / "large", multipart_target(server, 1), key="parts"),
        ]
        seen = []

        def renew(transfer: Upload | Download, first_part: int) -> Target | Origin | None:
            assert transfer in transfers
            seen.append((transfer.key, first_part))
            if transfer.key == "parts":
                return multipart_target(server, 1, first_part=first_part)
            url = server.url(f"/{transfer.key}?fresh")
            return PutTarget(url) if isinstance(transfer, Upload) else UrlOrigin(url)

        outcomes = await run_all(engine, RecordingFeed(transfers, on_renew=renew))
        assert [outcome.error for outcome in outcomes.values() if outcome.error] == []
        assert sorted(seen) == [("get", 1), ("parts", 2), ("parts", 3), ("put", 1)]
        assert len(server.objects["/m"]) == 3 * MiB
        assert server.objects["/put"] == b"x"


async def test_what_a_renewal_raises(tmp_path: Path) -> None:
    """One of our errors fails the transfer; a mistake ends the run, unchanged."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:

        async def play_one(error: Exception) -> dict[object, Outcome]:
            server.script("/put", answer(403, b"expired"))

            def renew(transfer: Upload | Download, first_part: int) -> None:
                raise error

            transfer = Upload(b"x", PutTarget(server.url("/put"), expires_at=1e9), key=1)
            return await run_all(engine, RecordingFeed([transfer], on_renew=renew))

        outcomes = await play_one(NotFound("the dataset is gone", request_id="r1"))
        assert isinstance(outcomes[1].error, NotFound)
        assert outcomes[1].error.request_id == "r1"
        with pytest.raises(ZeroDivisionError):
            await play_one(ZeroDivisionError("a mistake in the feed"))


# --- leaving early -------------------------------------------------------------------------------------------


def slow_situation(server: HttpServer, folder: Path) -> Iterator[Transfer]:
    """Yield small and large transfers without end."""
    large = bytes(4 * MiB)
    server.objects |= {"/large": large, "/small": b"small"}
    (folder / "source").write_bytes(large)
    for number in range(100_000):
        if number % 50 == 1:
            yield Download(UrlOrigin(server.url("/large"), size_bytes=len(large)), folder / f"l{number}", key=number)
        elif number % 50 == 2:
            target = multipart_target(server, 4, upload_id=f"U{number}", path=f"/m{number}")
            yield Upload(folder / "source", target, key=number)
        elif number % 2:
            yield Download(server.url("/small"), folder / f"s{number}", key=number)
        else:
            yield Upload(b"x", PutTarget(server.url(f"/u{number}")), key=number)


@pytest.mark.parametrize("after", [1, 10, 100, 400])
async def test_leaving_early(tmp_path: Path, after: int) -> None:
    """What is under way is stopped everywhere, what is done is settled, nothing is left behind; the next run works."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        server.delay = 0.002
        pids = crew_of(engine).pids
        feed = RecordingFeed(slow_situation(server, tmp_path))
        progress: list[Progress] = []
        taken = 0
        async with engine.run(feed, on_progress=progress.append) as run:
            async for outcome in run:
                assert outcome.ok
                taken += 1
                if taken == after:
                    break
        settled = [outcome for batch in feed.settled for outcome in batch]
        assert len(settled) >= after
        assert run._meter.bytes_moved == sum(outcome.size_bytes for outcome in settled)
        assert not list(tmp_path.rglob("*.part"))
        arrived = {path for path in server.objects if path.startswith("/u")}
        assert {f"/u{outcome.transfer.key}" for outcome in settled} & arrived <= arrived
        open_uploads = [upload for upload in server.uploads.values() if upload.is_open]
        assert not open_uploads, "multipart uploads are aborted"
        assert all(member is None or member.load == 0 for member in crew_of(engine)._members)
        await until(lambda: server.active == 0)
        assert crew_of(engine).pids == pids, "nobody had to be killed"
        outcomes = await run_all(engine, [Upload(b"x", PutTarget(server.url("/again")), key=1)])
        assert outcomes[1].ok


async def test_cancelled_task(tmp_path: Path) -> None:
    """A cancelled run ends as one without workers does."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        for number in range(3):
            server.script(f"/{number}", stall())
        transfers = [Download(server.url(f"/{n}"), tmp_path / str(n), key=n) for n in range(3)]
        task = asyncio.create_task(run_all(engine, transfers))
        await until(lambda: len(server.requests) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(tmp_path.iterdir()) == []


async def test_worker_that_is_told_what_it_does_not_know_ends(tmp_path: Path) -> None:
    """Another release was installed meanwhile: that costs a worker, and never a run that waits for ever."""
    async with HttpServer() as server, engine_with_workers(replace(CREW, processes=2)) as engine:
        crew = crew_of(engine)
        member = crew._members[0]
        assert member is not None
        assert member.pid is not None
        member.send(("of a later release", 1, []))
        await until(lambda: is_gone(member.pid or 0))
        await until(lambda: len(crew.pids) == 2)
        outcomes = await run_all(engine, [Upload(b"x", PutTarget(server.url(f"/{n}")), key=n) for n in range(20)])
        assert all(outcome.ok for outcome in outcomes.values())
        assert len(outcomes) == 20


async def test_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    """Leaving takes no longer than cleaning up may take; another worker takes the place of the dead one."""
    config = replace(CREW, cleanup_seconds=0.2, processes=2)
    async with HttpServer() as server, engine_with_workers(config) as engine:
        crew = crew_of(engine)
        crew.patience_seconds = 0.2
        server.script("/0", stall())
        server.objects["/1"] = b"x"
        pids = crew.pids
        async with engine.run([Download(server.url("/0"), tmp_path / "sink", key=0)]):
            await until(lambda: server.requests)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        assert sum(map(is_gone, pids)) == 1
        assert not list(tmp_path.iterdir())
        for pid in pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGCONT)
        await until(lambda: len(crew.pids) == 2)
        assert not crew.is_alone
        assert (await run_all(engine, [Download(server.url("/1"), tmp_path / "1", key=1)]))[1].ok


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_signals_are_for_the_parent(number: signal.Signals) -> None:
    """A worker takes no notice of those that ask a program to end: the end of its pipe is what ends it."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        before = crew_of(engine).pids
        for pid in before:
            os.kill(pid, number)
        outcomes = await run_all(engine, [Upload(b"x", PutTarget(server.url(f"/{n}")), key=n) for n in range(100)])
        assert all(outcome.ok for outcome in outcomes.values())
        assert crew_of(engine).pids == before


async def test_a_worker_that_has_only_begun_is_out_of_reach_of_the_terminal() -> None:
    """It is in no group that Ctrl-C reaches, from its first moment on, long before it can ignore anything."""
    process, reads, writes = await asyncio.to_thread(_spawn)
    try:
        assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid
    finally:
        _undo((process, reads, writes))
    assert is_gone(process.pid)


# --- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2", None])
def test_processes_must_be_a_number(wrong: object) -> None:
    """Nothing is taken to mean "all cores"."""
    with pytest.raises(ConfigError, match="processes must be a whole number of at least 1"):
        TransferConfig(processes=wrong)  # type: ignore[arg-type]


def test_frozen_programs_have_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no interpreter to start, saying so beats starting the caller's program again."""
    monkeypatch.setattr("sys.frozen", True, raising=False)
    with pytest.raises(ConfigError, match="frozen"):
        Engine(TransferConfig(processes=2))
    Engine(TransferConfig())
    monkeypatch.setattr("sys.frozen", False)
    monkeypatch.setattr("os.name", "nt")
    with pytest.raises(ConfigError, match="POSIX"):
        Engine(TransferConfig(processes=2))


# --- limits of a run -----------------------------------------------------------------------------------------


async def test_deadline(tmp_path: Path) -> None:
    """What workers have not done in time fails as it does in one process; what they have is settled."""
    config = replace(CREW, deadline_seconds=0.5)
    async with HttpServer() as server, engine_with_workers(config) as engine:
        server.objects["/quick"] = b"x"
        for number in range(20):
            server.script(f"/{number}", stall())
        transfers: list[Transfer] = [Download(server.url("/quick"), tmp_path / "quick", key="quick")]
        transfers += [Download(server.url(f"/{n}"), tmp_path / str(n), key=n) for n in range(20)]
        outcomes = await run_all(engine, transfers)
        assert outcomes.pop("quick").ok
        assert len(outcomes) == 20
        assert {type(outcome.error) for outcome in outcomes.values()} == {DeadlineExceeded}
    assert [path.name for path in tmp_path.iterdir()] == ["quick"]


async def test_drained(tmp_path: Path) -> None:
    """What was given out is finished, what waits is not begun."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        server.delay = 0.01
        outcomes = []
        feed = (Upload(b"x", PutTarget(server.url(f"/{n}")), key=n) for n in range(100_000))
        async with engine.run(feed) as run:
            async for outcome in run:
                outcomes.append(outcome)
                if len(outcomes) == 20:
                    engine.drain()
        assert not run.is_complete
        assert all(outcome.ok for outcome in outcomes)
        assert {f"/{outcome.transfer.key}" for outcome in outcomes} == set(server.objects)


async def test_limits_per_second_are_held_in_one_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With such a limit nothing is given out, so that it is exact, and that is said once; without it everything is
    again."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        transfers: list[Transfer] = [Upload(b"x", PutTarget(server.url(f"/{n}")), key=n) for n in range(50)]
        for rate, given in ((1000.0, 0), (None, 50)):
            engine.limits.requests_per_second = rate
            async with engine.run(transfers) as run:
                assert all([outcome.ok async for outcome in run])
            assert run._shift is not None
            assert run._shift._last == given
    said = [record.getMessage() for record in caplog.records if "processes=3 has no effect" in record.getMessage()]
    assert len(said) == 1


async def test_automatic_concurrency() -> None:
    """Each worker finds out by itself how many requests at once pay."""
    async with HttpServer() as server, engine_with_workers(TransferConfig(processes=2)) as engine:
        outcomes = await run_all(engine, [Upload(b"x", PutTarget(server.url(f"/{n}")), key=n) for n in range(500)])
        assert all(outcome.ok for outcome in outcomes.values())


async def test_events_come_from_workers_too(tmp_path: Path) -> None:
    """That something is tried again is told where the caller listens."""
    events: list[Event] = []
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        server.script("/0", answer(503, b"later"))
        async with engine.run([Upload(b"x", PutTarget(server.url("/0")), key=0)], on_event=events.append) as run:
            assert [outcome.attempts async for outcome in run] == [2]
    assert [event.code for event in events if isinstance(event, Retried)] == ["server_error"]


async def test_what_is_known_of_uploads_in_parts(tmp_path: Path) -> None:
    """Parts that the server has are not sent again, and every part is told to whoever remembers."""
    (tmp_path / "source").write_bytes(bytes(4 * MiB))
    told: list[SentPart] = []
    begun: list[tuple[str, int]] = []
    resume = Resume(on_begin=lambda *facts: begun.append(facts), on_part=told.append)
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        upload = Upload(tmp_path / "source", multipart_target(server, 4), key=1, resume=resume)
        assert (await run_all(engine, [upload]))[1].ok
    assert begun == [("U1", MiB)]
    assert sorted(part.number for part in told) == [1, 2, 3, 4]
    assert [part.number for part in resume.parts] == [part.number for part in told]


async def test_engine_closed_in_the_middle(tmp_path: Path) -> None:
    """Nothing waits for workers that are gone; the run fails as it does in one process."""
    async with HttpServer() as server:
        for processes in (1, 3):
            server.script("/0", stall(), stall())
            async with contextlib.AsyncExitStack() as stack:
                config = replace(CREW, processes=processes)
                opened = engine_with_workers(config) if processes > 1 else Engine(config)
                engine = await stack.enter_async_context(opened)
                server.requests.clear()
                task = asyncio.create_task(run_all(engine, [Download(server.url("/0"), tmp_path / "0", key=0)]))
                await until(lambda: server.requests)
                await engine.aclose()
                outcomes = await asyncio.wait_for(task, 20)
                assert isinstance(outcomes[0].error, ConfigError)
            assert not list(tmp_path.iterdir())


def test_uvloop(tmp_path: Path) -> None:
    """The same on the other event loop, whatever that of the workers is."""
    uvloop = pytest.importorskip("uvloop", reason="the extra `fast` is not installed")

    async def move() -> None:
        async with HttpServer() as server, engine_with_workers(CREW) as engine:
            large = bytes(3 * MiB)
            server.objects["/large"] = large
            transfers: list[Transfer] = [Upload(b"x", PutTarget(server.url(f"/{n}")), key=n) for n in range(200)]
            transfers.append(Download(server.url("/large"), tmp_path / "large", key="large"))
            outcomes = await run_all(engine, transfers)
            assert all(outcome.ok for outcome in outcomes.values())
        assert (tmp_path / "large").read_bytes() == large

    uvloop.run(move())
