"""TLS in memory: both ends here, and every byte between them in the hands of the test."""

from __future__ import annotations

import os
import ssl

import pytest
import trustme

from asyncsdk.transport.lean.pipe import NestedTlsPipe, TlsPipe

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Ends:
    """Contexts of a client and a server that trust each other's certificates."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        self.authority = trustme.CA()
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in (self.client, self.server):
            self.authority.configure_trust(context)
            context.minimum_version = context.maximum_version = version
        self.authority.issue_cert("store.invalid").configure_cert(self.server)

    def pair(self, host: str = "store.invalid") -> tuple[TlsPipe, TlsPipe]:
        client = TlsPipe(self.client, host)
        server = TlsPipe(self.server, None, server_side=True)
        shake(client, server)
        return client, server


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def ends(request: pytest.FixtureRequest) -> Ends:
    return Ends(request.param)


def move(sender: TlsPipe, receiver: TlsPipe) -> None:
    """Carry over what waits; nothing at all would mean that the connection was closed."""
    if data := sender.take_output():
        receiver.feed(data)


def shake(client: TlsPipe, server: TlsPipe) -> None:
    """Let both shake hands."""
    done = [False, False]
    while not all(done):
        done[0] = done[0] or client.shake_hands()
        move(client, server)
        done[1] = done[1] or server.shake_hands()
        move(server, client)


def read(pipe: TlsPipe, buffer_bytes: int = 256 * 1024) -> bytes:
    """Return everything that can be read now."""
    buffer = memoryview(bytearray(buffer_bytes))
    found = bytearray()
    while count := pipe.read_into(buffer):
        found += buffer[:count]
    return bytes(found)


def test_what_goes_in_comes_out_both_ways(ends: Ends) -> None:
    """Data of every size around the limits of a record survives, in either direction."""
    client, server = ends.pair()
    for size in (1, 100, 16383, 16384, 16385, 65536, 300_000):
        data = os.urandom(size)
        for sender, receiver in ((client, server), (server, client)):
            receiver.feed(sender.encrypt(memoryview(data)))
            assert read(receiver) == data
    assert not client.is_closed
    assert not client.is_truncated


def test_it_knows_what_was_agreed(ends: Ends) -> None:
    """Version and cipher are there after the handshake, and not before."""
    fresh = TlsPipe(ends.client, "store.invalid")
    assert (fresh.version, fresh.cipher) in {("", ""), ("TLSv1.2", ""), ("TLSv1.3", "")}
    client, _ = ends.pair()
    assert client.version == ends.client.minimum_version.name.replace("_", ".")
    assert "GCM" in client.cipher or "CHACHA20" in client.cipher
    assert client.cipher in repr(client)


@pytest.mark.parametrize("buffer_bytes", [1000, 16384, 20000, 256 * 1024])
def test_a_buffer_is_filled_from_several_records(ends: Ends, buffer_bytes: int) -> None:
    """One call takes as much as fits, from as many records as there are; nothing is lost between calls."""
    client, server = ends.pair()
    data = os.urandom(100_000)
    server.feed(b"".join(client.encrypt(data[start : start + 7000]) for start in range(0, len(data), 7000)))
    buffer = memoryview(bytearray(buffer_bytes))
    counts, found = [], b""
    while count := server.read_into(buffer):
        counts.append(count)
        found += buffer[:count]
    assert found == data
    assert all(count == buffer_bytes for count in counts[:-1])


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 21, 22, 100, 1000, 16405, 16406, 16407])
def test_records_may_come_in_pieces_of_any_size(ends: Ends, step: int) -> None:
    """Ciphertext cut anywhere gives the same plaintext; a piece of a record gives none."""
    client, server = ends.pair()
    data = os.urandom(40_000 if step > 20 else 2000)
    sent = client.encrypt(data)
    found = b""
    for start in range(0, len(sent), step):
        server.feed(memoryview(sent)[start : start + step])
        found += read(server)
    assert found == data


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 7, 1000])
def test_it_knows_whether_it_is_inside_a_record(ends: Ends, step: int) -> None:
    """Wherever the pieces end, a header included; and a whole record that was read is nothing that waits."""
    client, server = ends.pair()
    assert read(client) == b""  # tickets, of TLS 1.3
    assert not client.has_input
    for size in (1, 300, 70_000):
        data = server.encrypt(os.urandom(size))
        for at in range(0, len(data), step):
            client.feed(data[at : at + step])
            read(client, 128 * 1024)
            if at + step >= len(data):
                assert not client.has_input
            elif size < 16_384:
                assert client.has_input
    client.feed(server.close())
    read(client)
    assert client.has_input


def test_a_handshake_may_come_in_single_bytes(ends: Ends) -> None:
    """Nothing depends on how the network cuts what it carries."""
    client, server = TlsPipe(ends.client, "store.invalid"), TlsPipe(ends.server, None, server_side=True)
    done = [False, False]
    while not all(done):
        for index, (here, there) in enumerate(((client, server), (server, client))):
            done[index] = done[index] or here.shake_hands()
            for byte in here.take_output():
                there.feed(bytes([byte]))
                other = 1 - index
                done[other] = done[other] or there.shake_hands()
    client.feed(server.encrypt(b"hello"))
    assert read(client) == b"hello"


def test_much_data_passes(ends: Ends) -> None:
    """8 MiB in pieces of 256 KiB, read with a buffer that fits neither records nor pieces."""
    client, server = ends.pair()
    data = os.urandom(8 * 1024 * 1024)
    view = memoryview(data)
    found = bytearray()
    for start in range(0, len(data), 256 * 1024):
        server.feed(client.encrypt(view[start : start + 256 * 1024]))
        found += read(server, 100_001)
    assert found == data


def test_what_waits_goes_out_before_the_data() -> None:
    """What TLS itself has to say (here: session tickets) is sent with the next data, and in order."""
    ends = Ends(ssl.TLSVersion.TLSv1_3)
    client, server = TlsPipe(ends.client, "store.invalid"), TlsPipe(ends.server, None, server_side=True)
    client.shake_hands()
    server.feed(client.take_output())
    server.shake_hands()
    client.feed(server.take_output())
    assert client.shake_hands()
    server.feed(client.take_output())
    assert server.shake_hands()
    assert server.has_output
    client.feed(server.encrypt(b"hello"))
    assert not server.has_output
    assert server.take_output() == b""
    assert read(client) == b"hello"


def test_nothing_is_encrypted_for_nothing(ends: Ends) -> None:
    """No data, no record."""
    client, _ = ends.pair()
    client.take_output()
    assert client.encrypt(b"") == b""


# --- ends ----------------------------------------------------------------------------------------------------


def test_a_clean_end_comes_after_all_data(ends: Ends) -> None:
    """close_notify behind data: the data first, then ``is_closed``; the end of the socket changes nothing more."""
    client, server = ends.pair()
    client.feed(server.encrypt(b"all there is") + server.close())
    assert read(client) == b"all there is"
    assert client.is_closed
    client.feed(b"")
    assert read(client) == b""
    assert client.is_closed
    assert not client.is_truncated


def test_an_end_without_goodbye_is_truncation(ends: Ends) -> None:
    """The socket closed, close_notify never came: whoever cut it may have cut data too."""
    client, server = ends.pair()
    client.feed(server.encrypt(b"the first half"))
    client.feed(b"")
    assert read(client) == b"the first half"
    assert client.is_truncated
    assert not client.is_closed


def test_an_end_after_everything_was_read_is_truncation_all_the_same(ends: Ends) -> None:
    """The socket closes while nothing waits: that alone must be noticed."""
    client, server = ends.pair()
    client.feed(server.encrypt(b"read at once"))
    assert read(client) == b"read at once"
    assert not client.is_truncated
    client.feed(b"")
    assert read(client) == b""
    assert client.is_truncated


def test_an_end_within_a_record_is_truncation(ends: Ends) -> None:
    """Nothing of a record that is not whole is given out."""
    client, server = ends.pair()
    client.feed(server.encrypt(b"never whole")[:-1])
    client.feed(b"")
    assert read(client) == b""
    assert client.is_truncated
    assert not client.is_closed


def test_a_changed_record_is_refused_after_the_good_ones(ends: Ends) -> None:
    """What came unharmed is given out; then the error, and again whenever somebody asks."""
    client, server = ends.pair()
    good, bad = server.encrypt(b"good"), bytearray(server.encrypt(b"bad"))
    bad[-1] ^= 1
    client.feed(good + bad)
    buffer = memoryview(bytearray(100))
    assert client.read_into(buffer) == 4
    for _ in range(2):
        with pytest.raises(OSError, match="TLS, ") as caught:
            client.read_into(buffer)
        assert "MAC" in str(caught.value.strerror).upper()


def test_garbage_is_refused(ends: Ends) -> None:
    """Plaintext where ciphertext is due is an error, not data."""
    client, _ = ends.pair()
    client.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    with pytest.raises(OSError, match="TLS, "):
        client.read_into(memoryview(bytearray(100)))


def test_a_certificate_that_is_demanded_and_missing_is_named() -> None:
    """With TLS 1.3 the server says so only after the client's handshake: as an alert where the reply would be."""
    ends = Ends(ssl.TLSVersion.TLSv1_3)
    ends.server.verify_mode = ssl.CERT_REQUIRED
    client, server = TlsPipe(ends.client, "store.invalid"), TlsPipe(ends.server, None, server_side=True)
    client.shake_hands()
    server.feed(client.take_output())
    server.shake_hands()
    client.feed(server.take_output())
    assert client.shake_hands()
    server.feed(client.take_output())
    with pytest.raises(ssl.SSLError):
        server.shake_hands()
    client.feed(server.take_output())
    with pytest.raises(OSError, match="CERTIFICATE_REQUIRED"):
        client.read_into(memoryview(bytearray(100)))


def test_a_wrong_host_fails_the_handshake_and_tells_the_server(ends: Ends) -> None:
    """A certificate for somebody else ends it; what tells the server why waits to be sent."""
    client, server = TlsPipe(ends.client, "other.invalid"), TlsPipe(ends.server, None, server_side=True)
    client.shake_hands()
    server.feed(client.take_output())
    server.shake_hands()
    client.feed(server.take_output())
    with pytest.raises(ssl.SSLCertVerificationError):
        client.shake_hands()
    server.feed(client.take_output())
    with pytest.raises(ssl.SSLError, match="ALERT"):
        server.shake_hands()


def test_nothing_can_be_sent_after_closing(ends: Ends) -> None:
    """An error, not silence."""
    client, _ = ends.pair()
    client.close()
    with pytest.raises(OSError, match="TLS, "):
        client.encrypt(b"late")


# --- TLS inside TLS ------------------------------------------------------------------------------------------


class Tunnel:
    """A client that speaks TLS to a server inside its TLS to a proxy."""

    def __init__(self, ends: Ends) -> None:
        outer, self.proxy = ends.pair()
        self.client = NestedTlsPipe(ends.client, "store.invalid", outer)
        self.server = TlsPipe(ends.server, None, server_side=True)
        done = [False, False]
        while not all(done):
            done[0] = done[0] or self.client.shake_hands()
            self.up(self.client.take_output())
            done[1] = done[1] or self.server.shake_hands()
            self.down(self.server.take_output())

    def up(self, sent: bytes) -> None:
        if sent:
            self.proxy.feed(sent)
        if inside := read(self.proxy):
            self.server.feed(inside)

    def down(self, sent: bytes) -> None:
        if sent:
            self.client.feed(self.proxy.encrypt(sent))


def test_tls_inside_tls_carries_data_both_ways(ends: Ends) -> None:
    """Both layers are taken off, for data larger than any buffer in between."""
    tunnel = Tunnel(ends)
    data = os.urandom(300_000)
    tunnel.up(tunnel.client.encrypt(data))
    assert read(tunnel.server) == data
    tunnel.down(tunnel.server.encrypt(data))
    assert read(tunnel.client) == data


def test_the_end_of_the_inner_tls_is_what_counts(ends: Ends) -> None:
    """The server's close_notify is a clean end; the proxy's alone is not."""
    tunnel = Tunnel(ends)
    tunnel.down(tunnel.server.encrypt(b"all") + tunnel.server.close())
    assert read(tunnel.client) == b"all"
    assert tunnel.client.is_closed
    tunnel = Tunnel(ends)
    tunnel.down(tunnel.server.encrypt(b"some"))
    tunnel.client.feed(tunnel.proxy.close())
    assert read(tunnel.client) == b"some"
    assert tunnel.client.is_truncated
    assert not tunnel.client.is_closed
