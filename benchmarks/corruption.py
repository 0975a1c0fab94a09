"""The corruption drill: ``python -m benchmarks.corruption [--count 10000] [--seed 1]``.

A proxy stands between the engine and a served platform, and spoils the body of the first try of every object, part and
range: one bit flipped, or its end cut off (the connection breaks, or a box on the way ends it in good order), the place
by chance, in both directions. A corruption counts as detected when the attempt that met it was not taken for good, and
the object is right in the end, byte for byte, or has failed with a typed error. Exit status 0 only when every one was.
This is about what is noticed, not about speed.

Before that, bits flip anywhere on the wire, in heads as well. Not every one of those does harm, and none can be told
from another, so what is counted is the objects that are wrong.

Objects go to and from the platform by its own signed URLs; parts and ranges, of which a platform makes few and large
ones, to and from the fault server's own store. Both state a crc32c of what they received, as S3, GCS and our server do.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.engine import (
    Download,
    Engine,
    MiB,
    MultipartTarget,
    Outcome,
    RetryPolicy,
    TransferConfig,
    Upload,
    UrlOrigin,
)
from asyncsdk.server.objects.minting import UrlMinter
from asyncsdk.transport.base import Timeouts
from tests.support.faults.breaks import Flip, Reset, Truncate
from tests.support.faults.fault import Direction, Fault
from tests.support.faults.flipping import FlippingRelay
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.server import FaultServer
from tests.support.server import RunningServer
from tests.support.wire.server import Seen

__all__ = ["Tally", "drill", "main"]

PART_SIZE = 64 * 1024
"""Of uploads in parts."""

PARTS = 40
RANGES = 8
_FLIP_BYTES = 60_000
"""Between two flips on the wire, on average."""

BATCH = 500
"""Objects of one size class that are in flight together; what they hold is held in memory here."""

_CONFIG = TransferConfig(
    concurrency=8,
    part_size=MiB,
    multipart_threshold=MiB,
    # Every single first try goes wrong: no budget of retries is made for that.
    timeouts=Timeouts(idle=2.0, reply=2.0),  # a length that was damaged makes either side wait for what does not come
    retry=RetryPolicy(max_attempts=6, wait_initial_seconds=0.001, wait_max_seconds=0.002, budget_least=10**9),
)


@dataclass
class Tally:
    """What was injected and what became of it, by kind.

    Attributes:
        injected: Corruptions that were made.
        silent: Of these, those that passed for good: another object arrived, or the first attempt was believed.
        flips: Bits that flipped anywhere on the wire, by direction; ``wrong`` of the objects passed for good.
        failures: Objects that did not arrive in the end, by their error: noticed, though not mended.
    """

    injected: Counter[str]
    silent: Counter[str]
    flips: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def detected(self) -> int:
        """Corruptions that were noticed."""
        return self.injected.total() - self.silent.total()

    def lines(self) -> list[str]:
        """Return the table that is printed."""
        width = max(map(len, self.injected), default=0)
        rows = [
            f"{kind:{width}}  {count:6} injected  {count - self.silent[kind]:6} detected  {self.silent[kind]:3} silent"
            for kind, count in sorted(self.injected.items())
        ]
        rows += [
            f"{kind}: {count} bits, {self.wrong[kind]} objects wrong" for kind, count in sorted(self.flips.items())
        ]
        rows += [f"{count} failures: {error}" for error, count in sorted(self.failures.items())]
        total, share = self.injected.total(), 100 * self.detected / max(1, self.injected.total())
        return [
            *rows,
            f"{total} corruptions, {self.detected} detected ({share:g} %), {self.wrong.total()} objects wrong",
        ]


def _faults(direction: Direction) -> dict[str, Fault]:
    word = "upload" if direction == "up" else "download"
    return {
        f"{word}, bit flipped": Flip(direction),
        f"{word}, connection broken": Reset(-2, direction),
        f"{word}, end cut off": Truncate(-2, declared=True, direction=direction),
    }


class _Drill:
    def __init__(
        self, engine: Engine, proxy: FaultServer, store: FaultServer, platform: RunningServer, seed: int
    ) -> None:
        self._engine = engine
        self._proxy = proxy
        self._store = store
        self._platform = platform
        self._minter = UrlMinter(platform.backend.signer, proxy.url("").rstrip("/"))
        self._random = random.Random(seed)
        self.tally = Tally(Counter(), Counter())

    async def objects(self, count: int, folder: Path) -> None:
        """Send *count* small objects and fetch them again; the first try of each meets a corruption, both ways."""
        sources = {make_id(): self._some_bytes() for _ in range(count)}
        up, down = _faults("up"), _faults("down")
        kinds = {object_id: self._random.choice(sorted(up)) for object_id in sources}
        self._proxy.plan = self._plan([(up[kind], f"/objects/{object_id}") for object_id, kind in kinds.items()])
        uploads = []
        for number, (object_id, data) in enumerate(sources.items()):
            # Known before it is signed, as for the small files of a dataset, or found while sending, as for large ones.
            known = crc32c_hex(crc32c(data)) if number % 2 else None
            target = self._minter.target(object_id, size_bytes=len(data), crc32c=known)
            path = folder / object_id
            path.write_bytes(data)
            uploads.append(Upload(path, target, key=object_id))
        outcomes = await self._run(uploads)
        self._platform.backend.objects.publish(
            [(object_id, outcome.crc32c or "") for object_id, outcome in outcomes.items() if outcome.ok]
        )
        # What the server has is read past the proxy, from its own files.
        self._judge(kinds, outcomes, {key: self._stored(key, outcome) for key, outcome in outcomes.items()}, sources)

        kinds = {object_id: self._random.choice(sorted(down)) for object_id in sources}
        self._proxy.plan = self._plan([(down[kind], f"/objects/{object_id}") for object_id, kind in kinds.items()])
        downloads = []
        for number, (object_id, data) in enumerate(sources.items()):
            checksum = crc32c_hex(crc32c(data))
            found = self._minter.origin(object_id, size_bytes=len(data), crc32c=checksum, etag="")
            assert isinstance(found, UrlOrigin)
            # Announced as by a platform; only the size, as by many; or nothing at all.
            facts = ({"crc32c": checksum, "size_bytes": len(data)}, {"size_bytes": len(data)}, {})[number % 3]
            downloads.append(Download(UrlOrigin(found.url, **facts), folder / object_id, key=object_id))
        for object_id in sources:
            (folder / object_id).unlink()
        outcomes = await self._run(downloads)
        got = {key: (folder / key).read_bytes() if (folder / key).exists() else b"" for key in sources}
        self._judge(kinds, outcomes, got, sources)
        for object_id in sources:
            (folder / object_id).unlink(missing_ok=True)

    def _stored(self, object_id: str, outcome: Outcome) -> bytes:
        if outcome.crc32c is None:
            return b""
        path = Path(self._platform.backend.objects.staged_name(object_id, outcome.crc32c))
        return path.read_bytes() if path.exists() else b""  # it has other bytes, which have another name

    async def parts(self) -> None:
        """Send an object in many parts; the first try of each meets a corruption."""
        data = self._random.randbytes(PARTS * PART_SIZE - self._random.randrange(PART_SIZE - 1))
        upload_id = make_id()
        self._store.store.uploads[upload_id] = {}
        url = self._store.url(f"/{upload_id}?uploadId={upload_id}")
        urls = tuple(f"{url}&partNumber={number}" for number in range(1, PARTS + 1))
        up = _faults("up")
        kinds = {number: self._random.choice(sorted(up)) for number in range(1, PARTS + 1)}
        self._store.plan = Plan(
            [Rule(up[kind], target=f"*&partNumber={number}", nth=[1]) for number, kind in kinds.items()],
            seed=self._random.randrange(2**32),
        )
        target = MultipartTarget(upload_id, PART_SIZE, urls, complete_url=url, abort_url=url)
        (outcome,) = (await self._run([Upload(data, target, key=upload_id)])).values()
        right = outcome.ok and self._store.store[f"/{upload_id}"] == data
        tried = Counter(seen.target for seen in self._store.requests)
        for number, kind in kinds.items():
            was_repeated = tried[f"/{upload_id}?uploadId={upload_id}&partNumber={number}"] > 1
            self._count(f"part {kind}", is_silent=outcome.ok and not (right and was_repeated))
        self._settle(outcome, "parts")
        self._forget()

    async def ranges(self, folder: Path) -> None:
        """Fetch an object in ranges; the first try of each meets a corruption."""
        data = self._random.randbytes(RANGES * MiB - self._random.randrange(MiB - 1))
        path = f"/{make_id()}"
        self._store.store[path] = data
        down = _faults("down")
        kinds = [self._random.choice(sorted(down)) for _ in range(RANGES)]
        self._store.plan = Plan(
            [Rule(down[kind], nth=[number]) for number, kind in enumerate(kinds, 1)], seed=self._random.randrange(2**32)
        )
        origin = UrlOrigin(self._store.url(path), size_bytes=len(data), crc32c=crc32c_hex(crc32c(data)))
        (outcome,) = (await self._run([Download(origin, folder / "large", key=path)])).values()
        right = outcome.ok and (folder / "large").read_bytes() == data
        for kind in kinds:
            self._count(f"range {kind}", is_silent=outcome.ok and not right)
        self._settle(outcome, "ranges")
        (folder / "large").unlink(missing_ok=True)
        self._forget()

    async def wire(self, direction: Direction, count: int, folder: Path) -> None:
        """Move *count* small objects while bits flip anywhere between the two programs, heads included.

        Some hit what nobody reads: only the objects can tell whether one did harm.
        """
        kind = f"{'upload' if direction == 'up' else 'download'}, flipped anywhere on the wire"
        sources = {make_id(): self._some_bytes() for _ in range(count)}
        transfers: list[Upload | Download] = []
        seed = self._random.randrange(2**32)
        port = self._platform.port
        async with FlippingRelay(port, direction=direction, every_bytes=_FLIP_BYTES, seed=seed) as relay:
            minter = UrlMinter(self._platform.backend.signer, relay.url)
            for key, data in sources.items():
                checksum = crc32c_hex(crc32c(data))
                if direction == "up":
                    target = minter.target(key, size_bytes=len(data), crc32c=checksum)
                    transfers.append(Upload(data, target, key=key))
                else:
                    await self._publish(key, data)
                    origin = minter.origin(key, size_bytes=len(data), crc32c=checksum, etag="")
                    transfers.append(Download(origin, folder / key, key=key))
            outcomes = await self._run(transfers)
        self.tally.flips[kind] += relay.flips
        for key, outcome in outcomes.items():
            self._settle(outcome, kind)
            if outcome.ok:
                got = self._stored(key, outcome) if direction == "up" else (folder / key).read_bytes()
                self.tally.wrong[kind] += got != sources[key]
            (folder / key).unlink(missing_ok=True)

    async def _publish(self, key: str, data: bytes) -> None:
        target = UrlMinter(self._platform.backend.signer, self._platform.url).target(
            key, size_bytes=len(data), crc32c=None
        )
        outcome = await self._engine.upload(data, target)
        self._platform.backend.objects.publish([(key, outcome.crc32c or "")])

    # --- one batch ---------------------------------------------------------------------------------------------

    def _some_bytes(self) -> bytes:
        """Return 1 byte to 300 KiB, small ones far more often."""
        return self._random.randbytes(int(2 ** self._random.uniform(0, 18.2)))

    def _plan(self, faults: Sequence[tuple[Fault, str]]) -> Plan:
        return _ByPath({path: fault for fault, path in faults}, seed=self._random.randrange(2**32))

    async def _run(self, transfers: Sequence[Upload | Download]) -> dict[str, Outcome]:
        async with self._engine.run(transfers) as outcomes:
            return {outcome.transfer.key: outcome async for outcome in outcomes}

    def _judge(
        self, kinds: dict[str, str], outcomes: dict[str, Outcome], got: dict[str, bytes], sources: dict[str, bytes]
    ) -> None:
        assert isinstance(self._proxy.plan, _ByPath)
        for key, kind in kinds.items():
            outcome = outcomes[key]
            # Not its attempts: a connection that was kept and turns out dead costs none, the request is sent anew.
            was_repeated = self._proxy.plan.tries[f"/objects/{key}"] > 1
            self._settle(outcome, f"object {kind}")
            self._count(f"object {kind}", is_silent=outcome.ok and not (was_repeated and got[key] == sources[key]))

    def _settle(self, outcome: Outcome, kind: str) -> None:
        if outcome.error is not None:
            self.tally.failures[f"{kind}: {type(outcome.error).__name__}"] += 1

    def _count(self, kind: str, *, is_silent: bool) -> None:
        self.tally.injected[kind] += 1
        self.tally.silent[kind] += is_silent

    def _forget(self) -> None:
        self._store.requests.clear()
        for path in list(self._store.store):
            self._store.store.remove(path)


class _ByPath(Plan):
    """A fault for the first request of each path; a list of so many rules would be walked for every request.

    Attributes:
        tries: Requests for each path.
    """

    def __init__(self, faults: dict[str, Fault], *, seed: int) -> None:
        super().__init__(seed=seed)
        self._faults = faults
        self.tries: Counter[str] = Counter()

    def next_for(self, seen: Seen) -> Fault:
        path = seen.target.partition("?")[0]
        self.tries[path] += 1
        return self._faults.pop(path, Fault())


async def drill(count: int, seed: int, *, parent: Path | None = None) -> Tally:
    """Inject at least *count* corruptions and return what became of them.

    Args:
        parent: Folder for what is made meanwhile; None: that of temporary files.
    """
    with (
        tempfile.TemporaryDirectory(prefix="asyncsdk-corruption-", dir=parent) as name,
        RunningServer(Path(name) / "platform") as platform,
    ):
        folder = Path(name) / "files"
        folder.mkdir()
        async with (
            FaultServer(upstream=platform.url, keeps_requests=False) as proxy,
            FaultServer() as store,
            Engine(_CONFIG) as engine,
        ):
            work = _Drill(engine, proxy, store, platform, seed)
            for direction in ("up", "down"):
                for start in range(0, count // 10, BATCH):
                    await work.wire(direction, min(BATCH, count // 10 - start), folder)
            large = max(1, count // 10 // (PARTS + RANGES))
            for _ in range(large):
                await work.parts()
                await work.ranges(folder)
            while (left := count - work.tally.injected.total()) > 0:
                await work.objects(min(BATCH, -(-left // 2)), folder)
            return work.tally


def main() -> int:
    """Run it and print the counts; 1 when anything wrong passed for good."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corruption", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="corruptions at least; 10000")
    parser.add_argument("--seed", type=int, default=1, help="of chance; 1")
    options = parser.parse_args()
    tally = asyncio.run(drill(options.count, options.seed))
    print("\n".join(tally.lines()))
    return 1 if tally.silent.total() or tally.wrong.total() else 0


if __name__ == "__main__":
    sys.exit(main())
