"""The blocking client end to end on the embedded platform: threads, forks, exits."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.errors import ConfigError, NotFound
from asyncsdk.sync.client import Client
from asyncsdk.sync.entities.datasets import Dataset

ROOT = Path(__file__).parents[2]


class Oops(Exception):
    """Raised by the tests."""


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as client:
        yield client


@pytest.fixture
def dataset(client: Client) -> Dataset:
    return client.datasets.create("photos")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.jpg").write_bytes(b"%d" % number * number)
    return folder


def test_folder_there_and_back(dataset: Dataset, folder: Path, tmp_path: Path) -> None:
    """A folder becomes a dataset and comes back byte for byte; all callbacks run on this thread."""
    threads: set[int] = set()
    outcomes = 0

    def count(_: object) -> None:
        nonlocal outcomes
        outcomes += 1
        threads.add(threading.get_ident())

    report = dataset.upload(folder, on_outcome=count, on_progress=lambda _: threads.add(threading.get_ident()))
    report.raise_for_failures()
    assert report.done == outcomes == 40
    assert threads == {threading.get_ident()}
    assert sorted(item.path for item in dataset.items.list()) == sorted(path.name for path in folder.iterdir())
    dataset.download(tmp_path / "copy").raise_for_failures()
    for path in folder.iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()


def test_items_and_rows_come_from_generators_on_this_thread(dataset: Dataset) -> None:
    """Generators of items and of rows are run by the calling thread."""
    threads: set[int] = set()

    def items() -> Iterator[ItemUpload]:
        for number in range(600):
            threads.add(threading.get_ident())
            yield ItemUpload(b"x", f"{number}.txt")

    def rows() -> Iterator[dict[str, object]]:
        for number in range(600):
            threads.add(threading.get_ident())
            yield {"path": f"{number}.txt", "predictions": [{"category": "car", "score": 0.5}]}

    assert dataset.upload(items()).done == 600
    dataset.prediction_tasks.create("detect", kind="classification", categories=["car"])
    assert dataset.upload_predictions("detect", rows()).done == 600
    assert threads == {threading.get_ident()}
    assert len(dataset.predictions.list("detect").to_list()) == 600


def test_exceptions_come_out_unchanged_and_the_client_goes_on(dataset: Dataset, folder: Path) -> None:
    """What a callback or a generator raises ends the upload as it is; the next call works."""
    error = Oops()

    def fail(_: object) -> None:
        raise error

    def broken() -> Iterator[ItemUpload]:
        yield ItemUpload(b"x", "x.txt")
        raise error

    with pytest.raises(Oops) as caught:
        dataset.upload(folder, on_outcome=fail)
    assert caught.value is error
    with pytest.raises(Oops) as caught:
        dataset.upload(broken())
    assert caught.value is error
    assert dataset.upload(folder).ok


def test_weights_from_a_generator(client: Client, tmp_path: Path) -> None:
    """Checkpoints take a plain generator of bytes here."""
    model = client.models.create("detector")
    checkpoint = model.upload_checkpoint((bytes([number]) * 70_000 for number in range(5)), epoch=1, is_best=True)
    assert checkpoint.size_bytes == 350_000
    model.download_checkpoint(tmp_path / "weights", which="best")
    assert (tmp_path / "weights").read_bytes() == b"".join(bytes([number]) * 70_000 for number in range(5))


def test_errors_are_those_of_the_asynchronous_client(client: Client) -> None:
    """Errors are typed; a closed client says so."""
    with pytest.raises(NotFound):
        client.datasets.get("0" * 24)
    client.close()
    with pytest.raises(ConfigError, match="closed"):
        client.datasets.get("0" * 24)


PREAMBLE = """
import os, sys, threading
from pathlib import Path
from asyncsdk.sync.client import Client

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

folder = Path(sys.argv[1])
"""


def _run(body: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(body), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


needs_fork = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")


@needs_fork
def test_client_opened_before_the_fork_works_in_both(folder: Path) -> None:
    """A client and its entities made before the fork are usable in every child and in the parent."""
    _run(
        """
        client = Client()
        dataset = client.datasets.create("photos")
        dataset.upload(folder).raise_for_failures()
        def work(number):
            assert len(dataset.items.list().to_list()) == 40
            own = client.datasets.create(f"child {number}")
            own.upload(folder).raise_for_failures()
        children = [in_child(lambda: work(number)) for number in range(3)]
        assert len(dataset.items.list().to_list()) == 40
        for child in children:
            wait(child)
        assert sorted(d.name for d in client.datasets.list()) == ["child 0", "child 1", "child 2", "photos"]
        client.close()
        """,
        folder,
    )


@needs_fork
def test_workers_of_a_forking_pool_share_a_client(folder: Path) -> None:
    """A dataset made in the parent is pickled to, and inherited by, workers as data loaders use them."""
    _run(
        """
        import multiprocessing
        client = Client()
        dataset = client.datasets.create("photos")
        dataset.upload(folder).raise_for_failures()
        def read(path):
            return dataset.items.get(path=path).read()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            names = [f"{number}.jpg" for number in range(40)]
            assert pool.map(read, names) == [folder.joinpath(name).read_bytes() for name in names]
            pool.close()
            pool.join()
        client.close()
        """,
        folder,
    )


@needs_fork
def test_child_that_exits_leaves_the_parent_alone(folder: Path) -> None:
    """A child that exits normally, inside of ``with``, neither closes nor disturbs what the parent uses."""
    _run(
        """
        with Client() as client:
            dataset = client.datasets.create("photos")
            dataset.upload(folder).raise_for_failures()
            child = os.fork()
            if child == 0:
                sys.exit(0)
            wait(child)
            assert len(dataset.items.list().to_list()) == 40
        """,
        folder,
    )


def test_program_that_ends_without_closing_is_quiet(folder: Path) -> None:
    """A client that nobody closed is closed when the program ends, also half-way through a listing."""
    _run(
        """
        client = Client()
        dataset = client.datasets.create("photos")
        dataset.upload(folder).raise_for_failures()
        for item in dataset.items.list():
            break
        """,
        folder,
    )
