"""Metrics that wait: any interleaving of logging, failing, sending and ending gives the last value of each series and
step, once everything arrived, in whatever order files and memory had them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncsdk.entities.metric_buffer import MetricBuffer
from asyncsdk.entities.metric_files import KeptFile, Measured, kept_paths

KEYS = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([None, 0, 1, 2]))


class Batching(RuleBasedStateMachine):
    """A buffer, the platform as a dict where a later measurement stands, and what was logged last."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.wanted: dict[tuple[str, int | None], float] = {}
        self.stored: dict[tuple[str, int | None], tuple[int, float]] = {}
        self.batch: list[Measured] | None = None
        self.counter = 0.0

    @initialize(max_pending=st.integers(1, 6))
    def begin(self, max_pending: int) -> None:
        self.max_pending = max_pending
        self.buffer = MetricBuffer(Path(self.folder.name), max_pending)

    def arrive(self, batch: list[Measured]) -> None:
        for one in batch:
            key = (one.name, one.step)
            if key not in self.stored or one.logged_at_ms >= self.stored[key][0]:
                self.stored[key] = (one.logged_at_ms, one.value)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4, unique=True))
    def log(self, keys: list[tuple[str, int | None]]) -> None:
        self.counter += 1
        self.buffer.put([(name, step, self.counter) for name, step in keys])
        self.wanted.update(dict.fromkeys(keys, self.counter))

    @precondition(lambda self: self.batch is None)
    @rule(count=st.integers(1, 4))
    def take(self, count: int) -> None:
        self.batch = list(self.buffer.take(count)) or None

    @precondition(lambda self: self.batch is not None)
    @rule()
    def succeed(self) -> None:
        assert self.batch is not None
        self.arrive(self.batch)
        self.buffer.sent()
        self.batch = None

    @precondition(lambda self: self.batch is not None)
    @rule(has_arrived=st.booleans())
    def fail(self, has_arrived: bool) -> None:
        """With the reply lost, or the batch itself."""
        assert self.batch is not None
        if has_arrived:
            self.arrive(self.batch)
        self.buffer.failed()
        self.batch = None

    @rule()
    def end(self) -> None:
        """Everything left, a batch under way too, goes to a file and is sent from there; then another block begins."""
        self.buffer.close()
        left = self.buffer.keep()
        if self.batch is not None:  # told afterwards what became of it
            self.buffer.failed()
            self.batch = None
        files = [file for path in kept_paths(Path(self.folder.name)) if (file := KeptFile.claim(path)) is not None]
        assert sum(file.count for file in files) == left
        for file in files:
            while file.count:
                self.arrive(file.read(3))
                file.advance()
            file.close()
        assert {key: value for key, (_, value) in self.stored.items()} == self.wanted
        assert list(Path(self.folder.name).iterdir()) == []
        self.buffer = MetricBuffer(Path(self.folder.name), self.max_pending)

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "buffer"):
            assert self.buffer.pending <= max(self.max_pending, len(self.batch or ()))

    def teardown(self) -> None:
        if hasattr(self, "buffer"):
            self.end()
        self.folder.cleanup()


TestBatching = Batching.TestCase
TestBatching.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
