"""Manifests: what a line means, and how they are read."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import IO

import pytest

from asyncsdk.cli.identities import Identities
from asyncsdk.cli.manifest_lines import parse_line
from asyncsdk.cli.manifests import ManifestFeed
from asyncsdk.engine import Download, PutTarget, Refused, Skipped, Transfer, Upload, UrlOrigin
from asyncsdk.errors import ConfigError

URL = "http://h/o?signature=s3cret"


def parsed(values: object) -> Transfer:
    return parse_line(json.dumps(values).encode(), 7, "m.jsonl")


def test_line_with_a_source_is_an_upload() -> None:
    """URL and headers go as they stand."""
    transfer = parsed({"source": "a.jpg", "url": URL, "headers": {"x-a": "b"}})
    assert isinstance(transfer, Upload)
    assert transfer.source == Path("a.jpg")
    assert transfer.target == PutTarget(URL, {"x-a": "b"})


def test_line_with_a_destination_is_a_download() -> None:
    transfer = parsed({"destination": "a.jpg", "url": URL})
    assert isinstance(transfer, Download)
    assert transfer.origin == UrlOrigin(URL)
    assert transfer.sink == Path("a.jpg")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1], "must be a JSON object"),
        ({"source": "a"}, "'url' is missing"),
        ({"source": "a", "url": 3}, "'url' is missing"),
        ({"url": URL}, "either 'source'"),
        ({"url": URL, "source": "a", "destination": "b"}, "either 'source'"),
        ({"url": URL, "source": ""}, "'source' must be a path"),
        ({"url": URL, "destination": 3}, "'destination' must be a path"),
        ({"url": URL, "source": "a\0b"}, "'source' must be a path"),
        ({"url": URL, "source": "a", "headers": {"x": 1}}, "'headers' must be"),
        ({"url": URL, "source": "a", "headers": "x"}, "'headers' must be"),
        ({"url": "ftp://h/o?signature=s3cret", "source": "a"}, "must start with http"),
        ({"url": URL, "source": "a", "target": "b"}, "unknown key 'target'"),
        ({"url": URL, "source": "a", "key": ""}, "'key' must be a text"),
        ({"url": URL, "source": "a", "key": 7}, "'key' must be a text"),
    ],
)
def test_bad_lines_are_refused_with_their_number(values: object, said: str) -> None:
    """One bad line is one failure; its message has the line and no secret."""
    transfer = parsed(values)
    assert isinstance(transfer, Refused)
    assert transfer.name == "m.jsonl:7"
    assert said in str(transfer.error)
    assert "line 7" in str(transfer.error)
    assert "s3cret" not in str(transfer.error)
    assert transfer.error.code == "invalid_row"


def test_no_json_is_refused() -> None:
    transfer = parse_line(b"{nope", 3, "m")
    assert isinstance(transfer, Refused)
    assert "no JSON" in str(transfer.error)


def test_dry_run_looks_at_sources(tmp_path: Path) -> None:
    """A file would be sent, a missing one and a folder are failures."""
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    kinds = {}
    for name in ("a", "none", "."):
        line = json.dumps({"source": str(tmp_path / name), "url": URL}).encode()
        kinds[name] = parse_line(line, 1, "m", dry_run=True)
    found = kinds["a"]
    assert isinstance(found, Skipped)
    assert (found.size_bytes, found.reply) == (3, "would_send")
    assert isinstance(kinds["none"], Refused)
    assert isinstance(kinds["."], Refused)
    line = json.dumps({"destination": "x", "url": URL}).encode()
    assert isinstance(parse_line(line, 1, "m", dry_run=True), Skipped)


async def drain(file: IO[bytes], want: int = 10, **facts: object) -> list[Transfer]:
    feed = ManifestFeed(file, "m", **facts)  # type: ignore[arg-type]
    result: list[Transfer] = []
    while taken := await feed.take(want):
        assert len(taken) <= want
        result.extend(taken)
    return result


async def test_every_line_is_read_once_with_its_number(tmp_path: Path) -> None:
    """Blank lines count; the last line needs no end; a manifest longer than one read loses nothing."""
    manifest = tmp_path / "m.jsonl"
    lines = [json.dumps({"source": f"{number:0200}", "url": URL}) for number in range(3_000)]
    manifest.write_text("\n\n".join(lines))
    with manifest.open("rb", buffering=0) as file:
        taken = await drain(file)
    assert [int(transfer.name) for transfer in taken] == list(range(3_000))
    assert [transfer.key.number for transfer in taken] == list(range(1, 6_000, 2))


async def test_lines_of_a_pipe_come_as_they_are_written() -> None:
    """A producer that is slow gets its first line moved before it writes the second."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as file, os.fdopen(writing, "wb", buffering=0) as pipe:
        feed = ManifestFeed(file, "<stdin>")
        pipe.write(json.dumps({"source": "a", "url": URL}).encode() + b"\n")
        assert [one.name for one in await feed.take(100)] == ["a"]
        timer = threading.Timer(0.05, lambda: (pipe.write(b'{"bad'), pipe.close()))
        timer.start()
        assert [one.name for one in await feed.take(100)] == ["<stdin>:2"]
        timer.join()
        assert await feed.take(100) == ()


async def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    """A file that is no manifest does not fill the memory."""
    manifest = tmp_path / "m"
    manifest.write_bytes(b"x" * 40_000_000)
    with manifest.open("rb", buffering=0) as file, pytest.raises(ConfigError, match="line 1: is longer"):
        await drain(file)


async def test_retried_lines_match_by_path_of_url(tmp_path: Path) -> None:
    """A line whose URL was only signed again is the same line; bad lines go by their number."""
    manifest = tmp_path / "m"
    first = [{"source": "a", "url": URL}, {"source": "b", "url": URL}, {"source": 3, "url": URL}]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in first))
    with manifest.open("rb", buffering=0) as file:
        before = await drain(file)
    only = Identities()
    only.add_all(before[number].key.identity for number in (1, 2))
    again = [
        {"source": "b", "url": "http://h/o?signature=other"},
        {"source": "a", "url": URL},
        {"source": "c", "url": URL},  # the bad one, mended
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in again))
    with manifest.open("rb", buffering=0) as file:
        assert [one.name for one in await drain(file, only=only)] == ["b", "c"]
    assert all(only.was_met(before[number].key.identity) for number in (1, 2))
    only.close()
