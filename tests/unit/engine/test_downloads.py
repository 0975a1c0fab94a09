"""Downloads: one request or ranges, into files, memory and streams."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.engine import Download, Engine, Outcome, StreamSink, UrlOrigin
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from asyncsdk.engine.temporaries import is_temporary, temporary_name
from asyncsdk.errors import (
    AsyncSDKError,
    ChecksumMismatch,
    DestinationFull,
    DestinationUnwritable,
    IncompleteTransfer,
    MalformedResponse,
    NotFound,
    ObjectChanged,
    PermissionDenied,
)
from tests.support.feeds import RecordingFeed
from tests.support.http_server import (
    Action,
    Connection,
    HttpServer,
    Received,
    answer,
    close,
    cut_reply,
    ignore_range,
    raw,
)

SIZES = [0, 1, 65_537, MiB, MiB + 1, 2 * MiB, 5 * MiB + 17]


async def fetch(engine: Engine, origin: UrlOrigin | str, kind: str, tmp_path: Path) -> tuple[Outcome, bytes]:
    if kind == "file":
        outcome = await engine.download(origin, tmp_path / "new" / "copy")
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["copy"]
        return outcome, (tmp_path / "new" / "copy").read_bytes()
    if kind == "memory":
        outcome = await engine.download(origin)
        assert outcome.data is not None
        return outcome, outcome.data
    got: list[bytes] = []

    async def send(data: bytes) -> None:
        assert len(data) <= MiB
        got.append(data)

    return await engine.download(origin, StreamSink(send)), b"".join(got)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
@pytest.mark.parametrize("known", [False, True])
async def test_every_size_arrives_whole_in_every_sink(
    engine: Engine, server: HttpServer, tmp_path: Path, size: int, kind: str, known: bool
) -> None:
    server.objects["/o"] = data = os.urandom(size)
    checksum = crc32c_hex(crc32c(data))
    origin = UrlOrigin(server.url("/o"), size_bytes=size, crc32c=checksum, etag=server.etag("/o")) if known else None
    outcome, got = await fetch(engine, origin or server.url("/o"), kind, tmp_path)
    assert got == data
    assert (outcome.size_bytes, outcome.crc32c, outcome.verified) == (size, checksum, known)
    ranges = [r.header("range") for r in server.requests]
    if size > (2 * MiB if known else MiB):
        covered = sorted(tuple(map(int, r.removeprefix("bytes=").split("-"))) for r in set(ranges) if r is not None)
        assert covered == [(s, min(s + MiB, size) - 1) for s in range(0, size, MiB)]
        assert process_budget().leased_bytes == 0


@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
@pytest.mark.parametrize("known", [False, True])
async def test_a_server_that_ignores_ranges_gives_everything_at_once(
    engine: Engine, server: HttpServer, tmp_path: Path, kind: str, known: bool
) -> None:
    server.objects["/o"] = data = os.urandom(5 * MiB)
    server.script("/o", *[ignore_range()] * 10)
    origin = UrlOrigin(server.url("/o"), size_bytes=len(data) if known else None)
    assert (await fetch(engine, origin, kind, tmp_path))[1] == data


@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
async def test_a_body_of_unknown_length_is_taken_whole(
    engine: Engine, server: HttpServer, tmp_path: Path, kind: str
) -> None:
    data = os.urandom(3 * MiB)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    server.script("/o", *[raw(chunked)] * 3)
    assert (await fetch(engine, server.url("/o"), kind, tmp_path))[1] == data


@pytest.mark.parametrize("size", [0, 1, 65_537])
async def test_the_identity_of_a_small_file_is_that_of_the_file(
    engine: Engine, server: HttpServer, tmp_path: Path, size: int
) -> None:
    """Taken while the file is open, told only to who asks, and what a look by name finds afterwards."""
    server.objects["/o"] = os.urandom(size)
    origin = UrlOrigin(server.url("/o"), size_bytes=size)
    transfers = [Download(origin, tmp_path / name, key=name, wants_identity=name == "asks") for name in ("asks", "not")]
    async with engine.run(transfers) as outcomes:
        found = {outcome.transfer.key: outcome.identity async for outcome in outcomes}
    facts = (tmp_path / "asks").stat()
    assert found == {"asks": (size, facts.st_mtime_ns, facts.st_ino), "not": None}


async def test_an_empty_object_may_have_no_range_to_give(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    server.objects["/o"] = b""
    outcome = await engine.download(server.url("/o"), tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == b""
    assert outcome.size_bytes == 0


async def test_a_range_refused_for_no_reason_is_asked_without(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = b"data"
    server.script("/o", answer(416))
    assert (await engine.download(server.url("/o"))).data == b"data"
    assert [r.header("range") for r in server.requests] == ["bytes=0-1048575", None]


@pytest.mark.parametrize("name", ["x-amz-checksum-crc32c", "x-goog-hash"])
async def test_a_checksum_named_by_the_server_is_compared(engine: Engine, server: HttpServer, name: str) -> None:
    def says(value: int) -> Action:
        prefix = "crc32c=" if name == "x-goog-hash" else ""
        return answer(200, b"abc", {name: prefix + crc32c_base64(value)})

    server.script("/o", says(crc32c(b"abc")))
    assert (await engine.download(server.url("/o"))).verified
    server.script("/o", says(1), says(crc32c(b"abc")))
    assert (await engine.download(server.url("/o"))).attempts == 2


async def test_checksums_of_checksums_and_of_packed_bytes_do_not_count(engine: Engine, server: HttpServer) -> None:
    for headers in (
        {"x-amz-checksum-crc32c": f"{crc32c_base64(1)}-3"},
        {"x-goog-hash": f"crc32c={crc32c_base64(1)}", "x-goog-stored-content-encoding": "gzip"},
    ):
        server.script("/o", answer(200, b"abc", headers))
        assert not (await engine.download(server.url("/o"))).verified


@pytest.mark.parametrize("size", [1000, 4 * MiB])
@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
async def test_wrong_bytes_are_never_published(
    engine: Engine, server: HttpServer, tmp_path: Path, size: int, kind: str
) -> None:
    server.objects["/o"] = os.urandom(size)
    with pytest.raises(ChecksumMismatch):
        await fetch(engine, UrlOrigin(server.url("/o"), size_bytes=size, crc32c="00000000"), kind, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


async def test_cut_replies_are_tried_again(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    server.objects["/o"] = data = os.urandom(900_000)
    server.script("/o", cut_reply(500_000), close(), answer(503))
    outcome = await engine.download(server.url("/o"), tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == data
    assert outcome.attempts == 4


async def test_a_range_that_fails_is_asked_again_alone(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    server.objects["/o"] = data = os.urandom(5 * MiB)

    async def cut(connection: Connection, request: Received) -> bool:
        start = int((request.header("range") or "").removeprefix("bytes=").split("-")[0])
        headers = {"Content-Range": f"bytes {start}-{start + MiB - 1}/{len(data)}", "ETag": server.etag("/o")}
        await connection.reply(206, data[start : start + MiB], headers, cut_after=600_000)
        return True

    server.script("/o", cut, cut)
    outcome = await engine.download(UrlOrigin(server.url("/o"), size_bytes=len(data)), tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == data
    assert len(server.requests) == 7
    assert outcome.attempts in {2, 3}


@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
async def test_an_object_replaced_between_ranges_is_noticed(
    engine: Engine, server: HttpServer, tmp_path: Path, kind: str
) -> None:
    server.objects["/o"] = os.urandom(5 * MiB)

    async def replace(connection: Connection, request: Received) -> bool:
        await server.answer(connection, request)
        server.objects["/o"] = os.urandom(5 * MiB)
        return True

    server.script("/o", replace)
    with pytest.raises(ObjectChanged):
        await fetch(engine, server.url("/o"), kind, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


async def test_another_etag_than_the_first_is_noticed_without_preconditions(server: HttpServer, engine: Engine) -> None:
    server.objects["/o"] = data = bytes(5 * MiB)

    def ranged(etag: str) -> Action:
        async def action(connection: Connection, request: Received) -> bool:
            start = int((request.header("range") or "").removeprefix("bytes=").split("-")[0])
            headers = {"Content-Range": f"bytes {start}-{start + MiB - 1}/{len(data)}", "ETag": etag}
            await connection.reply(206, data[start : start + MiB], headers)
            return True

        return action

    server.script("/o", ranged('W/"1"'), *[ranged('W/"2"')] * 9)
    with pytest.raises(ObjectChanged):
        await engine.download(UrlOrigin(server.url("/o"), size_bytes=len(data)))
    assert all(r.header("if-match") is None for r in server.requests)


async def test_another_size_than_announced_is_a_changed_object(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = bytes(100)
    with pytest.raises(ObjectChanged):
        await engine.download(UrlOrigin(server.url("/o"), size_bytes=99))
    with pytest.raises(ObjectChanged):
        await engine.download(UrlOrigin(server.url("/o"), size_bytes=5 * MiB))


@pytest.mark.parametrize(
    "content_range", [None, "bytes 5-104/1000000", "bytes 0-99/*", "bytes 0-9999999/10", "nonsense"]
)
async def test_a_partial_answer_to_another_question_is_malformed(
    engine: Engine, server: HttpServer, content_range: str | None
) -> None:
    headers = {} if content_range is None else {"Content-Range": content_range}
    server.script("/o", *[answer(206, bytes(100), headers)] * 4)
    with pytest.raises(MalformedResponse):
        await engine.download(server.url("/o"))


async def test_missing_objects_are_not_found_and_leave_nothing(
    engine: Engine, server: HttpServer, tmp_path: Path
) -> None:
    with pytest.raises(NotFound) as caught:
        await engine.download(server.url("/none"), tmp_path / "o")
    assert caught.value.server_code == "NoSuchKey"
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


async def test_destinations_that_cannot_be(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    server.objects["/o"] = b"x"
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DestinationUnwritable, match="folder"):
        await engine.download(server.url("/o"), tmp_path / "folder")
    with pytest.raises(DestinationUnwritable):
        await engine.download(server.url("/o"), tmp_path / "file" / "o")
    with pytest.raises(DestinationUnwritable):
        await engine.download(server.url("/o"), tmp_path / ("n" * 256))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("size", [1000, 900_000, 5 * MiB])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_typed_and_leaves_nothing(
    engine: Engine, server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, code: int
) -> None:
    server.objects["/o"] = bytes(size)

    def full(fd: int, data: object, offset: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DestinationFull):
        await engine.download(server.url("/o"), tmp_path / "o")
    assert list(tmp_path.iterdir()) == []


async def test_a_file_replaces_the_old_one_and_has_the_mode_of_the_umask(
    engine: Engine, server: HttpServer, tmp_path: Path
) -> None:
    server.objects["/o"] = b"new"
    (tmp_path / "o").write_bytes(b"old and longer")
    before = os.umask(0o027)
    try:
        await engine.download(server.url("/o"), tmp_path / "o")
    finally:
        os.umask(before)
    assert (tmp_path / "o").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["a", "n" * 255, "ü" * 127, "日" * 85, os.fsdecode(b"\xff" * 255)])
def test_temporary_names_are_hidden_unique_and_fit(name: str) -> None:
    temporary = temporary_name(name)
    assert temporary.startswith(".")
    assert len(os.fsencode(temporary)) <= 255
    assert temporary != temporary_name(name)
    assert is_temporary(temporary)
    assert not is_temporary(name)
    if name.isprintable():
        assert os.fsencode(temporary).decode()


async def test_a_name_of_255_bytes_can_be_a_destination(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    server.objects["/o"] = b"x"
    await engine.download(server.url("/o"), tmp_path / ("n" * 255))
    assert [p.name for p in tmp_path.iterdir()] == ["n" * 255]


async def test_what_a_stream_raises_is_the_cause(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = bytes(5 * MiB)

    async def send(data: bytes) -> None:
        raise KeyError("mine")

    with pytest.raises(DestinationUnwritable) as caught:
        await engine.download(server.url("/o"), StreamSink(send))
    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_expired_url_is_renewed_once_by_the_servers_clock(engine: Engine, server: HttpServer) -> None:
    server.clock = 2_000_000_000.0
    server.objects["/new"] = b"data"
    server.script("/old", *[answer(403)] * 4)
    fresh = UrlOrigin(server.url("/new"), expires_at=2_000_000_900.0)
    old = UrlOrigin(server.url("/old"), expires_at=1_999_999_999.0)
    feed = RecordingFeed([Download(old)], on_renew=lambda transfer, first: fresh)
    outcomes = [outcome async for outcome in _drain(engine, feed)]
    assert outcomes[0].data == b"data"
    assert feed.renewals == [1]
    still = UrlOrigin(server.url("/old"), expires_at=2_000_000_060.0)
    feed = RecordingFeed([Download(still)], on_renew=lambda transfer, first: fresh)
    outcomes = [outcome async for outcome in _drain(engine, feed)]
    assert isinstance(outcomes[0].error, PermissionDenied)
    assert feed.renewals == []


async def _drain(engine: Engine, feed: RecordingFeed) -> object:  # type: ignore[misc]
    async with engine.run(feed) as outcomes:
        async for outcome in outcomes:
            yield outcome


async def test_incomplete_downloads_tell_how_much_came(engine: Engine, server: HttpServer) -> None:
    server.objects["/o"] = bytes(1000)
    server.script("/o", *[cut_reply(100)] * 4)
    with pytest.raises(IncompleteTransfer) as caught:
        await engine.download(server.url("/o"))
    assert (caught.value.declared, caught.value.received) == (1000, 100)


async def test_errors_name_the_url_without_its_query(engine: Engine, server: HttpServer) -> None:
    secret = os.urandom(12).hex()
    with pytest.raises(AsyncSDKError) as caught:
        await engine.download(server.url(f"/none?sig={secret}"))
    assert "/none" in str(caught.value)
    assert secret not in f"{caught.value}{caught.value!r}{vars(caught.value)}"
