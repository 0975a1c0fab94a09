"""Blocking calls in processes that fork, are interrupted, or exit: each in a real process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREAMBLE = """
import asyncio, os, sys, threading, time
from asyncsdk.errors import ForkedProcessError
from asyncsdk.sync.bridge import on_caller, run
from asyncsdk.sync.iterables import caller_iterable
from asyncsdk.sync.iteration import iterate

async def pid():
    return os.getpid()

async def tell(callback):
    for number in range(3):
        callback(number)
        await asyncio.sleep(0)
    return "told"

def wait(child):
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status

def in_child(function):
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child
"""


def script(body: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(body)]


def run_script(body: str) -> str:
    """Run *body* in a process of its own, warnings as errors, and return what it printed."""
    done = subprocess.run(script(body), cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_process_forks_with_one_thread() -> None:
    """When no call is under way, the loop's thread is gone while the process forks, and comes back afterwards."""
    run_script(
        """
        run(asyncio.to_thread, time.sleep, 0)
        assert threading.active_count() > 1
        child = in_child(lambda: None if threading.active_count() == 1 else sys.exit("threads"))
        wait(child)
        assert threading.active_count() == 1, threading.enumerate()  # started again by the next call only
        assert run(pid) == os.getpid()
        assert run(asyncio.to_thread, os.getpid) == os.getpid()
        """
    )


@needs_fork
def test_child_and_parent_both_go_on() -> None:
    """After a fork the child makes its own calls in a loop of its own, and so does the parent in the old one."""
    run_script(
        """
        async def loop_id():
            return id(asyncio.get_running_loop())
        before = run(loop_id)
        def child_work():
            assert run(pid) == os.getpid()
            assert run(loop_id) != before
            assert run(tell, on_caller(lambda _: None)) == "told"
            wait(in_child(lambda: run(pid)))  # and children of children
        children = [in_child(child_work) for _ in range(3)]
        assert run(loop_id) == before
        for child in children:
            wait(child)
        assert run(tell, on_caller(lambda _: None)) == "told"
        """
    )


@needs_fork
def test_child_that_leaves_normally_is_quiet() -> None:
    """A child that runs its exit handlers, having called or not, says nothing and leaves the parent's loop alone."""
    run_script(
        """
        async def hold():
            await asyncio.Event().wait()
        async def start():
            global task
            task = asyncio.create_task(hold())
        run(start)
        for calls in (0, 1):
            child = os.fork()
            if child == 0:
                if calls:
                    run(pid)
                sys.exit(0)
            wait(child)
            run(asyncio.sleep, 0.001)
        """
    )


@needs_fork
def test_call_under_way_in_the_parent_is_no_call_of_the_child() -> None:
    """A fork inside a callback: the call goes on in the parent and raises ForkedProcessError in the child."""
    out = run_script(
        """
        parent = os.getpid()
        children = []
        def fork(number):
            if number == 1:
                child = os.fork()
                if child == 0:
                    assert run(pid) == os.getpid()  # the child may call from the callback already
                else:
                    children.append(child)
        try:
            result = run(tell, on_caller(fork))
        except ForkedProcessError as error:
            assert os.getpid() != parent
            assert "tell" in str(error)
            assert run(pid) == os.getpid()
            os._exit(0)
        assert os.getpid() == parent
        assert result == "told"
        wait(*children)
        print("parent went on")
        """
    )
    assert out == "parent went on\n"


@needs_fork
def test_exception_of_a_callback_in_the_child() -> None:
    """What the child raises in the callback it was forked in comes out there, at once, and reaches no one else."""
    run_script(
        """
        parent = os.getpid()
        from asyncsdk.sync import bridge
        bridge.CANCEL_GRACE_SECONDS = 1000  # waiting for the parent's call would never end
        children = []
        def fork(number):
            if number == 1:
                child = os.fork()
                if child == 0:
                    raise KeyError("child")
                children.append(child)
        try:
            assert run(tell, on_caller(fork)) == "told"
        except KeyError:
            assert os.getpid() != parent
            os._exit(0)
        wait(*children)
        """
    )


@needs_fork
def test_cleanup_of_the_parents_calls_is_not_run_in_the_child() -> None:
    """What a call of the parent has open (a temporary file) is not removed by a child that exits."""
    run_script(
        """
        import pathlib, tempfile
        folder = tempfile.mkdtemp()
        file = pathlib.Path(folder, "temporary")
        started = threading.Event()
        go_on = threading.Event()
        async def work():
            file.touch()
            try:
                started.set()
                while not go_on.is_set():
                    await asyncio.sleep(0.001)
            finally:
                file.unlink()
        thread = threading.Thread(target=run, args=(work,))
        thread.start()
        started.wait()
        child = os.fork()
        if child == 0:
            run(pid)
            import gc; gc.collect()
            sys.exit(0)
        wait(child)
        assert file.exists()
        go_on.set()
        thread.join()
        assert not file.exists()
        os.rmdir(folder)
        """
    )


@needs_fork
def test_sockets_of_the_parent_are_let_go_in_the_child() -> None:
    """A connection the parent closes ends at once, though a child inherited it; the child sends nothing on it."""
    run_script(
        """
        import signal
        received = bytearray()
        async def serve():
            global server, ended, writer
            ended = asyncio.Event()
            async def handle(reader, out):
                received.extend(await reader.read())
                out.close()
                ended.set()
            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello")
            await writer.drain()
        async def finish():
            writer.close()
            await asyncio.wait_for(ended.wait(), 20)
            server.close()
            await server.wait_closed()
        run(serve)
        def linger():
            run(pid)
            signal.pause()
        child = in_child(linger)
        time.sleep(0.05)
        try:
            run(finish)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert received == b"hello"
        """
    )


@needs_fork
def test_background_tasks_go_on_in_the_parent() -> None:
    """A task of the background is paused by the fork and goes on in the parent without another call."""
    run_script(
        """
        beats = threading.Semaphore(0)
        async def beat():
            while True:
                beats.release()
                await asyncio.sleep(0.001)
        async def start():
            global task
            task = asyncio.create_task(beat())
        run(start)
        wait(in_child(lambda: None))
        while beats.acquire(blocking=False):
            pass
        assert beats.acquire(timeout=20)
        """
    )


@needs_fork
def test_fork_while_other_threads_call() -> None:
    """Forks while calls are under way in other threads disturb neither them nor the children."""
    run_script(
        """
        stop = threading.Event()
        counts = []
        def caller():
            count = 0
            while not stop.is_set():
                assert run(tell, on_caller(lambda _: None)) == "told"
                count += 1
            counts.append(count)
        threads = [threading.Thread(target=caller) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            wait(in_child(lambda: run(tell, on_caller(lambda _: None))))
        stop.set()
        for thread in threads:
            thread.join()
        assert len(counts) == 3 and all(counts)
        """
    )


@needs_fork
def test_multiprocessing_with_fork() -> None:
    """Workers of a forking pool, as data loaders use them, make their own calls."""
    run_script(
        """
        import multiprocessing
        def work(number):
            assert run(pid) == os.getpid()
            return number
        run(pid)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(work, range(8)) == list(range(8))
            pool.close()
            pool.join()
        assert run(pid) == os.getpid()
        """
    )


@needs_fork
def test_iteration_begun_before_the_fork() -> None:
    """An iteration that waits for nothing goes on in both processes, each for itself."""
    run_script(
        """
        async def numbers():
            for number in range(5):
                yield number
        iterator = iterate(numbers(), batch=1)
        assert next(iterator) == 0
        def rest():
            assert list(iterator) == [1, 2, 3, 4]
        child = in_child(rest)
        rest()
        wait(child)
        """
    )


@needs_fork
def test_iteration_that_waits_in_the_parent() -> None:
    """An iteration with something under way says in the child that it belongs to the parent."""
    run_script(
        """
        async def numbers():
            yield 1
            await asyncio.sleep(0.05)
            yield 2
        iterator = iterate(numbers())
        assert next(iterator) == 1
        def refused():
            try:
                next(iterator)
            except ForkedProcessError:
                return
            sys.exit("no error")
        child = in_child(refused)
        assert list(iterator) == [2]
        wait(child)
        """
    )


# --- Ctrl-C ------------------------------------------------------------------------------------------------------


def _interrupted(body: str, *, signals: int = 1) -> tuple[int, str, str]:
    process = subprocess.Popen(
        script(body), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline()]
            assert lines == ["ready\n"]
            for number in range(signals):
                if number:
                    lines.append(process.stdout.readline())
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=50)
        finally:
            process.kill()
    return process.returncode, "".join(lines[1:]) + out, err


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_cancels_waits_for_the_cleanup_and_comes_out() -> None:
    """Ctrl-C in the main thread cancels the call; its cleanup ends before KeyboardInterrupt comes out."""
    status, out, err = _interrupted(
        """
        async def work():
            try:
                print("ready", flush=True)
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                print("cleaned up", flush=True)
        try:
            run(work)
        except KeyboardInterrupt as error:
            assert not getattr(error, "__notes__", None)
            print("interrupted", flush=True)
        assert run(pid) == os.getpid()
        """
    )
    assert (status, out, err) == (0, "cleaned up\ninterrupted\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_second_ctrl_c_does_not_wait() -> None:
    """A second Ctrl-C comes out although the cleanup has not ended."""
    status, out, err = _interrupted(
        """
        import logging; logging.disable()
        from asyncsdk.sync import loop; loop.EXIT_GRACE_SECONDS = 0.05
        async def work():
            print("ready", flush=True)
            while True:
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    print("cancelled", flush=True)
        try:
            run(work)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            os._exit(0)
        """,
        signals=2,
    )
    assert (status, out, err) == (0, "cancelled\ninterrupted\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_while_an_iterable_waits() -> None:
    """Ctrl-C inside the user's own generator ends the call, closes the generator and comes out."""
    status, out, err = _interrupted(
        """
        def rows():
            try:
                yield 1
                print("ready", flush=True)
                time.sleep(40)
            finally:
                print("closed", flush=True)
        async def read(source):
            async for _ in source:
                pass
        try:
            run(read, caller_iterable(rows()))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """
    )
    assert (status, out, err) == (0, "closed\ninterrupted\n", "")


# --- exit --------------------------------------------------------------------------------------------------------


def test_exit_in_the_middle_of_an_iteration() -> None:
    """A program that leaves while it iterates ends, quietly, with its own status."""
    run_script(
        """
        async def numbers():
            while True:
                yield 1
                await asyncio.sleep(0.001)
        for number in iterate(numbers()):
            sys.exit(0)
        """
    )


def test_exit_while_a_daemon_thread_calls() -> None:
    """A call of a daemon thread is cancelled at exit and may clean up."""
    out = run_script(
        """
        started = threading.Event()
        async def work():
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                print("cleaned up", flush=True)
        def call():
            try:
                run(work)
            except BaseException:
                pass
        threading.Thread(target=call, daemon=True).start()
        started.wait()
        """
    )
    assert out == "cleaned up\n"


def test_exit_closes_what_is_open() -> None:
    """A client that is still open at exit is closed; a later call is refused, not hung."""
    out = run_script(
        """
        import atexit
        def too_late():  # runs after the bridge's own handler: handlers run backwards
            try:
                run(pid)
            except RuntimeError as error:
                print("refused" if "exiting" in str(error) else error)
        from asyncsdk.sync import loop
        atexit.unregister(loop._at_exit); atexit.register(too_late); atexit.register(loop._at_exit)
        class Client:
            async def aclose(self):
                await asyncio.sleep(0)
                print("closed")
        client = Client()
        loop.closed_at_exit(client)
        run(pid)
        """
    )
    assert out == "closed\nrefused\n"


def test_exit_without_any_call() -> None:
    """Importing alone starts no thread and costs nothing at exit."""
    run_script("assert threading.active_count() == 1")
