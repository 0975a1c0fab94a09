"""Metrics that wait in memory and in files: nothing of them is lost between two hands."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.entities import metric_files
from asyncsdk.entities.metric_buffer import MetricBuffer
from asyncsdk.entities.metric_files import KeptFile, Measured, kept_paths


def values(*steps: int) -> list[tuple[str, int | None, float]]:
    return [("loss", step, float(step)) for step in steps]


def steps_of(batch: Any) -> list[int | None]:
    return [one.step for one in batch]


def kept_steps(folder: Path) -> list[int | None]:
    (path,) = kept_paths(folder)
    file = KeptFile.claim(path)
    assert file is not None
    found = steps_of(file.read(1000))
    file.close()
    return found


def test_a_batch_under_way_at_the_end_is_kept_with_the_rest(tmp_path: Path) -> None:
    """What becomes of it is told too late, and changes nothing any more."""
    for told in (MetricBuffer.failed, MetricBuffer.sent):
        folder = tmp_path / told.__name__
        buffer = MetricBuffer(folder, 100)
        buffer.put(values(1, 2, 3))
        assert steps_of(buffer.take(2)) == [1, 2]
        assert buffer.keep() == 3
        told(buffer)
        assert (buffer.pending, buffer.kept, list(buffer.take(10))) == (0, 3, [])
        assert kept_steps(folder) == [1, 2, 3]


def test_a_disk_that_fails_costs_no_batch_that_is_under_way(tmp_path: Path) -> None:
    """It may still arrive, and goes back to memory when it does not."""
    (tmp_path / "in the way").write_text("")
    buffer = MetricBuffer(tmp_path / "in the way", 4)
    buffer.put(values(1, 2))
    assert steps_of(buffer.take(10)) == [1, 2]
    buffer.put(values(3, 4, 5))
    assert (buffer.lost, buffer.pending) == (1, 4)
    buffer.failed()
    assert steps_of(buffer.take(10)) == [1, 2, 4, 5]


def test_a_single_call_keeps_to_the_bound(tmp_path: Path) -> None:
    buffer = MetricBuffer(tmp_path, 10)
    buffer.put(values(*range(1000)))
    assert buffer.pending <= 10
    assert buffer.pending + buffer.kept == 1000
    buffer.keep()


def test_a_batch_from_the_file_does_not_send_everything_else_to_it(tmp_path: Path) -> None:
    """It is in the file already, so that it takes no room of what is in memory only."""
    buffer = MetricBuffer(tmp_path, 10)
    buffer.put(values(*range(100)))
    kept = buffer.kept
    assert len(buffer.take(80)) == 80
    buffer.put(values(200))
    assert buffer.kept == kept
    buffer.keep()


def test_a_read_that_comes_after_the_next_one_is_void(tmp_path: Path) -> None:
    """A cancelled sender leaves its thread behind, which would skip what the next one is about to send."""
    buffer = MetricBuffer(tmp_path, 2)
    buffer.put(values(1, 2, 3, 4))
    late = buffer.next_turn()
    assert steps_of(buffer.take(1, buffer.next_turn())) == [1]
    assert list(buffer.take(10, late)) == []
    buffer.sent()
    left: list[int | None] = []
    while batch := buffer.take(10, buffer.next_turn()):
        left += steps_of(batch)
        buffer.sent()
    assert left == [2, 3, 4]
    assert buffer.path is None, "nothing waits in it"
    buffer.keep()
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_seen_by_others_only_when_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before, it would be claimed, found empty, and removed below whoever is about to write to it."""
    lock, seen = metric_files.fcntl.flock, []

    def look_and_lock(file: Any, operation: int) -> None:
        seen.append(kept_paths(tmp_path))
        lock(file, operation)

    monkeypatch.setattr(metric_files.fcntl, "flock", look_and_lock)
    file = KeptFile.create(tmp_path)
    assert seen == [[]]
    assert KeptFile.claim(file.path) is None
    file.append([Measured("loss", 1, 0.5, 1000)])
    file.close()
    assert kept_steps(tmp_path) == [1]


def test_a_file_is_free_for_others_though_a_forked_child_lives_on(tmp_path: Path) -> None:
    file = KeptFile.create(tmp_path)
    file.append([Measured("loss", 1, 0.5, 1000)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, when there are other threads
        child = os.fork()
    if child == 0:
        try:
            time.sleep(60)
        finally:
            os._exit(0)
    try:
        file.close()
        assert kept_steps(tmp_path) == [1]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_was_cut_when_a_program_was_killed_is_cleaned_up(tmp_path: Path) -> None:
    file = KeptFile.create(tmp_path)
    file.append([Measured("loss", 1, 0.5, 1000)])
    file.path.with_suffix(".part").write_bytes(b"half")
    file.read(10)
    file.advance()
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_times_that_cannot_be_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'["a",1,0.5,999999999999999999]\n["a",2,0.5,-1]\n["a",3,0.5,1000]\n')
    file = KeptFile.claim(path)
    assert file is not None
    assert (file.count, file.damaged) == (1, 2)
    file.close()
