"""Whatever is killed or damaged: a journal never says more than was kept, and uploads come out the same."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsdk.engine import Engine, MultipartTarget, TransferConfig, Upload
from asyncsdk.engine.journal import Finished, Identity, Journal, RunRecord, digest_of, journal_folder
from asyncsdk.engine.journal.owners import Owner
from asyncsdk.engine.journal.schema import SUFFIX
from asyncsdk.engine.journal.store import KnownPart, Store
from tests.support.http_server import Connection, HttpServer, Received

RUN = RunRecord("upload", {"place": "x"}, {"place": "x"})
NAMES = [f"{number}.bin" for number in range(12)]


@contextmanager
def fresh_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="journal-"))
    try:
        # A kill leaves the owner written in the file; here that is this process, which still is.
        with mock.patch.object(Owner, "is_gone", return_value=True):
            yield folder
    finally:
        shutil.rmtree(folder)


def finished(name: str, version: int) -> Finished:
    receipt = name.encode() * (version % 3)
    return digest_of(name), Identity(version, -version * 10**9, 2**64 - 1 - version), version, receipt


def crash(folder: Path) -> Path:
    """Return a folder as a kill would leave it this moment: what the system was given is there, nothing else."""
    left = Path(tempfile.mkdtemp(prefix="journal-", dir=folder))
    for path in folder.glob(f"*{SUFFIX}*"):
        shutil.copyfile(path, left / path.name)
    return left


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.sampled_from(NAMES), unique=True, max_size=5), st.booleans()),
        st.tuples(st.just("settle"), st.lists(st.sampled_from(NAMES), unique=True, max_size=5)),
        st.tuples(st.just("begin"), st.sampled_from(NAMES[:3])),
        st.tuples(st.just("part"), st.sampled_from(NAMES[:3]), st.integers(1, 4)),
        st.tuples(st.just("end"), st.sampled_from(NAMES[:3])),
        st.tuples(st.just("crash")),
        st.tuples(st.just("stop")),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_after_any_kill_exactly_what_was_kept_is_known(doing: list[tuple]) -> None:  # type: ignore[type-arg]
    """Entries, large objects and their parts, over any number of kills and orderly ends."""
    with fresh_folder() as folder:
        known: dict[str, Finished] = {}
        fresh: dict[str, Finished] = {}
        settled: set[str] = set()
        final: set[str] = set()
        large: dict[str, dict[int, KnownPart]] = {}
        path = folder / f"run{SUFFIX}"
        store = Store.open(path, RUN)
        for version, (kind, *rest) in enumerate([*doing, ("stop",)], start=1):
            if kind == "add":
                names, is_settled = rest
                digests = [digest_of(name) for name in names] if is_settled else []
                are_final = bool(digests) and version % 2 == 0
                if are_final:  # as downloads are kept: one page says both
                    store.add([finished(name, version) for name in names], are_final=True)
                else:
                    store.add([finished(name, version) for name in names], settled=digests)
                fresh |= {name: finished(name, version) for name in names}
                settled |= set(names) if is_settled else set()
            elif kind == "settle":
                store.add([], settled=[digest_of(name) for name in rest[0]])
                settled |= set(rest[0])
            elif kind == "begin":
                store.begin_large(rest[0], {"version": version})
                large[rest[0]] = {}
            elif kind == "part" and rest[0] in large:
                part = KnownPart(rest[1], version, version, "etag", True)
                store.add_parts(rest[0], [part])
                large[rest[0]][rest[1]] = part
            elif kind == "end":
                store.end_large(rest[0])
                large.pop(rest[0], None)
            elif kind in {"crash", "stop"}:
                if kind == "crash":
                    left = crash(path.parent)
                    store.close()
                    path = left / path.name
                else:
                    store.release("stopped")
                store = Store.open(path, RUN)
                # What is final is told with the next opening; what arrived anew in a later session is not final.
                final = (final - set(fresh)) | (settled & (set(known) | set(fresh)))
                known, fresh, settled = known | fresh, {}, set()
                assert store.has_entries or not (known or large)
            entries = store.find(NAMES)
            assert set(entries) == set(known)
            for name, entry in entries.items():
                assert (entry.identity, entry.crc32c, entry.receipt) == known[name][1:]
                assert entry.is_settled == (name in final)
            for name in NAMES[:3]:
                found = store.large(name)
                assert (found is None) == (name not in large)
                if found is not None:
                    assert {part.number: part for part in found[1]} == large[name]
        store.remove()
        assert not path.exists()


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_damage_is_survived(data: st.DataObject) -> None:
    """Bytes of the file or its log changed or cut anywhere: nothing wrong is told, and a journal can be kept again."""
    with fresh_folder() as folder:
        path = folder / f"run{SUFFIX}"
        store = Store.open(path, RUN)
        kept = {name: finished(name, number) for number, name in enumerate(NAMES)}
        store.add([kept[name] for name in NAMES[:5]], settled=[digest_of(name) for name in NAMES[:5]])
        if data.draw(st.booleans(), label="two sessions"):
            store.release("stopped")
            store = Store.open(path, RUN)
        store.add([kept[name] for name in NAMES[5:]])
        store.begin_large("large", {"upload_id": "u"})
        store.add_parts("large", [KnownPart(1, 10, 77, "e", True)])
        left = crash(folder)
        store.close()
        if data.draw(st.booleans(), label="log written back"):
            connection = sqlite3.connect(left / path.name)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.close()
        victim = data.draw(st.sampled_from(sorted(left.iterdir())), label="file")
        raw = bytearray(victim.read_bytes())
        if not raw:
            return
        # Anywhere, or where it hurts: in a page of entries, in a row, in the facts of a large object.
        mark = data.draw(st.sampled_from([b"", b"AJP1", b"4.bin", b"upload_id"]), label="near")
        start = max(0, raw.find(mark))
        position = min(
            len(raw) - 1, max(0, start + data.draw(st.integers(-60, 300) if mark else st.integers(0, 10**6)))
        )
        if data.draw(st.booleans(), label="cut"):
            del raw[position:]
        else:
            for offset in range(data.draw(st.sampled_from([1, 2, 64, 4096]), label="bytes")):
                if position + offset < len(raw):
                    raw[position + offset] ^= data.draw(st.integers(1, 255)) if offset == 0 else 0xA5
        victim.write_bytes(raw)
        damaged = left / path.name
        store = Store.open(damaged, RUN)
        for name, entry in store.find(NAMES).items():
            assert (entry.identity, entry.crc32c, entry.receipt) == kept[name][1:]
        found = store.large("large")
        assert found is None or found[0] == {"upload_id": "u"}
        store.add([kept[NAMES[0]]])
        store.release("stopped")
        store = Store.open(damaged, RUN)
        assert store.find(NAMES[:1])[NAMES[0]].crc32c == kept[NAMES[0]][2]
        store.remove()


class ListingServer(HttpServer):
    """A server that lists the parts it has, and answers parts in an order of its own."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.sent: list[int] = []
        self.crash_after = 0
        self.on_crash: object = None

    async def _answer_multipart(self, connection: Connection, request: Received, query: dict[str, str]) -> None:
        upload = self.uploads[query["uploadId"]]
        if request.method == "GET" and upload.is_open:
            parts = "".join(
                f'<Part><PartNumber>{number}</PartNumber><ETag>"{hashlib.md5(body).hexdigest()}"</ETag>'
                f"<Size>{len(body)}</Size></Part>"
                for number, body in sorted(upload.parts.items())
            )
            await connection.reply(
                200, f"<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>".encode()
            )
            return
        if request.method == "PUT":
            self.sent.append(int(query["partNumber"]))
            await asyncio.sleep(self.rng.random() / 200)
        await super()._answer_multipart(connection, request, query)
        if request.method == "PUT":
            self.crash_after -= 1
            if self.crash_after == 0 and callable(self.on_crash):
                self.on_crash()


@settings(deadline=None, max_examples=25)
@given(
    parts=st.integers(2, 9),
    last=st.integers(1, 1000),
    crashes=st.lists(st.integers(1, 9), max_size=4),
    seed=st.integers(0, 2**32),
)
def test_parts_crashes_and_replays_in_any_order_give_the_same_object(
    parts: int, last: int, crashes: list[int], seed: int
) -> None:
    """Each crash leaves what the journal held at that moment; the object is the same, nothing known is sent again."""
    rng = random.Random(seed)
    data = rng.randbytes((parts - 1) * 1000 + last)

    async def run() -> None:
        async with ListingServer(rng) as server:
            homes = [folder / "home"]
            homes[0].mkdir()
            for crash_after in [*crashes, 0]:
                server.crash_after = crash_after
                if await upload_once(server, homes, data, source):
                    break
            assert server.objects["/m"] == data
            assert set(server.sent) == set(range(1, parts + 1))

    with fresh_folder() as folder:
        source = folder / "source"
        source.write_bytes(data)
        asyncio.run(run())


async def upload_once(server: ListingServer, homes: list[Path], data: bytes, source: Path) -> bool:
    """Upload until it is done (True) or the crash comes; then the next home is what the crash left."""
    journal = await Journal.open(homes[-1], RUN)
    state = await journal.recall_large("large") if journal.has_entries else journal.new_large("large", {"n": 1})
    remembered = {part.number for part in state.parts.values()}
    whole = server.url("/m?uploadId=U1")
    urls = tuple(f"{whole}&partNumber={number}" for number in range(1, 20))
    target = MultipartTarget("U1", 1000, urls, complete_url=whole, list_urls=(whole,))
    server.sent.clear() if not remembered else None
    before = len(server.sent)
    async with Engine(TransferConfig(concurrency=3)) as engine:
        upload = Upload(source, target, size_bytes=len(data), resume=state.resume())

        async def move() -> None:
            async with engine.run([upload]) as outcomes:
                async for outcome in outcomes:
                    assert outcome.error is None

        task = asyncio.create_task(move())
        crashed = asyncio.Event()

        def on_crash() -> None:
            folder = journal_folder(homes[-1])
            homes.append(homes[-1].parent / f"home{len(homes)}")
            if folder.exists():
                with suppress(shutil.Error):  # SQLite removes a file meanwhile when the journal is being made
                    shutil.copytree(folder, journal_folder(homes[-1]))
            crashed.set()
            task.cancel()

        server.on_crash = on_crash
        with suppress(asyncio.CancelledError):
            await task
        await journal.end(is_complete=False)
        assert not remembered & set(server.sent[before:]), "the journal and the server had it"
        return not crashed.is_set()
