"""HUB's official client beside ours, on one door, in one run: ``python -m benchmarks.hub [--quick]``.

Three voices tell the same: ``hub-sdk`` (in its own environment), our adapter through the same door, and our own API of
the same server. Each piece of work is a process of its own, measured by itself (`hub_voices`), in turns, so that a
change of the machine's load meets all of them; what is stored afterwards is counted on the server. Then the same with
faults: a proxy refuses a share of the requests with 503, resets others while the body is sent, and takes away replies.
Which ones is decided by their number, and every piece of work has a proxy of its own: each voice meets the same.

The official client answers ``None`` for what failed and raises nothing: whoever does not look at every answer has lost
it. ``lost`` is what was to be stored, is not, and raised nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from asyncsdk import AsyncClient
from benchmarks.conditions import conditions
from benchmarks.servers import ServedPlatform
from tests.support.real.install import install
from tests.support.real.tools import TOOLS

__all__ = ["main"]

VOICES = ("official", "adapter", "native")
MiB = 1024 * 1024
_PROGRAM = Path(__file__).with_name("hub_voices.py")
_TOOL = TOOLS["hub-sdk"]
_NUMBERED = 10_000
"""Requests of one piece of work whose faults are drawn; none makes more."""


def _python(voice: str) -> str:
    return str(_TOOL.program("python")) if voice == "official" else sys.executable


def _tell(voice: str, work: str, server: ServedPlatform, base: str, model: str, **order: Any) -> dict[str, Any]:
    """Have one voice do one piece of work and return what it took."""
    order |= {"voice": voice, "work": work, "token": server.token, "model": model}
    order |= {"url": base, "door": f"{base}/doors/ultralytics"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCSDK_")}
    environment |= {"NO_PROXY": "127.0.0.1", "ASYNCSDK_HOME": str(server.data.parent / "home")}
    done = subprocess.run(
        [_python(voice), str(_PROGRAM)], input=json.dumps(order), capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{voice} {work}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


async def _new_model(server: ServedPlatform, weights: bytes | None = None) -> str:
    async with AsyncClient(server.url, token=server.token) as client:
        model = await client.models.create("benchmark")
        if weights is not None:
            await model.upload_checkpoint(weights, epoch=0, is_best=True)
        return model.id


async def _stored(server: ServedPlatform, model_id: str) -> dict[str, int]:
    """Return how much of it is there, and forget the model."""
    async with AsyncClient(server.url, token=server.token) as client:
        model = await client.models.get(model_id)
        metrics = len(await model.metrics.list().to_list())
        checkpoints = len(await model.checkpoints.list().to_list())
        await model.delete()
    return {"metrics": metrics, "checkpoints": checkpoints, "predict": 0}


@contextmanager
def _faults(upstream: str, share: float) -> Iterator[str]:
    """Run the fault proxy in front of a server; a share of requests is refused, reset, or has its reply taken away.

    The same numbers of requests every time, counted from the first that is no reading and no login.
    """
    chance = random.Random(1)
    refused: list[int] = []
    reset: list[int] = []
    lost: list[int] = []
    numbers = (refused, reset, lost)
    for number in range(1, _NUMBERED + 1):
        place = chance.random()
        for those, stop in zip(numbers, (share, share * 1.5, share * 2), strict=True):
            if place < stop:
                those.append(number)
                break
    # Not the login (/v1/auth), which one voice alone has: at a reset the official client raises AttributeError.
    those_met = {"method": "P*", "path": "*[!h]"}
    rules = [
        {"fault": "Refuse", "status": 503, "nth": refused, **those_met},
        {"fault": "Reset", "direction": "up", "after": -1, "nth": reset, **those_met},
        {"fault": "Lost", "nth": lost, **those_met},
    ]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "plan.json"
        script.write_text(json.dumps({"rules": rules}))
        command = [sys.executable, "-m", "tests.support.faults", "--script", str(script), "--upstream", upstream]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
            assert proxy.stdout is not None
            try:
                yield proxy.stdout.readline().strip()
            finally:
                proxy.send_signal(signal.SIGTERM)
                print(f"  faults met: {proxy.stdout.readline().strip()}")


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _row(label: str, voice: str, told: dict[str, Any], asked: int, stored: int | None) -> None:
    failed = told["returned_none"] + told["raised"]
    lost = "" if stored is None else f"{stored:8} {max(0, asked - stored - told['raised']):6}"
    print(
        f"{label:34} {voice:9} {told['wall']:8.2f} {told['cpu']:8.2f} {told['peak_kib'] / 1024:9.1f} "
        f"{asked:6} {failed:7} {told['raised']:7} {lost}"
    )


def _head() -> None:
    print(f"{'work':34} {'voice':9} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9} {'asked':>6} {'failed':>7} {'raised':>7}"
          f" {'stored':>8} {'lost':>6}")  # fmt: skip


def _compare(
    server: ServedPlatform,
    label: str,
    work: str,
    *,
    rounds: int,
    weights: bytes | None = None,
    share: float = 0.0,
    **order: Any,
) -> None:
    """Have each voice do one piece of work, *share* of its requests refused and as many broken."""
    for _ in range(rounds):
        for voice in VOICES[1:] if work == "batched" else VOICES:  # the official client has no batches of its own
            model = asyncio.run(_new_model(server, weights))
            with _faults(server.url, share) if share else nullcontext(server.url) as base:
                told = _tell(voice, work, server, base, model, **order)
            stored = asyncio.run(_stored(server, model))["metrics" if work == "batched" else work]
            _row(label, voice, told, order["count"], None if work == "predict" else stored)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--rounds", type=int, default=1, help="how often each piece of work is done")
    parser.add_argument("--share", type=float, default=0.1, help="requests refused; as many again break (default: 0.1)")
    parser.add_argument("--only", choices=["large", "metrics", "predict", "faults"], help="this part alone")
    given = parser.parse_args(arguments)
    if (reason := install(_TOOL)) is not None:
        print(f"the official client cannot be had: {reason}", file=sys.stderr)
        return 1
    size, posts, images = (64 * MiB, 100, 20) if given.quick else (1024 * MiB, 1000, 200)
    with (
        tempfile.TemporaryDirectory(prefix="asyncsdk-hub-") as name,
        ServedPlatform(Path(name), "--doors", "ultralytics") as server,
    ):
        folder = Path(name)
        for fact, value in conditions(folder, []).items():
            print(f"{fact}: {value}")
        _head()
        if given.only in {None, "large"}:
            file = folder / "last.pt"
            with file.open("wb") as weights:
                for _ in range(size // MiB):
                    weights.write(os.urandom(MiB))
            label = f"checkpoint of {size // MiB} MiB"
            _compare(server, label, "checkpoints", rounds=given.rounds, count=1, file=str(file))
            file.unlink()
            print(f"  peak memory of the server: {_peak_mib(server.pid):.0f} MiB")
        if given.only in {None, "metrics"}:
            _compare(server, f"{posts} posts of metrics", "metrics", rounds=given.rounds, count=posts)
            _compare(server, f"{posts} metrics, batched", "batched", rounds=given.rounds, count=posts)
        if given.only in {None, "predict"}:
            _predict(server, folder, images, given.rounds)
        if given.only in {None, "faults"}:
            small = folder / "small.pt"
            small.write_bytes(os.urandom(MiB))
            faults = f"{given.share:.0%} 503, {given.share:.0%} breaks"
            common = {"rounds": given.rounds, "share": given.share}
            _compare(server, f"{posts // 2} posts, {faults}", "metrics", count=posts // 2, **common)
            count = posts // 10
            _compare(server, f"{count} x 1 MiB, {faults}", "checkpoints", count=count, file=str(small), **common)
    return 0


def _predict(server: ServedPlatform, folder: Path, images: int, rounds: int) -> None:
    """Predict images of handwritten digits; skipped with the reason where the model cannot be made."""
    try:
        from tests.support.onnx_models import digits
    except ModuleNotFoundError as error:
        print(f"predict: skipped, {error.name} is not installed")
        return
    files = []
    for number in range(images):
        path = folder / f"{number}.png"
        path.write_bytes(digits().file(number))
        files.append(str(path))
    weights = digits().weights
    label = f"{images} images predicted"
    _compare(server, label, "predict", rounds=rounds, weights=weights, count=images, files=files)


if __name__ == "__main__":
    sys.exit(main())
