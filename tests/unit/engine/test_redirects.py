"""Redirects: followed where that is meant, in both lanes and over both transports; nothing leaks on the way."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Download, Engine, Outcome, Progress, PutTarget, StreamSink, Transfer, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.engine.redirects import MAX_REDIRECTS
from asyncsdk.errors import (
    BadRequest,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    PermissionDenied,
    ServerError,
)
from asyncsdk.targets import MultipartTarget
from asyncsdk.transport.httpx_transport import HttpxTransport
from asyncsdk.transport.tls import TlsConfig
from tests.support.feeds import multipart_target
from tests.support.http_server import Action, Connection, HttpServer, Received, answer
from tests.support.wire.certificates import Certificates
from tests.unit.engine.conftest import config

BODY = b"<html>moved, and this is not the object</html>"
DATA = os.urandom(300_000)
CREDENTIALS = {"Authorization": "Bearer TOP-SECRET-1", "Cookie": "s=TOP-SECRET-2", "X-Api-Key": "TOP-SECRET-3"}


def moved(where: str, status: int = 302) -> Action:
    """Redirect to *where*, with a body that is none of the object."""
    return answer(status, BODY, {"Location": where})


def moved_early(where: str, *, after: int) -> Action:
    """Redirect when *after* bytes of the body were read, and read no more."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request, after)
        await connection.reply(307, BODY, {"Location": where})
        await asyncio.Event().wait()
        return True

    return action


@pytest.fixture(params=["lean", "httpx"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """Engines over each transport."""
    if request.param == "lean":
        async with Engine(config()) as running:
            yield running
        return
    transport = HttpxTransport()
    async with Engine(config(), transport=transport) as running:
        yield running
    await transport.aclose()


@pytest.fixture
async def other() -> AsyncIterator[HttpServer]:
    """Another origin."""
    async with HttpServer() as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def run(engine: Engine, *transfers: Transfer) -> tuple[list[Outcome], Progress]:
    """Return the outcomes of a run, and its last progress; small objects of files take the express lane."""
    events: list[Progress] = []
    async with engine.run(transfers, on_progress=events.append) as outcomes:
        return [outcome async for outcome in outcomes], events[-1] if events else Progress()


async def move(engine: Engine, lane: str, transfer: Transfer) -> Outcome:
    """Move one object alone, or by a run; raise what it failed with."""
    if lane == "run":
        (outcome,), _ = await run(engine, transfer)
        if outcome.error is not None:
            raise outcome.error
        return outcome
    if isinstance(transfer, Upload):
        return await engine.upload(transfer.source, transfer.target)
    assert isinstance(transfer, Download)
    return await engine.download(transfer.origin, transfer.sink)


lanes = pytest.mark.parametrize("lane", ["alone", "run"])


# --- downloads -----------------------------------------------------------------------------------------------


@lanes
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_download_follows(engine: Engine, server: HttpServer, tmp_path: Path, lane: str, status: int) -> None:
    """Every redirect; its own body goes nowhere."""
    server.objects["/there"] = DATA
    server.script("/o", *[moved(server.url("/there?sig=a%2fb%7E&x="), status)] * 2)
    outcome = await move(engine, lane, Download(server.url("/o"), tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == DATA
    assert (outcome.size_bytes, outcome.checksum) == (len(DATA), f"crc32c:{crc32c_hex(crc32c(DATA))}")
    assert server.requests[-1].target == "/there?sig=a%2fb%7E&x="


async def test_what_the_body_of_a_redirect_counted_is_taken_back(engine: Engine, server: HttpServer) -> None:
    """Progress ends at the bytes of the objects."""
    server.objects["/there"] = DATA
    server.script("/o", moved(server.url("/there")))
    seen: list[int] = []

    async def take(data: bytes) -> None:
        seen.append(len(data))

    transfers = [Download(server.url("/o"), None), Download(server.url("/there"), StreamSink(take))]
    outcomes, last = await run(engine, *transfers)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert last.bytes_done == 2 * len(DATA)


async def test_a_chain_of_relative_ones(engine: Engine, server: HttpServer) -> None:
    """By path, by neighbour, by query, by authority."""
    server.objects["/c/d"] = DATA
    server.script("/o", moved("/a/x?1"))
    server.script("/a/x", moved("../b/./y"))
    server.script("/b/y", moved("?again"), moved(server.url("/c/d").removeprefix("http:")))
    outcome = await engine.download(server.url("/o"))
    assert outcome.data == DATA
    assert [r.target for r in server.requests] == ["/o", "/a/x?1", "/b/y", "/b/y?again", "/c/d"]


@pytest.mark.parametrize("known", [False, True])
async def test_ranges_follow_one_by_one(
    engine: Engine, server: HttpServer, other: HttpServer, tmp_path: Path, known: bool
) -> None:
    """``Range`` and ``If-Match`` cross to the other origin."""
    data = os.urandom(3 * MiB + 5)
    other.objects["/there"] = data
    server.script("/o", *[moved(other.url("/there"))] * 9)
    origin = UrlOrigin(server.url("/o"), size_bytes=len(data), etag=other.etag("/there")) if known else server.url("/o")
    outcome = await engine.download(origin, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert outcome.size_bytes == len(data)
    assert len({r.header("range") for r in other.requests}) == 4
    assert any(r.header("if-match") == other.etag("/there") for r in other.requests)


async def test_an_empty_object_behind_a_redirect(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    """Its refusal of a range is understood."""
    server.objects["/there"] = b""
    server.script("/o", moved("/there"))
    outcome = await engine.download(server.url("/o"), tmp_path / "file")
    assert (outcome.size_bytes, (tmp_path / "file").read_bytes()) == (0, b"")


async def test_what_fails_behind_a_redirect_starts_again_before_it(engine: Engine, server: HttpServer) -> None:
    """The next attempt may be sent elsewhere."""
    server.objects["/b"] = DATA
    server.script("/o", moved("/a"), moved("/b"))
    server.script("/a", answer(503))
    assert (await engine.download(server.url("/o"))).data == DATA
    assert [r.path for r in server.requests] == ["/o", "/a", "/o", "/b"]


# --- uploads -------------------------------------------------------------------------------------------------


@lanes
@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("kind", ["bytes", "file", "stream"])
async def test_an_upload_is_sent_again_from_its_start(
    engine: Engine, server: HttpServer, other: HttpServer, tmp_path: Path, kind: str, status: int, lane: str
) -> None:
    """Whole, checksummed once, counted once."""
    server.script("/o", *[moved(other.url("/there"), status)] * 2)
    other.with_checksums = True
    (tmp_path / "file").write_bytes(DATA)

    async def pieces() -> AsyncIterator[bytes]:
        yield DATA

    source = {"bytes": DATA, "file": tmp_path / "file", "stream": pieces()}[kind]
    transfer = Upload(source, PutTarget(server.url("/o")))
    if lane == "alone":
        outcome = await engine.upload(source, PutTarget(server.url("/o")))
    else:
        (outcome,), last = await run(engine, transfer)
        assert last.bytes_done == len(DATA)
    assert outcome.error is None
    assert (outcome.size_bytes, outcome.verified) == (len(DATA), True)
    assert outcome.checksum == f"crc32c:{crc32c_hex(crc32c(DATA))}"
    assert other.objects == {"/there": DATA}
    assert server.objects == {}


@pytest.mark.parametrize("kind", ["bytes", "file"])
async def test_an_upload_that_is_redirected_before_it_is_out(
    engine: Engine, server: HttpServer, other: HttpServer, tmp_path: Path, kind: str
) -> None:
    """The rest of the first body stays here."""
    data = os.urandom(24_000_000)
    server.script("/o", *[moved_early(other.url("/there"), after=1000)] * 2)  # the express lane hands it over
    other.with_checksums = True
    (tmp_path / "file").write_bytes(data)
    events: list[Progress] = []
    source = data if kind == "bytes" else tmp_path / "file"
    async with engine.run([Upload(source, PutTarget(server.url("/o")))], on_progress=events.append) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert outcome.error is None
    assert other.objects["/there"] == data
    assert (outcome.size_bytes, outcome.verified, events[-1].bytes_done) == (len(data), True, len(data))


@lanes
@pytest.mark.parametrize("status", [301, 302, 303])
async def test_an_upload_is_not_sent_elsewhere_without_being_asked_for_it(
    engine: Engine, server: HttpServer, tmp_path: Path, status: int, lane: str
) -> None:
    """The refusal says which redirects would be followed, and to where this one led, without its query."""
    (tmp_path / "file").write_bytes(b"x")
    server.script("/o", *[moved(server.url("/there?sig=SECRET"), status)] * 2)
    with pytest.raises(MalformedResponse, match="a PUT is sent again after 307 and 308 only") as caught:
        await move(engine, lane, Upload(tmp_path / "file", PutTarget(server.url("/o?sig=SECRET"))))
    assert {r.path for r in server.requests} == {"/o"}
    assert f"redirected to {server.url('/there')}?... (status {status})" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert (caught.value.retryable, caught.value.status) == (False, status)


async def test_parts_and_their_completion_follow(
    engine: Engine, server: HttpServer, other: HttpServer, tmp_path: Path
) -> None:
    """Each request of a multipart upload."""
    data = os.urandom(2 * MiB + 7)
    for _ in range(4):
        server.script("/m", _to(other))
    outcome = await engine.upload(data, multipart_target(server, 3))
    assert (other.objects["/m"], outcome.size_bytes) == (data, len(data))
    assert server.uploads == {}
    assert len(other.of("POST")) == 1


async def test_an_abort_follows(engine: Engine, server: HttpServer, other: HttpServer) -> None:
    """Parts behind a redirect do not remain there."""
    server.script("/m", _to(other), _to(other))
    other.script("/m", answer(400))
    with pytest.raises(BadRequest) as caught:
        await engine.upload(b"x", multipart_target(server, 1))
    assert other.aborted == ["U1"]
    assert not hasattr(caught.value, "__notes__")


def _to(other: HttpServer) -> Action:
    """Redirect to the same target of another server."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        await connection.reply(307, BODY, {"Location": other.url(request.target)})
        return True

    return action


# --- what goes along, and what does not ----------------------------------------------------------------------


@lanes
async def test_credentials_stay_with_their_origin(
    engine: Engine, server: HttpServer, other: HttpServer, tmp_path: Path, lane: str
) -> None:
    """Another port is another origin. What describes the bytes goes along; what stayed behind does not come back."""
    (tmp_path / "file").write_bytes(DATA)
    telling = {"Content-Type": "image/png", "x-amz-meta-Owner": "me", "Content-MD5": "abc", "x-amz-acl": "private"}
    server.script("/o", *[moved("/same", 307)] * 2)
    server.script("/same", *[moved(other.url("/there"), 307)] * 2)
    other.script("/there", *[moved(server.url("/back"), 307)] * 2)
    target = PutTarget(server.url("/o"), {**CREDENTIALS, "Proxy-Authorization": "Basic x", **telling})
    await move(engine, lane, Upload(tmp_path / "file", target))
    same, there, back = server.of("PUT", "/same")[-1], other.of("PUT")[-1], server.of("PUT", "/back")[-1]
    assert {name: same.header(name) for name in CREDENTIALS} == CREDENTIALS
    for seen in (there, back):
        assert {name: seen.header(name) for name in telling} == telling
        assert "SECRET" not in seen.head.decode()
        assert seen.header("proxy-authorization") is None
    assert server.objects == {"/back": DATA}


async def test_a_host_that_was_given_is_for_its_origin(engine: Engine, server: HttpServer, other: HttpServer) -> None:
    """The other one gets its own."""
    other.objects["/there"] = b"x"
    server.script("/o", moved(other.url("/there")))
    await engine.download(UrlOrigin(server.url("/o"), {"Host": "virtual.example"}))
    assert server.requests[0].header("host") == "virtual.example"
    assert other.requests[0].header("host") == f"127.0.0.1:{other.port}"


@pytest.mark.parametrize("kind", ["lean", "httpx"])
async def test_tls_is_entered_and_never_left(server: HttpServer, certificates: Certificates, kind: str) -> None:
    """From http to https and on, but not back."""
    tls = TlsConfig(ca_file=certificates.ca_file)
    transport = HttpxTransport(tls=tls) if kind == "httpx" else None
    async with HttpServer(certificates.server()) as safe, Engine(config(tls=tls), transport=transport) as engine:
        safe.objects["/there"] = DATA
        server.objects["/plain"] = DATA
        server.script("/o", moved(safe.url("/there")))
        assert (await engine.download(UrlOrigin(server.url("/o"), CREDENTIALS))).data == DATA
        assert safe.requests[0].header("authorization") is None
        safe.script("/o", moved(server.url("/plain?sig=SECRET")))
        with pytest.raises(MalformedResponse, match="not followed: that would leave TLS") as caught:
            await engine.download(safe.url("/o"))
        assert "SECRET" not in str(caught.value)
        assert server.of("GET", "/plain") == []
    if transport is not None:
        await transport.aclose()


# --- where it ends -------------------------------------------------------------------------------------------


@lanes
async def test_a_circle_is_an_error_at_once(engine: Engine, server: HttpServer, tmp_path: Path, lane: str) -> None:
    """Without waiting for the last hop, and without another attempt."""
    server.script("/a", *[moved("/b")] * 9)
    server.script("/b", *[moved("/a")] * 9)
    with pytest.raises(MalformedResponse, match="it leads in a circle") as caught:
        await move(engine, lane, Download(server.url("/a"), tmp_path / "file"))
    assert not caught.value.retryable
    assert [r.path for r in server.requests][-2:] == ["/a", "/b"]
    assert len(server.requests) <= 3
    assert list(tmp_path.iterdir()) == []


async def test_so_many_and_no_more(engine: Engine, server: HttpServer) -> None:
    """Five hops arrive, the sixth is not made."""
    server.objects[f"/{MAX_REDIRECTS}"] = DATA
    for number in range(MAX_REDIRECTS + 1):
        server.script(f"/{number}", moved(f"/{number + 1}"))
    server.script(f"/{MAX_REDIRECTS}", moved(f"/{MAX_REDIRECTS + 1}"))
    with pytest.raises(MalformedResponse, match=f"more than {MAX_REDIRECTS} redirects"):
        await engine.download(server.url("/0"))
    assert len(server.requests) == MAX_REDIRECTS + 1
    for number in range(1, MAX_REDIRECTS):
        server.script(f"/{number}", moved(f"/{number + 1}"))
    server._scripts[f"/{MAX_REDIRECTS}"].clear()
    server.script("/start", moved("/1"))
    assert (await engine.download(server.url("/start"))).data == DATA


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "does not say where to"),
        ({"Location": ""}, "does not say where to"),
        ({"Location": "ftp://example.invalid/SECRET?SECRET"}, "no URL that can be requested"),
        ({"Location": "http://"}, "no URL that can be requested"),
        ({"Location": "http://[::1/"}, "no URL that can be requested"),
        ({"Location": "http://a/1\r\nLocation: http://a/2"}, "no URL that can be requested"),
        ({"Location": "/two words"}, "no URL that can be requested"),
    ],
)
async def test_nowhere_to_go(engine: Engine, server: HttpServer, headers: dict[str, str], why: str) -> None:
    """A redirect to nothing is a typed error."""
    server.script("/o", answer(302, BODY, headers))
    with pytest.raises(MalformedResponse, match=why) as caught:
        await engine.download(server.url("/o"))
    assert not caught.value.retryable
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [300, 304, 305])
async def test_other_statuses_in_between_are_no_redirects(engine: Engine, server: HttpServer, status: int) -> None:
    """They are said, not followed."""
    server.script("/o", answer(status, b"", {"Location": server.url("/there")}))
    with pytest.raises(MalformedResponse, match=f"status {status} is neither what was asked for nor a redirect"):
        await engine.upload(b"x", PutTarget(server.url("/o")))
    assert len(server.requests) == 1


# --- secrets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["put", "complete"])
async def test_what_the_last_server_quotes_of_its_url_stays_out(
    engine: Engine, server: HttpServer, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """The query that came by the redirect is as secret as the one that was given; the way is told without it."""
    caplog.set_level(logging.DEBUG)
    quoted = b"<Error><Code>SignatureDoesNotMatch</Code><Message>abcdef/123456 no</Message></Error>"
    server.script("/o", moved(server.url("/there?X-Amz-Signature=abcdef%2F123456"), 307))
    server.script("/there", answer(403 if kind == "put" else 200, quoted))
    target: PutTarget | MultipartTarget = PutTarget(server.url("/o"))
    if kind == "complete":
        target = MultipartTarget("U", MiB, (server.url("/part"),), server.url("/o"))
    expected = PermissionDenied if kind == "put" else BadRequest
    with pytest.raises(expected) as caught:
        await engine.upload(b"x", target)
    said = f"{caught.value}{caught.value.body}{caplog.text}"
    assert "123456" not in said
    assert f"/o, redirected to {server.url('/there')}?...: status" in said


async def test_a_hop_that_cannot_be_reached_is_named_without_its_query(engine: Engine, server: HttpServer) -> None:
    """A failed connection is tried again, from the start."""
    server.script("/o", *[moved("http://127.0.0.1:9/there?sig=SECRET")] * 4)
    with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:9/") as caught:
        await engine.download(server.url("/o"))
    assert "SECRET" not in str(caught.value)
    assert len(server.requests) == 4


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (503, ServerError)])
async def test_refusals_at_the_end_keep_their_type(
    engine: Engine, server: HttpServer, status: int, kind: type[Exception]
) -> None:
    """A redirect changes nothing about what is tried again."""
    server.script("/o", *[moved("/there")] * 4)
    server.script("/there", *[answer(status)] * 4)
    with pytest.raises(kind):
        await engine.download(server.url("/o"))
    assert len(server.of("GET", "/there")) == (1 if status == 404 else 4)
