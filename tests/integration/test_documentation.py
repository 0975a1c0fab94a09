"""What the documentation shows runs as it stands there, against the embedded platform."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.manifest_lines import parse_line
from asyncsdk.cli.parser import parse
from asyncsdk.engine import (
    BlobTarget,
    FormTarget,
    MultipartTarget,
    PutTarget,
    Refused,
    ResumableTarget,
    Upload,
    UrlOrigin,
)
from tests.support.nginx import Nginx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def blocks(page: Path) -> list[tuple[int, str]]:
    """Return the Python blocks of a page, each with the number of the line before it."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start()) + 1, match[1]) for match in found]


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if blocks(page)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the pages speak of: ``photos/`` and ``last.pt``."""
    for name in ("a.jpg", "b.png", "drafts/c.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"bytes of {name}".encode() * 100)
    (tmp_path / "last.pt").write_bytes(bytes(range(256)) * 1000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(page: Path, replacements: dict[str, str] | None = None) -> dict[str, Any]:
    """Run the blocks of a page one after the other; those that await share one event loop, the others have none."""
    names: dict[str, Any] = {}
    with asyncio.Runner() as runner:
        for line, source in blocks(page):
            for old, new in (replacements or {}).items():
                source = source.replace(old, new)
            code = compile("\n" * line + source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(_awaited(code, names))
            else:
                exec(code, names)
    return names


async def _awaited(code: Any, names: dict[str, Any]) -> None:
    await eval(code, names)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "engine.md"], ids=lambda page: page.relative_to(DOCS).as_posix()
)
def test_page_runs(page: Path, folder: Path) -> None:
    """Every Python block of the page runs, in order, on a machine that never ran asyncsdk before."""
    run_page(page)


def test_quickstart_does_what_it_says(folder: Path) -> None:
    """After the quickstart the copies are there, byte for byte, and the rows are stored."""
    names = run_page(DOCS / "quickstart.md")
    assert (folder / "copy" / "a.jpg").read_bytes() == (folder / "photos" / "a.jpg").read_bytes()
    assert (folder / "copy.pt").read_bytes() == (folder / "last.pt").read_bytes()
    assert len(names["rows"]) == 3


def test_engine_page_runs(folder: Path, nginx: Nginx) -> None:
    """The engine alone does what its page shows, against a server that nobody here wrote."""
    run_page(DOCS / "guides" / "engine.md", {"https://bucket.example": nginx.url})
    assert (nginx.data / "note.txt").read_bytes() == b"made in memory"
    assert (folder / "again.jpg").read_bytes() == (folder / "photos" / "a.jpg").read_bytes()


def test_readme_runs_twice(folder: Path) -> None:
    """The main job in ten lines, as a program, and once more: the second time finds everything there."""
    (_, source), *rest = blocks(ROOT / "README.md")
    assert rest == []
    (folder / "job.py").write_text(source)
    for _ in range(2):
        reply = subprocess.run(
            [sys.executable, "-W", "error", "job.py"], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert reply.returncode == 0, reply.stderr
    copied = {path.relative_to(folder / "copy").as_posix() for path in (folder / "copy").rglob("*") if path.is_file()}
    assert copied == {"a.jpg", "b.png", "drafts/c.jpg"}


def commands(page: Path) -> list[str]:
    """Return the command lines of ours that a page shows."""
    shown = re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [line for block in shown for line in block.splitlines() if line.startswith("asyncsdk ")]


def manifest_lines(page: Path) -> list[str]:
    """Return the lines of manifests that a page shows."""
    shown = re.findall(r"^```json\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [
        line for block in shown for line in block.splitlines() if '"source": "' in line or '"destination": "' in line
    ]


def test_lines_of_manifests_are_understood(folder: Path) -> None:
    """The guide shows each way that a line may go, as the program reads it."""
    lines = manifest_lines(DOCS / "guides" / "command-line.md")
    read = [parse_line(line.encode(), number, "m") for number, line in enumerate(lines, start=1)]
    assert [one.error for one in read if isinstance(one, Refused)] == []
    ends = {type(one.target if isinstance(one, Upload) else one.origin) for one in read}  # type: ignore[union-attr]
    assert ends == {PutTarget, UrlOrigin, MultipartTarget, ResumableTarget, BlobTarget, FormTarget}


SHOWN = [line for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))] for line in commands(page)]


@pytest.mark.parametrize("line", SHOWN)
def test_command_lines_are_understood(line: str) -> None:
    """Every command line that the documentation shows is one that the program takes."""
    arguments = shlex.split(line, comments=True)[1:]
    parse(arguments)


def test_exit_statuses_are_documented() -> None:
    """The table of exit statuses has every one, and no other."""
    text = (DOCS / "guides" / "command-line.md").read_text(encoding="utf-8").partition("| exit status |")[2]
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)] == [
        code.value for code in ExitCode
    ]
