"""The fault server itself: its plans, its store, its proxy, and its process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.faults.breaks import Flip, Lost, Truncate
from tests.support.faults.data import noise
from tests.support.faults.plan import FAULTS, Plan, Rule
from tests.support.faults.refusals import Refuse
from tests.support.faults.server import FaultServer
from tests.support.faults.store import ObjectStore
from tests.support.wire.server import Seen

ROOT = Path(__file__).parents[2]


def meets(plan: Plan, *targets: str, method: str = "GET") -> list[bool]:
    """Return which of the requests meet a fault."""
    return [bool(plan.met.total() - before) for target in targets for before in [_ask(plan, method, target)]]


def _ask(plan: Plan, method: str, target: str) -> int:
    before = plan.met.total()
    plan.next_for(Seen(method, target, b""))
    return before


def test_rules_count_the_requests_that_fit() -> None:
    """By number, by every so many, by number for each path, by method, path and query, up to a number of times."""
    fault = Refuse()
    assert meets(Plan([Rule(fault, nth=[2])]), "/a", "/a", "/b") == [False, True, False]
    assert meets(Plan([Rule(fault, every=2)]), "/a", "/b", "/c", "/d") == [False, True, False, True]
    assert meets(Plan([Rule(fault, nth=[1], of_each=True)]), "/a", "/a", "/b", "/b") == [True, False, True, False]
    assert meets(Plan([Rule(fault, path="/x/*")]), "/a", "/x/a", "/x/a?q") == [False, True, True]
    assert meets(Plan([Rule(fault, target="*?part=2")]), "/a", "/a?part=2") == [False, True]
    assert meets(Plan([Rule(fault, method="P*")]), "/a") == [False]
    assert meets(Plan([Rule(fault, times=1)]), "/a", "/a") == [True, False]


def test_chance_is_the_same_for_the_same_seed() -> None:
    """The same requests in the same order meet the same faults; another seed gives others."""
    made = [meets(Plan([Rule(Refuse(), probability=0.3)], seed=seed), *["/a"] * 200) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert 30 < sum(made[0]) < 90


def test_a_script_says_the_same_as_code(tmp_path: Path) -> None:
    """Every fault can be named in JSON; what does not exist is told."""
    script = tmp_path / "script.json"
    rules = [{"fault": name, "path": f"/{name}", "nth": [1]} for name in FAULTS]
    script.write_text(json.dumps({"seed": 3, "rules": rules}))
    plan = Plan.load(script)
    assert [type(plan.next_for(Seen("GET", f"/{name}", b""))) for name in FAULTS] == list(FAULTS.values())
    assert Plan.parse({"rules": [{"fault": "Refuse", "status": 429}]}).next_for(Seen("GET", "/", b"")) == Refuse(429)
    wrongs: tuple[dict[str, list[dict[str, object]]], ...] = (
        {"rules": [{"fault": "Nothing"}]},
        {"rules": [{"fault": "Lost", "status": 1}]},
        {"rule": []},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"no|unexpected"):
            Plan.parse(wrong)


async def test_a_store_keeps_its_objects_in_a_folder(tmp_path: Path) -> None:
    """Objects of a folder outlive the server, under any name."""
    async with FaultServer(store=ObjectStore(tmp_path)) as server, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.put(server.url("/a/%20b?X-Amz-Signature=1"), content=b"hello")).status_code == 200
    async with FaultServer(store=ObjectStore(tmp_path)) as server, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(server.url("/a/%20b"))).content == b"hello"
        head = await client.head(server.url("/a/%20b"))
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "5", b"")
        assert (await client.delete(server.url("/a/%20b"))).status_code == 204
        assert (await client.get(server.url("/a/%20b"))).status_code == 404


async def test_a_digest_that_comes_with_a_request_is_compared() -> None:
    """Content-MD5 and x-amz-checksum-crc32c of other bytes are refused, so that a flipped bit can show."""
    async with FaultServer() as server, httpx.AsyncClient(trust_env=False) as client:
        for header in ({"Content-MD5": "XrY7u+Ae7tCTyyK7j1rNww=="}, {"x-amz-checksum-crc32c": "AAAAAA=="}):
            reply = await client.put(server.url("/a"), content=b"hello", headers=header)
            assert (reply.status_code, "BadDigest" in reply.text) == (400, True)
        assert list(server.store) == []


async def test_a_proxy_changes_what_it_is_told_to_and_nothing_else() -> None:
    """One bit on the way up, one on the way down, a body cut in good order; and everything else as it came."""
    data = noise(100_000)
    async with (
        FaultServer() as origin,
        FaultServer(upstream=origin.url("").rstrip("/")) as proxy,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        url = proxy.url("/object")
        await client.put(url, content=data, headers={"X-Own": "kept"})
        assert origin.store["/object"] == data
        assert origin.requests[-1].headers["x-own"] == "kept"
        assert origin.requests[-1].headers["host"] == f"127.0.0.1:{proxy.port}"
        proxy.plan = Plan([Flip("down", 9)])
        got = (await client.get(url)).content
        assert [index for index in range(len(data)) if got[index] != data[index]] == [1]
        assert got[1] == data[1] ^ 2
        proxy.plan = Plan([Truncate(-2, declared=True)])
        got = (await client.get(url)).content
        assert len(got) < len(data)
        assert data.startswith(got)
        proxy.plan = Plan([Flip("up", 0)])
        await client.put(url, content=data)
        assert origin.store["/object"] == bytes([data[0] ^ 1]) + data[1:]
        proxy.plan = Plan([Truncate(10, direction="up")])
        await client.put(url, content=data)
        assert origin.store["/object"] == data[:10]
        proxy.plan = Plan([Lost()])
        with pytest.raises(httpx.TransportError):
            await client.put(url, content=b"done all the same")
        assert origin.store["/object"] == b"done all the same"


def test_it_runs_as_a_process(tmp_path: Path) -> None:
    """It says where it listens, follows its script, and at the end what was met."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"rules": [{"fault": "Refuse", "status": 503, "retry_after": 1, "nth": [2]}]}))
    command = [sys.executable, "-m", "tests.support.faults", "--script", str(script), "--folder", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(trust_env=False) as client:
            replies = [client.put(f"{url}/{number}", content=b"x") for number in range(3)]
        process.send_signal(signal.SIGTERM)
        said = json.loads(process.communicate(timeout=30)[0])
    finally:
        process.kill()
        process.wait()
    assert [reply.status_code for reply in replies] == [200, 503, 200]
    assert replies[1].headers["retry-after"] == "1"
    assert said["met"] == {"Refuse": 1}
    assert process.returncode == 0
