"""Multipart forms, read while they come: text fields into memory, the file piece by piece to whoever takes it.

Source: RFC 7578 (multipart/form-data).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from asyncsdk.errors import BadRequest
from asyncsdk.server.http.bodies import chunks_of
from asyncsdk.server.http.replies import Receive, Scope, header

__all__ = ["FileHead", "FileTaker", "read_form"]

MAX_PARTS = 100
MAX_FIELD_BYTES = 64 * 1024
"""Of all text fields together, names included."""


@dataclass(frozen=True, slots=True)
class FileHead:
    """What a form says of a file before its bytes: the name of the field, and that of the file."""

    field: str
    file_name: str


class FileTaker(Protocol):
    """Takes the bytes of a file in order."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes; returns when more may come."""


class _Part:
    """The part that is being read."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytearray, bytearray]] = []
        self.text = bytearray()
        self.name = ""
        self.file_name: str | None = None


class _Reader:
    """Turns what the parser calls into a list of steps, which the form takes one after the other."""

    def __init__(self, boundary: bytes) -> None:
        self.is_whole = False
        self._steps: list[tuple[str, bytes]] = []
        self._part = _Part()
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_begin": lambda: self._part.headers.append((bytearray(), bytearray())),
            "on_header_field": lambda data, start, end: self._part.headers[-1][0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._part.headers[-1][1].extend(data[start:end]),
            "on_headers_finished": lambda: self._steps.append(("head", b"")),
            "on_part_data": lambda data, start, end: self._steps.append(("data", data[start:end])),
            "on_part_end": lambda: self._steps.append(("end", b"")),
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:  # longer than any boundary may be
            raise BadRequest(f"the body is no multipart form: {error}") from None

    def feed(self, data: bytes) -> list[tuple[str, bytes, _Part]]:
        """Return what came to its end in the next bytes of the body, each with its part."""
        self._steps = []
        self._seen: list[tuple[str, bytes, _Part]] = []
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadRequest(f"the body is no multipart form: {error}") from None
        self._flush()
        return self._seen

    def _begin(self) -> None:
        self._flush()
        self._part = _Part()

    def _flush(self) -> None:
        self._seen += [(what, data, self._part) for what, data in self._steps]
        self._steps = []

    def _end(self) -> None:
        self.is_whole = True


async def read_form(
    scope: Scope, receive: Receive, take_file: Callable[[FileHead, Mapping[str, str]], Awaitable[FileTaker]]
) -> dict[str, str]:
    """Read a form with one file and return its text fields; of a field that is there twice, the last.

    Memory: the text fields, at most 64 KiB, and one chunk of the body.

    Args:
        scope: Of the request.
        receive: Gives the body.
        take_file: Called when a file begins, with the fields before it; returns what takes its bytes.

    Raises:
        BadRequest: It is no form, it ends too soon, or has more than one file.
        ClientGone: The connection broke.
    """
    reader = _Reader(_boundary(scope))
    fields: dict[str, str] = {}
    taker: FileTaker | None = None
    left, parts = MAX_FIELD_BYTES, 0
    async for chunk in chunks_of(receive):
        for what, data, part in reader.feed(chunk):
            if what == "head":
                parts += 1
                _read_head(part)
                left -= len(part.name)
                if parts > MAX_PARTS or left < 0:
                    raise _too_many()
                if part.file_name is None:
                    continue
                if taker is not None:
                    raise BadRequest("a form brings one file")
                taker = await take_file(FileHead(part.name, part.file_name), fields)
            elif part.file_name is not None:
                if data:
                    assert taker is not None
                    await taker.write(data)
            elif what == "data":
                left -= len(data)
                if left < 0:
                    raise _too_many()
                part.text += data
            else:
                fields[part.name] = part.text.decode("utf-8", "replace")
    if not reader.is_whole:
        raise BadRequest("the form ends before its last boundary", code="incomplete")
    if taker is None:
        raise BadRequest("the form brings no file")
    return fields


def _too_many() -> BadRequest:
    return BadRequest("the fields of the form are too many or too long", status=413, code="too_large")


def _boundary(scope: Scope) -> bytes:
    kind, options = parse_options_header(header(scope, b"content-type"))
    boundary = options.get(b"boundary")
    if kind.lower() != b"multipart/form-data" or not boundary:
        raise BadRequest("the body must be a multipart form (Content-Type: multipart/form-data; boundary=...)")
    return boundary


def _read_head(part: _Part) -> None:
    for name, value in part.headers:
        if name.lower() == b"content-disposition":
            kind, options = parse_options_header(bytes(value))
            if kind.lower() == b"form-data" and b"name" in options:
                part.name = options[b"name"].decode("utf-8", "replace")
                if b"filename" in options:
                    part.file_name = options[b"filename"].decode("utf-8", "replace")
                return
    raise BadRequest("a part of the form has no name")
