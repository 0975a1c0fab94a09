"""A platform as a process of its own: started, used, stopped by a signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol.datasets import CreateDataset, GetDataset
from asyncsdk.protocol.items import ListItems, PrepareDownloads
from asyncsdk.protocol.uploads import CommitEntry, CommitUploads, PrepareUploads, UploadEntry
from tests.support.server import ServedProcess


async def upload_one(platform: RestPlatform, dataset_id: str, path: str, data: bytes) -> None:
    digest = crc32c_hex(crc32c(data))
    entry = UploadEntry(path=path, size_bytes=len(data), crc32c=digest)
    prepared = (await platform.send(PrepareUploads(dataset_id=dataset_id, entries=(entry,)))).entries[0]
    assert prepared.key is not None
    assert prepared.target is not None
    httpx.put(prepared.target.url, content=data).raise_for_status()
    commit = CommitEntry(item_id=make_id(), path=path, key=prepared.key, size_bytes=len(data), crc32c=digest)
    reply = await platform.send(CommitUploads(dataset_id=dataset_id, entries=(commit,)))
    assert reply.entries[0].verdict == "created"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_is_used_and_ends_cleanly_on_a_signal(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "data"
    with ServedProcess(folder) as served:
        platform = RestPlatform(served.url, served.token)
        dataset = await platform.send(CreateDataset(name="photos"))
        await upload_one(platform, dataset.id, "a/b.bin", b"bytes" * 1000)
        item = (await platform.send(ListItems(dataset_id=dataset.id))).entries[0]
        origins = (await platform.send(PrepareDownloads(dataset_id=dataset.id, item_ids=(item.id,)))).origins
        assert origins[0] is not None
        assert httpx.get(origins[0].url).content == b"bytes" * 1000
        status, output, errors = served.terminate(number)
        assert (status, output, errors) == (0, "", "")
        await platform.aclose()
    assert len([path for path in (folder / "objects").rglob("*") if path.is_file()]) == 1
    assert not (folder / "asyncsdk.db-wal").exists(), "the database was closed"
    assert oct((folder / "token").stat().st_mode & 0o777) == "0o600"


async def test_two_processes_serve_one_folder_and_the_next_one_finds_everything(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with ServedProcess(folder) as first, ServedProcess(folder) as second:
        assert first.token == second.token
        assert first.url != second.url
        one, two = RestPlatform(first.url, first.token), RestPlatform(second.url, second.token)
        dataset = await one.send(CreateDataset(name="photos"))
        await upload_one(two, dataset.id, "two", b"2")
        await upload_one(one, dataset.id, "one", b"1")
        assert (await two.send(GetDataset(dataset_id=dataset.id))).item_count == 2
        await one.aclose()
        await two.aclose()
        assert [served.terminate()[0] for served in (first, second)] == [0, 0]
    with ServedProcess(folder) as third:
        platform = RestPlatform(third.url, third.token)
        page = await platform.send(ListItems(dataset_id=dataset.id))
        assert [item.path for item in page.entries] == ["two", "one"]
        await platform.aclose()


def test_a_running_request_is_finished_before_the_process_ends(tmp_path: Path) -> None:
    from urllib.parse import urlsplit

    from asyncsdk.server.objects.minting import UrlMinter
    from asyncsdk.server.objects.signing import Signer

    data = os.urandom(200_000)
    with ServedProcess(tmp_path) as served:
        minter = UrlMinter(Signer((tmp_path / "secret").read_bytes()), served.url)
        object_id = make_id()
        url = urlsplit(minter.target(object_id, size_bytes=len(data), crc32c=None).url)  # type: ignore[union-attr]
        with socket.create_connection((url.hostname, url.port)) as connection:
            connection.settimeout(30)
            head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data[:100_000])
            # The second connection is answered: the first one's request has begun.
            assert httpx.get(f"{served.url}/health").status_code == 200
            served.process.send_signal(signal.SIGTERM)
            for _ in range(1000):
                try:
                    socket.create_connection((url.hostname, url.port)).close()
                except OSError:
                    break
            connection.sendall(data[100_000:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert served.process.wait(30) == 0


@pytest.mark.parametrize(
    ("numbers", "status"),
    [((signal.SIGTERM, signal.SIGTERM), 128 + signal.SIGTERM), ((signal.SIGTERM, signal.SIGINT), 0)],
)
def test_a_second_signal_does_not_wait_for_running_requests(
    tmp_path: Path, numbers: tuple[int, int], status: int
) -> None:
    """Another SIGTERM ends the process at once; Ctrl-C ends it cleanly, but for the requests."""
    with ServedProcess(tmp_path) as served:
        url = httpx.URL(served.url)
        with socket.create_connection((url.host, url.port or 0)) as connection:
            head = "POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
            connection.sendall(f"{head}Authorization: Bearer {served.token}\r\n\r\n".encode())
            assert httpx.get(f"{served.url}/health").status_code == 200
            served.process.send_signal(numbers[0])
            for _ in range(1000):
                try:
                    socket.create_connection((url.host, url.port or 0)).close()
                except OSError:
                    break
            served.process.send_signal(numbers[1])
            assert served.process.wait(30) == status


def test_a_third_signal_ends_a_process_whose_threads_do_not_end(tmp_path: Path) -> None:
    """A bucket, or a file system, that does not answer."""
    script = """
        import sys, threading
        from pathlib import Path
        from asyncsdk.server.backend import Backend
        from asyncsdk.server.http.server import HttpServer
        server = HttpServer(Backend.open(Path(sys.argv[1])), port=0)
        begun = threading.Event()
        def stuck():
            begun.set()
            threading.Event().wait()
        server._pool.submit(stuck)
        begun.wait()
        server.run(lambda url: print(url, flush=True))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = httpx.URL(process.stdout.readline().strip())
        process.send_signal(signal.SIGINT)
        while True:
            try:
                socket.create_connection((url.host, url.port or 0)).close()
            except OSError:
                break
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.returncode == 128 + signal.SIGINT
    finally:
        process.kill()
        process.communicate()


def test_a_taken_port_and_a_bad_folder_are_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "asyncsdk.server.http", str(tmp_path / "data"), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert port in done.stderr
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "asyncsdk.server.http", str(tmp_path / "file"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
