"""Workloads, the jobs made of them, and whether what arrived is what was sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.jobs import Batch, Job, item_name, part_name
from benchmarks.stage import make_files
from benchmarks.verify import VerificationFailed, same_bytes, verify
from benchmarks.workloads import QUICK_SCALE, WORKLOADS, chosen

MIB = 1024**2


def batch(folder: Path, **changes: int) -> Batch:
    sizes = {"count": 4, "size_bytes": 1000, "names": 2, "sources": 2, **changes}
    return Batch(**sizes, source=folder / "source", url="http://h/up", destination=folder / "to", stored=folder / "up")


def job(folder: Path, kind: str, **changes: int) -> Job:
    main = batch(folder, **changes)
    return Job("case", kind, "nginx", main, main, "http://h", (1, 2), 4, 400, ca_file=folder, token="secret")  # type: ignore[arg-type]


def test_names_are_unique() -> None:
    """``--case`` finds one workload by its whole name."""
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)


def test_cases_by_name_and_by_beginning() -> None:
    """A whole name is one workload, the beginning of several names all of them, anything else is refused."""
    assert [one.name for one in chosen(["small-up-tls"], quick=False, scale=1)] == ["small-up-tls"]
    assert [one.name for one in chosen(["small-up", "small-up-tls"], quick=False, scale=1)] == [
        "small-up-plain",
        "small-up-tls",
    ]
    assert {one.server for one in chosen(["s3"], quick=False, scale=1)} == {"s3"}
    with pytest.raises(KeyError):
        chosen(["small-upp"], quick=False, scale=1)


def test_quick_run_has_every_kind_and_server_and_little_to_move() -> None:
    """A quick run tries each kind of work against each server with a fraction of the bytes."""
    quick = chosen(None, quick=True, scale=QUICK_SCALE)
    assert {one.server for one in quick} == {one.server for one in WORKLOADS}
    assert {one.kind for one in quick} == {one.kind for one in WORKLOADS} - {"put_parts"}
    assert max(one.total_bytes for one in quick) <= 600 * MIB
    assert all(one.distinct_names <= one.count and one.distinct_sources <= one.distinct_names for one in quick)


def test_scaling_changes_count_or_size_never_both() -> None:
    """Many objects become fewer, few become smaller; small objects of a slow contender become fewer."""
    by_name = {one.name: one for one in chosen(None, quick=False, scale=0.1)}
    assert (by_name["small-up-plain"].count, by_name["small-up-plain"].size_bytes) == (2000, 20 * 1024)
    assert (by_name["large-up-plain"].count, by_name["large-up-plain"].size_bytes) == (1, 409 * MIB)
    assert by_name["small-up-plain"].shared(0.25).count == 500
    assert by_name["large-up-plain"].shared(0.25).size_bytes == 409 * MIB


def test_job_survives_the_way_to_another_process(tmp_path: Path) -> None:
    """What is written is what is read; the token is in it but never shown."""
    there = job(tmp_path, "put")
    assert Job.from_json(there.to_json()) == there
    assert "secret" not in repr(there)


def test_transfers_follow_from_numbers(tmp_path: Path) -> None:
    """Transfers repeat names, names repeat sources; parts cover the object once."""
    found = batch(tmp_path, count=4, names=2, sources=1)
    assert [item.url for item in found.items()] == [f"http://h/up/{item_name(n)}" for n in (0, 1, 0, 1)]
    assert {item.source for item in found.items()} == {f"{tmp_path}/source/{item_name(0)}"}
    assert [(start, stop) for start, stop, _ in found.parts(400)] == [(0, 400), (400, 800), (800, 1000)]


def test_files_are_made_once_and_differ(tmp_path: Path) -> None:
    """No two files are alike, a large one has no repeating megabytes, a second call writes nothing."""
    make_files(tmp_path / "some", count=3, size_bytes=1000)
    files = sorted((tmp_path / "some").rglob("*.bin"))
    assert len({path.read_bytes() for path in files}) == 3
    files[0].write_bytes(b"changed")
    make_files(tmp_path / "some", count=3, size_bytes=1000)
    assert files[0].read_bytes() == b"changed"
    make_files(tmp_path / "large", count=1, size_bytes=40 * MIB)
    data = (tmp_path / "large" / item_name(0)).read_bytes()
    assert len({data[at : at + MIB] for at in range(0, len(data), MIB)}) == 40


def arrive(folder: Path, kind: str) -> Job:
    """Make sources and let all of them arrive."""
    found = job(folder, kind)
    make_files(folder / "source", count=2, size_bytes=1000)
    there = folder / ("to" if kind == "get" else "up")
    for number in range(2):
        data = (folder / "source" / item_name(number)).read_bytes()
        (there / item_name(number)).parent.mkdir(parents=True, exist_ok=True)
        (there / item_name(number)).write_bytes(data)
    data = (folder / "source" / item_name(0)).read_bytes()
    for part, (start, stop, _) in enumerate(found.main.parts(400), start=1):
        (there / part_name(part)).write_bytes(data[start:stop])
    verify(found, served=4)
    return found


@pytest.mark.parametrize(
    ("kind", "name"), [("put", f"up/{item_name(1)}"), ("get", f"to/{item_name(1)}"), ("put_parts", "up/part-00003")]
)
@pytest.mark.parametrize("damage", ["missing", "short", "other"])
def test_damage_is_found(tmp_path: Path, kind: str, name: str, damage: str) -> None:
    """A missing, a shortened and a changed object are no result."""
    found, path = arrive(tmp_path, kind), tmp_path / name
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    with pytest.raises((VerificationFailed, FileNotFoundError)):
        verify(found, served=None)


def test_transfers_that_never_reached_the_server_are_found(tmp_path: Path) -> None:
    """Names are written more than once: the server's own count says whether every transfer was made."""
    found = arrive(tmp_path, "put")
    with pytest.raises(VerificationFailed, match="3 requests"):
        verify(found, served=3)


def test_a_longer_copy_is_another_file(tmp_path: Path) -> None:
    """Bytes after the end are found too."""
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"123456")
    assert not same_bytes(tmp_path / "a", tmp_path / "b")
    assert not same_bytes(tmp_path / "b", tmp_path / "a")
    assert same_bytes(tmp_path / "b", tmp_path / "a", is_whole=False)
