"""Every fault of the fault server before every kind of target: it arrives whole, or fails with the right error."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Engine
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch
from tests.contract.targets.conftest import config
from tests.contract.targets.test_arriving import REQUESTS
from tests.faults.cases import FINAL, SILENT, UP
from tests.faults.conftest import ATTEMPTS, IMPATIENT, QUICK
from tests.support.clouds.kinds import PART_BYTES, SCRIPTED, Scripted
from tests.support.faults.breaks import Flip, Lost, Raw, Stall, Truncate
from tests.support.faults.fault import Fault
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Refuse, WrongDigest

FAULTS: dict[str, Fault] = {
    name: case.fault for name, case in UP.items() if not isinstance(case.fault, (Flip, WrongDigest))
}
FAULTS["stalled in the body"] = Stall(1000, "up")
_SLOW = {*SILENT, "no first byte"}
STATES_NO_DIGEST = {"plain form"}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """An engine that does not wait for long."""
    async with Engine(config(retry=QUICK, timeouts=IMPATIENT)) as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of two parts and a bit."""
    made = tmp_path / "file"
    made.write_bytes(os.urandom(2 * PART_BYTES + 17))
    return made


def cases(names: list[str]) -> list[object]:
    """Return kind, number of the request and fault; the first and the last request in ``make test``, each later."""
    made = []
    for kind in SCRIPTED:
        last = REQUESTS.get(kind, 1) - 1
        for at in range(last + 1):
            for name in names:
                is_slow = at not in {0, last} or (name in _SLOW and kind not in {"put", "session"})
                made.append(pytest.param(kind, at, name, marks=[pytest.mark.slow] * is_slow))
    return made


@pytest.mark.parametrize(("kind", "at", "name"), cases(sorted(FAULTS)), indirect=["kind"])
async def test_it_arrives_through(engine: Engine, kind: Scripted, path: Path, at: int, name: str) -> None:
    """Any request meets the fault once: the object is whole, and there once."""
    kind.server.script("/o", *[Fault()] * at, FAULTS[name])
    outcome = await engine.upload(path, kind.target("o"))
    assert kind.server.unused == 0, "the fault was not met"
    assert kind.stored("o") == path.read_bytes()
    assert list(kind.server.objects) == ["/o"]
    assert not any(upload.is_open for upload in kind.server.uploads.values())
    assert outcome.crc32c == crc32c_hex(crc32c(path.read_bytes()))
    assert outcome.verified is kind.verifies


@pytest.mark.parametrize(
    ("kind", "at", "name"), cases([name for name in sorted(FINAL) if "302" not in name]), indirect=["kind"]
)
async def test_a_refusal_for_good_is_told(engine: Engine, kind: Scripted, path: Path, at: int, name: str) -> None:
    """No attempt more, the error of that refusal, no object."""
    fault, error = FINAL[name]
    kind.server.script("/o", *[Fault()] * at, *[fault] * ATTEMPTS)
    with pytest.raises(error):
        await engine.upload(path, kind.target("o"))
    assert kind.stored("o") is None


@pytest.mark.parametrize("kind", SCRIPTED, indirect=True)
@pytest.mark.parametrize("fault", [Flip("up"), Truncate(-1, direction="up")], ids=["bit flipped", "cut in good order"])
async def test_what_changes_on_the_way_is_never_taken_for_good(
    engine: Engine, kind: Scripted, path: Path, fault: Fault
) -> None:
    """Mended where a digest goes along or comes back with each request, an error where it is known at the end alone;
    and where nobody states any, the outcome does not claim to be verified."""
    kind.server.plan = Plan([Rule(fault, times=1)], seed=3)
    try:
        outcome = await engine.upload(path, kind.target("o"))
    except AsyncSDKError:
        # Half a form is no form any more: refused, not repaired.
        assert kind.name == "session" or ("form" in kind.name and isinstance(fault, Truncate))
        assert kind.name == "session" or kind.stored("o") is None
        return
    finally:
        assert kind.server.plan.met.total() == 1
    if kind.name in STATES_NO_DIGEST:
        assert not outcome.verified
        return
    assert outcome.verified
    assert kind.stored("o") == path.read_bytes()


@pytest.mark.parametrize(
    "kind", [name for name in SCRIPTED if name not in {"session", "form", "plain form"}], indirect=True
)
async def test_a_digest_that_is_not_that_of_the_bytes_sent_is_an_error(
    engine: Engine, kind: Scripted, path: Path
) -> None:
    """Stated once, the bytes are sent again; stated always, it is told."""
    kind.server.plan = Plan([Rule(WrongDigest(), method="PUT", times=1)])
    assert (await engine.upload(path, kind.target("o"))).verified
    assert kind.server.plan.met.total() == 1
    kind.server.plan = Plan([Rule(WrongDigest(), method="PUT")])
    with pytest.raises(ChecksumMismatch):
        await engine.upload(path, kind.target("p"))


async def test_a_storm_of_everything(engine: Engine, kind: Scripted, path: Path) -> None:
    """Many uploads, a fault at two requests in five: all of them are there, whole."""
    passing = [Refuse(503), Refuse(429, retry_after=0), Lost(), Lost("close"), Raw(""), Raw("HTTP/1.1 2")]
    kind.server.plan = Plan(
        [Rule(fault, every=number) for fault, number in zip(passing, (6, 11, 13, 17, 19, 23), strict=True)]
    )
    patient = replace(QUICK, max_attempts=20)
    async with Engine(config(retry=patient, timeouts=IMPATIENT)) as engine:
        for number in range(12):
            await engine.upload(path, kind.target(f"o{number}"))
    assert kind.server.plan.met.total() >= 2
    assert all(kind.stored(f"o{number}") == path.read_bytes() for number in range(12))
    assert len(kind.server.objects) == 12
