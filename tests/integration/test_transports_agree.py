"""The same random exchanges through every transport give the same results.

One seed makes the exchanges; a server answers each by its number, so every transport meets the same bytes in the same
pieces. Compared are status, headers, body, sizes, what was counted, the class of an error, and what the server got.

Not compared, because the contract leaves it open:

* how much of a body had left when an early reply came (only that it is no more than all of it);
* whether a large body is announced with ``Expect: 100-continue``;
* how many connections were used (HTTP/1.0 with keep-alive may be kept or not);
* what the heads of informational replies say beyond their status (h11 shows them to nobody);
* how much of a reply had come when the connection was reset (a reset overtakes what it follows);
* the bytes a sink got before an error (a transport may write in batches);
* whether a request that may not be sent again meets a kept connection that the server closes in that very moment (the
  server gets a moment for its goodbye before each of them).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from asyncsdk.checksums import Crc32c
from asyncsdk.errors import AsyncSDKError
from asyncsdk.transport.base import NOT_IDEMPOTENT, BytesBody, FileBody, Request, Transport
from tests.support.wire.candidates import TRANSPORTS
from tests.support.wire.server import Wire, WireServer
from tests.support.wire.sinks import PATIENT, Collect

SEED = 20_261_121
FILE_BYTES = 12_000_000
GOODBYE_SECONDS = 0.01

SIZES = [0, 0, 1, 2, 100, 1000, 20_480, 65_535, 65_536, 65_537, 200_000]
BIG_SIZES = [1_000_000, 4_200_000]
STATUSES = [200, 200, 200, 201, 204, 206, 304, 307, 400, 403, 404, 412, 429, 500, 503]
NAMES = ["X-Thing", "ETag", "x-lower", "Content-Type", "Set-Cookie", "Date", "!odd#name"]
VALUES = ["a", "", '"quoted, list"', "b, c", "\u00e4\u00ff", "tab\there", "x" * 2000]


@dataclass
class Plan:
    """One exchange: what is asked, what is answered, and how the answer arrives."""

    number: int
    method: str
    body: str
    start: int
    size: int
    headers: dict[str, str]
    answer: bytes
    cuts: list[int]
    closes: bool
    resets: bool
    dies_when_kept: bool
    is_early: bool
    has_sink: bool
    died: set[str] = field(default_factory=set)

    @property
    def target(self) -> str:
        """Unlike any other."""
        return f"/{self.number}/a%2fb?sig=%7e+{self.number}"


def plan(number: int, dice: random.Random) -> Plan:
    """Return exchange *number*."""
    method = dice.choice(["PUT", "PUT", "PUT", "GET", "GET", "GET", "HEAD", "POST", "PATCH", "DELETE"])
    body = dice.choice(["bytes", "file", "summed file", "none"]) if method in {"PUT", "POST", "PATCH"} else "none"
    is_early = body != "none" and dice.random() < 0.02
    size = 0 if body == "none" else dice.choice(BIG_SIZES) if dice.random() < 0.01 else dice.choice(SIZES)
    if is_early:
        size = 11_000_000
    answer, is_cut, closes = _answer(dice, method)
    if is_early:
        answer, is_cut, closes = b"HTTP/1.1 413 Too Large\r\nX-A: b\r\nContent-Length: 5\r\n\r\nearly", False, False
    return Plan(
        number,
        method,
        body,
        dice.randrange(1000) if "file" in body else 0,
        size,
        {f"X-{dice.randrange(5)}": dice.choice(["", "a", "b c", "~!@"]) for _ in range(dice.randrange(4))},
        answer,
        sorted(dice.randrange(len(answer) + 1) for _ in range(dice.randrange(4))),
        closes=closes or is_cut or dice.random() < 0.05,
        resets=is_cut and len(answer) < 50_000 and dice.random() < 0.3,
        dies_when_kept=dice.random() < 0.05,
        is_early=is_early,
        has_sink=dice.random() < 0.5,
    )


def _answer(dice: random.Random, method: str) -> tuple[bytes, bool, bool]:
    """Return the bytes of a reply, whether they are cut off or damaged, and whether the connection must end with it."""
    status = dice.choice(STATUSES)
    size = dice.choice(BIG_SIZES) if dice.random() < 0.01 else dice.choice(SIZES)
    body = dice.randbytes(size)
    version = "1.0" if dice.random() < 0.1 else "1.1"
    framing = (
        dice.choice(["length", "length", "chunked", "close"]) if version == "1.1" else dice.choice(["length", "close"])
    )
    lines = [f"{dice.choice(NAMES)}: {dice.choice(VALUES)}" for _ in range(dice.randrange(6))]
    connection = dice.choice([None, None, None, "close", "Keep-Alive", "x, CLOSE"])
    if connection is not None:
        lines.append(f"Connection: {connection}")
    data = body
    if framing == "length":
        lines.append(f"Content-Length: {size}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        data = _chunked(dice, body)
    dice.shuffle(lines)
    head = "\r\n".join([f"HTTP/{version} {status} {dice.choice(['OK', '', 'Some Words'])}", *lines, "", ""])
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * dice.choice([0, 0, 0, 0, 1, 3])
    is_bodiless = method == "HEAD" or status in {204, 304}
    raw = head.encode("latin-1") + (b"" if is_bodiless else data)
    is_cut = dice.random() < 0.06
    if is_cut:
        raw = _spoiled(dice, raw)
    return interim + raw, is_cut, not is_bodiless and framing == "close"


def _chunked(dice: random.Random, body: bytes) -> bytes:
    parts, at = [], 0
    while at < len(body):
        piece = body[at : at + dice.choice([1, 50, 5000, 100_000])] if len(parts) < 50 else body[at:]
        parts.append(b"%x%b\r\n%b\r\n" % (len(piece), dice.choice([b"", b"", b";a=b"]), piece))
        at += len(piece)
    return b"".join(parts) + dice.choice([b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n"])


def _spoiled(dice: random.Random, raw: bytes) -> bytes:
    """Return a reply that was cut off, or is no HTTP."""
    kind = dice.choice(["cut", "cut", "cut", "version", "length", "both"])
    if kind == "cut":
        return raw[: dice.randrange(len(raw))]
    if kind == "version":
        return b"HTTP/3.1" + raw[8:]
    extra = b"Content-Length: 1x" if kind == "length" else b"Content-Length: 1\r\nTransfer-Encoding: chunked"
    first, _, rest = raw.partition(b"\r\n")
    return first + b"\r\n" + extra + b"\r\n" + rest


async def serve(wire: Wire, plans: list[Plan], got: dict[int, list[object]]) -> None:
    """Answer every request on a connection as its plan says."""
    served = 0
    while True:
        seen = await wire.head()
        asked = plans[int(seen.target.split("/")[1])]
        headers = {name: value for name, value in seen.headers.items() if name not in {"host", "expect"}}
        got[asked.number] = [seen.method, seen.target, headers]
        if asked.is_early:
            await wire.reader.readexactly(1000)
            await wire.send(asked.answer)
            await wire.rest()
            return
        body = await wire.reader.readexactly(seen.length)
        if asked.dies_when_kept and served and not asked.died:
            asked.died.add("once")
            return
        got[asked.number].append(hashlib.sha256(body).hexdigest())
        at = [0, *asked.cuts, len(asked.answer)]
        for start, stop in pairwise(at):
            await wire.send(asked.answer[start:stop])
            await asyncio.sleep(0)
        served += 1
        if asked.resets:
            await asyncio.sleep(0.02)  # for the client to read what came before
            wire.reset()
        if asked.closes:
            return


async def ask(transport: Transport, url: str, asked: Plan, fd: int, memory: bytes) -> dict[str, object]:
    """Return everything that can be told of one exchange."""
    sent: list[int] = []
    received: list[int] = []
    sink = Collect()
    request = Request(asked.method, url, asked.headers, timeouts=PATIENT)
    request.on_sent, request.on_received = sent.append, received.append
    request.on_head = (lambda head: sink) if asked.has_sink else None
    checksum = Crc32c()
    if asked.body == "bytes":
        request.body = BytesBody(memoryview(memory)[: asked.size])
    elif asked.body != "none":
        summed = checksum if asked.body == "summed file" else None
        request.body = FileBody(fd, asked.start, asked.start + asked.size, checksum=summed)
    result: dict[str, object] = {}
    try:
        reply = await transport.send(request)
    except AsyncSDKError as error:
        result |= {"error": type(error).__name__, "retryable": getattr(error, "retryable", None)}
    else:
        result |= {"status": reply.status, "headers": dict(reply.headers), "size": reply.size_bytes}
        result |= {"body": reply.body, "sink": bytes(sink.data)}
    if not asked.resets:
        result["received"] = sum(received)
    if asked.is_early:
        assert sum(sent) <= asked.size
    else:
        result |= {"sent": sum(sent), "checksum": (checksum.value, checksum.size_bytes)}
    return result


async def play(
    kind: str, seed: int, count: int, path: Path
) -> list[tuple[Plan, dict[str, object], list[object] | None]]:
    """Send all exchanges through one transport."""
    dice = random.Random(seed)
    plans = [plan(number, dice) for number in range(count)]
    got: dict[int, list[object]] = {}
    memory = path.read_bytes()
    results = []
    async with WireServer(lambda wire: serve(wire, plans, got)) as server:
        transport = TRANSPORTS[kind]()
        try:
            with path.open("rb") as file:
                for asked in plans:
                    if asked.method in NOT_IDEMPOTENT:
                        # It cannot be sent again: the server's goodbye to a kept connection has to be there before it.
                        await asyncio.sleep(GOODBYE_SECONDS)
                    result = await ask(transport, server.url(asked.target), asked, file.fileno(), memory)
                    results.append((asked, result, got.get(asked.number)))
                    asked.answer = b""  # 10,000 of them are too many to keep
        finally:
            await transport.aclose()
    return results


async def agree(count: int, seed: int, path: Path) -> None:
    """Compare all transports with the first."""
    path.write_bytes(random.Random(1).randbytes(FILE_BYTES))
    first, *others = sorted(TRANSPORTS)
    reference = await play(first, seed, count, path)
    assert sum("status" in result for _, result, _ in reference) > 0.8 * count, "most exchanges are fine"
    for kind in others:
        for (asked, expected, asked_for), (_, result, seen) in zip(
            reference, await play(kind, seed, count, path), strict=True
        ):
            assert result == expected, f"{kind} differs from {first} in {asked}"
            assert seen == asked_for, f"{kind} sent something else than {first} in {asked}"


async def test_transports_agree(tmp_path: Path) -> None:
    """300 exchanges."""
    await agree(300, SEED, tmp_path / "file")


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_transports_agree_at_length(tmp_path: Path) -> None:
    """10,000 exchanges."""
    await agree(10_000, SEED + 1, tmp_path / "file")
