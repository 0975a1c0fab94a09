"""Downloads through every fault: the right bytes in the end, or no file and the right error."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Download, Engine, KiB, MiB, Outcome, StreamSink, UrlOrigin
from asyncsdk.errors import ChecksumMismatch, IncompleteTransfer, MalformedResponse, ObjectChanged, RequestTimeout
from asyncsdk.transport.base import Timeouts
from tests.faults.cases import DOWN, FINAL, SILENT, silence_is_slow
from tests.faults.conftest import ATTEMPTS, config
from tests.support.faults.breaks import Crawl, Flip, Overlong, Truncate
from tests.support.faults.data import noise
from tests.support.faults.fault import Fault
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import ChangedEtag, IgnoreRange, WrongRange
from tests.support.faults.server import FaultServer

SIZES = (1000, 20 * KiB, 64 * KiB, 200 * KiB, 1_000_000)
PARTS = 3

DIGESTS = {"bit flipped", "first bit flipped", "wrong digest stated"}
"""Of a range nobody can tell before the object is whole: then all of it is fetched again."""


KNOWN = ("size and digest", "size", "nothing")
SMALL = [
    pytest.param(known, name, marks=[pytest.mark.slow] if name in SILENT and known != KNOWN[0] else [])
    for known in KNOWN
    for name in sorted(DOWN)
]


def fill(server: FaultServer) -> dict[str, bytes]:
    """Store small objects of several sizes and a large one; returns the small ones by their path."""
    small = {f"/small/{number}": noise(size, number) for number, size in enumerate(SIZES)}
    for path, data in {**small, "/large": noise(PARTS * MiB - 7, 9)}.items():
        server.store[path] = data
    return small


def origin(server: FaultServer, path: str, *, size: bool = True, digest: bool = True) -> UrlOrigin:
    """Return where an object of the server comes from, and as much of what is known of it as wanted."""
    data = server.store[path]
    return UrlOrigin(
        server.url(path),
        size_bytes=len(data) if size else None,
        crc32c=crc32c_hex(crc32c(data)) if digest else None,
    )


async def fetch_all(engine: Engine, downloads: list[Download]) -> list[Outcome]:
    async with engine.run(downloads) as outcomes:
        return [outcome async for outcome in outcomes]


@pytest.mark.parametrize(("known", "name"), SMALL)
async def test_small_objects_come(server: FaultServer, engine: Engine, out: Path, name: str, known: str) -> None:
    """The first try of every small object meets the fault; the second brings it, whatever is known of it before."""
    case = DOWN[name]
    objects = fill(server)
    # A digest that was announced counts, whatever the server states.
    attempts = 1 if name == "wrong digest stated" and known == "size and digest" else case.attempts
    server.plan = Plan([Rule(case.fault, method="GET", nth=[1], of_each=True)], seed=1)
    outcomes = await fetch_all(
        engine,
        [
            Download(origin(server, path, size=known != "nothing", digest="digest" in known), out / path[-1])
            for path in objects
        ],
    )
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert {outcome.attempts for outcome in outcomes} == {attempts}
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {path[-1]: objects[path] for path in objects}
    assert server.plan.met.total() == len(objects)
    assert all(outcome.verified for outcome in outcomes)


@pytest.mark.parametrize("sink", ["file", "memory", "stream"])
@pytest.mark.parametrize("name", silence_is_slow(DOWN))
async def test_ranges_come(server: FaultServer, engine: Engine, out: Path, name: str, sink: str) -> None:
    """The first try of every range meets the fault; the object is whole in the end, in a file or piece by piece."""
    case = DOWN[name]
    fill(server)
    data = server.store["/large"]
    got = bytearray()

    async def take(piece: bytes) -> None:
        got.extend(piece)

    goes_to = {"file": out / "large", "memory": None, "stream": StreamSink(take)}[sink]
    # A stream has given its pieces away when the digest of the whole tells: it fails, rather than repeat itself.
    fails = sink == "stream" and "flipped" in name
    server.plan = Plan([Rule(case.fault, method="GET", nth=[1], of_each=True)], seed=1)
    (outcome,) = await fetch_all(engine, [Download(origin(server, "/large"), goes_to)])
    assert server.plan.met.total() == PARTS
    if fails:
        assert isinstance(outcome.error, ChecksumMismatch)
        return
    assert outcome.error is None
    assert outcome.verified
    assert name in DIGESTS or outcome.attempts == case.attempts
    assert data == ((out / "large").read_bytes() if sink == "file" else outcome.data or bytes(got))
    assert [file.name for file in out.iterdir()] == (["large"] if sink == "file" else [])


@pytest.mark.parametrize("path", ["/small/2", "/large"])
@pytest.mark.parametrize("name", silence_is_slow(name for name, case in DOWN.items() if case.attempts > 1))
async def test_what_never_comes_fails_with_its_error(
    server: FaultServer, engine: Engine, out: Path, name: str, path: str
) -> None:
    """A fault that stays costs all attempts, is told by its type, and leaves no file; the others come meanwhile."""
    case = DOWN[name]
    objects = fill(server)
    is_large = path == "/large"
    if name == "wrong digest stated" and is_large:
        pytest.skip("what is stated of the whole with a range is not looked at")
    server.plan = Plan([Rule(case.fault, method="GET", path=path)], seed=1)
    downloads = [
        Download(origin(server, each, digest=name != "wrong digest stated"), out / each[-1], key=each)
        for each in {*objects, path}
    ]
    outcomes = {outcome.transfer.key: outcome for outcome in await fetch_all(engine, downloads)}
    failed = outcomes.pop(path)
    assert isinstance(failed.error, case.error)
    assert failed.attempts == (1 if is_large and name in DIGESTS else ATTEMPTS)
    assert all(outcome.ok and outcome.attempts == 1 for outcome in outcomes.values())
    assert sorted(file.name for file in out.iterdir()) == sorted(each[-1] for each in objects if each != path)


@pytest.mark.parametrize("name", sorted(FINAL))
async def test_a_refusal_that_is_final_is_not_repeated(
    server: FaultServer, engine: Engine, out: Path, name: str
) -> None:
    """One request for each object, one typed error for each, and no file."""
    fault, error = FINAL[name]
    objects = fill(server)
    server.plan = Plan([fault])
    outcomes = await fetch_all(engine, [Download(origin(server, path), out / path[-1]) for path in objects])
    assert all(isinstance(outcome.error, error) for outcome in outcomes)
    assert {outcome.attempts for outcome in outcomes} == {1}
    # The express lane leaves redirects to a worker, which asks anew.
    assert len(server.requests) <= len(objects) * (2 if name.startswith("302") else 1)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("fault", [Truncate(500, declared=True), Overlong(10)], ids=["shorter", "longer"])
async def test_another_size_than_announced_is_another_object(
    server: FaultServer, engine: Engine, out: Path, fault: Fault
) -> None:
    """A reply that says it is shorter or longer than the object is no object of ours: told at once, no file."""
    objects = fill(server)
    server.plan = Plan([fault])
    outcomes = await fetch_all(engine, [Download(origin(server, path), out / path[-1]) for path in objects])
    assert {type(outcome.error) for outcome in outcomes} == {ObjectChanged}
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("fault", [Truncate(500, declared=True), Overlong(10)], ids=["shorter", "longer"])
async def test_a_range_of_another_size_is_fetched_again(
    server: FaultServer, engine: Engine, out: Path, fault: Fault
) -> None:
    """A range that is shorter or longer than it says is fetched again; one that never is right is an error."""
    fill(server)
    server.plan = Plan([Rule(fault, nth=[2])])
    (outcome,) = await fetch_all(engine, [Download(origin(server, "/large"), out / "large")])
    assert outcome.error is None
    assert outcome.attempts == 2
    assert (out / "large").read_bytes() == server.store["/large"]
    (out / "large").unlink()
    server.plan = Plan([fault])
    (outcome,) = await fetch_all(engine, [Download(origin(server, "/large"), out / "large")])
    assert isinstance(outcome.error, IncompleteTransfer)
    assert outcome.attempts == ATTEMPTS
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("sink", ["file", "memory"])
async def test_an_object_replaced_between_ranges_is_told(
    server: FaultServer, engine: Engine, out: Path, sink: str
) -> None:
    """Ranges of two versions never make one object."""
    fill(server)
    server.plan = Plan([Rule(ChangedEtag(), nth=[3])])
    (outcome,) = await fetch_all(
        engine, [Download(origin(server, "/large"), out / "large" if sink == "file" else None)]
    )
    assert isinstance(outcome.error, ObjectChanged)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("knows_size", [True, False])
async def test_a_server_that_ignores_ranges_is_asked_for_the_whole(
    server: FaultServer, engine: Engine, out: Path, knows_size: bool
) -> None:
    """200 instead of 206: the object comes by one request, and is the same."""
    fill(server)
    server.plan = Plan([IgnoreRange()])
    (outcome,) = await fetch_all(engine, [Download(origin(server, "/large", size=knows_size), out / "large")])
    assert outcome.error is None
    assert (out / "large").read_bytes() == server.store["/large"]


@pytest.mark.parametrize("nth", [[2], [3], [2, 3]], ids=["second", "third", "both"])
@pytest.mark.parametrize("sink", ["file", "memory"])
async def test_a_later_range_that_is_answered_with_the_whole(
    server: FaultServer, engine: Engine, out: Path, nth: list[int], sink: str
) -> None:
    """206 to the first range and 200 to another: the object comes all the same, and no byte of it twice."""
    fill(server)
    server.plan = Plan([Rule(IgnoreRange(), nth=nth)])
    (outcome,) = await fetch_all(
        engine, [Download(origin(server, "/large"), out / "large" if sink == "file" else None)]
    )
    assert outcome.error is None
    assert outcome.verified
    assert server.plan.met.total() == len(nth)
    assert server.store["/large"] == ((out / "large").read_bytes() if sink == "file" else outcome.data)


async def test_the_range_next_to_the_one_asked_for_is_refused(server: FaultServer, engine: Engine, out: Path) -> None:
    """A server that gives other bytes than it was asked for, and says so, is not believed."""
    fill(server)
    server.plan = Plan([Rule(WrongRange(5), nth=[1])])
    (outcome,) = await fetch_all(engine, [Download(origin(server, "/large"), out / "large")])
    assert outcome.error is None
    assert (out / "large").read_bytes() == server.store["/large"]
    server.plan = Plan([WrongRange(5)])
    (outcome,) = await fetch_all(engine, [Download(origin(server, "/large"), out / "again")])
    assert isinstance(outcome.error, (MalformedResponse, IncompleteTransfer))
    assert not (out / "again").exists()


async def test_other_bytes_under_the_right_range_are_found_by_their_digest(
    server: FaultServer, engine: Engine, out: Path
) -> None:
    """A server that lies about which range it gives is found out at the end, and all is fetched once more."""
    fill(server)
    server.plan = Plan([Rule(WrongRange(-5, admits_it=False), nth=[2])])
    (outcome,) = await fetch_all(engine, [Download(origin(server, "/large"), out / "large")])
    assert outcome.error is None
    assert (out / "large").read_bytes() == server.store["/large"]


async def test_a_body_that_crawls_is_given_up(server: FaultServer, out: Path) -> None:
    """Bytes that come, but too few of them for too long, end the attempt; the next may be better."""
    fill(server)
    server.plan = Plan([Rule(Crawl(step=10, seconds=0.05), nth=[1])])
    slow = Timeouts(connect=5.0, idle=5.0, reply=5.0, rate_bytes=10_000, rate_seconds=0.5)
    async with Engine(config(timeouts=slow)) as engine:
        (outcome,) = await fetch_all(engine, [Download(origin(server, "/small/1"), out / "1")])
        assert outcome.error is None
        assert outcome.attempts == 2
        server.plan = Plan([Crawl(step=10, seconds=0.05)])
        (outcome,) = await fetch_all(engine, [Download(origin(server, "/small/1"), out / "2")])
    assert isinstance(outcome.error, RequestTimeout)
    assert outcome.error.phase == "rate"
    assert [file.name for file in out.iterdir()] == ["1"]


async def test_nothing_tells_a_flipped_bit_where_nobody_states_a_digest(
    server: FaultServer, engine: Engine, out: Path
) -> None:
    """Without any digest the outcome does not claim to be verified: the one honest thing left to say."""
    server.store.states_digests = False
    server.store["/plain"] = b"x" * 1000
    server.plan = Plan([Flip("down", 3)])
    (outcome,) = await fetch_all(engine, [Download(UrlOrigin(server.url("/plain"), size_bytes=1000), out / "plain")])
    assert outcome.ok
    assert not outcome.verified
