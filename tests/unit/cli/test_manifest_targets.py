"""Lines of a manifest that upload otherwise than by one PUT: what they may say, and what is said of wrong ones."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.cli.manifest_lines import parse_line
from asyncsdk.cli.manifest_targets import TARGET_KINDS
from asyncsdk.cli.manifests import ManifestFeed
from asyncsdk.engine import BlobTarget, FormTarget, MultipartTarget, Refused, ResumableTarget, Skipped, Upload

SIGNED = "X-Amz-Date=1&X-Amz-Signature=s3cret"


def part_url(number: int, signed: str = SIGNED, upload: str = "U1") -> str:
    return f"https://b.example/o.bin?partNumber={number}&uploadId={upload}&{signed}"


def multipart(signed: str = SIGNED, upload: str = "U1", parts: int = 2) -> dict[str, Any]:
    return {
        "part_urls": [part_url(number, signed, upload) for number in range(1, parts + 1)],
        "part_size": 100,
        "complete_url": f"https://b.example/o.bin?uploadId={upload}&{signed}",
    }


SESSION = {"url": "https://g.example/upload/b/o?name=o.bin&upload_id=s3cret"}
BLOB = {"url": "https://a.example/c/o.bin?sv=1&se=2&sig=s3cret"}
FORM = {"url": "https://b.example/", "fields": {"key": "o.bin", "policy": "s3cret", "x-amz-signature": "s3cret"}}
RIGHT: dict[str, Any] = {"multipart": multipart(), "resumable": SESSION, "blob": BLOB, "form": FORM}


def parsed(**values: object) -> Any:
    return parse_line(json.dumps({"source": "o.bin"} | values).encode(), 7, "m.jsonl")


def upload(**values: object) -> Upload:
    found = parsed(**values)
    assert isinstance(found, Upload), found.error
    return found


def test_parts() -> None:
    """Every field of the class may be told; the id of the upload is that of the URLs if it is not told."""
    said = multipart() | {
        "upload_id": "U1",
        "abort_url": "https://b.example/abort",
        "list_urls": ["https://b.example/list"],
        "headers": {"x-amz-checksum-crc32c": ""},
        "first_part": 1,
        "expires_at": 2e9,
        "object_url": "https://b.example/o.bin",
    }
    assert said.keys() == {field.name for field in fields(MultipartTarget)}
    target = upload(multipart=said).target
    assert isinstance(target, MultipartTarget)
    assert target.part_urls == (part_url(1), part_url(2))
    assert (target.part_size, target.headers, target.expires_at) == (100, {"x-amz-checksum-crc32c": ""}, 2e9)
    assert target.list_urls == ("https://b.example/list",)
    assert target.abort_url == "https://b.example/abort"
    alone = upload(multipart=multipart()).target
    assert isinstance(alone, MultipartTarget)
    assert alone.upload_id == target.upload_id


def test_a_session_a_blob_and_a_form() -> None:
    """What is left out is what the classes say; fields of a form keep their order, as an object and as a list."""
    target = upload(resumable=SESSION).target
    assert target == ResumableTarget(SESSION["url"])
    assert upload(blob=BLOB | {"checksum": "", "single_bytes": 5}).target == BlobTarget(
        BLOB["url"], checksum="", single_bytes=5
    )
    pairs = (("key", "o.bin"), ("policy", "s3cret"), ("x-amz-signature", "s3cret"))
    assert upload(form=FORM).target == FormTarget("https://b.example/", pairs)
    assert upload(form=FORM | {"fields": pairs, "success": [201]}).target == FormTarget(
        "https://b.example/", pairs, success=(201,)
    )


@pytest.mark.parametrize("kind", ["multipart", "resumable", "blob"])
def test_no_id_is_kept_as_it_was_told(kind: str) -> None:
    """Somebody may take for an id what is a secret, and the journal remembers ids."""
    target = upload(**{kind: RIGHT[kind] | {"upload_id": "https://b.example/?token=s3cret"}}).target
    assert isinstance(target, (MultipartTarget, ResumableTarget, BlobTarget))
    assert len(target.upload_id) == 16
    assert "s3cret" not in target.upload_id


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "'url' is missing (to upload otherwise than by one PUT: one of 'multipart', 'resumable', 'blob', 'form')"),
        ({"multipart": []}, "'multipart' must be an object: {'upload_id', 'part_size'"),
        ({"resumable": "https://x.example/?s3cret"}, "'resumable' must be an object"),
        ({"multipart": {}}, "'multipart.part_size' is missing"),
        ({"multipart": multipart() | {"part_size": "8"}}, "'multipart.part_size': input should be a valid integer"),
        ({"multipart": multipart() | {"part_size": True}}, "'multipart.part_size': input should be a valid integer"),
        ({"multipart": multipart() | {"part_size": 0}}, "'multipart': part_size must be at least 1 byte"),
        ({"multipart": multipart() | {"part_urls": []}}, "'multipart.part_urls' must hold a URL for each part"),
        ({"multipart": multipart() | {"part_urls": [3]}}, "'multipart.part_urls.0': input should be a valid string"),
        ({"multipart": multipart() | {"part_urls": part_url(1)}}, "'multipart.part_urls': input should be a valid"),
        ({"multipart": multipart() | {"part_urls": ["ftp://s3cret@x/?s3cret"]}}, "'multipart.upload_id' is missing"),
        ({"multipart": multipart() | {"abort_url": "ftp://x/?s3cret"}}, "'multipart': a URL must start with http"),
        ({"multipart": multipart() | {"complete_url": ""}}, "'multipart.complete_url' is missing: without it nobody"),
        ({"multipart": multipart() | {"list_url": "x"}}, "unknown key 'list_url' in 'multipart'; known are abort_url"),
        ({"multipart": multipart() | {"headers": {"x": 1}}}, "'multipart.headers.x': input should be a valid string"),
        ({"resumable": {}}, "'resumable.url' is missing"),
        ({"resumable": SESSION | {"part_size": 1000}}, "'resumable': part_size of a session must be a multiple"),
        ({"blob": BLOB | {"checksum": "sha1"}}, "'blob.checksum': input should be 'md5', 'crc64' or ''"),
        ({"form": FORM | {"fields": {"key": 3}}}, "'form.fields' must be an object of texts, or a list"),
        ({"form": FORM | {"fields": [["key"]]}}, "'form.fields' must be an object of texts, or a list"),
        ({"form": FORM | {"file_field": ""}}, "'form': file_field must name the field"),
        (
            {"form": FORM, "blob": BLOB},
            "give one of 'url', 'multipart', 'resumable', 'blob', 'form', not 'form' beside",
        ),
        ({"form": FORM, "url": "https://x.example/?s3cret"}, "not 'url' beside 'form'"),
        ({"form": FORM, "destination": "d"}, "'form' is for uploads"),
        ({"form": FORM, "headers": {}}, "'headers' belongs into 'form'"),
        ({"form": FORM, "forms": {}}, "unknown key 'forms'; known are blob, crc32c"),
        ({"form": FORM, "crc32c": "xyz"}, "xyz"),
    ],
)
def test_wrong_lines_are_refused_with_their_number(values: dict[str, object], said: str) -> None:
    """Which key, and what is to be done; never what stands in it."""
    found = parsed(**values)
    assert isinstance(found, Refused)
    assert (found.name, found.error.code) == ("m.jsonl:7", "invalid_row")
    assert said in str(found.error)
    assert "line 7" in str(found.error)
    assert "s3cret" not in str(found.error) + repr(found)


def test_urls_that_do_not_reach_to_the_last_part_are_told_before_anything_is_sent(tmp_path: Path) -> None:
    """Nobody can be asked for further ones."""
    (tmp_path / "o.bin").write_bytes(bytes(201))
    line = json.dumps({"source": "o.bin", "multipart": multipart()}).encode()
    found = parse_line(line, 1, "m", folder=tmp_path)
    assert isinstance(found, Refused)
    assert "'multipart.part_urls' reach to part 2, and 201 bytes have 3 parts of 100" in str(found.error)
    (tmp_path / "o.bin").write_bytes(bytes(200))
    assert isinstance(parse_line(line, 1, "m", folder=tmp_path), Upload)
    rest = multipart() | {"part_urls": [part_url(3)], "first_part": 3}  # signed anew for what is missing
    (tmp_path / "o.bin").write_bytes(bytes(300))
    line = json.dumps({"source": "o.bin", "multipart": rest}).encode()
    assert isinstance(parse_line(line, 1, "m", folder=tmp_path), Upload)


@pytest.mark.parametrize("kind", TARGET_KINDS)
def test_dry_run_looks_at_the_source(kind: str, tmp_path: Path) -> None:
    line = json.dumps({"source": "o.bin", kind: RIGHT[kind]}).encode()
    assert isinstance(parse_line(line, 1, "m", dry_run=True, folder=tmp_path), Refused)
    (tmp_path / "o.bin").write_bytes(b"abc")
    found = parse_line(line, 1, "m", dry_run=True, folder=tmp_path)
    assert isinstance(found, Skipped)
    assert (found.size_bytes, found.reply) == (3, "would_send")


SIGNED_ANEW: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"multipart": multipart()}, {"multipart": multipart("X-Amz-Date=2&X-Amz-Signature=t")}),
    ({"multipart": multipart()}, {"multipart": multipart(upload="U2")}),
    ({"resumable": SESSION}, {"resumable": {"url": "https://g.example/upload/b/o?name=o.bin&upload_id=other"}}),
    ({"blob": BLOB}, {"blob": {"url": "https://a.example/c/o.bin?sv=1&se=3&sig=other"}}),
    ({"form": FORM}, {"form": FORM | {"fields": {"key": "o.bin", "policy": "p", "x-amz-signature": "t"}}}),
]


@pytest.mark.parametrize(("once", "again"), SIGNED_ANEW)
def test_what_was_signed_anew_is_the_same_line(once: dict[str, Any], again: dict[str, Any]) -> None:
    """For the journal, which looks for the object, and for reports."""
    one, other = upload(**once).key, upload(**again).key
    assert one.name == other.name
    assert one.identity == other.identity
    assert "s3cret" not in str(one.identity)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"resumable": SESSION}, {"resumable": {"url": "https://g.example/upload/b/o?name=p.bin&upload_id=s3cret"}}),
        ({"form": FORM}, {"form": FORM | {"fields": FORM["fields"] | {"key": "p.bin"}}}),  # type: ignore[operator]
        ({"blob": BLOB}, {"blob": {"url": "https://a.example/c/p.bin?sv=1&se=2&sig=s3cret"}}),
    ],
)
def test_another_object_is_another_line(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert upload(**one).key.name != upload(**other).key.name


def test_another_upload_of_the_same_object_has_another_id() -> None:
    """What is remembered of the first does not count for it."""
    ids = {upload(multipart=multipart(upload=name)).target.upload_id for name in ("U1", "U2")}  # type: ignore[union-attr]
    assert len(ids) == 2


async def test_without_a_journal_servers_that_can_be_asked_are(tmp_path: Path) -> None:
    """A session, and parts that can be listed: nothing else is remembered of them."""
    listed = multipart() | {"list_urls": ["https://b.example/list"]}
    said = [{"multipart": listed}, *({kind: given} for kind, given in RIGHT.items())]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps({"source": "o.bin"} | line) + "\n" for line in said))
    with manifest.open("rb", buffering=0) as file:
        asked = await ManifestFeed(file, "m", asks=True).take(9)
    with manifest.open("rb", buffering=0) as file:
        alone = await ManifestFeed(file, "m").take(9)
    assert [isinstance(one, Upload) and one.resume is not None for one in asked] == [True, False, True, False, False]
    assert [isinstance(one, Upload) and one.resume is None for one in alone] == [True] * 5


async def test_a_line_of_ten_thousand_parts_is_read_between_others(tmp_path: Path) -> None:
    """It is longer than many reads; those before and behind it keep their numbers."""
    whole = multipart(f"X-Amz-Signature={'s' * 200}", parts=10_000)
    said = [{"source": "a", "url": "https://b.example/a"}, {"source": "o.bin", "multipart": whole}]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n\n".join(json.dumps(line) for line in (*said, *said)))
    with manifest.open("rb", buffering=0) as file:
        feed = ManifestFeed(file, "m")
        taken = [one for _ in range(4) for one in await feed.take(1)]
    assert [one.key.number for one in taken] == [1, 3, 5, 7]
    assert [len(one.target.part_urls) for one in taken[1::2]] == [10_000, 10_000]  # type: ignore[union-attr]
