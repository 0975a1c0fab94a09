"""The lean transport's parsers, without I/O: every place where bytes can be cut, every limit, every refusal."""

from __future__ import annotations

import pytest

from asyncsdk.errors import ConfigError, ConnectionFailed, IncompleteTransfer, MalformedResponse
from asyncsdk.transport.base import MAX_KEPT_BODY_BYTES, ReplyHead, Request, Sink
from asyncsdk.transport.lean import heads
from asyncsdk.transport.lean.chunks import ChunkReader
from asyncsdk.transport.lean.heads import HeadWriter, NotHttp, encode_head, parse_head
from asyncsdk.transport.lean.replies import ReplyReader
from tests.support.wire.sinks import Collect

URL = "http://store.invalid/o?signature=SECRET"
GET = Request("GET", URL)

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
REPLIES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "none": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3 ;x\r\nhel\r\n02\r\nlo\r\n0\r\nA: b\r\n\r\n",
        b"hello",
    ),
    "informational": (
        INTERIM + b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
}


def fed(reader: ReplyReader, *pieces: bytes) -> int:
    """Feed *pieces* and return how many bytes belonged to the reply."""
    return sum(reader.feed(memoryview(piece)) for piece in pieces)


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_may_be_cut_at_any_two_places(name: str) -> None:
    """The same reader reads one after the other; what follows a reply is never taken for a part of it."""
    data, body = REPLIES[name]
    reader = ReplyReader()
    for first in range(1, len(data)):
        for second in range(first, len(data)):
            reader.begin(GET)
            pieces = [data[:first], data[first:second], data[second:] + b"next"]
            used = fed(reader, *(piece for piece in pieces if piece))
            assert (reader.is_done, used, reader.keep_alive) == (True, len(data), True)
            assert reader.is_inside_head is False
            reply = reader.take()
            assert (reply.body, reply.size_bytes) == (body, len(body))
            assert {reader.is_done, reader.has_begun, reader.has_head, reader.may_send} == {False}


def test_a_body_without_length_ends_with_the_connection() -> None:
    """And not before; nothing follows it."""
    reader = ReplyReader()
    reader.begin(GET)
    assert fed(reader, b"HTTP/1.1 200 OK\r\n\r\nab", b"c") == 22
    assert not reader.is_done
    reader.end()
    assert reader.is_done
    assert not reader.keep_alive
    assert reader.take().body == b"abc"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ConnectionFailed),
        (b"HTTP/1.1 2", ConnectionFailed),
        (b"HTTP/1.1 100 Continue\r\n\r\n", ConnectionFailed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", IncompleteTransfer),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", ConnectionFailed),
    ],
)
def test_an_end_in_the_middle_is_an_error_without_secrets(data: bytes, error: type[Exception]) -> None:
    """By a goodbye or by a reset, wherever it comes."""
    reader = ReplyReader()
    reader.begin(GET)
    if data:
        fed(reader, data)
    with pytest.raises(error) as caught:
        reader.end()
    assert isinstance(reader.broken(OSError(104, "reset")), error)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"HTTP/1.1 200 OK\n",
        b"HTTP/2",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n" * 65,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65_536,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65_536 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 257 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1234567890123456789\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_what_is_no_reply_is_refused_in_one_piece_and_byte_by_byte(data: bytes) -> None:
    """As malformed, and without the query of its URL."""
    for step in (len(data), 1 if len(data) < 2000 else 1500):
        reader = ReplyReader()
        reader.begin(GET)
        with pytest.raises(MalformedResponse) as caught:
            fed(reader, *(data[at : at + step] for at in range(0, len(data), step)))
        assert "SECRET" not in str(caught.value)


def test_what_nobody_wants_is_kept_up_to_a_limit() -> None:
    """And counted beyond it; nothing of it is left in the reader."""
    reader = ReplyReader()
    counted: list[int] = []
    reader.begin(Request("GET", URL, on_received=counted.append))
    fed(reader, b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", bytes(150_000), bytes(50_000))
    reply = reader.take()
    assert (len(reply.body), reply.size_bytes, sum(counted)) == (MAX_KEPT_BODY_BYTES, 200_000, 200_000)
    assert reader._kept is None


@pytest.mark.parametrize("where", ["on_head", "on_received", "sink"])
def test_a_reader_that_was_dropped_by_what_it_called_delivers_nothing_more(where: str) -> None:
    """Not even what came in the same piece."""
    reader = ReplyReader()

    class Dropping(Collect):
        def write(self, data: bytes | memoryview) -> None:
            super().write(data)
            if where == "sink":
                reader.drop()

    sink = Dropping()

    def on_head(head: ReplyHead) -> Sink:
        if where == "on_head":
            reader.drop()
        return sink

    def on_received(count: int) -> None:
        if where == "on_received":
            reader.drop()

    reader.begin(Request("GET", URL, on_head=on_head, on_received=on_received))
    fed(reader, REPLIES["chunked"][0])
    assert sink.data == (b"hel" if where == "sink" else b"")


def test_a_slow_sink_gets_the_rest_late() -> None:
    """In order, by whoever calls for it; a dropped one gets nothing more."""
    reader = ReplyReader()
    sink = Collect()
    reader.begin(Request("GET", URL, on_head=lambda head: sink))
    fed(reader, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    reader._is_slow = True
    fed(reader, b"def")
    assert (bytes(sink.data), reader.late) == (b"abc", [b"def"])
    reader.write_late()
    assert (bytes(sink.data), reader.late) == (b"abcdef", [])
    fed(reader, b"ghi")
    reader.drop()
    reader.write_late()
    assert bytes(sink.data) == b"abcdef"


# --- chunks --------------------------------------------------------------------------------------------------


def chunks(*pieces: bytes) -> tuple[bytes, int, bool]:
    """Return what was delivered, how many bytes were used, and whether the body is whole."""
    found = bytearray()
    reader = ChunkReader(found.extend)
    used = sum(reader.feed(memoryview(piece)) for piece in pieces)
    return bytes(found), used, reader.is_done


def test_chunks_may_be_cut_anywhere() -> None:
    """And what follows them is left alone."""
    data = b'5;a="b"\r\nhello\r\n00b\t\r\n, my world\n\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n'
    for first in range(len(data)):
        for second in range(first, len(data)):
            found = chunks(data[:first], data[first:second], data[second:] + b"HTTP/1.1")
            assert found == (b"hello, my world\n", len(data), True)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b" 5\r\n",
        b"+5\r\n",
        b"0x5\r\n",
        b"5_0\r\n",
        b"5\n",
        b"5;\x00\r\n",
        b"1234567890abcdef\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"5;" + b"x" * 5000,
        b"5;" + b"x" * 5000 + b"\r\n",
        b"0\r\nno trailer\r\n",
        b"0\r\nA: \x00\r\n",
        b"0\r\n" + (b"A: " + b"x" * 4000 + b"\r\n") * 17,
    ],
)
def test_chunks_that_are_none_are_refused(data: bytes) -> None:
    """In one piece and byte by byte."""
    with pytest.raises(NotHttp):
        chunks(data)
    with pytest.raises(NotHttp):
        chunks(*(data[at : at + 1] for at in range(len(data))))


# --- heads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "keep"),
    [
        (b"HTTP/1.1 204 x", True),
        (b"HTTP/1.0 204 x", False),
        (b"HTTP/1.0 204 x\r\nConnection: keep-alive", True),
        (b"HTTP/1.0 204 x\r\nConnection: x, Keep-Alive", True),
        (b"HTTP/1.0 204 x\r\nConnection: close, keep-alive", False),
        (b"HTTP/1.1 204 x\r\nConnection: keep-alive\r\nConnection: Close", False),
        (b"HTTP/1.1 200 x", False),
        (b"HTTP/1.1 200 x\r\nContent-Length: 3", True),
        (b"HTTP/1.1 200 x\r\nContent-Length: 3, 3", True),
        (b"HTTP/1.1 200 x\r\nTransfer-Encoding: Chunked", True),
    ],
)
def test_whether_a_connection_may_be_kept(lines: bytes, keep: bool) -> None:
    """Only when it is known where the reply ends, and nobody says otherwise."""
    assert parse_head(lines + b"\r\n\r\n", "GET").keep_alive is keep


def test_what_is_remembered_of_heads_is_bounded() -> None:
    """In number and in size; nothing else than harmless names."""
    for index in range(2000):
        parse_head(
            b"HTTP/1.1 200 %d\r\nContent-Length: %d\r\nServer: %b\r\nETag: %d\r\nSet-Cookie: %d\r\n\r\n"
            % (index, index, b"x" * (index % 2 * 5000), index, index),
            "GET",
        )
        parse_head(b"HTTP/1.1 200 %b\r\n\r\n" % (b"y" * 5000), "HEAD")
    assert len(heads._known_lines) <= 512
    assert len(heads._known_statuses) <= 512
    assert all(len(line) <= 256 for line in [*heads._known_lines, *heads._known_statuses])
    assert {name for name, _ in heads._known_lines.values()} <= {"content-length", "server", *heads._REPEATED}
    for index in range(2000):
        parse_head(b"HTTP/1.1 200 x\r\nX-%d: %d\r\nY%b: 1\r\n\r\n" % (index, index, b"y" * (index % 500)), "GET")
    assert len(heads._known_names) <= 512
    assert all(len(name) <= 256 for name in heads._known_names)


@pytest.mark.parametrize(
    "line", [b"ETag", b"ETag : 1", b"ETag: \x001", b"ETag: 1\r2", b"ETag: 1\n2", b"ETag: \x7f", b" ETag: 1"]
)
def test_a_line_is_checked_though_its_name_is_known(line: bytes) -> None:
    """What came before lends no trust to it."""
    known = parse_head(b"HTTP/1.1 200 x\r\nETag: \t1\xe9 \r\nContent-Length: 3\r\n\r\n", "GET")
    assert dict(known.headers) == {"etag": "1\xe9", "content-length": "3"}
    with pytest.raises(NotHttp):
        parse_head(b"HTTP/1.1 200 x\r\n" + line + b"\r\n\r\n", "GET")


def test_headers_that_change_are_written_as_they_are_now() -> None:
    """The same mapping with another value, then none; what could not be written leaves nothing behind."""
    writer = HeadWriter("h")
    headers = {"X": "1", "Connection": "close"}
    assert b"X: 1\r\n" in writer.write("GET", b"/", headers, None)
    assert writer.says_close
    headers["X"] = "2"
    assert b"X: 2\r\n" in writer.write("GET", b"/", headers, None)
    headers["X"] = "\n"
    with pytest.raises(ConfigError):
        writer.write("GET", b"/", headers, None)
    with pytest.raises(ConfigError):
        writer.write("GET", b"/", headers, None)
    assert writer.write("PUT", b"/a", {}, 3) == encode_head("PUT", b"/a", "h", {}, 3)
    assert not writer.says_close


def test_a_head_is_written_as_it_was_asked_for() -> None:
    """Framing is the transport's own."""
    data = encode_head("PUT", b"/a?b", "h:1", {"content-length": "7", "host": "other", "X": "y"}, 3, b"Expect: z\r\n")
    assert data == (
        b"PUT /a?b HTTP/1.1\r\nHost: other\r\nAccept-Encoding: identity\r\nX: y\r\n"
        b"Content-Length: 3\r\nExpect: z\r\n\r\n"
    )
    assert encode_head("POST", b"/", "h", {}, None).endswith(b"\r\nContent-Length: 0\r\n\r\n")
    assert b"Content-Length" not in encode_head("GET", b"/", "h", {}, None)


@pytest.mark.parametrize(
    ("method", "target", "headers", "size"),
    [
        ("GET", b"/ x", {}, None),
        ("GET", b"", {}, None),
        ("G T", b"/", {}, None),
        ("GET", b"/", {"A\n": "b"}, None),
        ("GET", b"/", {"A": "b\r\nC: d"}, None),
        ("PUT", b"/", {"Transfer-Encoding": "chunked"}, 3),
        ("PUT", b"/", {}, -1),
    ],
)
def test_what_would_split_or_misframe_a_request_is_refused(
    method: str, target: bytes, headers: dict[str, str], size: int | None
) -> None:
    """Nothing may be read by the server as another request than the one that was meant."""
    with pytest.raises(ConfigError):
        encode_head(method, target, "h", headers, size)
