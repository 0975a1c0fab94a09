"""What ``import asyncsdk`` costs: counted in modules, which is the same on every machine."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import asyncsdk
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
    """Importing the package brings in nothing; the clients neither the server nor the database nor progress bars."""
    assert {name for name in loaded_by("import asyncsdk") if name.startswith("asyncsdk.")} == {"asyncsdk._version"}
    loaded = loaded_by("from asyncsdk import AsyncClient, Client")
    assert [name for name in HEAVY if name in loaded] == []
    assert len(loaded) <= MAX_MODULES


@pytest.mark.parametrize("module", ["asyncsdk.engine", "asyncsdk.engine.crew.worker"])
def test_engine_alone_knows_no_platform(module: str) -> None:
    """The engine needs neither messages nor entities nor the server, and so do its worker processes."""
    loaded = loaded_by(f"import {module}")
    others = ("asyncsdk.client", "asyncsdk.entities", "asyncsdk.protocol", "asyncsdk.sync", "pydantic")
    assert [name for name in (*HEAVY, *others) if name in loaded] == []


def test_names_are_where_they_are_said_to_be() -> None:
    """What type checkers read and what programs get are the same objects, all of them public."""
    tree = ast.parse(Path(asyncsdk.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    read = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert read == asyncsdk._MODULES
    assert sorted([*read, "__version__"]) == sorted(asyncsdk.__all__)
    for name, module in read.items():
        assert module is not None
        assert getattr(asyncsdk, name) is getattr(importlib.import_module(module), name)
    assert set(asyncsdk.__all__) <= set(dir(asyncsdk))


def test_modules_and_what_is_not_there() -> None:
    """A module of the package is at hand as ever; what does not exist is told as of any module."""
    loaded_by("import asyncsdk; assert asyncsdk.errors.NotFound.__module__ == 'asyncsdk.errors'")
    with pytest.raises(AttributeError, match="module 'asyncsdk' has no attribute 'nothing'"):
        asyncsdk.nothing  # noqa: B018


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
