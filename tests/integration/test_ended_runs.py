"""Runs that were ended because too much failed: report, exit status and journal, and going on with them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode
from asyncsdk.engine import TransferConfig
from asyncsdk.engine.journal import journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.errors import TooManyFailures

COUNT = 3000
COUNT_MOVED = 100


class Refusing(BaseHTTPRequestHandler):
    """Answers every upload with the status of its class."""

    protocol_version = "HTTP/1.1"
    status = 403
    asked = 0
    taken = 0
    """So many are taken first."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        self.send_response(200 if self.asked <= self.taken else self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def handler() -> type[Refusing]:
    return type("OwnRefusing", (Refusing,), {})


@pytest.fixture
def bucket(handler: type[Refusing]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "option", "code", "word"),
    [(403, "--max-failures=20", "permission_denied", "objects failed"), (503, "--outage=1", "circuit_open", "out for")],
)
def test_a_command_ends_early_and_goes_on_later(
    handler: type[Refusing],
    bucket: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    status: int,
    option: str,
    code: str,
    word: str,
) -> None:
    """A bucket that refuses everything: few lines have failed, the report says that others are missing, and the same
    command moves all of them when the bucket takes them."""
    (tmp_path / "file").write_bytes(b"x" * 10)
    manifest, report = tmp_path / "m.jsonl", tmp_path / "r.jsonl"
    manifest.write_text(
        "".join(
            json.dumps({"source": str(tmp_path / "file"), "url": f"{bucket}/{number}?sig=s3cret", "key": str(number)})
            + "\n"
            for number in range(COUNT)
        )
    )
    handler.status = status
    command = ["transfer", str(manifest), "--report", str(report), "--concurrency", "8"]
    assert main([*command, option]) == ExitCode.SOME_FAILED
    said = capfd.readouterr().err
    assert word in said
    assert "s3cret" not in said + report.read_text()
    *told, end = map(json.loads, report.read_text().splitlines())
    assert end["status"] == "incomplete"
    # Whoever was tried last while all others waited says what it was told itself.
    others = [line for line in told if line["code"] != code]
    assert {line["code"] for line in others} <= {"server_error"} - {code}
    assert len(others) <= 8 < len(told) < COUNT
    assert handler.asked < 400
    handler.status, handler.asked = 200, 0
    assert main(command) == ExitCode.OK
    *told, end = map(json.loads, report.read_text().splitlines())
    assert (end["status"], len(told)) == ("complete", COUNT)
    assert handler.asked == COUNT


@pytest.mark.parametrize("goes_on", ["by the same command", "by retry"])
def test_lines_that_an_outage_failed_are_gone_on_with(
    handler: type[Refusing], bucket: str, tmp_path: Path, home: Path, goes_on: str
) -> None:
    """All lines have an outcome when the server has been out for too long; those that were moved stay known until the
    others are moved, too."""
    (tmp_path / "file").write_bytes(b"x" * 10)
    manifest, report = tmp_path / "m.jsonl", tmp_path / "r.jsonl"
    lines = [
        json.dumps({"source": str(tmp_path / "file"), "url": f"{bucket}/{number}"})
        for number in range(COUNT_MOVED + 12)
    ]
    manifest.write_text("\n".join(lines))
    handler.status, handler.taken = 503, COUNT_MOVED
    command = ["transfer", str(manifest), "--report", str(report), "--concurrency", "8", "--outage", "1", "--quiet"]
    assert main(command) == ExitCode.SOME_FAILED
    *told, _ = map(json.loads, report.read_text().splitlines())
    done = sum(line["status"] == "done" for line in told)
    assert done >= COUNT_MOVED
    assert any(line["code"] == "circuit_open" for line in told)
    handler.status, handler.asked = 200, 0
    if goes_on == "by retry":
        assert main([*command, "--retry", str(report)]) == ExitCode.OK
        assert handler.asked == len(lines) - done
        assert list(summaries(journal_folder(home))) == []  # what they name may be new the next time
        return
    assert main(command) == ExitCode.OK
    assert handler.asked == len(lines) - done


async def test_an_upload_of_a_folder_keeps_its_journal(tmp_path: Path, home: Path) -> None:
    """What was done before is not done again, and nothing is there twice."""
    folder, later = tmp_path / "photos", tmp_path / "later"
    folder.mkdir()
    for number in range(300):
        (folder / f"a{number:04}.jpg").write_bytes(b"%d" % number)
        (folder / f"b{number:04}.jpg").symlink_to(later)
    async with AsyncClient(data=tmp_path / "data", config=TransferConfig(max_failures=5)) as client:
        dataset = await client.datasets.create("d")
        with pytest.raises(TooManyFailures, match=r"b0\d+\.jpg"):
            await dataset.upload(folder)
        (run,) = summaries(journal_folder(home))
        assert run.state != "complete"
        later.write_bytes(b"now")
        report = await dataset.upload(folder)
        assert (report.done + report.skipped, report.failed) == (600, 0)
        assert len([item async for item in dataset.items.list()]) == 600
    assert list(summaries(journal_folder(home))) == []
