"""Whatever bytes come, and however they are cut: the server neither hangs nor fails, nor does garbage succeed."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asyncsdk.domain.ids import make_id
from asyncsdk.server.http.front.framing import ChunkedBody
from asyncsdk.server.http.front.heads import HeadReader, MalformedRequest, RequestHead
from tests.support.server import RunningServer


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return *data* in pieces, cut at *places* (modulo its length)."""
    stops = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(stops)]


places = st.lists(st.integers(0, 10_000), max_size=12)

# --- chunks ---

chunks = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def encoded(pieces: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"


@given(pieces=chunks, extension=st.sampled_from([b"", b";a", b" ;a=b"]), after=st.binary(max_size=50), at=places)
def test_chunks_are_read_the_same_however_they_are_cut(
    pieces: list[bytes], extension: bytes, after: bytes, at: list[int]
) -> None:
    body = ChunkedBody()
    content, rest = b"", b""
    for piece in cut(encoded(pieces, extension) + after, at):
        if body.left == 0:
            rest += piece
            continue
        taken, following = body.take(piece)
        content += b"".join(taken)
        rest += following
    assert (content, rest, body.left) == (b"".join(pieces), after, 0)


@given(data=st.binary(max_size=200), at=places)
def test_no_bytes_make_the_reader_of_chunks_fail_otherwise_than_by_refusing(data: bytes, at: list[int]) -> None:
    """And how they are cut makes no difference to what is content."""

    def read(pieces: list[bytes]) -> bytes | None:
        body, content = ChunkedBody(), b""
        try:
            for piece in pieces:
                if body.left != 0:
                    content += b"".join(body.take(piece)[0])
        except MalformedRequest:
            return None
        return content

    assert read([data]) == read(cut(data, at))


# --- heads ---

tokens = st.text("abcXYZ-_!09", min_size=1, max_size=10)
values = st.text("abc XYZ:;,=\t\xe9", max_size=20).map(str.strip)


@given(
    target=st.text("abc/%?=&.", max_size=30).map("/".__add__).filter(lambda text: not text.startswith("//")),
    headers=st.lists(st.tuples(tokens, values), max_size=8),
    after=st.binary(max_size=50),
    at=places,
)
def test_a_head_is_read_the_same_however_it_is_cut(
    target: str, headers: list[tuple[str, str]], after: bytes, at: list[int]
) -> None:
    lines = "".join(f"x-{name}: {value}\r\n" for name, value in headers)
    data = f"PATCH {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode("latin-1")
    reader = HeadReader()
    found: RequestHead | None = None
    rest = b""
    for piece in cut(data + after, at):
        if found is not None:
            rest += piece
        elif (read := reader.feed(piece)) is not None:
            found, rest = read
    assert found is not None
    assert (found.method, found.path + (b"?" if "?" in target else b"") + found.query) == ("PATCH", target.encode())
    assert found.headers[1:] == [(f"x-{name}".lower().encode(), value.encode("latin-1")) for name, value in headers]
    assert rest == after


@given(data=st.binary(max_size=200), at=places)
def test_no_bytes_make_the_reader_of_heads_fail_otherwise_than_by_refusing(data: bytes, at: list[int]) -> None:
    def read(pieces: list[bytes]) -> object:
        reader = HeadReader()
        try:
            for piece in pieces:
                if (found := reader.feed(piece)) is not None:
                    return found[0]
        except MalformedRequest:
            return "refused"
        return None

    assert read([data]) == read(cut(data, at))


# --- the whole server ---


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder)) as running:
        yield running


def signed_put(server: RunningServer) -> bytes:
    """A request that is right but for its signature."""
    url = urlsplit(server.minter().target(make_id(), size_bytes=5, crc32c=None).url)  # type: ignore[union-attr]
    query = re.sub("signature=.", lambda match: "signature=" + ("0" if match[0][-1] != "0" else "1"), url.query)
    return f"PUT {url.path}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nbytes".encode()


SEEDS = [
    b"GET /objects/0123456789abcdef01234567?crc32c=00000000&expires=9999999999&signature="
    + b"0" * 64
    + b" HTTP/1.1\r\n"
    b"Host: x\r\nRange: bytes=0-5\r\n\r\n",
    b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 2\r\n\r\n{}",
    b"PUT /objects/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
    b"DELETE /nothing HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]


@st.composite
def garbage(draw: st.DrawFn) -> bytes:
    """Requests that may not succeed (nothing in them is signed, no token known), damaged, repeated and joined."""
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        data = bytearray(draw(st.sampled_from([*SEEDS, b"<put>"])))
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(data)))
            match draw(st.sampled_from(["insert", "remove", "change"])):
                case "insert":
                    data[at:at] = draw(st.one_of(st.binary(max_size=5), st.sampled_from([b"\r\n", b"\n", b"\r\n\r\n"])))
                case "remove":
                    del data[at : at + draw(st.integers(1, 20))]
                case "change":
                    data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        parts.append(bytes(data))
    return b"".join(parts)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), garbage()), at=places)
@example(data=b"<put>", at=[10, 50])
@example(data=b"<put><put>", at=[])
def test_garbage_is_never_answered_with_success_and_never_hangs(
    server: RunningServer, data: bytes, at: list[int]
) -> None:
    data = data.replace(b"<put>", signed_put(server))
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(20)
        received = b""
        try:
            for piece in cut(data, at):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):  # hanging is a timeout here
                received += part
        except TimeoutError:
            pytest.fail(f"the server hangs; it said {received!r}")
        except OSError:
            pass  # closed on bytes still on their way, after a reply or without one
    statuses = [int(found) for found in re.findall(rb"(?:^|})HTTP/1\.1 (\d{3}) ", received)]
    assert all(status == 100 or 400 <= status < 500 for status in statuses), (data, received)
    assert received == b"" or statuses, received
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(20)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert not list(server.folder.rglob("*.tmp"))
