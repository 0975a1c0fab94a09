"""Blocks that were under way together when their URL ended ask for one fresh one, not one each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from asyncsdk.engine import Download, Engine, Origin, Outcome, Target, Transfer, Upload
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.parted import blocks
from asyncsdk.engine.parted.contract import Piece
from asyncsdk.engine.parts import MemoryPart
from asyncsdk.engine.work import Count, Work
from asyncsdk.targets import BlobTarget
from tests.unit.engine.conftest import config


class Renewing:
    """Gives a fresh URL whenever it is asked, and counts that."""

    renewed = 0

    async def take(self, want: int) -> Sequence[Transfer]:
        return ()

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        self.renewed += 1
        return BlobTarget(f"http://host/o?sig={self.renewed}")

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


class Refused(Exception):
    """It went out and was refused."""


async def test_who_is_refused_later_takes_the_url_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = list[str]()

    async def send_part(*args: object, fresh: object, **others: object) -> None:
        sent.append((await fresh()).url.partition("sig=")[2].partition("&")[0])  # type: ignore[operator]
        raise Refused

    monkeypatch.setattr(blocks, "send_part", send_part)
    feed = Renewing()
    async with Engine(config()) as engine:
        work = Work(engine._open(), Upload(b"ab", BlobTarget("http://host/o?sig=0")), feed, Meter())
        upload = blocks.BlockUpload(work)
        one, other = (Piece(number, number - 1, MemoryPart(b"x")) for number in (1, 2))
        for piece in (one, other):
            with pytest.raises(Refused):
                await upload.send(piece, Count(work))
        assert await upload.renew(one)
        with pytest.raises(Refused):
            await upload.send(one, Count(work))  # before the refusal of the other one is there
        assert await upload.renew(other)
        with pytest.raises(Refused):
            await upload.send(other, Count(work))
    assert feed.renewed == 1
    assert sent == ["0", "0", "1", "1"]
