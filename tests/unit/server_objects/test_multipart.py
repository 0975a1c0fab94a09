"""What holds uploads in parts together when things go wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, Conflict, NotFound
from asyncsdk.server.objects import ledger, multipart
from asyncsdk.server.objects.arrivals import Expected
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.multipart import MultipartUpload
from asyncsdk.server.objects.parts import Receipt, UploadId, part_size_for

PART = 1000


@pytest.fixture
def upload(tmp_path: Path) -> MultipartUpload:
    return MultipartUpload(LocalObjects(tmp_path), make_id(), UploadId("0" * 16, PART, None))


def send(upload: MultipartUpload, part: int, data: bytes) -> tuple[int, str]:
    with upload.begin(part, Expected(len(data))) as arrival:
        arrival.write([data])
        return part, arrival.finish().etag


def names(upload: MultipartUpload) -> list[str]:
    return sorted(path.name for path in upload.list_path.parent.iterdir())


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, 32), (0, 8), (8 * 10_000, 8), (8 * 10_000 + 1, 16), (50_000_000, 8192)],
)
def test_part_sizes_double_until_ten_thousand_are_enough(size: int | None, expected: int) -> None:
    mib = 1024 * 1024
    part_size = part_size_for(None if size is None else size * mib)
    assert part_size == expected * mib


def test_an_upload_id_says_all_that_must_be_known() -> None:
    for size in (None, 0, 1, 10**13):
        made = UploadId.make(size)
        assert UploadId.parse(str(made)) == made
    for bad in ("", "x", "../" + "0" * 13 + "-1-x", "0" * 16 + "-0-x", "0" * 16 + "-1-", "0" * 16 + "-9999999999-x"):
        with pytest.raises(BadRequest):
            UploadId.parse(bad)
    with pytest.raises(BadRequest):
        UploadId.make(10**15)


def test_an_attempt_that_was_begun_again_can_neither_write_nor_finish(upload: MultipartUpload) -> None:
    with upload.begin(1, Expected(4)) as old:
        old.write([b"ol"])
        new = send(upload, 1, b"new!")
        with pytest.raises(Conflict) as caught:
            old.write([b"d!"])
        assert caught.value.server_code == "superseded"
    with upload.begin(2, Expected(0)) as empty_old:
        send(upload, 2, b"")
        with pytest.raises(Conflict):
            empty_old.finish()
    assert [receipt.part for receipt in upload.receipts()] == [1, 2]
    assert upload.data_path.read_bytes() == b"new!"
    assert new == (1, f'"{crc32c_hex(crc32c(b"new!"))}-4"')


def test_beginning_a_part_again_takes_its_receipt_away(upload: MultipartUpload) -> None:
    listed = [send(upload, 1, b"a" * PART), send(upload, 2, b"b")]
    upload.begin(1, Expected(PART)).discard()
    assert [receipt.part for receipt in upload.receipts()] == [2]
    with pytest.raises(BadRequest):
        upload.complete(listed)


def test_a_straggler_never_writes_into_the_object(upload: MultipartUpload) -> None:
    """The data file and the published object are one file: the attempt below holds it open."""
    straggler = upload.begin(2, Expected(1))
    listed = [send(upload, 1, b"a" * PART), send(upload, 2, b"b")]
    late = upload.begin(3, Expected(1))
    whole = upload.complete(listed)
    upload.objects.publish([(upload.object_id, whole.crc32c)])
    for arrival in (straggler, late):
        with arrival, pytest.raises(Conflict):
            arrival.write([b"!"])
    assert upload.objects.path(upload.object_id, whole.crc32c).read_bytes() == b"a" * PART + b"b"
    assert names(upload) == [f"{upload.object_id}.{whole.crc32c}"]


def test_a_straggler_in_another_process_never_writes_into_the_object(upload: MultipartUpload) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from asyncsdk.errors import Conflict\n"
        "from asyncsdk.server.objects.arrivals import Expected\n"
        "from asyncsdk.server.objects.local import LocalObjects\n"
        "from asyncsdk.server.objects.multipart import MultipartUpload\n"
        "from asyncsdk.server.objects.parts import UploadId\n"
        "upload = MultipartUpload(LocalObjects(Path(sys.argv[1])), sys.argv[2], UploadId.parse(sys.argv[3]))\n"
        "arrival = upload.begin(1, Expected(1000))\n"
        "print('begun', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    arrival.write([b'z' * 1000])\n"
        "except Conflict as error:\n"
        "    print(error.server_code, flush=True)\n"
    )
    arguments = [str(upload.objects.folder), upload.object_id, str(upload.upload_id)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        whole = upload.complete([send(upload, 1, b"a" * PART)])
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "superseded\n"
    assert upload.objects.staged_path(upload.object_id, whole.crc32c).read_bytes() == b"a" * PART


def test_half_a_line_says_nothing_and_spoils_nothing(upload: MultipartUpload) -> None:
    first = send(upload, 1, b"a" * PART)
    with upload.list_path.open("ab") as file:
        file.write(b"\ndone 2 0000")
    second = send(upload, 2, b"b")
    assert [receipt.part for receipt in upload.receipts()] == [1, 2]
    assert upload.complete([first, second]).size_bytes == PART + 1


def test_receipts_from_before_the_machine_started_do_not_count(
    upload: MultipartUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes may have been lost with the power."""
    listed = [send(upload, 1, b"a" * PART), send(upload, 2, b"b")]
    monkeypatch.setattr(ledger, "_machine_start", lambda: "ffffffff")
    assert upload.receipts() == []
    with pytest.raises(BadRequest):
        upload.complete(listed)
    assert upload.complete([send(upload, 1, b"a" * PART), send(upload, 2, b"b")]).size_bytes == PART + 1


def test_receipts_whose_bytes_are_gone_do_not_make_an_object(upload: MultipartUpload) -> None:
    listed = [send(upload, 1, b"a" * PART)]
    upload.data_path.unlink()
    with pytest.raises(BadRequest, match="send them again"):
        upload.complete(listed)
    assert upload.receipts() == []


def test_a_longer_last_part_from_before_is_cut_off(upload: MultipartUpload) -> None:
    send(upload, 1, b"longer than the next")
    whole = upload.complete([send(upload, 1, b"short")])
    assert (whole.size_bytes, whole.crc32c) == (5, crc32c_hex(crc32c(b"short")))
    assert upload.objects.staged_path(upload.object_id, whole.crc32c).read_bytes() == b"short"


def test_too_many_bytes_never_reach_the_next_part(upload: MultipartUpload) -> None:
    send(upload, 2, b"b" * PART)
    with upload.begin(1, Expected(PART)) as arrival, pytest.raises(BadRequest):
        arrival.write([b"a" * (PART + 1)])
    assert upload.data_path.read_bytes()[PART:] == b"b" * PART


def test_completing_again_after_publishing_tells_apart_what_was_published(upload: MultipartUpload) -> None:
    whole = upload.complete([send(upload, 1, b"right")])
    upload.objects.publish([(upload.object_id, whole.crc32c)])
    assert upload.complete([(1, Receipt(1, 5, whole.crc32c).etag)]) == whole
    with pytest.raises(NotFound):
        upload.complete([(1, Receipt(1, 5, "00000000").etag)])


def test_a_full_disk_shows_before_the_bytes_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncsdk.errors import DestinationFull

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(multipart, "reserve", full)
    upload = MultipartUpload(LocalObjects(tmp_path), make_id(), UploadId("0" * 16, PART, 2 * PART))
    with pytest.raises(DestinationFull):
        upload.begin(1, Expected(PART))
    upload.abort()
    assert names(upload) == []
