"""Parts in any order and any repetition make the object; nothing else does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest
from asyncsdk.server.http.conditions import parse_range
from asyncsdk.server.http.replies import RangeNotSatisfiable
from asyncsdk.server.objects.arrivals import Expected
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.multipart import MultipartUpload
from asyncsdk.server.objects.parts import UploadId


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_parts_sent_in_any_order_and_again_make_exactly_the_object(data: st.DataObject) -> None:
    part_size = data.draw(st.integers(1, 40), "part size")
    content = data.draw(st.binary(max_size=400), "content")
    is_known = data.draw(st.booleans(), "size known")
    pieces = [content[start : start + part_size] for start in range(0, len(content), part_size)] or [b""]
    numbers = list(range(1, len(pieces) + 1))
    order = data.draw(st.permutations(numbers), "order")
    wrong_before = data.draw(st.sets(st.sampled_from(numbers)), "parts sent wrong at first")
    with tempfile.TemporaryDirectory() as folder:
        objects = LocalObjects(Path(folder))
        upload_id = UploadId("a" * 16, part_size, len(content) if is_known else None)
        upload = MultipartUpload(objects, make_id(), upload_id)
        wrong = {}
        for part in wrong_before:
            flipped = bytes(byte ^ 0xFF for byte in pieces[part - 1])
            with upload.begin(part, Expected(len(flipped))) as arrival:
                arrival.write([flipped])
                wrong[part] = arrival.finish().etag
        etags = {}
        for part in order:
            piece = pieces[part - 1]
            cut = data.draw(st.integers(0, len(piece)), f"batches of part {part}")
            with upload.begin(part, Expected(len(piece))) as arrival:
                arrival.write([piece[:cut]])
                arrival.write([piece[cut:]])
                etags[part] = arrival.finish().etag
        for part, etag in wrong.items():
            if etag != etags[part]:
                with pytest.raises(BadRequest, match="send it again"):
                    upload.complete([(n, etag if n == part else etags[n]) for n in numbers])
        whole = upload.complete([(n, etags[n]) for n in numbers])
        assert (whole.size_bytes, whole.crc32c) == (len(content), crc32c_hex(crc32c(content)))
        assert objects.staged_path(upload.object_id, whole.crc32c).read_bytes() == content
        assert len(list(upload.list_path.parent.iterdir())) == 1


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.integers(0, 60))
def test_ranges_are_slices(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    for text, expected in (
        (f"bytes={first}-{last}", content[first : last + 1] if first <= last else None),
        (f"bytes={first}-", content[first:]),
        (f"bytes=-{last}", content[max(0, size - last) :] if last else b""),
    ):
        try:
            span = parse_range(text, size)
        except RangeNotSatisfiable:
            assert expected == b""
            continue
        if expected is None:
            assert span is None
        else:
            assert span is not None
            assert content[span[0] : span[1]] == expected
            assert expected


@given(text=st.text(max_size=30), size=st.integers(0, 50))
def test_no_text_makes_a_range_outside_the_object(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            span = parse_range(header, size)
        except RangeNotSatisfiable:
            continue
        assert span is None or 0 <= span[0] < span[1] <= size


@given(text=st.text(max_size=40))
def test_no_text_but_ids_becomes_a_path(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        objects = LocalObjects(Path(folder))
        try:
            path = objects.path(text, "00000000")
        except BadRequest:
            return
        assert path.name == f"{text}.00000000"
        assert path.parent.parent == objects.folder / "objects"
