"""Values as people read and write them: sizes, times, tables, ``NAME=VALUE``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import orjson

from asyncsdk.engine import Bandwidth, Concurrency
from asyncsdk.errors import ConfigError

__all__ = [
    "TableWriter",
    "cell",
    "human_size",
    "parse_assignment",
    "parse_bandwidth",
    "parse_concurrency",
    "parse_duration",
    "parse_json_or_text",
    "parse_positive",
    "parse_size",
    "parse_wait",
]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NO_TIME = {"0", *(f"0{unit}" for unit in _SECONDS)}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def parse_size(text: str) -> int:
    """Return the bytes that *text* means: ``8MiB`` (powers of 1,024), ``8MB`` (powers of 1,000), or plain bytes.

    A letter alone (``8M``) counts in powers of 1,024.

    Raises:
        ConfigError: It is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no size; write it as 8MiB, 8MB or in bytes")
    number, prefix, binary = match.groups()
    is_decimal = text.strip()[-1:] in "bB" and prefix and not binary
    base = 1000 if is_decimal else 1024
    return int(float(number) * base ** _POWERS[prefix.lower()])


def parse_bandwidth(text: str) -> Bandwidth:
    """Return the limit that *text* means: ``10MB`` for each direction, ``10MB:50MB`` up and down, ``:50MB`` down only.

    Raises:
        ConfigError: It is none.
    """
    up, colon, down = text.strip().partition(":")
    if not colon:
        return Bandwidth.of(parse_size(up))
    if not up and not down:
        raise ConfigError(f"{text!r} is no bandwidth; write it as 10MB, or as UP:DOWN")
    return Bandwidth(parse_size(up) if up else None, parse_size(down) if down else None)


def parse_concurrency(text: str) -> Concurrency:
    """Return what ``--concurrency`` means: ``auto``, or a number.

    Raises:
        ConfigError: It is neither.
    """
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no number of requests at once, and not 'auto'") from None


def parse_positive(text: str) -> float:
    """Return the number that *text* is.

    Raises:
        ConfigError: It is none, or not more than 0.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ConfigError(f"{text!r} is no number greater than 0")
    return value


def parse_duration(text: str) -> float:
    """Return the seconds that *text* means: ``90``, ``90s``, ``30m``, ``8h`` or ``2d``.

    Raises:
        ConfigError: It is no time.
    """
    plain = text.strip()
    unit = _SECONDS.get(plain[-1:])
    return parse_positive(plain if unit is None else plain[:-1]) * (unit or 1)


def parse_wait(text: str) -> float:
    """Return the seconds that *text* means as `parse_duration` does; ``0`` is none.

    Raises:
        ConfigError: It is no time.
    """
    return 0.0 if text.strip() in _NO_TIME else parse_duration(text)


def human_size(size_bytes: float) -> str:
    """Return a size as people read it, in powers of 1,024: ``0 B``, ``512 B``, ``1.5 KiB``, ``91.2 MiB``."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes:.0f} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if abs(value) < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"


def parse_assignment(text: str) -> tuple[str, str]:
    """Return the two sides of ``NAME=VALUE``.

    Raises:
        ConfigError: There is no ``=``, or nothing before it.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise ConfigError(f"{text!r} must look like NAME=VALUE")
    return name.strip(), value


def parse_json_or_text(text: str) -> Any:
    """Return the JSON value of *text*, or the text itself when it is no JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def cell(value: Any) -> str:
    """Return *value* as one line of text that cannot disturb a terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, (dict, list, tuple)):
        value = orjson.dumps(value, default=str).decode()
    text = str(value)
    if not text.isascii():
        text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class TableWriter:
    """Lays rows out in aligned columns, batch by batch, so that a long listing need not be held.

    Columns widen when a later batch needs it, and never narrow.

    Args:
        headers: Names of the columns; those that end in ``#`` are aligned to the right (the ``#`` is not shown).
    """

    def __init__(self, headers: Sequence[str]) -> None:
        self._right = [header.endswith("#") for header in headers]
        self._headers = [header.removesuffix("#") for header in headers]
        self._widths = [len(header) for header in self._headers]
        self._has_head = False

    def lines(self, rows: Iterable[Sequence[str]]) -> Iterator[str]:
        """Yield the lines of a batch; the first batch begins with the headers."""
        batch = [list(row) for row in rows]
        for row in batch:
            self._widths = [max(width, len(text)) for width, text in zip(self._widths, row, strict=True)]
        if not self._has_head:
            self._has_head = True
            yield self._line(self._headers)
        for row in batch:
            yield self._line(row)

    def _line(self, row: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, self._widths, self._right, strict=True)
        )
        return "  ".join(padded).rstrip()
