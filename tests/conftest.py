"""What every test gets: settings of its own, and nothing left behind."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nginx import Nginx, NginxUnavailable
from tests.support.real.required import missing


def pytest_collection_finish() -> None:
    """Modules and collected tests stay to the end: tests that collect garbage on purpose need not walk through them."""
    gc.collect()
    gc.freeze()


_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests recorded (`record_property`) at the end: what they print is lost in the processes of xdist."""
    told: dict[str, list[tuple[str, object]]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties if report.when == "call" else ():
            told.setdefault(name, []).append((report.nodeid, value))
    if not told:
        return
    terminalreporter.section("measured")
    for name, values in sorted(told.items()):
        numbers = [value for _, value in values if isinstance(value, int)]
        if name != "seed" and len(numbers) == len(values):
            terminalreporter.line(f"{name}: {sum(numbers)} in {len(values)} tests")
        else:
            for nodeid, value in values:
                terminalreporter.line(f"{name}: {value} ({nodeid})")


@pytest.fixture(autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the settings, the profile or the data of whoever runs it, nor goes through a proxy."""
    for name in list(os.environ):
        if name.startswith("ASYNCSDK_") or name.lower() in _PROXIES:
            monkeypatch.delenv(name)
    # A folder that does not exist yet: the code under test makes it, as it does for a new user.
    folder = tmp_path_factory.getbasetemp() / f"home-{os.urandom(6).hex()}"
    monkeypatch.setenv("ASYNCSDK_HOME", str(folder))
    yield
    if folder.exists():
        shutil.rmtree(folder)


@pytest.fixture
def home() -> Path:
    """``ASYNCSDK_HOME`` of this test."""
    return Path(os.environ["ASYNCSDK_HOME"])


@pytest.fixture(scope="session", autouse=True)
def _same_working_folder() -> Iterator[None]:
    """A test that changes the working folder changes it back."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before, "a test left another working folder behind"


@pytest.fixture(scope="session")
def nginx() -> Iterator[Nginx]:
    """Debian's nginx on loopback; tests that ask for it are skipped, with the reason, where it cannot be had."""
    try:
        server = Nginx()
    except NginxUnavailable as error:
        missing("nginx", str(error))
    with server:
        yield server
