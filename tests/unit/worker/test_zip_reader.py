"""Zips of strangers: bombs, lies, dangerous entries, damage; and that ordinary ones are read byte for byte."""

from __future__ import annotations

import io
import random
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsdk.errors import AsyncSDKError, InvalidArchive, InvalidName, JobCancelled, SourceNotFound
from asyncsdk.worker.zip_reader import ArchiveLimits, ZipReader
from tests.support.zips import lie_about_size, make_zip, make_zip_of

MiB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.zip"


def names_of(reader: ZipReader) -> list[str]:
    return [entry.name for entry in reader.entries]


def refused(reader: ZipReader) -> dict[str, str]:
    return {name: error.code for name, error in reader.refused}


# --- ordinary ones ---


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_entries_come_out_byte_for_byte(path: Path, tmp_path: Path, method: int) -> None:
    """Empty ones, large ones, and archives in archives, which are files like others."""
    files = {
        "a.txt": b"",
        "images/b.bin": random.Random(1).randbytes(MiB + 1),
        "nested.zip": make_zip({"../x": b"x"}),
        "ä/ü.txt": "ö".encode() * 100_000,
    }
    path.write_bytes(make_zip({"folder/": b"", **files}, method=method))
    with ZipReader(path) as reader:
        assert names_of(reader) == list(files)
        assert reader.size_bytes == sum(map(len, files.values()))
        for number, entry in enumerate(reader.entries):
            reader.extract(entry, tmp_path / str(number))
            assert (tmp_path / str(number)).read_bytes() == files[entry.name]
            assert reader.read(entry, max_bytes=2 * MiB) == files[entry.name]
        assert reader.refused == []


def test_an_archive_without_entries_is_fine(path: Path) -> None:
    """Nothing comes of it."""
    path.write_bytes(make_zip({}))
    with ZipReader(path) as reader:
        assert (reader.entries, reader.refused, reader.ignored) == ([], [], 0)


def test_what_macos_adds_is_counted_and_left(path: Path) -> None:
    """Neither read nor refused."""
    path.write_bytes(make_zip({"a": b"a", "__MACOSX/._a": b"x", "b/.DS_Store": b"x"}))
    with ZipReader(path) as reader:
        assert names_of(reader) == ["a"]
        assert reader.ignored == 2


# --- dangerous entries ---


def test_dangerous_entries_are_refused_one_by_one(path: Path) -> None:
    """Names that lead elsewhere, links, names twice; the others are read."""
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    device = zipfile.ZipInfo("device")
    device.external_attr = (stat.S_IFCHR | 0o600) << 16
    plain = zipfile.ZipInfo("plain")
    plain.external_attr = (stat.S_IFREG | 0o600) << 16
    entries: list[tuple[str | zipfile.ZipInfo, bytes | str]] = [
        ("../evil", "x"), ("/etc/evil", "x"), ("C:/evil", "x"), ("a\\..\\evil", "x"), ("x/../../evil", "x"),
        ("x" * 300, "x"), (link, "/etc/passwd"), (device, ""), ("good", "first"), ("good", "second"), (plain, "x"),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the writer, about the name that stands twice
        path.write_bytes(make_zip_of(entries))
    with ZipReader(path) as reader:
        assert names_of(reader) == ["good", "plain"]
        assert reader.read(reader.entries[0], max_bytes=10) == b"first"
        assert refused(reader) == {
            "../evil": "invalid_name", "/etc/evil": "invalid_name", "C:/evil": "invalid_name",
            "a\\..\\evil": "invalid_name", "x/../../evil": "invalid_name", "x" * 300: "invalid_name",
            "link": "invalid_archive", "device": "invalid_archive", "good": "invalid_name",
        }  # fmt: skip


def test_a_name_that_hides_its_end_is_refused(path: Path) -> None:
    """Behind a NUL, where programs written in C do not look."""
    path.write_bytes(make_zip({"a.png#.exe": b"x"}).replace(b"#", b"\0"))
    with ZipReader(path) as reader:
        assert reader.entries == []
        ((name, error),) = reader.refused
        assert isinstance(error, InvalidName)
        assert name == "a.png"


def test_an_empty_name_is_refused(path: Path) -> None:
    """As what stands before a NUL at its beginning."""
    path.write_bytes(make_zip({"#": b"x", "a": b"a"}).replace(b"#", b"\0"))
    with ZipReader(path) as reader:
        assert names_of(reader) == ["a"]
        assert refused(reader) == {"": "invalid_name"}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_whose_output_has_no_bound_are_refused(path: Path, method: int) -> None:
    """A block of bzip2 or lzma becomes gigabytes at once."""
    path.write_bytes(make_zip_of([("a", b"x")], method=method))
    with ZipReader(path) as reader:
        assert reader.entries == []
        assert refused(reader) == {"a": "invalid_archive"}


def test_encrypted_entries_are_refused(path: Path) -> None:
    """By the flag that says so, before anything asks for a password."""
    data = bytearray(make_zip({"a": b"x"}))
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with ZipReader(path) as reader:
        assert refused(reader) == {"a": "invalid_archive"}


# The writer of the test takes no NUL; what the reader makes of one is said above.
_CHARACTERS = st.sampled_from("ab./\\:") | st.characters(codec="utf-8", exclude_characters="\0")


@given(names=st.lists(st.text(_CHARACTERS, min_size=1), max_size=8))
@settings(max_examples=50, deadline=None)
def test_whatever_is_written_into_an_archive_nothing_leaves_the_folder(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """Every entry ends in exactly one place: read, refused, ignored, or a folder."""
    folder = tmp_path_factory.mktemp("names")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        (folder / "a.zip").write_bytes(make_zip_of((name, b"x") for name in names))
    with ZipReader(folder / "a.zip") as reader:
        folders = sum(info.is_dir() and info.file_size == 0 for info in reader._zip.infolist())
        assert len(reader.entries) + len(reader.refused) + reader.ignored + folders == len(names)
        inside = folder / "out"
        inside.mkdir()
        for number, entry in enumerate(reader.entries):
            reader.extract(entry, inside / str(number))
    assert sorted(path.name for path in folder.iterdir()) == ["a.zip", "out"]


# --- bombs ---


def test_a_bomb_is_refused_before_anything_is_written(path: Path) -> None:
    """By what all its entries announce together, also when each of them is modest."""
    limits = ArchiveLimits(ratio=10, always_bytes=MiB)
    path.write_bytes(make_zip({f"{number}": bytes(200_000) for number in range(6)}))
    with pytest.raises(InvalidArchive, match="would become 1,200,000"):
        ZipReader(path, limits)
    path.write_bytes(make_zip({f"{number}": bytes(200_000) for number in range(5)}))
    with ZipReader(path, limits) as reader:
        assert len(reader.entries) == 5


def test_the_usual_limits_stop_the_usual_bomb(path: Path) -> None:
    """A third of a megabyte that would become 300 MiB."""
    path.write_bytes(make_zip({"zeros": bytes(300 * MiB)}))
    assert path.stat().st_size < MiB
    with pytest.raises(InvalidArchive, match="at most"):
        ZipReader(path)


def test_entries_that_share_their_bytes_count_each(path: Path) -> None:
    """A bomb without a nested archive: many entries that point to the same bytes."""
    data = make_zip({"kernel": bytes(MiB)})
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    count = 1000
    directory = b"".join(data[start:end].replace(b"kernel", f"{number:06}".encode()) for number in range(count))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    path.write_bytes(data[:start] + directory + tail)
    assert path.stat().st_size < 100_000
    with pytest.raises(InvalidArchive, match="would become"):
        ZipReader(path)


@pytest.mark.parametrize("size_bytes", [0, 10, 999_999, 1_000_001, 5 * MiB])
def test_a_size_that_is_a_lie_gives_no_more_than_it_says(path: Path, tmp_path: Path, size_bytes: int) -> None:
    """Whoever announces little to pass a limit gets that little, and a refusal; whoever announces more, too."""
    path.write_bytes(lie_about_size(make_zip({"a": bytes(1_000_000)}), size_bytes))
    with ZipReader(path) as reader:
        with pytest.raises(InvalidArchive, match="damaged"):
            reader.extract(reader.entries[0], tmp_path / "out")
        assert (tmp_path / "out").stat().st_size <= min(size_bytes, 1_000_000)


def test_too_many_entries_are_refused(path: Path) -> None:
    """By their number, and by the bytes of their list whatever number it announces."""
    path.write_bytes(make_zip({f"{number}": b"" for number in range(100)}))
    with pytest.raises(InvalidArchive, match="100 entries; 99 are allowed"):
        ZipReader(path, ArchiveLimits(entries=99))
    with pytest.raises(InvalidArchive, match="list of entries has more than 4,000 bytes"):
        ZipReader(path, ArchiveLimits(directory_bytes=4000))
    ZipReader(path, ArchiveLimits(entries=100, directory_bytes=6000)).close()


def test_a_comment_is_no_list_of_entries(path: Path) -> None:
    """A long one is looked through for the end of the archive, and counts for nothing."""
    file = io.BytesIO(make_zip({"a": b"a"}))
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"PK" * 30_000
    path.write_bytes(file.getvalue())
    with ZipReader(path) as reader:
        assert names_of(reader) == ["a"]


def test_an_entry_too_large_for_memory_is_not_read(path: Path) -> None:
    """Labels and YAML files have their limits."""
    path.write_bytes(make_zip({"a": bytes(1001)}))
    with ZipReader(path) as reader, pytest.raises(InvalidArchive, match="1,000 are allowed"):
        reader.read(reader.entries[0], max_bytes=1000)


# --- damage ---


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x03\x04", b"no zip at all", b"PK\x05\x06" + bytes(17)])
def test_what_is_no_zip_is_refused(path: Path, data: bytes) -> None:
    """Nothing, text, the beginning of one."""
    path.write_bytes(data)
    with pytest.raises(InvalidArchive, match="no zip archive"):
        ZipReader(path)


def test_a_missing_file_is_told_as_such(path: Path) -> None:
    """Not as a broken archive."""
    with pytest.raises(SourceNotFound):
        ZipReader(path)


def large_zip(files: dict[str, bytes]) -> bytes:
    """Return a zip that says all of its sizes in 64 bits, too."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as entry:
                entry.write(data)
    data = bytearray(file.getvalue())
    end, start = data.index(b"PK\x05\x06"), data.index(b"PK\x01\x02")
    count, size = len(files), end - start
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return bytes(data[:end]) + record + locator + tail


DAMAGED = {"a.txt": b"a" * 500, "b/c.bin": bytes(range(256)), "d": b""}


def test_an_archive_with_sizes_of_64_bits_is_read(path: Path) -> None:
    """As every other."""
    path.write_bytes(large_zip(DAMAGED))
    with ZipReader(path) as reader:
        assert {entry.name: reader.read(entry, max_bytes=1000) for entry in reader.entries} == DAMAGED


@given(data=st.data(), whole=st.sampled_from([make_zip(DAMAGED), large_zip(DAMAGED)]))
@settings(max_examples=300, deadline=None)
def test_damage_anywhere_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, whole: bytes
) -> None:
    """Bytes changed, numbers made as large as they can be, ends cut off: what is read is whole, anything else told."""
    folder = tmp_path_factory.mktemp("damaged")
    damaged = bytearray(whole)
    run = st.sampled_from([b"\0", b"\xff", b"\xff" * 2, b"\xff" * 4, b"\0" * 4, b"\xff" * 8, b"\xff" * 7 + b"\x7f"])
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        put = data.draw(run | st.binary(min_size=1, max_size=2))
        damaged[place : place + len(put)] = put
    (folder / "a.zip").write_bytes(damaged[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
    try:
        reader = ZipReader(folder / "a.zip")
    except AsyncSDKError as error:
        assert isinstance(error, InvalidArchive)  # noqa: PT017  # that there is one at all is not said
        return
    with reader:
        for number, entry in enumerate(reader.entries):
            try:
                reader.extract(entry, folder / str(number))
            except AsyncSDKError as error:
                assert isinstance(error, InvalidArchive)  # noqa: PT017
                continue
            assert (folder / str(number)).stat().st_size == entry.size_bytes


def test_reading_stops_when_the_work_is_to_stop(path: Path, tmp_path: Path) -> None:
    """In the middle of an entry, with the error that says so."""
    path.write_bytes(make_zip({"a": random.Random(1).randbytes(2 * MiB)}))
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise JobCancelled(job_id="1" * 24, kind="unpack_archive")

    with ZipReader(path, check=check) as reader, pytest.raises(JobCancelled):
        reader.extract(reader.entries[0], tmp_path / "out")
    assert 0 < (tmp_path / "out").stat().st_size < 2 * MiB
