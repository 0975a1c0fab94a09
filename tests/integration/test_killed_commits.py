"""A server killed with SIGKILL while commits are under way: what it answered is there, the rest can be sent again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncsdk.domain.ids import make_id
from asyncsdk.protocol.items import PrepareDownloads
from asyncsdk.protocol.uploads import CommitEntry, CommitUploads
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects.minting import FileMinter
from tests.support.messages import checksum
from tests.support.server import ServedProcess

BATCH = 40
BATCHES = 12


def content_of(path: str) -> bytes:
    return f"the bytes of {path}".encode()


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = client.post(path, json=body)
    reply.raise_for_status()
    answer: dict[str, Any] = reply.json()
    return answer


def send_batch(client: httpx.Client, dataset_id: str, number: int) -> list[dict[str, Any]]:
    """Prepare and send a batch; return the entries that commit it."""
    paths = [f"{number:02d}/{n:02d}" for n in range(BATCH)]
    facts = {path: {"size_bytes": len(content_of(path)), "crc32c": checksum(content_of(path))} for path in paths}
    asked = [{"path": path, **facts[path]} for path in paths]
    prepared = post(client, f"/v1/datasets/{dataset_id}/uploads/prepare", {"entries": asked})["entries"]
    for path, reply in zip(paths, prepared, strict=True):
        client.put(reply["target"]["url"], content=content_of(path)).raise_for_status()
    return [
        {"item_id": make_id(), "path": path, "key": reply["key"], **facts[path]}
        for path, reply in zip(paths, prepared, strict=True)
    ]


@pytest.mark.parametrize("answers_before", [1, 5])
def test_what_was_answered_outlives_a_kill_and_the_rest_is_committed_again(tmp_path: Path, answers_before: int) -> None:
    folder = tmp_path / "data"
    answered: list[int] = []
    enough = threading.Event()
    with (
        ServedProcess(folder) as served,
        httpx.Client(base_url=served.url, headers=served.headers, trust_env=False, timeout=60) as client,
    ):
        dataset_id = post(client, "/v1/datasets", {"name": "photos"})["id"]
        batches = [send_batch(client, dataset_id, number) for number in range(BATCHES)]

        def commit_all() -> None:
            for number, entries in enumerate(batches):
                try:
                    replies = post(client, f"/v1/datasets/{dataset_id}/uploads/commit", {"entries": entries})
                except httpx.TransportError:  # it was killed
                    return
                assert {entry["verdict"] for entry in replies["entries"]} == {"created"}
                answered.append(number)
                if len(answered) >= answers_before:
                    enough.set()

        sender = threading.Thread(target=commit_all)
        sender.start()
        assert enough.wait(60)
        served.kill()
        sender.join(60)
        assert not sender.is_alive()
    check_and_go_on(folder, dataset_id, batches, answered)


def check_and_go_on(folder: Path, dataset_id: str, batches: list[list[dict[str, Any]]], answered: list[int]) -> None:
    backend = Backend.open(folder)
    try:
        minter, principal = FileMinter(backend.objects), backend.owner()
        for number, entries in enumerate(batches):
            message = CommitUploads(dataset_id=dataset_id, entries=tuple(CommitEntry(**entry) for entry in entries))
            verdicts = {reply.verdict for reply in backend.handle(message, principal, minter).entries}
            # A batch is one transaction: all of it was there, or nothing.
            assert verdicts == {"unchanged"} if number in answered else verdicts in ({"unchanged"}, {"created"})
            ids = tuple(entry["item_id"] for entry in entries)
            origins = backend.handle(PrepareDownloads(dataset_id=dataset_id, item_ids=ids), principal, minter).origins
            for entry, origin in zip(entries, origins, strict=True):
                assert origin is not None
                assert origin.path.read_bytes() == content_of(entry["path"])
        found = [path for path in (folder / "objects").rglob("*") if path.is_file()]
        assert len(found) == BATCH * BATCHES
    finally:
        backend.close()
