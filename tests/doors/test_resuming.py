"""A run at a service that was stopped: ``asyncsdk journal resume`` goes on with it at that service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncsdk import Client
from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode
from asyncsdk.engine.journal import RunSummary, journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.entities import checkpoint_transfers
from asyncsdk.errors import ServerError
from tests.doors.conftest import HUB
from tests.support.server import RunningServer


def runs(home: Path) -> list[RunSummary]:
    return list(summaries(journal_folder(home)))


def test_a_run_at_a_service_is_gone_on_with_there(
    served: RunningServer,
    door: str,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whatever else the environment means: the journal names the service; its key is asked for by name."""

    async def refuse(feed: Any, size_bytes: int, crc32c: str) -> None:
        raise ServerError("not now")

    weights = tmp_path / "last.pt"
    weights.write_bytes(b"weights")
    with Client(platform=HUB, url=door, api_key=served.token, home=home) as client:
        model = client.models.create("m", project=client.projects.create("p"))
        with monkeypatch.context() as patched, pytest.raises(ServerError):
            patched.setattr(checkpoint_transfers._UploadFeed, "_commit", refuse)
            model.upload_checkpoint(weights, epoch=0)
        (run,) = runs(home)
        assert (run.verb, run.arguments["url"], run.arguments["platform"]) == ("checkpoint_upload", door, HUB)
        assert main(["journal", "resume", run.run_id]) == ExitCode.AUTHENTICATION
        assert "ASYNCSDK_API_KEY" in capfd.readouterr().err
        monkeypatch.setenv("ASYNCSDK_API_KEY", served.token)
        assert main(["journal", "resume", run.run_id]) == ExitCode.OK
        assert runs(home) == []
        model.download_checkpoint(tmp_path / "back.pt", which="last")
    assert (tmp_path / "back.pt").read_bytes() == b"weights"
