"""A link that delays, loses and queues packets: a TUN device in a network namespace of one's own.

The kernel's TCP runs over it, with its slow start, retransmissions and congestion control, which a proxy
(`benchmarks.shaper`) cannot show. Everything stays in the namespace, which has no other device than this and loopback:
whoever connects to `FAR` in it meets this very machine, far away. A packet to `FAR` comes back in as one from `BEHIND`,
and the reply to that as one from `FAR`. The two addresses add up to the same checksum, so packets are passed on as they
are.

In each direction: a queue that takes so many bytes per second and drops what comes when it is full, then the delay;
and packets that are lost by chance, before the queue, with a fixed seed.

``python -m benchmarks.packets --round-trip-ms 20 --loss 0.01 --megabytes 10 -- COMMAND`` runs a command in such a
namespace. Needs Linux, root and ``/dev/net/tun``; `why_not` says what is missing.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["BEHIND", "FAR", "HERE", "FarAway", "PacketsUnavailable", "main", "why_not"]

HERE = "198.18.0.1"
FAR = "198.18.1.2"
"""Leads back to this machine, over the link. RFC 2544 sets its network aside for measurements."""

BEHIND = "198.19.1.1"
"""Who seems to ask."""

_NETMASK = "255.254.0.0"
_MTU = 1500
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFF_UP = 0x1
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_SIOCSIFTXQLEN = 0x8943
_DEVICE_PACKETS = 10_000
"""Of the device's own queue: what is dropped is for the link to decide."""

_TCP = Path("/proc/sys/net/ipv4")
"""Each namespace has settings of its own."""

_LEAST_QUEUE_SECONDS = 0.05
_AT_ONCE = 64


class PacketsUnavailable(RuntimeError):
    """There can be no such link here; the message says why."""


def why_not() -> str:
    """Return what is missing for such a link; empty: nothing."""
    if sys.platform != "linux":
        return "packets are shaped on Linux only"
    if os.geteuid() != 0:
        return "a TUN device takes root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun"
    # In a process of its own: there is no way back out of a namespace.
    command = [sys.executable, "-m", "benchmarks.packets", "--try"]
    root = Path(__file__).resolve().parents[1]
    said = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if said.returncode == 0 else said.stderr.strip().rpartition("\n")[2]


class FarAway:
    """The link, and this process and what it starts from then on in its namespace. Use it as a context manager.

    There is no way back: the process has no other network any more. No thread may have been started before.

    Args:
        round_trip_seconds: Delay, half of it in each direction.
        loss: Share of packets that are lost, in each direction.
        bytes_per_second: In each direction, headers included; None: as many as can be passed on.
        seed: Of chance.
        congestion: How the kernel's TCP reacts to loss, among those that it lets namespaces choose: ``reno`` halves
            what is under way, ``bbr`` hardly reacts.

    Attributes:
        counts: What became of packets, known at the end: ``up`` and ``down`` with ``passed``, ``lost``, ``dropped``
            (the queue was full) and ``bytes``.

    Raises:
        PacketsUnavailable: The system does not let us.
    """

    def __init__(
        self,
        *,
        round_trip_seconds: float,
        loss: float = 0.0,
        bytes_per_second: float | None = None,
        seed: int = 1,
        congestion: str = "reno",
    ) -> None:
        self._congestion = congestion
        self._options = [str(round_trip_seconds), str(loss), str(bytes_per_second or 0.0), str(seed)]
        self._pump: subprocess.Popen[str] | None = None
        self.counts: dict[str, dict[str, int]] = {}

    def __enter__(self) -> Self:
        if threading.active_count() > 1:
            raise PacketsUnavailable("threads that were started before would stay outside of the namespace")
        try:
            tun = _open_namespace(self._congestion)
        except OSError as error:
            raise PacketsUnavailable(f"no namespace with a TUN device can be made: {error}") from None
        command = [sys.executable, "-m", "benchmarks.packets", "--pump", str(tun), *self._options]
        try:
            self._pump = subprocess.Popen(
                command,
                cwd=Path(__file__).resolve().parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[tun],
                text=True,
            )
        finally:
            os.close(tun)
        assert self._pump.stdout is not None
        if self._pump.stdout.readline() != "ready\n":
            raise PacketsUnavailable("the link did not begin")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._pump is not None
        said, _ = self._pump.communicate()
        if self._pump.returncode == 0:
            self.counts = json.loads(said)


def _open_namespace(congestion: str = "reno") -> int:
    """Enter a new network namespace and return the TUN device that is all of its network."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        name = b"far0"
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TUN | _IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFADDR, _with_address(name, HERE))
            fcntl.ioctl(control, _SIOCSIFNETMASK, _with_address(name, _NETMASK))
            fcntl.ioctl(control, _SIOCSIFTXQLEN, struct.pack("16si20x", name, _DEVICE_PACKETS))
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, _IFF_UP))
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
        (_TCP / "tcp_congestion_control").write_text(congestion)
        # Each measurement for itself: else TCP remembers what it found out of the way in the one before.
        (_TCP / "tcp_no_metrics_save").write_text("1")
    except BaseException:
        os.close(tun)
        raise
    return tun


def _with_address(name: bytes, address: str) -> bytes:
    return struct.pack("16sHH4s16x", name, socket.AF_INET, 0, socket.inet_aton(address))


# --- the link ----------------------------------------------------------------------------------------------------


class _Direction:
    """One direction of the link."""

    def __init__(self, delay_seconds: float, loss: float, bytes_per_second: float, seed: str) -> None:
        self._delay = delay_seconds
        self._loss = loss
        self._rate = bytes_per_second
        self._most_queued = max(_LEAST_QUEUE_SECONDS, 2 * delay_seconds)  # a round trip's worth, as routers have
        self._chance = random.Random(seed).random
        self._free = 0.0
        self.queue: deque[tuple[float, bytes]] = deque()
        self.passed = self.lost = self.dropped = self.size_bytes = 0

    def take(self, packet: bytes, now: float) -> None:
        """Let *packet* in, or lose it."""
        if self._chance() < self._loss:
            self.lost += 1
            return
        start = max(now, self._free)
        if self._rate:
            if start - now > self._most_queued:
                self.dropped += 1
                return
            start += len(packet) / self._rate
            self._free = start
        self.passed += 1
        self.size_bytes += len(packet)
        self.queue.append((start + self._delay, packet))

    def counts(self) -> dict[str, int]:
        """Return what became of packets."""
        return {"passed": self.passed, "lost": self.lost, "dropped": self.dropped, "bytes": self.size_bytes}


def _pump(tun: int, round_trip: float, loss: float, rate: float, seed: int) -> None:
    """Pass packets on until the standard input ends, then print what became of them."""
    up, down = (_Direction(round_trip / 2, loss, rate, f"{name} {seed}") for name in ("up", "down"))
    here, far, behind = (socket.inet_aton(address) for address in (HERE, FAR, BEHIND))
    print("ready", flush=True)
    reads = [tun, sys.stdin.fileno()]
    while True:
        now = time.monotonic()
        for direction in (up, down):
            queue = direction.queue
            while queue and queue[0][0] <= now:
                os.write(tun, queue.popleft()[1])
        due = min((direction.queue[0][0] for direction in (up, down) if direction.queue), default=now + 1.0)
        readable, _, _ = select.select(reads, [], [], max(0.0, due - time.monotonic()))
        if not readable:
            continue
        if readable[0] != tun:
            break
        now = time.monotonic()
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(tun, _MTU + 100)
            except BlockingIOError:
                break
            if packet[0] >> 4 != 4:
                continue  # IPv6 looks around in every network
            if packet[16:20] == far:
                up.take(packet[:12] + behind + here + packet[20:], now)
            elif packet[16:20] == behind:
                down.take(packet[:12] + far + here + packet[20:], now)
    print(json.dumps({"up": up.counts(), "down": down.counts()}))


def main() -> int:
    """Run a command in the namespace, and print what became of the packets."""
    if sys.argv[1:2] == ["--pump"]:
        round_trip, loss, rate = map(float, sys.argv[3:6])
        _pump(int(sys.argv[2]), round_trip, loss, rate, int(sys.argv[6]))
        return 0
    if sys.argv[1:] == ["--try"]:
        try:
            os.close(_open_namespace())
        except OSError as error:
            print(f"no namespace with a TUN device can be made: {error}", file=sys.stderr)
            return 1
        return 0
    parser = argparse.ArgumentParser(description="Run a command with a link that delays and loses packets.")
    parser.add_argument("--round-trip-ms", type=float, default=20.0, help="round trip in milliseconds")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets that are lost, in each direction")
    parser.add_argument("--megabytes", type=float, help="megabytes per second in each direction")
    parser.add_argument("--seed", type=int, default=1, help="of chance")
    parser.add_argument("--congestion", default="reno", help="the kernel's congestion control; reno")
    parser.add_argument("command", nargs="+", help=f"what runs there; {FAR} is this machine, far away")
    options = parser.parse_args()
    far = FarAway(
        round_trip_seconds=options.round_trip_ms / 1000,
        loss=options.loss,
        bytes_per_second=None if options.megabytes is None else options.megabytes * 1e6,
        seed=options.seed,
        congestion=options.congestion,
    )
    try:
        with far:
            status = subprocess.run(options.command).returncode
    except PacketsUnavailable as error:
        print(f"packets: {error}", file=sys.stderr)
        return 1
    print(f"packets: {json.dumps(far.counts)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
