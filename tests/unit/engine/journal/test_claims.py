"""Whose a journal is: one run has it, whatever hosts and processes are called, and it is free when that run is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.engine.journal import Identity, RunRecord, digest_of, journal_folder, locks
from asyncsdk.engine.journal import owners as owners_module
from asyncsdk.engine.journal.catalogue import forget, summary
from asyncsdk.engine.journal.claims import InUse, give_up
from asyncsdk.engine.journal.locks import RunLock, is_free, lock_path
from asyncsdk.engine.journal.owners import FOREIGN_SECONDS, Owner
from asyncsdk.engine.journal.schema import SUFFIX
from asyncsdk.engine.journal.store import Store
from asyncsdk.engine.temporaries import process_mark
from asyncsdk.errors import Conflict

RUN = RunRecord("upload", {"place": "/photos"}, {"place": "/photos"})
ENTRY = (digest_of("a"), Identity(1, 2, 3), 4, b"")

KEEPER = """
import os, sys, time
from pathlib import Path
from asyncsdk.engine.journal import RunRecord
from asyncsdk.engine.journal.store import Store
store = Store.open(Path(sys.argv[1]), RunRecord("upload", {"place": "/photos"}, {"place": "/photos"}))
store.add([(b"12345678", (1, 2, 3), 4, b"")])
child = os.fork() if "fork" in sys.argv else None
if child != 0:
    print(child or 0, flush=True)
time.sleep(600)
"""


def path_of(home: Path) -> Path:
    return journal_folder(home) / f"{RUN.run_id}{SUFFIX}"


@pytest.fixture
def keep(home: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], int]]]:
    """Start a process that keeps the journal; returns it, and the child that it forked when told to."""
    started: list[subprocess.Popen[bytes]] = []
    children: list[int] = []

    def start(*options: str) -> tuple[subprocess.Popen[bytes], int]:
        process = subprocess.Popen([sys.executable, "-c", KEEPER, str(path_of(home)), *options], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        children.extend([child] if child else [])
        return process, child

    yield start
    for child in children:
        os.kill(child, signal.SIGKILL)
    for process in started:
        process.kill()
        process.communicate()


def rewrite_owner(home: Path, **changes: Any) -> None:
    """Let the journal name another owner."""
    with closing(sqlite3.connect(path_of(home))) as connection:
        owner = json.loads(connection.execute("SELECT owner FROM run").fetchone()[0])
        connection.execute("UPDATE run SET owner = ?", (json.dumps(owner | changes),))
        connection.commit()


@pytest.mark.parametrize(
    ("owner", "silent_seconds", "is_lock_free", "is_gone"),
    [
        ({}, 0, None, False),
        ({"pid": 2**22 + 1}, 0, None, True),
        ({"started": 1}, 0, None, True),
        ({"boot": "another"}, 0, None, True),
        ({"boot": "another", "host": "elsewhere"}, FOREIGN_SECONDS - 1, True, False),
        ({"boot": "another", "host": "elsewhere"}, FOREIGN_SECONDS + 1, True, True),
        # Of the same kernel: the lock knows, whatever the names.
        ({"host": "elsewhere", "namespace": "pid:[1]", "is_locked": True}, 0, True, True),
        ({"namespace": "pid:[1]", "pid": 2**22 + 1, "is_locked": True}, FOREIGN_SECONDS + 1, False, False),
        ({"is_locked": True}, 0, True, True),
        ({"boot": "another"}, FOREIGN_SECONDS + 1, False, False),
        # Without a lock a number of another namespace means nothing.
        ({"namespace": "pid:[1]", "pid": 2**22 + 1}, FOREIGN_SECONDS - 1, None, False),
        ({"namespace": "pid:[1]"}, FOREIGN_SECONDS + 1, None, True),
        ({"host": "elsewhere"}, FOREIGN_SECONDS - 1, None, False),
        ({"host": "elsewhere"}, FOREIGN_SECONDS + 1, None, True),
    ],
)
def test_an_owner_is_gone_when_its_process_is(
    owner: dict[str, Any], silent_seconds: float, is_lock_free: bool | None, is_gone: bool
) -> None:
    me = Owner.me()
    values = {name: getattr(me, name) for name in Owner.__slots__} | owner
    if "pid" in owner:
        values["started"] = 0
    assert Owner(**values).is_gone(silent_seconds=silent_seconds, is_lock_free=is_lock_free) is is_gone


def test_who_comes_back_under_another_name_goes_on_at_once(home: Path, keep: Callable[..., Any]) -> None:
    """As a container does that was killed and started anew: another host, other numbers, the same kernel."""
    process, _ = keep()
    with pytest.raises(InUse, match=f"process {process.pid} on"):
        Store.open(path_of(home), RUN)
    process.kill()
    process.wait()
    rewrite_owner(home, host="pod-7f9c", namespace="pid:[4026539999]", pid=1)
    assert summary(journal_folder(home), RUN.run_id).state == "killed"
    store = Store.open(path_of(home), RUN)
    assert store.has_entries
    store.remove()
    assert list(journal_folder(home).iterdir()) == []


def test_who_gives_a_removed_lock_back_leaves_that_of_the_next_one(home: Path) -> None:
    path_of(home).parent.mkdir(parents=True)
    first = RunLock.take(path_of(home))
    assert first is not None
    lock_path(path_of(home)).unlink()
    second = RunLock.take(path_of(home))
    assert second is not None
    first.release()
    assert RunLock.take(path_of(home)) is None
    second.release()
    assert not lock_path(path_of(home)).exists()


def test_what_was_killed_can_be_forgotten(home: Path, keep: Callable[..., Any]) -> None:
    process, _ = keep()
    with pytest.raises(Conflict, match="under way"):
        forget(journal_folder(home), RUN.run_id)
    process.kill()
    process.wait()
    assert forget(journal_folder(home), RUN.run_id).run_id == RUN.run_id
    assert list(journal_folder(home).iterdir()) == []


def test_two_of_the_same_name_do_not_share_a_journal(home: Path, keep: Callable[..., Any]) -> None:
    """Two containers may have one host name, and each a process 1: the number of one tells nothing to the other."""
    keep()
    rewrite_owner(home, pid=2**22 + 1, started=0)  # as it looks from a container that does not see it
    assert summary(journal_folder(home), RUN.run_id).state == "running"
    with pytest.raises(InUse):
        Store.open(path_of(home), RUN)
    with pytest.raises(Conflict, match="under way"):
        forget(journal_folder(home), RUN.run_id)


def test_a_forked_child_does_not_keep_what_its_parent_kept(home: Path, keep: Callable[..., Any]) -> None:
    """A loader of data outlives the training that was killed, and knows nothing of journals."""
    process, child = keep("fork")
    with pytest.raises(InUse):
        Store.open(path_of(home), RUN)
    process.kill()
    process.wait()
    os.kill(child, 0)
    Store.open(path_of(home), RUN).remove()


def test_a_program_that_is_started_does_not_keep_it(home: Path) -> None:
    store = Store.open(path_of(home), RUN)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as process:
        store.release("stopped")
        assert is_free(path_of(home))
        Store.open(path_of(home), RUN).remove()
        process.communicate(b"\n")


def test_looking_at_a_journal_does_not_take_it_from_anybody(home: Path) -> None:
    store = Store.open(path_of(home), RUN)
    for _ in range(3):
        assert is_free(path_of(home)) is False
        assert summary(journal_folder(home), RUN.run_id).state == "running"
    store.release("stopped")
    assert summary(journal_folder(home), RUN.run_id).state == "stopped"


def test_the_lock_of_a_journal_that_was_removed_is_not_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opened its file before, and locks it afterwards, has the lock of nothing: it is tried again."""
    journal_folder(home).mkdir(parents=True)
    file = lock_path(path_of(home))
    lock, calls = locks._lock, [0]

    def lock_late(descriptor: int, *, is_shared: bool) -> bool | None:
        calls[0] += 1
        if calls[0] == 1:
            file.unlink()
        return lock(descriptor, is_shared=is_shared)

    monkeypatch.setattr(locks, "_lock", lock_late)
    taken = RunLock.take(path_of(home))
    assert taken is not None
    assert (calls[0], file.exists()) == (2, True)
    assert not is_free(path_of(home))
    taken.release()
    taken.release()
    assert is_free(path_of(home))
    assert locks._descriptors == set()


class TestWithoutLocksOfTheSystem:
    @pytest.fixture(autouse=True)
    def without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locks, "_lock", lambda descriptor, *, is_shared: None)

    def test_two_runs_of_one_process_do_not_share_a_journal(self, home: Path) -> None:
        store = Store.open(path_of(home), RUN)
        with pytest.raises(InUse):
            Store.open(path_of(home), RUN)
        store.close()
        Store.open(path_of(home), RUN).remove()

    def test_a_process_of_the_same_number_is_another_one(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Numbers of processes come back: what tells them apart is when they started."""
        monkeypatch.setattr(owners_module, "_started", lambda pid: 1)
        store = Store.open(path_of(home), RUN)
        store.close()
        rewrite_owner(home, pid=os.getppid())
        with pytest.raises(InUse):
            Store.open(path_of(home), RUN)
        monkeypatch.setattr(owners_module, "_started", lambda pid: 2)
        Store.open(path_of(home), RUN).remove()

    def test_another_host_is_gone_when_it_has_been_silent(self, home: Path) -> None:
        Store.open(path_of(home), RUN).close()
        rewrite_owner(home, host="elsewhere")
        with pytest.raises(InUse, match="on elsewhere"):
            Store.open(path_of(home), RUN)
        give_up(path_of(home), None)
        assert path_of(home).exists()
        with closing(sqlite3.connect(path_of(home))) as connection:
            connection.execute("UPDATE run SET updated_at = ?", (int((time.time() - FOREIGN_SECONDS - 1) * 1000),))
            connection.commit()
        Store.open(path_of(home), RUN).remove()


class TestMarks:
    """What the names of temporary files hold: those of killed processes are told to who goes on, and nobody else's."""

    def test_of_all_that_were_killed(self, home: Path) -> None:
        Store.open(path_of(home), RUN).close()
        for mark in ("0" * 12, "1" * 12):
            rewrite_owner(home, pid=2**22, mark=mark)  # no process has such a number
            store = Store.open(path_of(home), RUN)
            store.close()
        assert store.earlier_marks == ("0" * 12, "1" * 12)
        store = Store.open(path_of(home), RUN)
        assert store.earlier_marks == ("0" * 12, "1" * 12)  # the one before is this process, which lives
        store.release("stopped")
        store = Store.open(path_of(home), RUN)
        assert store.earlier_marks == ("0" * 12, "1" * 12)
        store.remove()

    @pytest.mark.parametrize("mark", ["", "x" * 12, "0" * 11, ".part", 7, None])
    def test_of_what_is_no_mark_nothing_is_told(self, home: Path, mark: object) -> None:
        Store.open(path_of(home), RUN).close()
        rewrite_owner(home, pid=2**22, mark=mark)
        store = Store.open(path_of(home), RUN)
        assert store.earlier_marks == ()
        store.remove()

    def test_of_a_process_that_gave_its_journal_up_nothing_is_told(self, home: Path) -> None:
        """It may be at work on something else, in the same folders."""
        Store.open(path_of(home), RUN).close()
        rewrite_owner(home, pid=os.getppid(), started=owners_module._started(os.getppid()), mark="2" * 12)
        assert Owner.me().mark == process_mark()
        try:
            store = Store.open(path_of(home), RUN)
        except InUse:
            return  # where the lock cannot tell, it works
        assert store.earlier_marks == ()
        store.remove()


@pytest.mark.parametrize("state", ["failed", None])
def test_what_could_not_be_kept_to_the_end_is_given_up_afterwards(home: Path, state: str | None) -> None:
    """Of a run that is complete nothing stays that could be believed later."""
    store = Store.open(path_of(home), RUN)
    store.add([ENTRY])
    store.close()
    give_up(path_of(home), state)
    if state is None:
        assert list(journal_folder(home).iterdir()) == []
    else:
        found = summary(journal_folder(home), RUN.run_id)
        assert (found.state, found.owner, found.objects) == (state, "", 1)


def test_what_another_run_has_by_now_is_not_given_up(home: Path) -> None:
    store = Store.open(path_of(home), RUN)
    give_up(path_of(home), None)
    assert summary(journal_folder(home), RUN.run_id).state == "running"
    store.release("stopped")


CLAIMANT = """
import sys
from pathlib import Path
from asyncsdk.engine.journal import RunRecord
from asyncsdk.engine.journal.claims import InUse
from asyncsdk.engine.journal.store import Store
try:
    store = Store.open(Path(sys.argv[1]), RunRecord("upload", {"place": "/photos"}, {"place": "/photos"}))
    print("went on" if store.has_entries else "began")
    store.release("stopped")
except InUse as error:
    print(error)
"""


def contained(host: str, program: str, path: Path, **settings: Any) -> subprocess.Popen[str]:
    """Start a program as the first process of a container: its own numbers of processes, its own host name."""
    command = f'hostname {host} && exec "$@"'
    return subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "sh", "-c", command, "-",
         sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE, text=True, **settings,
    )  # fmt: skip


@pytest.fixture
def containers() -> None:
    """Skip where this user may not make any."""
    if shutil.which("unshare") is None:
        pytest.skip("no program 'unshare' (util-linux)")
    tried = ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "hostname", "pod"]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("this user may not make namespaces")


@pytest.mark.usefixtures("containers")
def test_containers_know_each_other_by_the_lock(home: Path) -> None:
    """Two of one name, each with a process 1: while the first works the other has no journal. The first is killed, and
    started anew under another name: it goes on."""
    with contained("pod", KEEPER, path_of(home)) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline().strip() == "0"
            assert summary(journal_folder(home), RUN.run_id).owner == "pod:1"
            with contained("pod", CLAIMANT, path_of(home)) as second:
                assert second.communicate(timeout=60)[0].strip() == "process 1 on pod keeps it"
        finally:
            first.kill()
            first.communicate()
    with contained("pod-again", CLAIMANT, path_of(home)) as again:
        assert again.communicate(timeout=60)[0].strip() == "went on"
    assert summary(journal_folder(home), RUN.run_id).state == "stopped"


# --- the start of the machine --------------------------------------------------------------------------------


class System:
    """A machine without ``/proc``: what its ``sysctl`` tells, by name."""

    def __init__(self, **known: bytes) -> None:
        self.known = known

    def sysctlbyname(self, name: bytes, value: Any, size: Any, new: None, new_size: int) -> int:
        found = self.known.get(name.decode().replace(".", "_"))
        if found is None or len(found) > size._obj.value:
            return -1
        value.raw = found.ljust(len(value.raw), b"\0")
        size._obj.value = len(found)
        return 0


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[object], int]]:
    """Start a machine without ``/proc`` anew: what it says of its start, as a number, to a process of its own."""
    monkeypatch.setattr(owners_module, "_BOOT_ID", tmp_path / "absent")

    def begin(system: object) -> int:
        monkeypatch.setattr(owners_module, "_c_library", lambda: system)
        owners_module._boot_id.cache_clear()
        owners_module.boot_number.cache_clear()
        return owners_module.boot_number()

    yield begin
    monkeypatch.undo()
    owners_module._boot_id.cache_clear()
    owners_module.boot_number.cache_clear()


def test_the_start_of_a_machine_is_told_without_proc(start: Callable[[object], int]) -> None:
    """By the id that the system gives to it: the same in every process, another after the next start."""
    one, other = (System(kern_bootsessionuuid=f"{letter * 8}-0000\0".encode()) for letter in "AB")
    assert start(one) == start(one)
    assert Owner.me().boot == "AAAAAAAA-0000"
    assert start(one) != start(other)


def test_a_start_that_nobody_can_tell_is_another_one(start: Callable[[object], int]) -> None:
    """For each process: what an earlier one wrote is read then, and within one nothing changes."""
    for unknown in (System(), object()):
        number = start(unknown)
        assert number == owners_module.boot_number()
        assert Owner.me().boot == ""
        assert Owner.me().is_me()
        assert len({start(unknown) for _ in range(3)}) == 3
