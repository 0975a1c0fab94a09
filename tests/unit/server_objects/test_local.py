"""The folder that objects lie in."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, DestinationUnwritable, NotFound
from asyncsdk.server.objects import placing, syncing
from asyncsdk.server.objects.arrivals import Arrival, Expected
from asyncsdk.server.objects.discarding import Swept
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


def test_an_object_arrives_is_made_durable_and_removed_in_one_place(objects: LocalObjects) -> None:
    object_id, digest = stage(objects, b"bytes")
    assert digest == crc32c_hex(crc32c(b"bytes"))
    path = objects.path(object_id, digest)
    assert path == objects.staged_path(object_id, digest)
    before = path.stat()
    for _ in range(2):
        objects.publish([(object_id, digest)])
    assert path.stat() == before
    assert objects.staged_size(object_id, digest) == 5
    assert objects.sizes([(object_id, digest), (object_id, "00000000")]) == [5, None]
    for _ in range(2):
        objects.remove([(object_id, digest)])
    assert objects.staged_size(object_id, digest) is None
    objects.publish([])


def test_the_staged_name_is_the_one_that_file_targets_lead_to(objects: LocalObjects) -> None:
    minter = FileMinter(objects)
    object_id = id_at(datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC))
    target = minter.target(object_id, size_bytes=None, crc32c=None)
    assert isinstance(target, FileTarget)
    assert target == minter.renew(object_id, size_bytes=None, crc32c=None, upload_id=None, first_part=1)
    assert target.folder == objects.folder / "objects" / f"2026-03-01-{object_id[-1]}"
    target.folder.mkdir(parents=True)
    target.path("0a0b0c0d").write_bytes(b"four")
    assert objects.staged_size(object_id, "0a0b0c0d") == 4
    origin = minter.origin(object_id, size_bytes=4, crc32c="0a0b0c0d", etag='"x"')
    assert origin == FileOrigin(objects.staged_path(object_id, "0a0b0c0d"), 4, "0a0b0c0d", '"x"')


def test_opening_what_never_arrived_is_refused(objects: LocalObjects) -> None:
    with pytest.raises(NotFound, match="upload them again"):
        objects.open_staged(make_id(), "00000000")
    with pytest.raises(NotFound, match="upload them again"):
        objects.head(make_id(), "00000000", 16)


def no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["renameat2", "links", "neither"])
def renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system call that never replaces, and what stands in for it."""
    if request.param != "renameat2":
        monkeypatch.setattr(placing, "_renameat2", lambda: None)
    if request.param == "neither":
        monkeypatch.setattr("os.link", no_links)


@pytest.mark.usefixtures("renaming")
def test_what_arrived_is_never_replaced(objects: LocalObjects) -> None:
    """Sending it again leaves the file as it is, which may be committed by now, and nothing beside it."""
    object_id, digest = stage(objects, b"first")
    before = objects.path(object_id, digest).stat()
    assert stage(objects, b"first", object_id) == (object_id, digest)
    after = objects.path(object_id, digest).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    other = stage(objects, b"other", object_id)
    assert objects.sizes([(object_id, digest), other]) == [5, 5]
    assert len(files_below(objects.folder / "objects")) == 2


@pytest.mark.usefixtures("renaming")
def test_what_lost_its_bytes_with_the_power_is_replaced(objects: LocalObjects) -> None:
    """It has the name of bytes that it does not have: it was never durable, so it is not committed."""
    object_id, digest = stage(objects, b"bytes")
    for broken in (b"", bytes(5)):
        objects.path(object_id, digest).write_bytes(broken)
        assert stage(objects, b"bytes", object_id) == (object_id, digest)
        assert objects.path(object_id, digest).read_bytes() == b"bytes"


def test_a_name_that_cannot_be_given_is_an_error(objects: LocalObjects, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        placing.rename_new(str(tmp_path / "absent"), str(tmp_path / "name"))


def test_without_renameat2_a_name_made_this_moment_is_not_replaced(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking first and renaming then would take away what another process made, and may have committed, between."""
    monkeypatch.setattr(placing, "_renameat2", lambda: None)
    object_id, digest = make_id(), crc32c_hex(crc32c(b"bytes"))
    target = objects.staged_path(object_id, digest)
    target.parent.mkdir(parents=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_bytes(b"bytes")

    def lexists(_: object) -> bool:
        target.write_bytes(b"bytes")  # the other process, right after the look
        return False

    monkeypatch.setattr("os.path.lexists", lexists)
    lexists(target)
    before = target.stat().st_ino
    objects.place(temporary, object_id, digest)
    assert target.stat().st_ino == before
    assert len(files_below(objects.folder / "objects")) == 1


def test_one_sync_serves_many_objects(objects: LocalObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("asyncsdk.server.objects.local.make_durable", lambda *given: calls.append(given))
    objects.publish([stage(objects, b"%d" % index) for index in range(50)])
    assert len(calls) == 1


def test_a_disk_that_fails_to_sync_is_told(objects: LocalObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    staged = stage(objects, b"bytes")
    monkeypatch.setattr("asyncsdk.server.objects.local.make_durable", fail)
    with pytest.raises(DestinationUnwritable):
        objects.publish([staged])


def test_without_syncfs_every_file_is_synced(objects: LocalObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(syncing, "_libc_function", lambda _: None)
    monkeypatch.setattr("os.fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    objects.publish([stage(objects, b"%d" % index) for index in range(3)])
    assert len(synced) >= 3


def test_without_syncfs_new_folders_are_synced_too(objects: LocalObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day's folder is itself a name in a folder; without that, all that lies in it is lost with the power."""
    opened: list[Path] = []
    real = os.open
    monkeypatch.setattr(syncing, "_libc_function", lambda _: None)
    staged = stage(objects, b"bytes")
    monkeypatch.setattr("os.open", lambda path, flags: (opened.append(Path(path)), real(path, flags))[1])
    objects.publish([staged])
    path = objects.staged_path(*staged)
    assert opened == [path, path.parent, path.parent.parent]


def test_after_a_sync_failed_every_file_is_asked_for_itself(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells a lost write to the first who syncs; the bytes may be those of another commit."""

    def fail(_: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(syncing, "_failed_at", set())
    monkeypatch.setattr(syncing, "_libc_function", lambda _: fail)
    first, second = stage(objects, b"first"), stage(objects, b"second")
    with pytest.raises(DestinationUnwritable):
        objects.publish([first])
    monkeypatch.setattr(syncing, "_libc_function", lambda _: lambda _: 0)
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    objects.publish([second])
    assert objects.staged_path(*second).stat().st_ino in synced


def test_a_reservation_that_can_only_fail_takes_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems give what they have before they say that it is not enough, and that stays taken."""
    monkeypatch.setattr(syncing, "_libc_function", lambda _: pytest.fail)
    with (tmp_path / "file").open("wb") as file:
        space = os.fstatvfs(file.fileno())
        with pytest.raises(OSError, match="No space left"):
            syncing.reserve(file.fileno(), space.f_blocks * space.f_frsize + 1)
        assert os.fstat(file.fileno()).st_blocks == 0


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
        lambda: objects.path(bad, "00000000"),
        lambda: objects.staging_folder(bad),
        lambda: objects.sizes([(bad, "00000000")]),
        lambda: objects.staged_size(bad, "00000000"),
        lambda: objects.staged_size(good, bad),
        lambda: objects.open_staged(good, bad),
        lambda: objects.path(good, bad),
        lambda: objects.place("x", good, bad),
        lambda: objects.remove([(bad, "00000000")]),
        lambda: Arrival(objects, bad, Expected(0)),
    ):
        with pytest.raises(BadRequest):
            call()


def test_the_sweep_takes_what_nobody_committed_on_days_long_over(objects: LocalObjects) -> None:
    old, new = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 2, 12, tzinfo=UTC)
    committed, waiting, young = (id_at(day) for day in (old, old, new))
    staged = {name: stage(objects, name.encode(), name) for name in (committed, waiting, young)}
    other = stage(objects, b"other bytes under the same id", committed)
    folder = objects.staging_folder(waiting)
    for leftover in (f"{waiting}.0123456789abcdef.tmp", f"{make_id()}.x.part", "unnamed"):
        (folder / leftover).write_bytes(b"half")
    asked: list[str] = []

    def keep(object_ids: Sequence[str]) -> dict[str, str]:
        asked.extend(object_ids)
        return dict([staged[committed]])

    before_ms = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp() * 1000)
    assert objects.discard_expired(before_ms=before_ms - 1, keep=keep) == 0
    assert asked == []
    assert objects.discard_expired(before_ms=before_ms, keep=keep) == 5
    assert {committed, waiting} <= set(asked)
    assert young not in asked
    assert objects.sizes([staged[committed], other, staged[waiting], staged[young]]) == [24, None, None, 24]
    assert objects.discard_expired(before_ms=before_ms, keep=lambda _: {}) == 1
    assert list((objects.folder / "objects").glob("2026-01-01*")) == []


def test_a_day_that_was_swept_is_looked_at_again_only_where_something_came_since(objects: LocalObjects) -> None:
    """Else every sweep would go through all objects that there are. A client that was gone for a week may come."""
    day = datetime(2026, 1, 1, 12, tzinfo=UTC)
    quiet, late = stage(objects, b"1", id_at(day)[:-1] + "0"), stage(objects, b"2", id_at(day)[:-1] + "1")
    for object_id, _ in (quiet, late):
        os.utime(objects.staging_folder(object_id), (day.timestamp(), day.timestamp()))
    stray = stage(objects, b"3", id_at(day)[:-1] + "1")
    asked: list[str] = []

    def keep(object_ids: Sequence[str]) -> dict[str, str]:
        asked.extend(object_ids)
        return dict([quiet, late])

    before_ms = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp() * 1000)
    swept = Swept(before_ms, day.timestamp() + 10 * DAY_MS / 1000)
    assert objects.discard_expired(before_ms=before_ms, keep=keep, swept=swept) == 1
    assert sorted(asked) == sorted([late[0], stray[0]])
    assert objects.sizes([quiet, late, stray]) == [1, 1, None]
    asked.clear()
    earlier = Swept(before_ms - 1, swept.started_at)  # it did not see the end of that day
    assert objects.discard_expired(before_ms=before_ms, keep=keep, swept=earlier) == 0
    assert sorted(asked) == sorted([quiet[0], late[0]])


def test_the_sweep_asks_in_batches(objects: LocalObjects) -> None:
    folder = objects.staging_folder(id_at(datetime(2026, 1, 1, tzinfo=UTC)))
    folder.mkdir(parents=True)
    for _ in range(1500):
        (folder / f"{id_at(datetime(2026, 1, 1, tzinfo=UTC))}.00000000").touch()
    sizes: list[int] = []
    removed = objects.discard_expired(before_ms=2**45, keep=lambda ids: (sizes.append(len(ids)), {})[1])
    assert (removed, max(sizes) <= 1000, sum(sizes)) == (1500, True, 1500)


def test_other_things_in_the_folder_are_left_alone(objects: LocalObjects) -> None:
    other = objects.folder / "objects" / "notes"
    other.mkdir()
    (other / "a").touch()
    assert objects.discard_expired(before_ms=2**45, keep=lambda _: {}) == 0
    assert (other / "a").exists()


def test_two_processes_publish_and_sweep_one_folder(objects: LocalObjects) -> None:
    staged = [stage(objects, b"%d" % index) for index in range(200)]
    script = (
        "import sys; from pathlib import Path; from asyncsdk.server.objects.local import LocalObjects\n"
        "objects = LocalObjects(Path(sys.argv[1]))\n"
        "staged = [tuple(line.split()) for line in sys.stdin]\n"
        "objects.publish(staged)\n"
        "objects.discard_expired(before_ms=2**45, keep=lambda ids: dict(staged))\n"
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
    assert None not in objects.sizes(staged)
    assert len(files_below(objects.folder / "objects")) == len(staged)
