"""The engine alone on the command line: manifests of URLs."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asyncsdk.cli.exits import ExitCode
from tests.support.commands import Caller, command, lines, run


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
