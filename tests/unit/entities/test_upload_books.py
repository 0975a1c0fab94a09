"""What an upload finds in its journal, of objects that are large and of which more than one thing is known."""

from __future__ import annotations

from pathlib import Path

from asyncsdk.engine import Outcome, Skipped
from asyncsdk.engine.journal import Identity, Journal, RunRecord
from asyncsdk.engine.parted.state import SentPart
from asyncsdk.entities.examining import PreparedItem
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.entities.upload_books import UploadBooks, as_new, new_item_id

RUN = RunRecord("upload", {"place": "/photos"})


def key_of(digit: str) -> str:
    return f"{digit * 24}-{digit * 32}"


def prepared(path: Path) -> PreparedItem:
    return PreparedItem(ItemUpload(path, "large.bin"), "large.bin", identity=Identity.of(path.stat()))


def begin(books: UploadBooks, known: PreparedItem, key: str, upload_id: str, parts: int) -> None:
    """Begin to send *known* in parts, and have some of them sent."""
    known.key = key
    new_item_id(known)
    known.large = books.begin_large(known)
    resume = known.large.resume()
    assert resume.on_begin is not None
    assert resume.on_part is not None
    resume.on_begin(upload_id, 2)
    for number in range(1, parts + 1):
        resume.on_part(SentPart(number, 2, "00000001", f'"{number}"'))


async def test_what_was_begun_anew_is_gone_on_with(home: Path, tmp_path: Path) -> None:
    """It arrived and the platform refused it, so it was sent once more and stopped: its second way is what counts."""
    path = tmp_path / "large.bin"
    path.write_bytes(b"large")
    for is_begun_anew in (False, True):
        journal = await Journal.open(home, RUN)
        books = UploadBooks(journal)
        known = prepared(path)
        begin(books, known, key_of("a"), "first", 3)
        outcome = Outcome(Skipped(known.path, 5, known), "skipped", size_bytes=5, checksum="crc32c:00000007")
        books.arrived(outcome)
        await books.flush()
        if is_begun_anew:
            begin(books, as_new(known), key_of("b"), "second", 2)
        await journal.end(is_complete=False)

        journal = await Journal.open(home, RUN)
        found = PreparedItem(known.item, known.path)
        await UploadBooks(journal).recall([found])
        await journal.end(is_complete=True)
        assert found.identity == known.identity
        assert (found.key, found.item_id) == (known.key, known.item_id)
        assert found.is_recalled is not is_begun_anew
        if is_begun_anew:
            assert found.large is not None
            assert found.large.facts["upload_id"] == "second"
            assert sorted(found.large.parts) == [1, 2]
        else:
            assert (found.large, found.crc32c) == (None, "00000007")
