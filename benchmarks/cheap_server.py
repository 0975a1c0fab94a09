"""A server that costs next to nothing, so that what is measured on a machine with few cores is the client.

It answers every PUT with 201 and every ``GET /<size>/...`` with so many bytes, plain and by TLS 1.3. At first it reads
requests as a server does. After ``prepare`` it stops looking at them: it knows how many bytes one takes on the wire
(all are alike: names of one length, bodies of one size), lets the kernel throw them away uncopied, and answers each
with a reply that was made, and encrypted, before the clock started. It checks nothing and keeps nothing; it can stand
in for a server on another machine, and for nothing else.

It reads commands from its standard input, and ends with it: ``prepare N`` makes N replies for each open connection and
answers ``ready``. Run by ``benchmarks.loops``; Linux only.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
from collections import Counter, deque
from pathlib import Path

from asyncsdk.transport.lean.pipe import TlsPipe

__all__ = ["CheapServer", "main"]

KIB = 1024
MIB = 1024 * KIB
PIECE_BYTES = 256 * KIB
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
SCRATCH = memoryview(bytearray(MIB))
PLAIN = memoryview(bytearray(MIB))


class CheapServer:
    """Serves connections of two listening sockets, in one thread.

    Args:
        context: Its certificate.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.poll = select.epoll()
        self._listeners = {sock.fileno(): sock for sock in (_listening(), _listening())}
        self._connections: dict[int, _Connection] = {}
        self.lengths: Counter[int] = Counter()
        self.replies: dict[bytes, list[bytes]] = {}
        for number in self._listeners:
            self.poll.register(number, select.EPOLLIN)
        self.poll.register(sys.stdin.fileno(), select.EPOLLIN)
        self.ports = [sock.getsockname()[1] for sock in self._listeners.values()]

    def run(self) -> None:
        """Serve until the standard input ends."""
        while True:
            for number, events in self.poll.poll():
                connection = self._connections.get(number)
                if connection is not None:
                    try:
                        is_open = connection.go_on(events)
                    except (BlockingIOError, InterruptedError):
                        is_open = True
                    except OSError:  # reset by the client, which ends as it likes
                        is_open = False
                    if not is_open:
                        del self._connections[number]
                        connection.sock.close()
                elif number in self._listeners:
                    self._accept(self._listeners[number], is_tls=number == list(self._listeners)[1])
                else:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self._prepare(int(line.split()[1]))

    def _accept(self, listener: socket.socket, *, is_tls: bool) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe = TlsPipe(self._context, None, server_side=True) if is_tls else None
        self._connections[sock.fileno()] = _Connection(self, sock, pipe)
        self.poll.register(sock.fileno(), select.EPOLLIN)

    def _prepare(self, count: int) -> None:
        ((length, _),) = self.lengths.most_common(1)
        for connection in self._connections.values():
            connection.prepare(length, count)
        print("ready", flush=True)

    def reply_to(self, head: bytes) -> list[bytes]:
        """Return what answers the request *head*, in pieces."""
        method, target, _ = head.split(b" ", 2)
        if method != b"GET":
            return [CREATED]
        size = target.split(b"/")[1]
        if size not in self.replies:
            body = bytes(range(256)) * (int(size) // 256)
            whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            self.replies[size] = [whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES)]
        return self.replies[size]


class _Connection:
    def __init__(self, server: CheapServer, sock: socket.socket, pipe: TlsPipe | None) -> None:
        self._server = server
        self.sock = sock
        self._pipe = pipe
        self._is_shaken = pipe is None
        self._text = bytearray()  # of a head that is not whole
        self._body_left = 0
        self._length = 0  # bytes of a request on the wire; 0: they are still looked at
        self._received = 0  # of the request that is coming
        self._requests = 0
        self._reply: list[bytes] = []
        self._prepared: deque[list[bytes]] = deque()
        self._unsent: deque[memoryview] = deque()
        self._events = select.EPOLLIN

    def prepare(self, length: int, count: int) -> None:
        """From now on a request is *length* bytes, whatever they say; have *count* replies ready."""
        assert self._received == 0
        self._length = length
        self._prepared.extend(self._sealed() for _ in range(count))

    def go_on(self, events: int) -> bool:
        """Do what the socket is ready for; False: the client has gone."""
        if events & select.EPOLLOUT:
            self._send()
        if not events & ~select.EPOLLOUT:
            return True
        if self._length:
            count = self.sock.recv_into(SCRATCH, len(SCRATCH), socket.MSG_TRUNC)
            self._received += count
            while self._received >= self._length:
                self._received -= self._length
                self._answer(self._prepared.popleft() if self._prepared else self._sealed())
            return count > 0
        count = self.sock.recv_into(SCRATCH)
        self._received += count
        if self._pipe is None:
            self._take(SCRATCH[:count])
        elif count:
            self._pipe.feed(SCRATCH[:count])
            if not self._is_shaken:
                self._is_shaken = self._pipe.shake_hands()
                self._answer([self._pipe.take_output()])
            while self._is_shaken and (size := self._pipe.read_into(PLAIN)):
                self._take(PLAIN[:size])
        return count > 0

    def _take(self, data: memoryview) -> None:
        if self._body_left:
            self._body_left -= len(data)
        else:
            self._text += data
            end = self._text.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            head, more = bytes(self._text[:end]), len(self._text) - end
            self._text.clear()
            self._reply = self._server.reply_to(head)
            _, _, size = head.lower().partition(b"content-length:")
            self._body_left = int(size.split(b"\r\n", 1)[0] or 0) - more
        if not self._body_left:
            self._requests += 1
            if self._requests > 1:  # the first came with the end of a handshake, perhaps
                self._server.lengths[self._received] += 1
            self._received = 0
            self._answer(self._sealed())

    def _sealed(self) -> list[bytes]:
        if self._pipe is None:
            return self._reply
        return [self._pipe.encrypt(piece) for piece in self._reply]

    def _answer(self, pieces: list[bytes]) -> None:
        self._unsent.extend(memoryview(piece) for piece in pieces if piece)
        if self._events == select.EPOLLIN:
            self._send()

    def _send(self) -> None:
        events = select.EPOLLIN
        while self._unsent:
            view = self._unsent[0]
            try:
                count = self.sock.send(view)
            except BlockingIOError:
                count = 0
            if count < len(view):
                self._unsent[0] = view[count:]
                events |= select.EPOLLOUT
                break
            self._unsent.popleft()
        if events != self._events:
            self._events = events
            self._server.poll.modify(self.sock.fileno(), events)


def _listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=512)


def main() -> int:
    """Serve with the certificate of the folder that the command names; say on which ports."""
    folder = Path(sys.argv[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    server = CheapServer(context)
    print(json.dumps(server.ports), flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
