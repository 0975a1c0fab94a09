"""The link of packets: it loses the share that it is told to, delays, holds a rate; TCP gets everything across."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.packets import why_not

ROOT = Path(__file__).resolve().parents[3]
REASON = why_not()

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "it works here")

PROBE = """
import json, os, socket, sys, threading, time
from benchmarks.packets import BEHIND, FAR
size = int(sys.argv[1])
data = os.urandom(size)
with socket.create_server(("0.0.0.0", 0)) as server:
    def echo():
        connection, (peer, _) = server.accept()
        assert peer == BEHIND, peer
        with connection:
            while piece := connection.recv(65536):
                connection.sendall(piece)
    thread = threading.Thread(target=echo)
    thread.start()
    with socket.create_connection((FAR, server.getsockname()[1])) as near:
        trips = []
        for _ in range(5):
            started = time.monotonic()
            near.sendall(b"x")
            assert near.recv(1) == b"x"
            trips.append(time.monotonic() - started)
        started = time.monotonic()
        sender = threading.Thread(target=near.sendall, args=(data,))
        sender.start()
        back = b""
        while len(back) < size:
            back += near.recv(65536)
        seconds = time.monotonic() - started
        sender.join()
    thread.join()
with socket.socket() as other:  # there is no way out
    try:
        other.connect(("192.0.2.1", 9))
    except OSError as error:
        print(json.dumps({"trips": trips, "seconds": seconds, "same": back == data, "out": error.strerror}))
"""


def probe(size: int, *options: str) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """Return what a program saw of the link, and what became of packets."""
    command = [sys.executable, "-m", "benchmarks.packets", *options, "--", sys.executable, "-c", PROBE, str(size)]
    said = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout), json.loads(said.stderr.partition("packets: ")[2])


def test_packets_are_lost_and_everything_gets_across() -> None:
    """A twentieth of them, in each direction; not one byte of the stream."""
    seen, counts = probe(4_000_000, "--round-trip-ms", "2", "--loss", "0.05")
    assert seen["same"]
    for direction in ("up", "down"):
        found = counts[direction]
        packets = found["lost"] + found["passed"] + found["dropped"]
        assert packets > 2000
        assert 0.03 < found["lost"] / packets < 0.07
        assert found["bytes"] > 4_000_000


def test_nothing_comes_sooner_than_the_round_trip_nor_faster_than_the_rate() -> None:
    """And nothing is lost when nothing shall be."""
    seen, counts = probe(1_500_000, "--round-trip-ms", "40", "--megabytes", "2")
    assert seen["same"]
    assert min(seen["trips"]) >= 0.04
    assert counts["up"]["bytes"] / seen["seconds"] <= 2_000_000 * 1.1
    assert counts["up"]["lost"] == counts["down"]["lost"] == 0


def test_nothing_leaves_the_namespace() -> None:
    seen, _ = probe(1000, "--round-trip-ms", "0")
    assert "unreachable" in seen["out"]
