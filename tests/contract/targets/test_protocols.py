"""What only one protocol has: offsets of sessions, lists of blocks, listings and checksums of S3, the form of forms."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c_base64
from asyncsdk.engine import BlobTarget, Engine, FormTarget, PutTarget, ResumableTarget, Resume, Upload
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
from tests.contract.targets.test_arriving import lose_reply, pieces
from tests.support.clouds.azure import AzureServer
from tests.support.clouds.forms import FormServer
from tests.support.clouds.gcs import GcsServer
from tests.support.clouds.kinds import PART_BYTES, Scripted
from tests.support.clouds.s3 import S3Server
from tests.support.http_server import Connection, Received, answer, close


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
    assert caught.value.code == "InvalidUri"


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


@pytest.mark.parametrize("what", ["ours", "another", "nothing", "no way to ask"])
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
        elif what == "nothing":
            server.objects.pop("/o", None)
        return False

    server.script("/o", *[change] * 9)
    with pytest.raises(CompletionUnknown if what == "no way to ask" else NotFound, match="NoSuchUpload"):
        await engine.upload(data, target)


async def test_parts_beyond_the_first_page_of_a_listing_are_sent(multipart: Scripted, tmp_path: Path) -> None:
    """A signed listing is one page: what it does not name is sent again, nothing is assumed."""
    server = multipart.server
    assert isinstance(server, S3Server)
    server.page_size = 2
    (tmp_path / "file").write_bytes(data := os.urandom(4 * PART_BYTES))
    target = multipart.target("o")
    for number in range(1, 4):
        server.uploads[target.upload_id].parts[number] = data[(number - 1) * PART_BYTES : number * PART_BYTES]  # type: ignore[union-attr]
        server.sums[target.upload_id, number] = "x"  # type: ignore[union-attr]
    async with Engine(config()) as engine:
        resume = Resume(target.upload_id, PART_BYTES)  # type: ignore[union-attr]
        (await engine.collect([Upload(tmp_path / "file", target, resume=resume)])).raise_for_failures()
    assert multipart.stored("o") == data


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
