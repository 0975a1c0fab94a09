"""The folder that objects lie in."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, Conflict, DestinationFull, NotFound
from asyncsdk.server.objects import syncing
from asyncsdk.server.objects.arrivals import Arrival, Expected
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.minting import FileMinter
from asyncsdk.targets import FileOrigin, FileTarget

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    return LocalObjects(tmp_path / "data")


def id_at(moment: datetime) -> str:
    return f"{int(moment.timestamp()):08x}0000{os.urandom(6).hex()}"


def stage(objects: LocalObjects, data: bytes, object_id: str | None = None) -> tuple[str, str]:
    object_id = object_id or make_id()
    with Arrival(objects, object_id, Expected(len(data))) as arrival:
        arrival.write([data])
        return object_id, arrival.finish()


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_object_is_staged_published_unstaged_and_removed(objects: LocalObjects) -> None:
    object_id, digest = stage(objects, b"bytes")
    assert digest == crc32c_hex(crc32c(b"bytes"))
    assert (objects.staged_size(object_id, digest), objects.size(object_id)) == (5, None)
    objects.publish([(object_id, digest)])
    assert (objects.staged_size(object_id, digest), objects.size(object_id)) == (5, 5)
    objects.unstage([(object_id, digest)])
    assert (objects.staged_size(object_id, digest), objects.size(object_id)) == (None, 5)
    assert objects.path(object_id).read_bytes() == b"bytes"
    objects.remove([object_id])
    assert objects.size(object_id) is None


def test_every_step_may_be_repeated(objects: LocalObjects) -> None:
    staged = stage(objects, b"bytes")
    for _ in range(2):
        objects.publish([staged])
    for _ in range(2):
        objects.unstage([staged])
    objects.publish([staged])
    for _ in range(2):
        objects.remove([staged[0]])
    objects.publish([])


def test_the_staged_name_is_the_one_that_file_targets_lead_to(objects: LocalObjects) -> None:
    minter = FileMinter(objects)
    object_id = id_at(datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC))
    target = minter.target(object_id, size_bytes=None, crc32c=None)
    assert isinstance(target, FileTarget)
    assert target == minter.renew(object_id, size_bytes=None, crc32c=None, upload_id=None, first_part=1)
    assert target.folder == objects.folder / "staging" / "2026-03-01"
    target.folder.mkdir()
    target.path("0a0b0c0d").write_bytes(b"four")
    assert objects.staged_size(object_id, "0a0b0c0d") == 4
    origin = minter.origin(object_id, size_bytes=4, crc32c="0a0b0c0d", etag='"x"')
    assert origin == FileOrigin(objects.path(object_id), 4, "0a0b0c0d", '"x"')


def test_publishing_what_never_arrived_is_refused(objects: LocalObjects) -> None:
    with pytest.raises(NotFound, match="upload them again"):
        objects.publish([(make_id(), "00000000")])
    with pytest.raises(NotFound):
        objects.open_staged(make_id(), "00000000")


def test_a_published_object_is_never_replaced(objects: LocalObjects) -> None:
    object_id, digest = stage(objects, b"first")
    objects.publish([(object_id, digest)])
    other = stage(objects, b"other", object_id)
    with pytest.raises(Conflict):
        objects.publish([other])
    assert stage(objects, b"first", object_id) == (object_id, digest)  # the same bytes in another file
    objects.publish([(object_id, digest)])
    assert objects.path(object_id).read_bytes() == b"first"


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_objects_are_copied_and_stay_staged(objects: LocalObjects) -> None:
    """By the staged name the commit is repeated, and the sweep finds what nobody committed."""
    staged = stage(objects, b"bytes")
    for _ in range(2):
        objects.publish([staged])
    assert (objects.staged_size(*staged), objects.size(staged[0])) == (5, 5)
    assert objects.path(staged[0]).read_bytes() == b"bytes"
    assert objects.path(staged[0]).stat().st_mode & 0o077 == 0
    assert files_below(objects.folder / "objects") == [f"{staged[0][-2:]}/{staged[0]}"]
    other = stage(objects, b"other", staged[0])
    with pytest.raises(Conflict):
        objects.publish([other])
    objects.unstage([staged, other])
    objects.publish([staged])
    with pytest.raises(NotFound):
        objects.publish([(make_id(), "00000000")])


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_what_a_crash_left_is_written_anew_or_swept(objects: LocalObjects) -> None:
    staged = [stage(objects, b"bytes") for _ in range(2)]
    for object_id, digest in staged:
        published = objects.path(object_id)
        published.parent.mkdir(parents=True, exist_ok=True)
        published.with_name(f"{object_id}.{digest}.tmp").write_bytes(b"longer than what it is to be")
    objects.publish(staged[:1])
    assert objects.path(staged[0][0]).read_bytes() == b"bytes"
    objects.discard_expired(before_ms=2**45, keep=lambda _: {staged[0][0]})
    assert files_below(objects.folder / "objects") == [f"{staged[0][0][-2:]}/{staged[0][0]}"]


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_threads_publishing_the_same_objects_agree(objects: LocalObjects) -> None:
    data = os.urandom(300_000)
    staged = [stage(objects, data) for _ in range(10)]
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(objects.publish, staged) for _ in range(8)]:
            future.result()
    assert all(objects.path(object_id).read_bytes() == data for object_id, _ in staged)


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_a_full_disk_leaves_no_copy(objects: LocalObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    staged = stage(objects, b"bytes")
    with pytest.raises(DestinationFull):
        objects.publish([staged])
    assert files_below(objects.folder / "objects") == []
    assert objects.staged_size(*staged) == 5


def test_one_sync_serves_many_objects(objects: LocalObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("asyncsdk.server.objects.local.make_durable", lambda *given: calls.append(given))
    objects.publish([stage(objects, b"%d" % index) for index in range(50)])
    assert len(calls) == 1


def test_without_syncfs_every_file_is_synced(objects: LocalObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(syncing, "_libc_function", lambda _: None)
    monkeypatch.setattr("os.fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    objects.publish([stage(objects, b"%d" % index) for index in range(3)])
    assert len(synced) >= 3


@pytest.mark.parametrize("has_call", [True, False])
def test_reserving_makes_the_file_that_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_call: bool) -> None:
    if not has_call:
        monkeypatch.setattr(syncing, "_libc_function", lambda _: None)
    with (tmp_path / "file").open("wb") as file:
        for size, expected in ((0, 0), (10_000, 10_000), (5, 10_000)):
            syncing.reserve(file.fileno(), size)
            assert os.fstat(file.fileno()).st_size == expected


@pytest.mark.parametrize(
    "bad",
    ["", ".", "..", "../../secret", "/etc/passwd", "a" * 24 + "/..", "A" * 24, "a" * 23, "a" * 24 + "\n", "\0" * 24],
)
def test_no_other_text_becomes_a_file_name(objects: LocalObjects, bad: str) -> None:
    good = make_id()
    for call in (
        lambda: objects.path(bad),
        lambda: objects.size(bad),
        lambda: objects.staged_size(bad, "00000000"),
        lambda: objects.staged_size(good, bad),
        lambda: objects.open_staged(good, bad),
        lambda: objects.publish([(bad, "00000000")]),
        lambda: objects.unstage([(good, bad)]),
        lambda: objects.remove([bad]),
        lambda: Arrival(objects, bad, Expected(0)),
    ):
        with pytest.raises(BadRequest):
            call()


def test_the_sweep_takes_old_dated_folders_and_what_nobody_committed(objects: LocalObjects) -> None:
    old, new = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 2, 12, tzinfo=UTC)
    committed, crashed, waiting, young = (id_at(day) for day in (old, old, old, new))
    staged = {name: stage(objects, name.encode(), name) for name in (committed, crashed, waiting, young)}
    objects.publish([staged[committed], staged[crashed], staged[young]])
    folder = objects.staging_folder(committed)
    for leftover in (f"{waiting}.0123456789abcdef.tmp", f"{make_id()}.x.part", "unnamed"):
        (folder / leftover).write_bytes(b"half")
    asked: list[str] = []

    def keep(object_ids: Sequence[str]) -> set[str]:
        asked.extend(object_ids)
        return {committed}

    before_ms = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp() * 1000)
    assert objects.discard_expired(before_ms=before_ms - 1, keep=keep) == 0
    assert asked == []
    assert objects.discard_expired(before_ms=before_ms, keep=keep) == 7
    assert {committed, crashed, waiting} <= set(asked)
    assert young not in asked
    assert not folder.exists()
    assert [objects.size(name) is not None for name in (committed, crashed, waiting, young)] == [
        True,
        False,
        False,
        True,
    ]
    assert objects.staged_size(*staged[young]) is not None


def test_the_sweep_asks_in_batches(objects: LocalObjects) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    folder = objects.staging_folder(id_at(day))
    folder.mkdir(parents=True)
    for _ in range(1500):
        (folder / f"{id_at(day)}.00000000").touch()
    sizes: list[int] = []
    removed = objects.discard_expired(before_ms=2**45, keep=lambda ids: (sizes.append(len(ids)), set())[1])
    assert (removed, max(sizes) <= 1000, sum(sizes)) == (1500, True, 1500)


def test_other_things_in_the_staging_folder_are_left_alone(objects: LocalObjects) -> None:
    other = objects.folder / "staging" / "notes"
    other.mkdir()
    (other / "a").touch()
    assert objects.discard_expired(before_ms=2**45, keep=lambda _: set()) == 0
    assert (other / "a").exists()


def test_threads_publishing_the_same_objects_agree(objects: LocalObjects) -> None:
    staged = [stage(objects, b"%d" % index) for index in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(objects.publish, staged) for _ in range(8)]:
            future.result()
    assert all(objects.size(object_id) is not None for object_id, _ in staged)


def test_two_processes_publish_and_sweep_one_folder(objects: LocalObjects) -> None:
    staged = [stage(objects, b"%d" % index) for index in range(200)]
    script = (
        "import sys; from pathlib import Path; from asyncsdk.server.objects.local import LocalObjects\n"
        "objects = LocalObjects(Path(sys.argv[1]))\n"
        "staged = [tuple(line.split()) for line in sys.stdin]\n"
        "objects.publish(staged)\n"
        "objects.discard_expired(before_ms=2**45, keep=lambda ids: set(ids))\n"
    )
    text = "".join(f"{object_id} {digest}\n" for object_id, digest in staged)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(objects.folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
    results = [(process.communicate()[1], process.returncode) for process in processes]
    assert results == [("", 0), ("", 0)]
    assert all(objects.size(object_id) is not None for object_id, _ in staged)
    assert files_below(objects.folder / "staging") == []
