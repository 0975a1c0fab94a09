"""Faults that are answers: refusals, bodies of services, clocks, digests, validators and ranges that are not true."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal

from asyncsdk.checksums import crc32c, crc32c_base64
from tests.support.faults.exchange import Answer, Exchange
from tests.support.faults.fault import Fault

__all__ = ["ChangedEtag", "Clock", "Expired", "IgnoreRange", "Interim", "Refuse", "WrongDigest", "WrongRange"]

_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_EXPIRED = {
    "s3": _XML + "<Error><Code>AccessDenied</Code><Message>Request has expired</Message>"
    "<X-Amz-Expires>60</X-Amz-Expires></Error>",
    "gcs": _XML + "<Error><Code>ExpiredToken</Code><Message>Invalid argument.</Message>"
    "<Details>The provided token has expired.</Details></Error>",
    "azure": _XML + "<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request. "
    "Signature not valid in the specified time frame</Message></Error>",
    "own": '{"error":{"code":"expired_url","message":"this URL has expired"}}',
}
_EXPIRED_STATUS = {"s3": 403, "gcs": 400, "azure": 403, "own": 403}


@dataclass(frozen=True, slots=True)
class Refuse(Fault):
    """The request is refused and nothing is done.

    Attributes:
        status: Of the answer.
        retry_after: ``Retry-After``: seconds, or ``date:SECONDS`` for a date that many seconds ahead; None: none.
        body: Of the answer.
        headers: More headers of it.
        early: Whether it is sent before the body of the request was read, which then is read and thrown away.
        reads: How many bytes of the body an early answer waits for; then no more of it is read. None: none, then all.
    """

    status: int = 503
    retry_after: str | int | None = None
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict)
    early: bool = False
    reads: int | None = None

    async def on_head(self, exchange: Exchange) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if isinstance(self.retry_after, str) and self.retry_after.startswith("date:"):
            headers["retry-after"] = formatdate(time.time() + float(self.retry_after[5:]), usegmt=True)
        elif self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if not self.early:
            await exchange.read()
        elif self.reads is not None:
            await exchange.read(self.reads)
        body = self.body.encode() if isinstance(self.body, str) else self.body
        exchange.answer = Answer(self.status, body, headers)

    async def send(self, exchange: Exchange) -> None:
        await exchange.send()
        if self.reads is not None:
            await asyncio.Event().wait()  # the end of the test ends it
        await exchange.read()


@dataclass(frozen=True, slots=True)
class Expired(Fault):
    """The URL has expired, in the words of a service, and says when by the clock of the server.

    Attributes:
        service: Whose words.
        ahead_seconds: How far the clock of the server is ahead of ours, as its ``Date`` says: what makes it true.
    """

    service: Literal["s3", "gcs", "azure", "own"] = "s3"
    ahead_seconds: float = 0.0

    async def on_head(self, exchange: Exchange) -> None:
        await exchange.read()
        date = formatdate(time.time() + self.ahead_seconds, usegmt=True)
        exchange.answer = Answer(_EXPIRED_STATUS[self.service], _EXPIRED[self.service].encode(), {"date": date})


@dataclass(frozen=True, slots=True)
class Clock(Fault):
    """``Date`` is off by *seconds*: the clock of the server is wrong, or ours is."""

    seconds: float = 900.0

    async def on_answer(self, exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.headers["date"] = formatdate(time.time() + self.seconds, usegmt=True)


@dataclass(frozen=True, slots=True)
class WrongDigest(Fault):
    """Every digest that the reply states is that of other bytes; one is added when it states none."""

    async def on_answer(self, exchange: Exchange) -> None:
        assert exchange.answer is not None
        headers = exchange.answer.headers
        wrong = crc32c_base64(crc32c(b"other bytes" + exchange.random.randbytes(8)))
        if "content-md5" in headers:
            headers["content-md5"] = base64.b64encode(hashlib.md5(b"other bytes").digest()).decode()
        if "x-goog-hash" in headers:
            headers["x-goog-hash"] = f"crc32c={wrong}"
        if "x-amz-checksum-crc32c" in headers or not {"content-md5", "x-goog-hash"} & set(headers):
            headers["x-amz-checksum-crc32c"] = wrong


@dataclass(frozen=True, slots=True)
class ChangedEtag(Fault):
    """The object was replaced: another ETag than before."""

    etag: str = '"another"'

    async def on_head(self, exchange: Exchange) -> None:
        # A server that has another object answers 412 to this one; here it is one that does not look.
        exchange.seen.headers.pop("if-match", None)

    async def on_answer(self, exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.headers["etag"] = self.etag


@dataclass(frozen=True, slots=True)
class IgnoreRange(Fault):
    """The whole object comes with 200, whatever range was asked for."""

    async def on_head(self, exchange: Exchange) -> None:
        exchange.seen.headers.pop("range", None)


@dataclass(frozen=True, slots=True)
class WrongRange(Fault):
    """The bytes of another range come, *shift* further on.

    Attributes:
        admits_it: Whether ``Content-Range`` says so; else it says what was asked for, and the bytes are others.
    """

    shift: int = 1
    admits_it: bool = True

    async def on_head(self, exchange: Exchange) -> None:
        asked = exchange.seen.headers.get("range", "")
        if not asked.startswith("bytes="):
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        moved = f"bytes={int(first) + self.shift}-{int(last) + self.shift if last else ''}"
        exchange.seen.headers["range"] = moved

    async def on_answer(self, exchange: Exchange) -> None:
        assert exchange.answer is not None
        said = exchange.answer.headers.get("content-range")
        if self.admits_it or said is None:
            return
        span, _, total = said.removeprefix("bytes ").partition("/")
        first, _, last = span.partition("-")
        exchange.answer.headers["content-range"] = f"bytes {int(first) - self.shift}-{int(last) - self.shift}/{total}"


@dataclass(frozen=True, slots=True)
class Interim(Fault):
    """Interim replies (1xx) come before the answer."""

    count: int = 3

    async def send(self, exchange: Exchange) -> None:
        for _ in range(self.count):
            await exchange.wire.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        await exchange.send()
