"""What ``import asyncsdk`` costs: counted in modules, which is the same on every machine."""

from __future__ import annotations

import subprocess
import sys

from tests.house.source import ROOT

HEAVY = (
    "asyncsdk.server",
    "httptools",
    "matplotlib",
    "numpy",
    "opentelemetry",
    "pandas",
    "sqlalchemy",
    "starlette",
    "tqdm",
)
"""Needed by the embedded platform, the server or the command line only; brought in when one of them is used."""

MAX_MODULES = 900


def loaded_by(statement: str) -> set[str]:
    """Return the modules a fresh interpreter has loaded after *statement*."""
    script = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    reply = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert reply.returncode == 0, reply.stderr
    return set(reply.stdout.split())


def test_import_is_light() -> None:
    """Importing the package brings in neither the server nor the database nor progress bars."""
    loaded = loaded_by("import asyncsdk")
    assert [name for name in HEAVY if name in loaded] == []
    assert len(loaded) <= MAX_MODULES


def test_engine_alone_knows_no_platform() -> None:
    """The engine's own names need neither messages, entities nor the server, once the package itself is there."""
    loaded = loaded_by("import asyncsdk.engine")
    assert [name for name in HEAVY if name in loaded] == []


def test_import_starts_nothing() -> None:
    """Importing the package starts no thread, opens no file and takes over no signal."""
    script = (
        "import os, signal, threading\n"
        "before = (threading.active_count(), {n: signal.getsignal(n) for n in signal.valid_signals()})\n"
        "files = set(os.listdir('/dev/fd')) if os.path.isdir('/dev/fd') else set()\n"
        "import asyncsdk\n"
        "assert threading.active_count() == before[0]\n"
        "assert {n: signal.getsignal(n) for n in signal.valid_signals()} == before[1]\n"
        "assert not os.path.isdir('/dev/fd') or len(os.listdir('/dev/fd')) == len(files)"
    )
    loaded_by(script)
