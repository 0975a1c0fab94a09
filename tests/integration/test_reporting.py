"""Verify, retry, events and logs of the command line: what a script relies on."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asyncsdk.cli.exits import ExitCode
from tests.support.commands import Caller

SECRET = "s3cr3t-signature"


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], home: Path) -> Caller:
    return Caller(capfd)


@dataclass
class Store:
    """What a server keeps, and what it refuses.

    Attributes:
        refused: Status for a path, until it is removed.
        once: Status for the first request of a path.
        puts: How often each path was sent.
        on_put: Called with the path when the bytes of a request have come, before it is answered.
    """

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    once: dict[str, int] = field(default_factory=dict)
    puts: Counter[str] = field(default_factory=Counter)
    on_put: Callable[[str], None] = lambda path: None


@pytest.fixture
def store() -> Iterator[Store]:
    found = Store()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            path = self.path.partition("?")[0]
            found.puts[path] += 1
            found.on_put(path)
            status = found.refused.get(path) or found.once.pop(path, 200)
            if status == 200:
                found.objects[path] = data
            body = b"" if status == 200 else f"<Error>{self.path}</Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield found
        server.shutdown()
        thread.join()


def files(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}").write_bytes(b"%d" % number)
    return folder


def manifest(path: Path, folder: Path, store: Store) -> Path:
    path.write_text(
        "".join(
            json.dumps({"source": str(file), "url": f"{store.url}/{file.name}?sig={SECRET}",
                        "headers": {"x-token": SECRET}}) + "\n"
            for file in sorted(folder.iterdir())
        )
    )  # fmt: skip
    return path


# --- files that change ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "status", "sent", "stored"),
    [
        ((), ExitCode.SOME_FAILED, 1, b"old"),
        (("--source-changed", "fail"), ExitCode.SOME_FAILED, 1, b"old"),
        (("--source-changed", "retry"), ExitCode.OK, 2, b"new"),
        (("--source-changed", "accept"), ExitCode.OK, 1, b"old"),
    ],
)
@pytest.mark.parametrize("size", [100_000, 1000])
def test_a_file_that_changes_while_it_is_sent(
    call: Caller,
    store: Store,
    tmp_path: Path,
    policy: tuple[str, ...],
    status: ExitCode,
    sent: int,
    stored: bytes,
    size: int,
) -> None:
    """It fails, unless told to send it again or not to look. The smaller one is read whole before it is sent."""
    folder = files(tmp_path / "files", 1)
    (folder / "000").write_bytes(b"old" * size)

    def change(path: str) -> None:
        if store.puts[path] == 1:
            (folder / "000").write_bytes(b"new" * (size + 1))

    store.on_put = change
    said = call("transfer", manifest(tmp_path / "m.jsonl", folder, store), "--json", *policy)
    assert said.status == status
    assert said.summary["failures_by_code"] == ({"source_changed": 1} if status else {})
    assert (store.puts["/000"], store.objects["/000"][:3]) == (sent, stored)


# --- retry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report_name", ["first.jsonl", "second.jsonl"])
def test_retry_does_again_the_ten_that_failed(call: Caller, store: Store, tmp_path: Path, report_name: str) -> None:
    """Of a hundred, ten fail for three reasons; the retry sends those and no other, and then nothing is left."""
    folder = files(tmp_path / "files", 100)
    lines = manifest(tmp_path / "m.jsonl", folder, store)
    bad = {f"/{number:03}" for number in range(0, 100, 10)}
    store.refused = dict.fromkeys(sorted(bad)[:4], 403) | dict.fromkeys(sorted(bad)[4:8], 400)
    gone = [folder / path[1:] for path in sorted(bad)[8:]]
    contents = [path.read_bytes() for path in gone]
    for path in gone:
        path.unlink()
    first, second = tmp_path / "first.jsonl", tmp_path / report_name
    said = call("transfer", lines, "--report", first, "--json")
    assert said.status == ExitCode.SOME_FAILED
    assert said.summary["failures_by_code"] == {"permission_denied": 4, "bad_request": 4, "source_not_found": 2}
    failed = {
        entry["source"] for entry in map(json.loads, first.read_text().splitlines()) if entry["status"] == "failed"
    }
    assert failed == {str(folder / path[1:]) for path in bad}
    before = first.read_bytes()
    store.refused.clear()
    store.puts.clear()
    for path, content in zip(gone, contents, strict=True):
        path.write_bytes(content)
    said = call("transfer", lines, "--retry", first, "--report", second, "--json")
    assert (said.status, said.summary["done"], said.summary["failed"]) == (0, 10, 0)
    assert store.puts == dict.fromkeys(bad, 1)
    assert store.objects == {f"/{number:03}": b"%d" % number for number in range(100)}
    if second != first:
        assert first.read_bytes() == before
    store.puts.clear()
    said = call("transfer", lines, "--retry", second, "--json")
    assert (said.status, said.summary["done"], dict(store.puts)) == (0, 0, {})


def test_retry_counts_what_is_in_the_manifest_no_more(call: Caller, store: Store, tmp_path: Path) -> None:
    """Failures whose line is gone stay failures, in the summary, the exit status and the next report; none is lost."""
    folder = files(tmp_path / "files", 6)
    lines, report = manifest(tmp_path / "m.jsonl", folder, store), tmp_path / "r.jsonl"
    store.refused = dict.fromkeys([f"/{number:03}" for number in range(4)], 403)
    assert call("transfer", lines, "--report", report).status == ExitCode.SOME_FAILED
    store.refused.clear()
    store.puts.clear()
    kept = lines.read_text().splitlines(keepends=True)[1:]
    lines.write_text("".join(reversed(kept)))  # the first failure is not in it, the others stand elsewhere
    said = call("transfer", lines, "--retry", report, "--report", report, "--json")
    assert (said.status, said.summary["done"], said.summary["failed"]) == (ExitCode.SOME_FAILED, 3, 1)
    assert said.summary["failures_by_code"] == {"invalid_row": 1}
    assert dict(store.puts) == {f"/{number:03}": 1 for number in (1, 2, 3)}
    failed = [row for row in map(json.loads, report.read_text().splitlines()) if row["status"] == "failed"]
    assert [row["source"] for row in failed] == [str(folder / "000")]
    lines.write_text("")
    said = call("transfer", lines, "--retry", report, "--json")
    assert (said.status, said.summary["failed"]) == (ExitCode.SOME_FAILED, 1)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(report.read_bytes()))
    writer.start()
    said = call("transfer", lines, "--retry", tmp_path / "pipe", "--json")  # which can be read only once
    writer.join()
    assert (said.status, said.summary["failed"]) == (ExitCode.SOME_FAILED, 1)


def test_retry_of_the_report_of_a_killed_run_says_that_it_is_not_the_whole(
    call: Caller, store: Store, tmp_path: Path
) -> None:
    """A report without its last line holds what failed, and not what was never begun."""
    folder = files(tmp_path / "files", 6)
    lines, report = manifest(tmp_path / "m.jsonl", folder, store), tmp_path / "r.jsonl"
    store.refused = {"/000": 403}
    assert call("transfer", lines, "--report", report).status == ExitCode.SOME_FAILED
    whole = report.read_text().splitlines(keepends=True)
    assert json.loads(whole[-1])["status"] == "complete"
    failure = next(line for line in whole if "permission_denied" in line)
    report.write_text(failure)  # what a process leaves that was killed after its first object
    store.refused.clear()
    said = call("transfer", lines, "--retry", report, "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert "run the command again without --retry" in said.err
    assert json.loads(report.read_text().splitlines()[-1])["status"] == "incomplete"


def test_files_that_a_command_writes_are_not_among_those_it_uploads(call: Caller, tmp_path: Path) -> None:
    folder = files(tmp_path / "files", 3)
    arguments = ["--report", folder / "r.jsonl", "--events", folder / "e.jsonl"]
    for _ in range(2):
        assert call("upload", folder, "d", "--create", *arguments).status == 0
    said = call("verify", "d", folder, "--exclude", "/[re].jsonl", "--json")
    assert (said.status, said.summary["done"]) == (0, 3)


# --- verify --------------------------------------------------------------------------------------------------


def test_verify_compares_without_moving(call: Caller, tmp_path: Path) -> None:
    """Exit status, report and lines for a folder that is the same, and one that is not."""
    folder, report = files(tmp_path / "files", 5), tmp_path / "files" / "report.jsonl"
    assert call("upload", folder, "d", "--create").status == 0
    said = call("verify", "d", folder, "--json", "--report", report)
    assert said.status == ExitCode.OK
    assert (said.summary["done"], said.summary["failed"], said.summary["bytes_done"]) == (5, 0, 5)
    assert {(row["status"], row["verified"]) for row in said.records[:-1]} == {("done", True)}
    (folder / "000").write_bytes(b"changed")
    (folder / "001").write_bytes(b"x")
    (folder / "002").unlink()
    (folder / "new").touch()
    said = call("verify", "d", folder, "--json", "--report", report)
    assert said.status == ExitCode.DIFFERENT == 9
    codes = {"000": "different", "001": "different", "002": "missing_locally", "new": "missing_remotely"}
    *rows, end = [json.loads(line) for line in report.read_text().splitlines()]
    assert (said.records[:-1], end["status"]) == (rows, "complete")
    assert {row["name"]: row["code"] for row in rows if row["status"] == "failed"} == codes
    assert {row["operation"] for row in rows} == {"verify"}
    assert said.summary["failures_by_code"] == dict(Counter(codes.values()))
    for name in codes:
        assert name in said.err
    assert "4 differ" in said.err
    assert (
        call("verify", "d", folder, "--exclude", "00[0-2]", "--exclude", "new", "-q", "--exclude", "*.jsonl").status
        == 0
    )
    assert call("items", "list", "d", "--json").out.count("\n") == 5
    assert call("verify", "d", tmp_path / "nowhere").status == ExitCode.NOT_FOUND
    assert call("verify", "nobody", folder).status == ExitCode.NOT_FOUND


def test_checkpoint_verify_compares_a_file(call: Caller, tmp_path: Path) -> None:
    """By name of the file, or of the folder it lies in."""
    weights = tmp_path / "last.pt"
    weights.write_bytes(os.urandom(100_000))
    assert call("checkpoint", "upload", weights, "m", "--create", "--epoch", 3).status == 0
    assert call("checkpoint", "verify", "m", weights, "--which", 3).status == 0
    assert call("checkpoint", "verify", "m", tmp_path, "--which", "last").status == 0
    weights.write_bytes(b"other")
    said = call("checkpoint", "verify", "m", weights, "--which", "last", "--json")
    assert said.status == ExitCode.DIFFERENT
    assert said.records[0]["code"] == "different"
    assert call("checkpoint", "verify", "m", weights, "--which", "best").status == ExitCode.NOT_FOUND


# --- events and summary --------------------------------------------------------------------------------------


def test_events_are_written_as_lines(call: Caller, store: Store, tmp_path: Path) -> None:
    """To a file beside everything else, or to standard output; every object has its end."""
    folder = files(tmp_path / "files", 20)
    lines = manifest(tmp_path / "m.jsonl", folder, store)
    store.once = {"/003": 503}
    store.refused = {"/007": 403}
    events = tmp_path / "events.jsonl"
    said = call("transfer", lines, "--events", events, "--json")
    assert said.status == ExitCode.SOME_FAILED
    rows = [json.loads(line) for line in events.read_text().splitlines()]
    assert (rows[0]["event"], rows[-1]["event"]) == ("run_started", "run_ended")
    counts = Counter(row["event"] for row in rows)
    assert (counts["object_finished"], counts["object_failed"], counts["retried"]) == (19, 1, 1)
    assert (rows[-1]["done"], rows[-1]["failed"], rows[-1]["is_complete"]) == (19, 1, True)
    assert SECRET not in events.read_text()
    assert {"bottleneck", "bottleneck_share", "waits", "cpu_share"} <= said.summary.keys()
    said = call("transfer", lines, "--events", "-", "-q")
    assert [record["event"] for record in said.records][-1] == "run_ended"


def test_events_of_every_command(call: Caller, tmp_path: Path) -> None:
    """Whatever moves objects tells what happens."""
    folder, events = files(tmp_path / "files", 3), tmp_path / "events.jsonl"
    weights = tmp_path / "w"
    weights.write_bytes(b"weights")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(
        json.dumps({"path": "000", "predictions": [{"category": "c", "score": 0.1}], "pad": "x" * 1000}) + "\n"
        for _ in range(1)
    ))  # fmt: skip
    for arguments in (
        ["upload", folder, "d", "--create"],
        ["download", "d", tmp_path / "copy"],
        ["checkpoint", "upload", weights, "m", "--create", "--best"],
        ["checkpoint", "download", "m", tmp_path / "back"],
    ):
        assert call(*arguments, "--events", events, "--quiet").status == 0
        seen = [json.loads(line)["event"] for line in events.read_text().splitlines()]
        assert (seen[0], seen[-1]) == ("run_started", "run_ended")
        assert "object_finished" in seen
    common = ["--task", "t", "--create", "--kind", "classification", "--category", "c", "--events", events]
    assert call("predictions", "upload", rows, "d", *common).status in (ExitCode.OK, ExitCode.SOME_FAILED)


@pytest.mark.parametrize("other", ["m.jsonl", "report.jsonl", "retried.jsonl"])
def test_events_overwrite_nothing_else(call: Caller, store: Store, tmp_path: Path, other: str) -> None:
    """Neither the manifest, nor the report, nor the one that is retried."""
    lines = manifest(tmp_path / "m.jsonl", files(tmp_path / "files", 1), store)
    assert call("transfer", lines, "--report", tmp_path / "retried.jsonl").status == 0
    before = (tmp_path / other).read_bytes() if (tmp_path / other).exists() else None
    said = call("transfer", lines, "--report", tmp_path / "report.jsonl", "--retry", tmp_path / "retried.jsonl",
                "--events", tmp_path / other)  # fmt: skip
    assert said.status == ExitCode.USAGE
    assert "--events would overwrite" in said.err
    assert ((tmp_path / other).read_bytes() if before is not None else None) == before


def test_events_that_cannot_be_written_end_the_command(call: Caller, store: Store, tmp_path: Path) -> None:
    """A folder in the way, and a disk that is full."""
    lines = manifest(tmp_path / "m.jsonl", files(tmp_path / "files", 1), store)
    assert call("transfer", lines, "--events", tmp_path).status == ExitCode.LOCAL
    if Path("/dev/full").exists():
        said = call("transfer", lines, "--events", "/dev/full")
        assert said.status == ExitCode.LOCAL
        assert "Traceback" not in said.err


# --- logs ----------------------------------------------------------------------------------------------------


def test_no_log_line_holds_a_secret(
    call: Caller, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything that any library logs at DEBUG while an upload fails in many ways; and all that the command says."""
    folder = files(tmp_path / "files", 12)
    lines = manifest(tmp_path / "m.jsonl", folder, store)
    store.refused = {"/001": 403, "/002": 400, "/003": 500, "/004": 429, "/005": 307}
    with lines.open("a") as file:
        for url in ("http://127.0.0.1:9/refused", "http://nobody.invalid/x", "http://[::1", "ftp://h/x"):
            line = {"source": str(folder / "000"), "url": f"{url}?sig={SECRET}", "headers": {"Authorization": SECRET}}
            file.write(json.dumps(line) + "\n")
        bad = {
            "source": str(folder / "000"),
            "url": f"{store.url}/h?sig={SECRET}",
            "headers": {"X-A": f"{SECRET}\r\nB: c"},
        }
        file.write(json.dumps(bad) + "\n")
    caplog.set_level(logging.DEBUG)
    report, events = tmp_path / "report.jsonl", tmp_path / "events.jsonl"
    said = call("transfer", lines, "--report", report, "--events", events, "--json", "--debug")
    assert said.status == ExitCode.SOME_FAILED
    assert said.summary["failed"] == 10
    for text in (said.out, said.err, report.read_text(), events.read_text(), caplog.text):
        assert SECRET not in text


def test_no_log_line_of_a_platform_holds_its_token(
    call: Caller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Signed URLs and the token of a served platform, while uploading and downloading with every logger at DEBUG."""
    from tests.support.server import RunningServer

    caplog.set_level(logging.DEBUG)
    folder = files(tmp_path / "files", 5)
    with RunningServer(tmp_path / "platform") as server:
        common = ["--url", server.url, "--token", server.token, "--debug", "--json"]
        said = [
            call("upload", folder, "d", "--create", *common),
            call("download", "d", tmp_path / "copy", *common),
            call("download", "d", tmp_path / "copy", "--on-existing", "fail", *common),
        ]
        assert [one.status for one in said] == [0, 0, ExitCode.SOME_FAILED]
        token = server.token
    text = "".join(one.out + one.err for one in said) + caplog.text
    assert caplog.records
    assert token not in text
    assert "signature=" not in text
