"""The command line, as a user runs it: processes, exit statuses, what stands on which stream."""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.reports import read_failed

WAIT_SECONDS = 50


class Said(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; fails when anything else stands there."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = self.records[-1]["summary"]
        return found


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "asyncsdk", *map(str, arguments)]


def run(*arguments: object, stdin: str | None = None, **environment: str) -> Said:
    """Run a command as a process of its own."""
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        env={**os.environ, **environment},
    )
    return Said(done.returncode, done.stdout, done.stderr)


class Caller:
    """Runs commands in this process, which is ten times faster."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: object) -> Said:
        self._capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Said(status, *self._capfd.readouterr())


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capfd)


class Served(NamedTuple):
    url: str
    token: str
    folder: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``asyncsdk serve`` on a free port."""
    folder = tmp_path_factory.mktemp("served") / "data"
    process = subprocess.Popen(
        command("serve", "--no-worker", "--port", 0, "--data", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("asyncsdk serves http://127.0.0.1:"), process.communicate()[1]
    yield Served(first.split()[-1], (folder / "token").read_text().strip(), folder)
    process.terminate()
    _, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (0, "")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two folders, a hidden file, an empty one and names that need care."""
    folder = tmp_path / "photos"
    (folder / "train").mkdir(parents=True)
    for name in ("a.jpg", "b.png", ".hidden", "train/c.jpg", "train/grün ü#?.jpg"):
        (folder / name).write_bytes(os.urandom(100))
    (folder / "empty").touch()
    return folder


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_same(one: Path, other: Path) -> None:
    assert files_in(one) == files_in(other)
    assert filecmp.cmpfiles(one, other, files_in(one), shallow=False) == (files_in(one), [], [])


def wait_until_sending(process: subprocess.Popen[str], folder: Path, least_bytes: int = 100 * 1024**2) -> None:
    """Wait until an upload has read *least_bytes* and something of it lies in the platform's *folder*."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        has_arrived = any(path.is_file() for path in (folder / "objects").rglob("*"))
        if has_arrived and psutil.Process(process.pid).io_counters().read_chars > least_bytes:
            return
        time.sleep(0.02)


# --- a dataset there and back --------------------------------------------------------------------------------


def test_folder_goes_to_a_server_and_comes_back(served: Served, photos: Path, tmp_path: Path, home: Path) -> None:
    """Log in, upload, list, download; every byte the same; running it again moves nothing."""
    said = run("login", served.url, stdin=served.token + "\n")
    assert (said.status, said.err) == (0, "")
    assert served.token not in said.out
    assert stat.S_IMODE((home / "profile.json").stat().st_mode) == 0o600
    said = run("whoami", "--json")
    assert said.records[0]["url"] == served.url
    assert said.records[0]["role"] == "owner"
    said = run("upload", photos, "trip/photos", "--create")
    assert (said.status, said.out) == (0, "")
    assert "6 objects done" in said.err
    said = run("upload", photos, "trip/photos", "--json")
    assert (said.summary["done"], said.summary["skipped"]) == (0, 6)
    said = run("items", "list", "photos", "--project", "trip", "--json")
    assert sorted(record["path"] for record in said.records) == files_in(photos)
    assert run("download", "trip/photos", tmp_path / "copy").status == 0
    assert_same(photos, tmp_path / "copy")
    assert run("logout").out == "logged out\n"
    assert not (home / "profile.json").exists()


def test_folder_goes_into_the_embedded_platform(call: Caller, photos: Path, tmp_path: Path, home: Path) -> None:
    """Without a URL everything stays on this machine; --data names another folder, stronger than the profile."""
    assert call("upload", photos, "photos", "--create").status == 0
    assert (home / "data" / "asyncsdk.db").exists()
    assert call("download", "photos", tmp_path / "copy", "--json").summary["done"] == 6
    assert_same(photos, tmp_path / "copy")
    assert call("datasets", "list", "--data", tmp_path / "other", "--json").out == ""
    assert (tmp_path / "other" / "asyncsdk.db").exists()


def test_patterns_choose_files_both_ways(call: Caller, photos: Path, tmp_path: Path) -> None:
    """--include and --exclude may be repeated."""
    said = call("upload", photos, "d", "--create", "--include", "*.jpg", "--include", "*.png", "--exclude", "train")
    assert said.status == 0
    assert call("upload", photos, "d").status == 0
    call("download", "d", tmp_path / "copy", "--include", "*.jpg", "--exclude", "a.*")
    assert files_in(tmp_path / "copy") == ["train/c.jpg", "train/grün ü#?.jpg"]


def test_existing_items_are_refused_when_asked(call: Caller, photos: Path) -> None:
    """--on-existing fail makes every object that is there a failure."""
    call("upload", photos, "d", "--create", "--include", "*.jpg")
    said = call("upload", photos, "d", "--on-existing", "fail", "--json")
    assert said.status == ExitCode.SOME_FAILED
    assert (said.summary["done"], said.summary["failed"], said.summary["failures_by_code"]) == (3, 3, {"conflict": 3})


# --- report and retry ----------------------------------------------------------------------------------------


def test_retry_sends_only_what_failed(call: Caller, photos: Path, tmp_path: Path) -> None:
    """A link that pointed to nothing is mended; the retry moves it and nothing else, into the same report."""
    (photos / "later.jpg").symlink_to(tmp_path / "later")
    report = tmp_path / "report.jsonl"
    said = call("upload", photos, "d", "--create", "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert "[source_not_found]" in said.err
    *lines, end = [json.loads(line) for line in report.read_text().splitlines()]
    assert end == {"operation": "upload", "name": "", "status": "complete"}
    assert sorted(line["name"] for line in lines) == sorted([*files_in(photos), "later.jpg"])
    assert [line["name"] for line in lines if line["status"] == "failed"] == ["later.jpg"]
    (photos / "new.jpg").write_bytes(b"not in the report")
    said = call("upload", photos, "d", "--retry", report, "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    before = report.read_bytes()
    assert call("upload", photos, "d", "--retry", report, "--report", report, "--dry-run").status == ExitCode.USAGE
    assert report.read_bytes() == before
    (tmp_path / "later").write_bytes(b"here now")
    said = call("upload", photos, "d", "--retry", report, "--report", report, "--json")
    assert said.status == 0
    assert [record.get("name") for record in said.records] == ["later.jpg", None]
    assert [json.loads(line)["status"] for line in report.read_text().splitlines()] == ["done", "complete"]
    said = call("upload", photos, "d", "--retry", report)
    assert (said.status, said.out) == (0, "")
    assert not call("items", "get", "d", "later.jpg").status
    assert call("items", "get", "d", "new.jpg").status == ExitCode.NOT_FOUND


def test_download_is_retried_by_path(call: Caller, photos: Path, tmp_path: Path) -> None:
    """A folder in the way makes an item fail; the retry fetches it alone, and tells what was deleted meanwhile."""
    call("upload", photos, "d", "--create")
    copy, report = tmp_path / "copy", tmp_path / "report.jsonl"
    for name in ("a.jpg", "b.png"):
        (copy / name).mkdir(parents=True)
    said = call("download", "d", copy, "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert "2 destination_unwritable" in said.err
    for name in ("a.jpg", "b.png"):
        (copy / name).rmdir()
    (copy / ".hidden").unlink()
    assert call("items", "delete", "d", "b.png", "--yes").status == 0
    said = call("download", "d", copy, "--retry", report, "--json")
    assert said.status == ExitCode.SOME_FAILED
    assert {record["name"]: record["code"] for record in said.records[:-1]} == {"a.jpg": None, "b.png": "not_found"}
    assert (copy / "a.jpg").read_bytes() == (photos / "a.jpg").read_bytes()
    assert not (copy / ".hidden").exists()


def test_folder_that_could_not_be_listed_is_walked_again(call: Caller, photos: Path, tmp_path: Path) -> None:
    """A failure that stands for a folder becomes the files in it; patterns count from the top as before."""
    call("datasets", "create", "d")
    report = tmp_path / "report.jsonl"
    entry = {"operation": "upload", "name": "train/", "source": str(photos / "train"), "status": "failed"}
    report.write_text(lines(entry, {"operation": "upload", "name": "", "status": "complete"}))
    said = call("upload", photos, "d", "--retry", report, "--report", report, "--exclude", "/train/c.*", "--json")
    assert said.status == 0
    assert [record.get("name") for record in said.records] == ["train/grün ü#?.jpg", None]
    assert [json.loads(line)["status"] for line in report.read_text().splitlines()] == ["done", "complete"]


def test_retry_keeps_the_name_that_was_refused(call: Caller, photos: Path, tmp_path: Path) -> None:
    """A name that is no Unicode is refused again, not replaced by the text that stands for it in the report."""
    (photos / os.fsdecode(b"bad\xff.jpg")).write_bytes(b"x")
    report = tmp_path / "report.jsonl"
    arguments = ["upload", photos, "d", "--create", "--report", report, "--json"]
    refused = [entry for entry in call(*arguments).records if entry.get("status") == "failed"]
    assert [entry["code"] for entry in refused] == ["invalid_name"]
    said = call(*arguments, "--retry", report)
    assert said.status == ExitCode.SOME_FAILED
    assert said.records[:-1] == refused
    assert len(call("items", "list", "d", "--json").records) == 6


def test_folder_that_stays_unreadable_stays_a_failure(
    call: Caller, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry passes it by, tries the rest, and leaves it in the report for the next one."""
    list_folder = os.scandir

    def closed(folder: Any = ".") -> Any:
        if not isinstance(folder, int) and os.fspath(folder) == str(photos / "train"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(folder))
        return list_folder(folder)

    (photos / "zlater").symlink_to(tmp_path / "later")
    report = tmp_path / "report.jsonl"
    arguments = ["upload", photos, "d", "--create", "--report", report, "--json"]
    monkeypatch.setattr(os, "scandir", closed)
    assert call(*arguments).summary["failures_by_code"] == {"source_unreadable": 1, "source_not_found": 1}
    (tmp_path / "later").write_bytes(b"here now")
    said = call(*arguments, "--retry", report)
    assert said.status == ExitCode.SOME_FAILED
    assert {entry["name"]: entry["status"] for entry in said.records[:-1]} == {"train": "failed", "zlater": "done"}
    assert [entry["name"] for entry in read_failed(report, "upload")] == ["train"]
    monkeypatch.setattr(os, "scandir", list_folder)
    said = call(*arguments, "--retry", report)
    assert (said.status, said.summary["done"]) == (0, 2)
    assert list(read_failed(report, "upload")) == []


@pytest.mark.parametrize(
    "command_line",
    ["upload {} d --create", "checkpoint upload {} m --create", "transfer {}",
     "predictions upload {} d --task t --create --kind classification --category c"],
)  # fmt: skip
def test_report_does_not_overwrite_the_input(call: Caller, tmp_path: Path, command_line: str) -> None:
    """Neither by name nor through a link; nothing is made on the platform either."""
    source, link = tmp_path / "input.jsonl", tmp_path / "link"
    source.write_bytes(b"precious\n")
    link.symlink_to(source)
    for report in (source, link):
        said = call(*command_line.format(source).split(), "--report", report)
        assert said.status == ExitCode.USAGE
        assert f"--report would overwrite {source}; name another file" in said.err
        assert source.read_bytes() == b"precious\n"
    assert call("datasets", "list", "--json").out + call("models", "list", "--json").out == ""


def test_report_does_not_overwrite_the_manifest_on_standard_input(tmp_path: Path) -> None:
    """A redirected file is known although its name is not."""
    manifest = tmp_path / "m.jsonl"
    manifest.write_bytes(b"precious\n")
    with manifest.open() as file:
        done = subprocess.run(
            command("transfer", "-", "--report", manifest), stdin=file, capture_output=True, text=True
        )
    assert done.returncode == ExitCode.USAGE
    assert "--report would overwrite standard input" in done.stderr
    assert manifest.read_bytes() == b"precious\n"


def test_report_inside_the_folder_is_not_uploaded(call: Caller, photos: Path) -> None:
    """A report that grows while its folder is uploaded is left out."""
    said = call("upload", photos, "d", "--create", "--report", photos / "re[p]ort.jsonl", "--json")
    assert said.status == 0
    assert "re[p]ort.jsonl" not in {record.get("name") for record in said.records}


def test_reports_hold_no_secret(served: Served, photos: Path, tmp_path: Path) -> None:
    """Neither the token nor a signed query stands in the report or on any stream."""
    report = tmp_path / "r.jsonl"
    said = run("upload", photos, "secrets", "--create", "--report", report, "--json", "--debug",
               ASYNCSDK_URL=served.url, ASYNCSDK_TOKEN=served.token)  # fmt: skip
    assert said.status == 0
    for text in (report.read_text(), said.out, said.err):
        assert served.token not in text
        assert "signature" not in text


# --- checkpoints and predictions -----------------------------------------------------------------------------


def test_checkpoint_goes_and_comes_back(served: Served, tmp_path: Path, call: Caller) -> None:
    """By parts and ranges over HTTP; which one is chosen by --which; facts are kept."""
    weights = tmp_path / "last.pt"
    weights.write_bytes(os.urandom(20_000_000))
    common = ["--url", served.url, "--token", served.token, "--part-size", "2MiB", "--json"]
    facts = ["--epoch", 3, "--best", "--metric", "map=0.5"]
    said = call("checkpoint", "upload", weights, "m/detector", "--create", *facts, *common)
    assert said.status == 0
    assert said.records[0]["size_bytes"] == 20_000_000
    copy = tmp_path / "copy.pt"
    assert call("checkpoint", "download", "m/detector", copy, "--which", 3, *common).status == 0
    assert filecmp.cmp(weights, copy, shallow=False)
    assert call("checkpoint", "download", "m/detector", copy, "--which", 4, *common).status == ExitCode.NOT_FOUND
    assert call("checkpoint", "download", "m/detector", copy, "--which", "final", *common).status == ExitCode.NOT_FOUND


def test_checkpoint_that_cannot_be_read_is_told(call: Caller, tmp_path: Path) -> None:
    """A missing file and a folder have their own exit status; the report says why, and its retry works."""
    report, weights = tmp_path / "r.jsonl", tmp_path / "w.pt"
    said = call("checkpoint", "upload", weights, "m", "--create", "--report", report)
    assert said.status == ExitCode.NOT_FOUND
    failure, end = map(json.loads, report.read_text().splitlines())
    assert (failure["code"], end["status"]) == ("source_not_found", "complete")
    assert call("checkpoint", "upload", tmp_path, "m", "--create").status == ExitCode.LOCAL
    assert call("models", "list", "--json").out == ""
    weights.write_bytes(b"weights")
    retry = ["checkpoint", "upload", weights, "m", "--create", "--retry", report, "--report", report]
    assert call(*retry).status == 0
    said = call(*retry)
    assert (said.status, said.out) == (0, "")
    assert "nothing failed" in said.err


def test_predictions_report_bad_rows_by_line(call: Caller, photos: Path, tmp_path: Path) -> None:
    """Bad rows fail with their line, the others are stored; the retry sends the mended lines only."""
    call("upload", photos, "d", "--create")
    rows, report = tmp_path / "rows.jsonl", tmp_path / "report.jsonl"
    good = json.dumps({"path": "a.jpg", "predictions": [{"category": "car", "score": 0.9}]})
    other = json.dumps({"path": "b.png", "predictions": [{"category": "car", "score": 0.1}]})
    rows.write_text(f"{good}\n\nnot json\n{other.replace('b.png', 'nobody.png')}\n")
    arguments = ["predictions", "upload", rows, "d", "--task", "detect"]
    assert call(*arguments).status == ExitCode.NOT_FOUND
    assert call(*arguments, "--create").status == ExitCode.USAGE
    said = call(*arguments, "--create", "--kind", "classification", "--category", "car", "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert "line 3" in said.err
    *entries, _ = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(entry["line"], entry["status"]) for entry in entries] == [(1, "done"), (3, "failed"), (4, "failed")]
    rows.write_text(f"{good}\n\n{other}\n{other.replace('b.png', 'nobody.png')}\n")
    said = call(*arguments, "--retry", report, "--report", report, "--json")
    assert said.status == ExitCode.SOME_FAILED
    assert (said.summary["done"], said.summary["failed"]) == (1, 1)
    found = {record["line"]: (record["status"], record["message"]) for record in said.records[:-1]}
    assert found[3] == ("done", None)
    assert found[4][0] == "failed"
    assert "line 4" in (found[4][1] or "")
    assert call(*arguments, "--dry-run", "--json").summary["skipped"] == 3
    rows.write_text(f"{good}\n")  # the row that failed is in it no more
    said = call(*arguments, "--retry", report, "--json")
    assert (said.status, said.summary["done"], said.summary["failed"]) == (ExitCode.SOME_FAILED, 0, 1)
    assert "has no such row any more" in said.records[0]["message"]


def test_refused_rows_beyond_the_first_thousand_are_counted(call: Caller, photos: Path, tmp_path: Path) -> None:
    """The summary counts all; the report says that it is not whole, and is refused for a retry."""
    call("upload", photos, "d", "--create", "--include", "a.jpg")
    rows, report = tmp_path / "rows.jsonl", tmp_path / "report.jsonl"
    rows.write_text(
        lines({"path": "a.jpg", "predictions": []}, *({"path": str(n), "predictions": []} for n in range(1500)))
    )
    arguments = ["predictions", "upload", rows, "d", "--task", "t", "--create", "--kind", "classification",
                 "--category", "c", "--json"]  # fmt: skip
    said = call(*arguments, "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert (said.summary["done"], said.summary["failed"]) == (1, 1500)
    assert "500 refused rows are not described" in said.err
    assert report.read_text().count("\n") == 1002
    assert call(*arguments, "--retry", report).status == ExitCode.USAGE


# --- the engine alone ----------------------------------------------------------------------------------------


class Bucket(BaseHTTPRequestHandler):
    """Keeps what is PUT, gives it to GET; refuses paths that contain ``deny``."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if "deny" in path or self.headers["x-kind"] != "test":
            self.answer(403)
        else:
            type(self).objects[path] = data
            self.answer(200)

    def do_GET(self) -> None:
        data = type(self).objects.get(self.path.partition("?")[0])
        self.answer(404 if data is None else 200, data or b"")

    def answer(self, status: int, data: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def bucket() -> Iterator[str]:
    handler = type("OwnBucket", (Bucket,), {"objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def test_manifest_moves_both_ways(bucket: str, tmp_path: Path, call: Caller) -> None:
    """Uploads with their headers, bad lines by number, downloads; the retry takes freshly signed URLs."""
    (tmp_path / "a").write_bytes(b"hello")
    manifest, report = tmp_path / "m.jsonl", tmp_path / "r.jsonl"
    headers = {"x-kind": "test"}
    manifest.write_text(
        lines({"source": str(tmp_path / "a"), "url": f"{bucket}/a?sig=s3cret", "headers": headers})
        + lines({"source": str(tmp_path / "b"), "url": f"{bucket}/b?sig=s3cret", "headers": headers})
        + "nonsense\n"
        + lines({"source": str(tmp_path / "a"), "url": f"{bucket}/deny?sig=s3cret", "headers": headers})
    )
    said = call("transfer", manifest, "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert "s3cret" not in said.err + report.read_text()
    *told, end = map(json.loads, report.read_text().splitlines())
    assert end["status"] == "complete"
    entries = {line["line"]: line["code"] for line in told}
    assert entries == {1: None, 2: "source_not_found", 3: "invalid_row", 4: "permission_denied"}
    (tmp_path / "b").write_bytes(b"now")
    manifest.write_text(
        lines({"source": str(tmp_path / "b"), "url": f"{bucket}/b?sig=fresh", "headers": headers},
              {"source": str(tmp_path / "a"), "url": f"{bucket}/a?sig=fresh", "headers": headers})
    )  # fmt: skip
    said = call("transfer", manifest, "--retry", report, "--json")
    assert said.status == ExitCode.SOME_FAILED  # two lines that failed are in the manifest no more
    assert [record.get("name") for record in said.records] == [
        str(tmp_path / "b"), f"{manifest}:3", str(tmp_path / "a"), None
    ]  # fmt: skip
    assert "no line of the manifest is about it any more" in said.records[2]["message"]
    manifest.write_text(
        lines(*({"url": f"{bucket}/{name}?x", "destination": str(tmp_path / "to" / name)} for name in "ab"))
    )
    assert call("transfer", manifest).status == 0
    assert (tmp_path / "to" / "a").read_bytes() == b"hello"
    assert (tmp_path / "to" / "b").read_bytes() == b"now"


def test_manifest_comes_from_standard_input(bucket: str, tmp_path: Path) -> None:
    """``-`` reads a pipe, and a file redirected to it."""
    (tmp_path / "a").write_bytes(b"hello")
    text = lines({"source": str(tmp_path / "a"), "url": f"{bucket}/a", "headers": {"x-kind": "test"}})
    said = run("transfer", "-", "--json", stdin=text)
    assert (said.status, said.summary["done"]) == (0, 1)
    manifest = tmp_path / "m"
    manifest.write_text(text)
    with manifest.open() as file:
        done = subprocess.run(command("transfer", "-", "--json"), stdin=file, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["summary"]["done"] == 1


# --- projects, datasets, items, models -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["projects", "datasets", "models"])
def test_entities_are_made_listed_shown_and_deleted(call: Caller, kind: str) -> None:
    """The four verbs, for people and for programs."""
    assert "no " in call(kind, "list").err
    made = call(kind, "create", "one", "--description", "first", "--metadata", '{"k": 1}', "--json").records[0]
    assert made["metadata"] == {"k": 1}
    call(kind, "create", "two")
    assert call(kind, "create", "two", "--exist-ok").status == 0
    table = call(kind, "list").out.splitlines()
    assert table[0].startswith("ID ")
    assert len({len(line.split("  ")[0]) for line in table[1:]}) == 1
    names = lambda *options: [record["name"] for record in call(kind, "list", "--json", *options).records]  # noqa: E731
    assert {"one", "two"} <= set(names())
    assert names("--filter", "name=two") == ["two"]
    assert names("--filter", "metadata.k=1") == ["one"]
    assert names("--sort=-name")[0] == "two"
    assert len(names("--limit", 1)) == 1
    assert ["id:", made["id"]] in [line.split() for line in call(kind, "get", "one").out.splitlines()]
    assert call(kind, "get", made["id"], "--json").records == [made]
    assert call(kind, "delete", "one").status == ExitCode.USAGE
    assert "would delete" in call(kind, "delete", "one", "--dry-run").err
    assert call(kind, "get", "one").status == 0
    assert call(kind, "delete", "one", "--yes", "--json").records[0]["id"] == made["id"]
    assert call(kind, "get", "one").status == ExitCode.NOT_FOUND


def test_items_are_listed_shown_and_deleted(call: Caller, photos: Path) -> None:
    """Items go by path or id; of several, none is deleted when one is unknown."""
    call("upload", photos, "p/d", "--create")
    table = call("items", "list", "p/d", "--limit", 3).out.splitlines()
    assert len(table) == 4
    assert {line.rindex("  ") for line in table} == {table[0].rindex("  ")}
    item = call("items", "get", "d", "a.jpg", "--project", "p", "--json").records[0]
    assert call("items", "get", "p/d", item["id"], "--json").records == [item]
    assert call("items", "list", "p/d", "--filter", "size_bytes=0", "--json").records[0]["path"] == "empty"
    assert call("items", "delete", "p/d", "a.jpg", "nobody", "--yes").status == ExitCode.NOT_FOUND
    assert call("items", "delete", "p/d", item["id"], "b.png", "--yes").status == 0
    assert call("items", "get", "p/d", "a.jpg").status == ExitCode.NOT_FOUND


def test_item_is_made_from_a_file(call: Caller, photos: Path) -> None:
    """Under its own name or another, with metadata; what is there is refused, or with --exist-ok replaced."""
    call("datasets", "create", "d")
    create = ["items", "create", "d", photos / "a.jpg"]
    assert call(*create, "--dry-run").status == 0
    assert call("items", "list", "d", "--json").out == ""
    made = call(*create, "--metadata", '{"k": 1}', "--json").records
    assert [(item["path"], item["size_bytes"], item["metadata"]) for item in made] == [("a.jpg", 100, {"k": 1})]
    assert call("items", "get", "d", "a.jpg", "--json").records == made
    assert "path:       train/b.jpg" in call(*create, "--path", "train/b.jpg").out
    said = call(*create, "--json")
    assert (said.status, said.records[0]["error"]["code"]) == (ExitCode.REFUSED, "conflict")
    assert call(*create, "--exist-ok", "--json").records == made
    (photos / "a.jpg").write_bytes(b"other")
    assert call(*create, "--exist-ok", "--json").records[0]["size_bytes"] == 5
    assert call("items", "create", "d", photos / "nowhere").status == ExitCode.NOT_FOUND
    assert call("items", "create", "d", photos / "train").status == ExitCode.LOCAL
    assert call(*create, "--path", "../up").status == ExitCode.REFUSED
    assert len(call("items", "list", "d", "--json").records) == 2


def test_ambiguous_models_are_told_with_their_ids(call: Caller) -> None:
    """Model names may repeat; then only the id will do."""
    ids = [call("models", "create", "m", "--json").records[0]["id"] for _ in range(2)]
    said = call("models", "get", "m")
    assert said.status == ExitCode.REFUSED
    assert all(model_id in said.err for model_id in ids)
    assert call("models", "delete", ids[0], "--yes").status == 0
    assert call("models", "get", "m").status == 0


def test_deleting_asks_on_a_terminal(call: Caller) -> None:
    """Enter and no keep it, yes deletes it."""
    import pty

    assert call("projects", "create", "p").status == 0
    for answer, status_after in ((b"\n", 0), (b"no\n", 0), (b"yes\n", int(ExitCode.NOT_FOUND))):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            command("projects", "delete", "p"), stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs
        ) as process:
            os.close(theirs)
            os.write(ours, answer)
            assert process.wait(WAIT_SECONDS) == 0
        os.close(ours)
        assert call("projects", "get", "p").status == status_after


# --- what goes wrong -----------------------------------------------------------------------------------------


def test_dry_run_changes_nothing(call: Caller, photos: Path, tmp_path: Path) -> None:
    """Neither the platform nor the destination; what would be done is told."""
    said = call("upload", photos, "d", "--create", "--dry-run", "--json")
    assert said.status == 0
    assert {record["message"] for record in said.records[:-1]} == {"would_send"}
    assert sorted(record["name"] for record in said.records[:-1]) == files_in(photos)
    assert call("datasets", "list", "--json").out == ""
    call("upload", photos, "d", "--create", "--include", "a.jpg")
    assert call("upload", photos, "d", "--dry-run", "--json").summary["skipped"] == 6
    assert len(call("items", "list", "d", "--json").records) == 1
    said = call("download", "d", tmp_path / "copy", "--dry-run", "--json")
    assert said.records[0]["message"] == "would_fetch"
    assert not (tmp_path / "copy").exists()
    assert call("checkpoint", "upload", photos / "a.jpg", "m", "--create", "--dry-run").status == 0
    assert call("models", "list", "--json").out == ""
    assert call("datasets", "create", "e", "--dry-run").status == 0
    assert len(call("datasets", "list", "--json").records) == 1


def test_dry_run_chooses_a_single_file_as_the_upload_does(call: Caller, photos: Path) -> None:
    """Patterns count for a file that is named itself, whether the dataset is there or not."""
    arguments = ["upload", photos / "a.jpg", "d", "--create", "--json"]
    for _ in range(2):
        assert call(*arguments, "--dry-run", "--include", "*.jpg").records[0]["name"] == "a.jpg"
        for options in (["--exclude", "a.*"], ["--include", "*.png"]):
            dry, wet = (call(*arguments, *options, *dry_run) for dry_run in (["--dry-run"], []))
            assert (dry.status, dry.records[-1]) == (ExitCode.NOT_FOUND, wet.records[-1])
            assert "summary" in dry.records[0]


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["upload", ".", "nobody"], ExitCode.NOT_FOUND, "not_found"),
        (["upload", "nowhere", "d", "--create"], ExitCode.NOT_FOUND, "source_not_found"),
        (["download", "nobody", "x"], ExitCode.NOT_FOUND, "not_found"),
        (["download", "no/body", "x"], ExitCode.NOT_FOUND, "not_found"),
        (["datasets", "get", "0" * 24], ExitCode.NOT_FOUND, "not_found"),
        (["transfer", "nowhere.jsonl"], ExitCode.NOT_FOUND, "source_not_found"),
        (["upload", ".", "d", "--retry", "nowhere.jsonl", "--create"], ExitCode.NOT_FOUND, "source_not_found"),
        (["projects", "create", "a/b"], ExitCode.REFUSED, "invalid_name"),
        (["projects", "create", "x" * 300], ExitCode.REFUSED, "invalid_name"),
        (["upload", "."], ExitCode.USAGE, "config"),
        (["whoami", "--concurrency", "0"], ExitCode.USAGE, "config"),
        (["whoami", "--url", "nonsense"], ExitCode.USAGE, "config"),
        (["whoami", "--url", "http://h", "--data", "x"], ExitCode.USAGE, "config"),
        (["login"], ExitCode.USAGE, "config"),
        (["datasets", "list", "--filter", "x"], ExitCode.USAGE, "config"),
        (["whoami", "--data", "/dev/null"], ExitCode.LOCAL, "store"),
        (["transfer", "/"], ExitCode.LOCAL, "source_unreadable"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_errors_are_told_twice_with_json(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str], status: ExitCode, code: str,
) -> None:  # fmt: skip
    """Exit status, the error object as the last line of standard output, a sentence without traceback beside it."""
    monkeypatch.chdir(tmp_path)
    said = call(*arguments, "--json")
    assert said.status == status
    error = said.records[-1]["error"]
    assert (error["code"], error["exit_status"]) == (code, status)
    assert said.err.startswith("asyncsdk: error: ")
    assert "Traceback" not in said.err
    assert call(*arguments).out == ""


def test_missing_dataset_is_told_with_a_way_out(call: Caller, photos: Path) -> None:
    """The message says how to make it."""
    assert "--create" in call("upload", photos, "nobody").err


def test_wrong_token_is_told_and_not_kept(served: Served, call: Caller, home: Path) -> None:
    """A token that the server does not know is neither stored nor repeated."""
    said = call("login", served.url, "--token", "wr0ng")
    assert said.status == ExitCode.AUTHENTICATION
    assert "wr0ng" not in said.err
    assert "asyncsdk login" in said.err
    assert not (home / "profile.json").exists()
    assert call("projects", "list", "--url", served.url).status == ExitCode.AUTHENTICATION


def test_absent_server_is_told(call: Caller, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: an exit status of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        port = server.server_address[1]
    said = call("upload", photos, "d", "--url", f"http://127.0.0.1:{port}", "--token", "t")
    assert said.status == ExitCode.SERVER
    assert "asyncsdk serve" in said.err


def test_server_gone_half_way_is_told(tmp_path: Path) -> None:
    """What was not moved is a failure of its own kind, in the report too."""
    folder, source, report = tmp_path / "data", tmp_path / "big", tmp_path / "r.jsonl"
    with source.open("wb") as file:
        file.truncate(2 * 1024**3)
    server = subprocess.Popen(
        command("serve", "--no-worker", "--port", 0, "--data", folder, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        token = (folder / "token").read_text().strip()
        with subprocess.Popen(
            command("upload", source, "d", "--create", "--report", report, "--json", "--outage", 1),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "ASYNCSDK_URL": url, "ASYNCSDK_TOKEN": token},
        ) as process:  # fmt: skip
            wait_until_sending(process, folder)
            server.kill()
            out, err = process.communicate(timeout=WAIT_SECONDS)
    shutil.rmtree(folder)  # a killed server leaves what it had received until the next one sweeps it
    said = Said(process.returncode, out, err)
    assert said.status == ExitCode.SOME_FAILED
    assert said.summary["failures_by_code"] == {"circuit_open": 1}
    assert [json.loads(line).get("code") for line in report.read_text().splitlines()] == ["circuit_open", None]
    assert "out for too long (" in said.err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(call: Caller) -> None:
    assert "Traceback" in call("datasets", "get", "nobody", "--debug").err


def test_quiet_leaves_errors_only(call: Caller, photos: Path, tmp_path: Path) -> None:
    """No summary of a good run; failures are told all the same."""
    said = call("upload", photos, "d", "--create", "--quiet")
    assert (said.status, said.out, said.err) == (0, "", "")
    (photos / "link").symlink_to(tmp_path / "nothing")
    assert "[source_not_found]" in call("upload", photos, "d", "-q").err


def test_reader_that_goes_away_is_no_error(call: Caller, photos: Path) -> None:
    """``asyncsdk items list ... | head -1`` prints no traceback."""
    assert call("upload", photos, "d", "--create").status == 0
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(command("items", "list", "d"), stdout=writing, stderr=subprocess.PIPE, text=True) as process:
        os.close(writing)
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (ExitCode.BROKEN_PIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the disk that is always full")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_full_disk_behind_standard_output_is_told(call: Caller, options: list[str]) -> None:
    """One sentence, no traceback, the exit status of a full disk."""
    assert call("projects", "create", "p").status == 0
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command("projects", "list", *options), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == ExitCode.LOCAL
    assert done.stderr.startswith("asyncsdk: error: ")
    assert done.stderr.count("\n") == 1


# --- signals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["embedded", "served"])
def test_signal_stops_an_upload_cleanly(served: Served, tmp_path: Path, home: Path, platform: str) -> None:
    """Exit status 128 + signal, a whole report, a summary, nothing half-sent left behind."""
    number = signal.SIGTERM  # Ctrl-C drains first: tests/integration/test_interrupts.py
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"small")
    with (source / "b").open("wb") as file:
        file.truncate(2 * 1024**3)  # no blocks behind it; sent in seconds, and stopped after the first tenth
    report = tmp_path / "r.jsonl"
    environment = dict(os.environ)
    folder = home / "data"
    if platform == "served":
        environment |= {"ASYNCSDK_URL": served.url, "ASYNCSDK_TOKEN": served.token}
        folder = served.folder
    with subprocess.Popen(
        command("upload", source, f"big-{number.name}", "--create", "--report", report, "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        wait_until_sending(process, folder)
        process.send_signal(number)
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 128 + number
    said = Said(process.returncode, out, err)
    assert [next(iter(record)) for record in said.records[-2:]] == ["summary", "error"]
    assert said.records[-2]["summary"]["is_complete"] is False
    assert "Traceback" not in err
    *whole, last = map(json.loads, report.read_text().splitlines())
    assert [line["name"] for line in whole] in ([], ["a"])
    assert last == {"operation": "upload", "name": "", "status": "incomplete"}
    unfinished = [path for path in (folder / "objects").rglob("*") if path.is_file() and len(path.name) != 33]
    if platform == "embedded":  # a server keeps the parts that it has: the same command goes on with them
        assert unfinished == []
    retry = ["upload", source, f"big-{number.name}", "--create", "--retry", report, "--report", report]
    said = run(*retry, **environment)
    assert said.status == ExitCode.SOME_FAILED
    assert "run the command again without --retry" in said.err
    assert json.loads(report.read_text().splitlines()[-1]) == last


def test_signal_during_a_download_leaves_no_half_file(call: Caller, tmp_path: Path) -> None:
    """The destination holds whole files only."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(256 * 1024**2)
    assert call("upload", tmp_path / "big", "d", "--create").status == 0
    copy = tmp_path / "copy"
    with subprocess.Popen(command("download", "d", copy), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (copy.exists() and any(path.is_file() for path in copy.iterdir())):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == ExitCode.TERMINATED
    assert files_in(copy) == []


def test_waiting_for_a_manifest_can_be_interrupted() -> None:
    """Ctrl-C ends a command that waits for standard input, at once."""
    with subprocess.Popen(
        command("transfer", "-", "--debug"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        handled = 0
        deadline = time.monotonic() + WAIT_SECONDS
        while not handled:  # until the command has set its signal handlers
            assert time.monotonic() < deadline
            caught = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
            handled = int(caught, 16) >> (signal.SIGTERM - 1) & 1
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == ExitCode.INTERRUPTED
        process.communicate()


def test_serve_tells_where_and_keeps_its_token_to_itself(tmp_path: Path) -> None:
    """First line the URL, second where the token is; the token itself nowhere; Ctrl-C ends it with status 0."""
    folder = tmp_path / "data"
    with subprocess.Popen(
        command("serve", "--no-worker", "--port", 0, "--data", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        token = (folder / "token").read_text().strip()
        assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
        url = first.split()[-1]
        assert run("projects", "list", ASYNCSDK_URL=url, ASYNCSDK_TOKEN=token).status == 0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert str(folder / "token") in second
    assert token not in first + second + out + err


def test_serve_tells_a_taken_port(served: Served, call: Caller, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    said = call("serve", "--port", port, "--data", tmp_path / "d")
    assert said.status == ExitCode.USAGE
    assert port in said.err
