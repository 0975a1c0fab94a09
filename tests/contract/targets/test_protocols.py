"""What only one protocol has: offsets of sessions, lists of blocks, listings and checksums of S3, the form of forms."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_base64
from asyncsdk.engine import (
    BlobTarget,
    Engine,
    FormTarget,
    MultipartTarget,
    PutTarget,
    ResumableTarget,
    Resume,
    Upload,
)
from asyncsdk.errors import (
    BadRequest,
    ChecksumMismatch,
    CompletionUnknown,
    ConfigError,
    Conflict,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    TransferError,
)
from tests.contract.targets.conftest import config
from tests.contract.targets.test_arriving import pieces
from tests.support.clouds.azure import AzureServer
from tests.support.clouds.forms import FormServer
from tests.support.clouds.gcs import GcsServer
from tests.support.clouds.kinds import PART_BYTES, Scripted
from tests.support.clouds.s3 import S3Server
from tests.support.feeds import RecordingFeed
from tests.support.http_server import Connection, Received, answer, close, lose_reply


@pytest.fixture
async def session() -> AsyncIterator[Scripted]:
    """Sessions of Google."""
    kind = Scripted("session")
    async with kind.server:
        yield kind


@pytest.fixture
async def blocks() -> AsyncIterator[Scripted]:
    """Blocks of Azure."""
    kind = Scripted("blocks")
    async with kind.server:
        yield kind


@pytest.fixture
async def multipart() -> AsyncIterator[Scripted]:
    """Parts of S3."""
    kind = Scripted("multipart")
    async with kind.server:
        yield kind


@pytest.fixture
async def forms() -> AsyncIterator[FormServer]:
    """A server that takes forms."""
    async with FormServer() as running:
        yield running


# --- sessions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["path", "stream"])
async def test_what_the_server_did_not_keep_of_a_part_follows(
    engine: Engine, session: Scripted, tmp_path: Path, source: str
) -> None:
    """It may keep less than was sent; the rest is sent, and the checksum is still that of the whole."""
    server = session.server
    assert isinstance(server, GcsServer)
    server.keeps_bytes = PART_BYTES
    (tmp_path / "file").write_bytes(data := os.urandom(7 * PART_BYTES + 5))
    given = tmp_path / "file" if source == "path" else pieces(data)
    outcome = await engine.upload(given, replace(session.target("o"), part_size=3 * PART_BYTES))  # type: ignore[type-var]
    assert session.stored("o") == data
    assert outcome.verified
    assert outcome.attempts == 1
    assert not server.refused


@pytest.mark.parametrize("at", range(4))
async def test_a_lost_reply_before_a_strict_server(engine: Engine, session: Scripted, tmp_path: Path, at: int) -> None:
    """A transport repeats a request whose connection died; a server that refuses the repetition is asked again."""
    server = session.server
    assert isinstance(server, GcsServer)
    server.is_strict = True
    (tmp_path / "file").write_bytes(data := os.urandom(3 * PART_BYTES + 5))

    async def let_pass(connection: Connection, request: Received) -> bool:
        return False

    server.script("/o", *[let_pass] * at, lose_reply())
    outcome = await engine.upload(tmp_path / "file", session.target("o"))
    assert session.stored("o") == data
    assert outcome.verified


@pytest.mark.parametrize("source", ["path", "bytes"])
async def test_what_arrived_of_a_part_that_breaks_again_and_again_stays(
    engine: Engine, session: Scripted, tmp_path: Path, source: str
) -> None:
    """Parts are large: as long as each request gets further, no attempt is counted, and nothing is sent from the
    start."""
    server = session.server
    assert isinstance(server, GcsServer)
    server.keeps_bytes = PART_BYTES
    (tmp_path / "file").write_bytes(data := os.urandom(9 * PART_BYTES))
    lose = lose_reply()

    async def lose_data(connection: Connection, request: Received) -> bool:
        return "*" not in (request.header("content-range") or "").partition("/")[0] and await lose(connection, request)

    server.script("/o", *[lose_data] * 40)
    target = replace(session.target("o"), part_size=8 * PART_BYTES)  # type: ignore[type-var]
    outcome = await engine.upload(tmp_path / "file" if source == "path" else data, target)
    assert session.stored("o") == data
    assert outcome.verified
    assert outcome.attempts == 1
    assert outcome.crc32c == f"{crc32c(data):08x}"


async def test_a_session_that_gets_no_further_counts_attempts(engine: Engine, session: Scripted) -> None:
    """What breaks before a byte is kept is tried as often as the policy says."""
    session.server.script("/o", *[close()] * 60)
    with pytest.raises(ConnectionFailed):
        await engine.upload(os.urandom(PART_BYTES), session.target("o"))


async def test_streams_go_to_a_session_in_small_parts(engine: Engine, session: Scripted) -> None:
    """Their parts are held in memory: the target's size is for files."""
    target = replace(session.target("o"), part_size=64 * 1024 * 1024)  # type: ignore[type-var]
    data = os.urandom(1024) * 20 * 1024
    await engine.upload(pieces(data), target)
    assert session.stored("o") == data
    assert max(len(r.body) for r in session.server.requests) == 8 * 1024 * 1024


async def test_progress_counts_each_byte_of_a_session_once(session: Scripted, tmp_path: Path) -> None:
    """What is sent and not kept is not progress."""
    assert isinstance(session.server, GcsServer)
    session.server.keeps_bytes = PART_BYTES
    (tmp_path / "file").write_bytes(os.urandom(6 * PART_BYTES))
    target = replace(session.target("o"), part_size=3 * PART_BYTES)  # type: ignore[type-var]
    seen: list[int] = []
    async with Engine(config()) as engine:
        report = await engine.collect(
            [Upload(tmp_path / "file", target)], on_progress=lambda progress: seen.append(progress.bytes_done)
        )
    report.raise_for_failures()
    assert seen[-1] == 6 * PART_BYTES


@pytest.mark.parametrize(
    ("told", "message"), [("bytes=0-99999999", "was sent"), ("bytes=5-9", "no range"), ("bytes=0-x", "no range")]
)
async def test_a_wrong_offset_is_an_error_not_a_hole(
    engine: Engine, session: Scripted, told: str, message: str
) -> None:
    """An offset beyond what was sent, or no offset at all, ends it: the object would not be these bytes."""
    session.server.script("/o", answer(308, headers={"Range": told}))
    with pytest.raises(MalformedResponse, match=message):
        await engine.upload(os.urandom(3 * PART_BYTES), session.target("o"))
    assert session.stored("o") is None


async def test_an_offset_that_goes_back_ends_the_session(engine: Engine, session: Scripted) -> None:
    """What the server once said that it had must stay there."""
    assert isinstance(session.server, GcsServer)
    passed = [answer(308, headers={"Range": f"bytes=0-{PART_BYTES - 1}"}), close(), close(), answer(308)]
    session.server.script("/o", *passed)
    with pytest.raises(MalformedResponse, match="it said that it had"):
        await engine.upload(os.urandom(3 * PART_BYTES), session.target("o"))


async def test_a_308_without_range_means_nothing_arrived(engine: Engine, session: Scripted) -> None:
    """Then the part is sent again."""
    session.server.script("/o", answer(308))
    data = os.urandom(PART_BYTES + 1)
    outcome = await engine.upload(data, session.target("o"))
    assert session.stored("o") == data
    assert outcome.attempts == 2


async def test_an_object_that_is_done_too_early_is_an_error(engine: Engine, session: Scripted) -> None:
    """A 200 for the first of three parts is no success."""
    session.server.script("/o", answer(200, b"{}"))
    with pytest.raises(MalformedResponse, match="before it was"):
        await engine.upload(os.urandom(3 * PART_BYTES), session.target("o"))


async def test_a_session_that_states_no_checksum_is_not_verified(engine: Engine, session: Scripted) -> None:
    """Nothing is claimed that nobody said."""
    assert isinstance(session.server, GcsServer)
    session.server.states_checksum = False
    outcome = await engine.upload(b"x", session.target("o"))
    assert not outcome.verified


async def test_a_wrong_size_of_the_finished_object_is_an_error(engine: Engine, session: Scripted) -> None:
    """The description of the object is compared."""
    session.server.script("/o", answer(200, b'{"size": "7"}'))
    with pytest.raises(TransferError, match="1 bytes were declared, 7 came"):
        await engine.upload(b"x", session.target("o"))


async def test_a_real_redirect_of_a_session_is_followed(engine: Engine, session: Scripted) -> None:
    """A 308 that says where to is a redirect, one that does not is an answer."""
    target = session.target("o")
    assert isinstance(target, ResumableTarget)
    path_and_query = "/" + target.url.partition("//")[2].partition("/")[2]
    session.server.script("/old", answer(308, headers={"Location": path_and_query}))
    await engine.upload(b"abc", ResumableTarget(session.server.url("/old"), PART_BYTES))
    assert session.stored("o") == b"abc"


# --- blocks --------------------------------------------------------------------------------------------------


async def test_names_of_blocks_are_equally_long_and_fit_a_url(engine: Engine, blocks: Scripted) -> None:
    """Azure refuses names of different lengths; the base64 of them is escaped."""
    await engine.upload(os.urandom(3 * PART_BYTES), blocks.target("o"))
    names = [r.query["blockid"] for r in blocks.server.requests if r.query.get("comp") == "block"]
    assert len({len(name) for name in names}) == 1
    assert len(set(names)) == 3


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_lost_reply_to_the_list_is_no_conflict(engine: Engine, blocks: Scripted, is_lost: bool) -> None:
    """With ``If-None-Match: *`` the second list finds the blob that the first one made: that is success."""
    server = blocks.server
    assert isinstance(server, AzureServer)
    target = replace(blocks.target("o"), headers={"If-None-Match": "*"})  # type: ignore[type-var]
    data = os.urandom(2 * PART_BYTES)
    if not is_lost:
        server.objects["/o"] = b"another"
        server.committed["/o"] = {}
        with pytest.raises(Conflict):
            await engine.upload(data, target)
        assert blocks.stored("o") == b"another"
        return

    server.script("/o", *[lose_reply(query="comp=blocklist")] * 4)
    outcome = await engine.upload(data, target)
    assert blocks.stored("o") == data
    assert outcome.verified


async def test_a_small_blob_goes_by_one_request(engine: Engine, blocks: Scripted, tmp_path: Path) -> None:
    """Also when its size shows only when the file is opened."""
    (tmp_path / "file").write_bytes(b"small")
    headers = {"x-ms-blob-content-type": "text/plain", "x-ms-meta-a": "b"}
    await engine.upload(tmp_path / "file", replace(blocks.target("o"), headers=headers))  # type: ignore[type-var]
    (request,) = blocks.server.requests
    assert request.header("x-ms-blob-type") == "BlockBlob"
    assert request.header("x-ms-meta-a") == "b"
    assert request.header("content-md5") is not None


async def test_properties_of_a_blob_go_with_the_list_alone(engine: Engine, blocks: Scripted) -> None:
    """A block has no type and no condition."""
    headers = {"x-ms-blob-content-type": "text/plain", "If-None-Match": "*"}
    target = replace(blocks.target("o"), headers=headers)  # type: ignore[type-var]
    await engine.upload(os.urandom(2 * PART_BYTES), target)
    *sent, last = blocks.server.requests
    assert all(r.header("if-none-match") is None and r.header("x-ms-blob-content-type") is None for r in sent)
    assert last.header("if-none-match") == "*"


async def test_blocks_that_may_not_be_asked_for_are_sent(engine: Engine, blocks: Scripted) -> None:
    """A signature without read permission resumes nothing, and harms nothing."""
    assert isinstance(blocks.server, AzureServer)
    blocks.server.may_read = False
    target = blocks.target("o")
    data = os.urandom(2 * PART_BYTES)
    report = await engine.collect([Upload(data, target, resume=Resume(target.upload_id, PART_BYTES))])  # type: ignore[union-attr]
    report.raise_for_failures()
    assert blocks.stored("o") == data


async def test_azures_words_are_told(engine: Engine, blocks: Scripted) -> None:
    """Its XML begins with a byte order mark."""
    target = blocks.target("o")
    assert isinstance(target, BlobTarget)
    with pytest.raises(BadRequest, match=r"No\.") as caught:
        blocks.server.script(
            "/o",
            answer(
                400, b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>InvalidUri</Code><Message>No.</Message></Error>"
            ),
        )
        await engine.upload(b"x", target)
    assert caught.value.server_code == "InvalidUri"


# --- S3 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["FULL_OBJECT", "COMPOSITE"])
@pytest.mark.parametrize("is_wrong", [False, True])
async def test_the_checksum_of_the_whole_is_compared(
    engine: Engine, multipart: Scripted, kind: str, is_wrong: bool
) -> None:
    """That of all bytes, or that of the checksums of the parts."""
    server = multipart.server
    assert isinstance(server, S3Server)
    server.kind = kind
    data = os.urandom(3 * PART_BYTES)
    if not is_wrong:
        outcome = await engine.upload(data, multipart.target("o"))
        assert outcome.verified
        assert b"<ChecksumCRC32C>" in server.of("POST")[0].body
        return
    value = crc32c_base64(7) + ("-3" if kind == "COMPOSITE" else "")
    body = f"<CompleteMultipartUploadResult><ChecksumCRC32C>{value}</ChecksumCRC32C></CompleteMultipartUploadResult>"

    async def lie(connection: Connection, request: Received) -> bool:
        if request.method != "POST":
            return False
        await connection.read_body(request)
        await connection.reply(200, body.encode())
        return True

    server.script("/o", *[lie] * 9)
    with pytest.raises(ChecksumMismatch):
        await engine.upload(data, multipart.target("o"))


@pytest.mark.parametrize("what", ["ours", "another", "nothing", "no way to ask", "an ETag of the whole"])
async def test_a_lost_reply_to_completing(engine: Engine, multipart: Scripted, what: str) -> None:
    """Where the second call finds no upload, the object's ETag tells whether the first one made it."""
    server, target = multipart.server, multipart.target("o")
    server.script("/o", *[lose_reply(method="POST")] * 3)
    data = os.urandom(2 * PART_BYTES)
    if what == "ours":
        outcome = await engine.upload(data, target)
        assert multipart.stored("o") == data
        assert outcome.verified  # every part was
        return
    if what == "no way to ask":
        target = replace(target, object_url="")  # type: ignore[type-var]

    async def change(connection: Connection, request: Received) -> bool:
        if what == "another":
            server.etags["/o"] = f'"{"0" * 32}-2"'
        elif what == "an ETag of the whole":  # as rclone's are
            server.etags["/o"] = f'"{hashlib.md5(data).hexdigest()}"'
        elif what == "nothing":
            server.objects.pop("/o", None)
        return False

    server.script("/o", *[change] * 9)
    nobody_can_tell = what in {"no way to ask", "an ETag of the whole"}
    with pytest.raises(CompletionUnknown if nobody_can_tell else NotFound, match="NoSuchUpload"):
        await engine.upload(data, target)


async def test_a_stream_announced_as_too_large_is_refused_before_anything_is_sent(
    engine: Engine, multipart: Scripted
) -> None:
    """With the size that parts would need; one of unknown size is told what would help."""
    target = many_parts(multipart, 1, 8)
    report = await engine.collect([Upload(pieces(bytes(10_001)), target, size_bytes=10_001)])
    with pytest.raises(TransferError, match=r"more than 10000 parts of 1 bytes; it needs parts of at least 2 bytes"):
        raise report.failures[0].error or AssertionError
    assert multipart.server.requests == []
    limited = replace(multipart.target("p"), part_size=1)  # type: ignore[type-var]
    with pytest.raises(TransferError, match=r"a stream whose size is told beforehand, or a file, may be larger"):
        await engine.upload(pieces(bytes(10_001)), with_pages(many_parts_of(limited, 10_000), 0))


def many_parts_of(target: object, count: int) -> MultipartTarget:
    assert isinstance(target, MultipartTarget)
    urls = tuple(f"{target.complete_url}&partNumber={number}" for number in range(1, count + 1))
    return replace(target, part_urls=urls)


def with_pages(target: MultipartTarget, pages: int) -> MultipartTarget:
    whole = target.complete_url
    lists = tuple(f"{whole}&part-number-marker={page * 1000}" if page else whole for page in range(pages))
    return replace(target, list_urls=lists)


def many_parts(kind: Scripted, part_bytes: int, count: int) -> MultipartTarget:
    """Return an upload of many tiny parts."""
    return replace(many_parts_of(kind.target("o"), count), part_size=part_bytes)


@pytest.mark.parametrize(
    ("missing", "page_size", "given", "fresh", "sent", "pages"),
    [
        ((2350,), 1000, 3, 3, 1, 3),
        (tuple(range(1, 1100)), 1000, 3, 3, 1099, 2),  # the first page reaches part 2099: the second is of no use
        ((5, 1000, 1001, 2000, 2001), 1000, 3, 3, 5, 3),
        ((2350,), 1000, 1, 3, 1, 3),  # what it has no URL for comes with a renewal
        ((2350,), 1000, 1, 1, 1400, 1),  # which may have none either: all beyond is sent, nothing is assumed
        ((2350,), 400, 3, 3, 1201, 3),  # a server with smaller pages than S3's: what is on none of ours is sent
    ],
)
async def test_a_listing_is_followed_page_by_page(
    multipart: Scripted,
    tmp_path: Path,
    missing: tuple[int, ...],
    page_size: int,
    given: int,
    fresh: int,
    sent: int,
    pages: int,
) -> None:
    """Of 2,400 parts those that are missing are sent, counted by what arrives."""
    server, count, part_bytes = multipart.server, 2400, 64
    assert isinstance(server, S3Server)
    server.page_size = page_size
    (tmp_path / "file").write_bytes(data := os.urandom(count * part_bytes))
    target = with_pages(many_parts(multipart, part_bytes, count), given)
    for number in set(range(1, count + 1)) - set(missing):
        part = data[(number - 1) * part_bytes : number * part_bytes]
        server.uploads[target.upload_id].parts[number] = part
        server.sums[target.upload_id, number] = crc32c_base64(crc32c(part))
    feed = RecordingFeed(
        [Upload(tmp_path / "file", target, resume=Resume(target.upload_id, part_bytes))],
        on_renew=lambda transfer, first: with_pages(target, fresh),
    )
    async with Engine(config()) as engine:
        (await engine.collect(feed)).raise_for_failures()
    assert multipart.stored("o") == data
    assert len(server.of("PUT")) == sent
    assert len([r for r in server.of("GET") if "uploadId" in r.query]) == pages


async def test_a_part_beyond_the_first_page_that_was_sent_twice_is_looked_up(multipart: Scripted) -> None:
    """Which of the two the server has, its listing says; the page comes with a renewal."""
    server, count = multipart.server, 1200
    target = with_pages(many_parts(multipart, 64, count), 1)
    tried: list[str] = []

    async def refuse_once(connection: Connection, request: Received) -> bool:
        number = request.query.get("partNumber", "")
        if number != "1150" or number in tried:
            return False
        tried.append(number)
        await connection.read_body(request)
        await connection.reply(503)
        return True

    server.script("/o", *[refuse_once] * 1300)
    data = os.urandom(64 * count)
    feed = RecordingFeed([Upload(data, target)], on_renew=lambda transfer, first: with_pages(target, 2))
    async with Engine(config()) as engine:
        (await engine.collect(feed)).raise_for_failures()
    assert multipart.stored("o") == data
    assert feed.renewals == [1]
    listed = [r.query.get("part-number-marker") for r in server.of("GET") if "uploadId" in r.query]
    assert listed == [None, "1000"]


async def test_md5_is_told_and_compared_where_it_is_asked_for(engine: Engine, multipart: Scripted) -> None:
    """An empty Content-MD5 is filled in; the ETag of S3, which is the MD5 then, confirms it."""
    data = os.urandom(1000)
    outcome = await engine.upload(data, PutTarget(multipart.server.url("/o"), {"Content-MD5": ""}))
    assert outcome.verified
    multipart.server.script("/o", *[answer(200, headers={"ETag": f'"{"0" * 32}"', "x-amz-request-id": "r"})] * 9)
    with pytest.raises(ChecksumMismatch):
        await engine.upload(data, PutTarget(multipart.server.url("/o"), {"Content-MD5": ""}))
    multipart.server._scripts.clear()
    multipart.server.script("/o", answer(200, headers={"ETag": f'"{"0" * 32}"'}))
    outcome = await engine.upload(data, PutTarget(multipart.server.url("/o"), {"Content-MD5": ""}))
    assert not outcome.verified  # somebody else's ETag may be anything


# --- conditions ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["put", "blob"])
async def whole(request: pytest.FixtureRequest) -> AsyncIterator[Scripted]:
    """Kinds whose one request may be conditional."""
    kind = Scripted(request.param)
    async with kind.server:
        yield kind


def only_new(kind: Scripted) -> PutTarget | BlobTarget:
    target = kind.target("o")
    assert isinstance(target, (PutTarget, BlobTarget))
    return replace(target, headers={**target.headers, "If-None-Match": "*"})


@pytest.mark.parametrize("source", ["bytes", "path"])
@pytest.mark.parametrize("is_warm", [False, True])
async def test_a_lost_reply_to_a_conditional_upload_is_no_conflict(
    engine: Engine, whole: Scripted, tmp_path: Path, source: str, is_warm: bool
) -> None:
    """What the second request finds is what the first one stored; also where the connection had been used before."""
    if is_warm:
        await engine.upload(b"warm", whole.target("p"))
    (tmp_path / "file").write_bytes(data := os.urandom(100_000))
    whole.server.script("/o", lose_reply(method="PUT"))
    given = {"bytes": data, "path": tmp_path / "file"}[source]
    outcome = await engine.upload(given, only_new(whole))
    assert whole.stored("o") == data
    assert (outcome.verified, outcome.size_bytes, outcome.crc32c) == (True, len(data), f"{crc32c(data):08x}")
    assert len([r for r in whole.server.of("PUT") if r.path == "/o"]) == 2


async def test_a_lost_reply_of_a_server_that_went_out_is_no_conflict(engine: Engine, whole: Scripted) -> None:
    """What waits for its server meanwhile is not forgotten to have been sent."""
    url = whole.server.url("/o")
    lose = lose_reply(method="PUT")

    async def lose_and_go(connection: Connection, request: Received) -> bool:
        while not engine.limits.origins.is_out(url):
            engine.limits.origins.failed(url)
            engine.limits.origins.must_wait(url)
        return await lose(connection, request)

    whole.server.script("/o", lose_and_go)
    async with engine.run([Upload(b"ours", only_new(whole))]) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert whole.stored("o") == b"ours"
    assert outcome.error is None
    assert outcome.verified
    assert len(whole.server.of("PUT")) == 2


@pytest.mark.parametrize("is_lost", [False, True])
async def test_what_somebody_else_made_is_a_conflict(engine: Engine, whole: Scripted, is_lost: bool) -> None:
    """Whatever became of the first request: another object is there."""
    whole.server.objects["/o"] = b"another"
    whole.server.script("/o", *[lose_reply()] * is_lost)
    with pytest.raises(Conflict):
        await engine.upload(b"ours", only_new(whole))
    assert whole.stored("o") == b"another"


async def test_a_conflict_that_nobody_can_explain_claims_nothing(engine: Engine, whole: Scripted) -> None:
    """The URL may not look; a feed that judges uploads is left to find out."""

    async def refuse_to_show(connection: Connection, request: Received) -> bool:
        if request.method == "GET":
            await connection.reply(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        return request.method == "GET"

    whole.server.script("/o", lose_reply(), refuse_to_show, refuse_to_show)
    with pytest.raises(CompletionUnknown, match="reply was lost"):
        await engine.upload(b"ours", only_new(whole))
    whole.server.objects.clear()
    whole.server.requests.clear()
    whole.server._scripts.clear()
    whole.server.script("/o", lose_reply())
    feed = RecordingFeed([Upload(b"ours", only_new(whole))])
    feed.judges_uploads = True  # type: ignore[attr-defined]
    report = await engine.collect(feed)
    report.raise_for_failures()
    assert whole.stored("o") == b"ours"
    assert not whole.server.of("GET")


async def test_a_refusal_that_stored_nothing_is_not_doubted(engine: Engine, whole: Scripted) -> None:
    """Told to slow down, and refused then: that somebody made the same object is a conflict all the same."""
    whole.server.objects["/o"] = b"ours"
    whole.server.script("/o", answer(429))
    with pytest.raises(Conflict):
        await engine.upload(b"ours", only_new(whole))
    assert not whole.server.of("GET")


# --- forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 300_000])
@pytest.mark.parametrize("source", ["bytes", "path"])
async def test_fields_come_in_order_and_the_file_last(
    engine: Engine, forms: FormServer, tmp_path: Path, size: int, source: str
) -> None:
    """Names, values and file are what was given, byte for byte; the length is exact."""
    (tmp_path / "ph oto.jpg").write_bytes(data := os.urandom(size))
    fields = (("z", "1"), ("a", "ü\r\n--x"), ("z", "2"), ('quo"te', ""))
    target = FormTarget(forms.url("/o"), fields, file_field="last.pt", content_type="image/jpeg")
    await engine.upload(tmp_path / "ph oto.jpg" if source == "path" else data, target)
    (form,) = forms.forms
    assert form.fields == [("z", "1"), ("a", "ü\r\n--x"), ("z", "2"), ("quo%22te", "")]
    assert (form.file_field, form.content_type, form.data) == ("last.pt", "image/jpeg", data)
    assert form.file_name == ("ph oto.jpg" if source == "path" else "<bytes>")
    (request,) = forms.requests
    assert int(request.header("content-length") or 0) == len(request.body)


async def test_a_form_may_leave_out_file_name_and_type(engine: Engine, forms: FormServer) -> None:
    """What services of the kind want nothing of is not sent."""
    await engine.upload(b"x", FormTarget(forms.url("/o"), file_name=""))
    assert forms.forms[0].file_name is None
    assert forms.forms[0].content_type is None
    await engine.upload(b"x", FormTarget(forms.url("/o"), file_name='a"b\r\nc/ü'))
    assert forms.forms[1].file_name == "a%22b%0D%0Ac/ü"


async def test_the_boundary_is_in_no_field_and_in_no_bytes(
    engine: Engine, forms: FormServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that occurs is not taken."""
    made = iter(["a" * 32, "b" * 32, "c" * 32])
    monkeypatch.setattr("asyncsdk.engine.forms.secrets.token_hex", lambda size: next(made))
    await engine.upload(b"x" + b"b" * 40, FormTarget(forms.url("/o"), (("f", "a" * 32),)))
    assert (forms.requests[0].header("content-type") or "").endswith("c" * 32)
    assert forms.forms[0].data == b"x" + b"b" * 40


async def test_only_the_statuses_that_mean_success_do(engine: Engine, forms: FormServer) -> None:
    """A 200 is no success where 201 is wanted, and the other way round."""
    forms.status = 202
    with pytest.raises(MalformedResponse):
        await engine.upload(b"x", FormTarget(forms.url("/o"), success=(200,)))
    await engine.upload(b"x", FormTarget(forms.url("/o"), success=(202,)))


async def test_a_redirect_may_mean_success(engine: Engine, forms: FormServer) -> None:
    """``success_action_redirect`` of S3: the 303 says that the object is there, and nobody goes where it leads."""
    forms.status = 303
    await engine.upload(b"x", FormTarget(forms.url("/o"), success=(303,)))
    assert forms.objects["/o"] == b"x"
    assert [r.path for r in forms.requests] == ["/o"]
    with pytest.raises(MalformedResponse, match="not followed"):
        await engine.upload(b"x", FormTarget(forms.url("/o")))


@pytest.mark.parametrize("source", ["bytes", "path"])
async def test_digests_of_a_form_are_those_of_its_file(
    engine: Engine, forms: FormServer, tmp_path: Path, source: str
) -> None:
    """A header would be of the whole form: the MD5 is compared and not told. Fields that are left empty are filled in,
    in their place."""
    (tmp_path / "file").write_bytes(data := os.urandom(300_000))
    fields = (("a", "1"), ("x-amz-checksum-algorithm", "SHA256"), ("x-amz-checksum-sha256", ""), ("b", ""))
    target = FormTarget(forms.url("/o"), fields, headers={"Content-MD5": "", "X-Own": "1"})
    outcome = await engine.upload(data if source == "bytes" else tmp_path / "file", target)
    assert outcome.verified  # by the ETag, which is the MD5
    (form,) = forms.forms
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert form.fields == [("a", "1"), fields[1], ("x-amz-checksum-sha256", digest), ("b", "")]
    assert form.data == data
    assert forms.requests[0].header("content-md5") is None
    assert forms.requests[0].header("x-own") == "1"
    forms.etags["/o"] = f'"{"0" * 32}"'
    with pytest.raises(ChecksumMismatch):
        await engine.upload(data, target)


@pytest.mark.parametrize("is_repeatable", [False, True])
async def test_a_form_that_makes_something_is_not_sent_twice(
    engine: Engine, forms: FormServer, is_repeatable: bool
) -> None:
    """When no answer came it may have arrived; a refusal that asks for another attempt is heard all the same."""
    target = FormTarget(forms.url("/o"), is_repeatable=is_repeatable)
    forms.script("/o", close())
    if is_repeatable:
        assert (await engine.upload(b"x", target)).attempts == 2
    else:
        with pytest.raises(ConnectionFailed):
            await engine.upload(b"x", target)
        assert len(forms.requests) == 1
    forms.script("/o", answer(503, headers={"Retry-After": "0"}))
    assert (await engine.upload(b"x", target)).attempts == 2


async def test_a_large_form_is_not_held_in_memory(forms: FormServer, tmp_path: Path) -> None:
    """The file is read while it is sent: the byte budget is not touched."""
    forms.keep_bodies = True
    with (tmp_path / "file").open("wb") as file:
        file.truncate(24 * 1024 * 1024)
    seen: list[int] = []
    async with Engine(config()) as engine:
        report = await engine.collect(
            [Upload(tmp_path / "file", FormTarget(forms.url("/o")))],
            on_progress=lambda progress: seen.append(progress.bytes_done),
        )
    report.raise_for_failures()
    assert len(forms.forms[0].data) == 24 * 1024 * 1024
    assert seen[-1] == 24 * 1024 * 1024


def test_forms_that_cannot_be_sent_are_refused() -> None:
    """Before anything is sent."""
    for wrong in (
        {"file_field": ""},
        {"success": ()},
        {"content_type": "a\r\nb"},
        {"fields": (("a", "\ud800"),)},
    ):
        with pytest.raises(ConfigError):
            FormTarget("http://127.0.0.1/o", **wrong)  # type: ignore[arg-type]
    shown = repr(FormTarget("http://127.0.0.1/o?sig=secret", (("policy", "secret"),)))
    assert "secret" not in shown
    assert "policy" in shown


async def test_targets_travel_in_messages() -> None:
    """Each comes back as it went; what they hold shows in no repr."""
    from pydantic import TypeAdapter

    from asyncsdk.protocol.uploads import TargetField

    adapter = TypeAdapter(TargetField)
    for target in (
        ResumableTarget("http://127.0.0.1/o?upload_id=x", PART_BYTES, upload_id="u"),
        BlobTarget("http://127.0.0.1/o?sig=x", 5, 6, {"a": "b"}, "", "u", "v", 7.0),
        FormTarget("http://127.0.0.1/o", (("b", "1"), ("a", "2")), success=(201,), is_repeatable=False),
    ):
        assert adapter.validate_json(adapter.dump_json(target)) == target
