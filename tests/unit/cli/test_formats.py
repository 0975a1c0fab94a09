"""Sizes, assignments, table cells: what people read and write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from asyncsdk.cli.formats import (
    TableWriter,
    cell,
    human_size,
    parse_assignment,
    parse_bandwidth,
    parse_concurrency,
    parse_duration,
    parse_json_or_text,
    parse_positive,
    parse_size,
    parse_wait,
)
from asyncsdk.engine import Bandwidth
from asyncsdk.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("10B", 10),
        ("8MiB", 8 * 1024**2),
        ("8 mib", 8 * 1024**2),
        ("8M", 8 * 1024**2),
        ("8MB", 8 * 1000**2),
        ("1.5KiB", 1536),
        ("2g", 2 * 1024**3),
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    """MiB counts in 1,024, MB in 1,000, a letter alone in 1,024."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1", "8X", "8 Mi B", "1e6", "8iB8"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3 * 1024**4, "3.0 TiB"),
    ],
)
def test_sizes_are_written(size_bytes: int, text: str) -> None:
    """No size is written as 1024.0 of a unit."""
    assert human_size(size_bytes) == text


def test_assignments_have_two_sides() -> None:
    """Only the first = divides; nothing before it is refused."""
    assert parse_assignment("a=b=c") == ("a", "b=c")
    assert parse_assignment("a=") == ("a", "")
    for text in ("a", "=b", " =b"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            parse_assignment(text)


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("true", True), ("null", None), ('"1"', "1"), ("photos", "photos"), ("01", "01")]
)
def test_values_are_json_or_text(text: str, value: object) -> None:
    assert parse_json_or_text(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (3, "3"),
        ("a\x1b[31m\nb", "a\\x1b[31m\\x0ab"),
        ("grün", "grün"),
        ("bad\udcff", "bad\ufffd"[:3] + "\\xff"),
        ({"a": 1}, '{"a":1}'),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05"),
    ],
)
def test_cells_are_one_harmless_line(value: object, text: str) -> None:
    """Control characters and bytes that are no Unicode become escapes."""
    assert cell(value) == text


def test_table_is_aligned_over_batches() -> None:
    """Headers come once; numbers stand to the right; a later batch may widen a column."""
    table = TableWriter(["NAME", "SIZE#"])
    assert list(table.lines([["a", "1"], ["bcdef", "22"]])) == ["NAME   SIZE", "a         1", "bcdef    22"]
    assert list(table.lines([["x" * 7, "3"]])) == ["xxxxxxx     3"]


@pytest.mark.parametrize(
    ("text", "up", "down"),
    [
        ("10MB", 10_000_000, 10_000_000),
        ("1KiB:2KiB", 1024, 2048),
        (":5", None, 5),
        ("5:", 5, None),
    ],
)
def test_bandwidths(text: str, up: int | None, down: int | None) -> None:
    assert parse_bandwidth(text) == Bandwidth(up, down)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("0.5s", 0.5), ("30m", 1800), ("8h", 28800), (" 2d ", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_no_wait_is_a_wait() -> None:
    """``--outage 0``: as ``outage_seconds=0``, wait for nothing."""
    assert [parse_wait(text) for text in ("0", "0s", "0m", "30s", "2h")] == [0, 0, 0, 30, 7200]
    with pytest.raises(ConfigError):
        parse_wait("-1")


def test_requests_at_once_are_a_number_or_auto() -> None:
    assert (parse_concurrency("auto"), parse_concurrency("12")) == ("auto", 12)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_bandwidth, ":"),
        (parse_bandwidth, "fast"),
        (parse_bandwidth, "0"),
        (parse_duration, "h"),
        (parse_duration, "-1s"),
        (parse_duration, "nan"),
        (parse_positive, "0"),
        (parse_positive, "inf"),
        (parse_concurrency, "many"),
    ],
)
def test_limits_that_cannot_be_read(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
