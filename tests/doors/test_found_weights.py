"""How the adapter learns what weights are: from the service where it tells, else from who stores them."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from asyncsdk.errors import ConnectionFailed, UnsupportedOperation
from asyncsdk.platforms.ultralytics import calls
from asyncsdk.platforms.ultralytics.adapter import UltralyticsPlatform
from asyncsdk.protocol.checkpoints import FindCheckpoint
from asyncsdk.protocol.jobs import CreateJob
from asyncsdk.protocol.model_work import GivenImage, PredictPayload
from tests.doors.test_adapter import DATA, ID, KEY, json


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for before a repetition."""
    monkeypatch.setattr(calls, "wait_seconds", lambda error, attempt: 0.0)


def finding(*, tells: bool, head: Callable[[int], httpx.Response]) -> tuple[UltralyticsPlatform, list[str]]:
    """Return a service with weights, which may tell what they are, and what it was asked."""
    url = "http://bucket.example/o/1?X-Signature=a%2Bb&x=~c"
    model = {**DATA, "project": ID, "has_best_weights": True, "weights": url, "resume": url}
    if tells:
        model |= {"weightsObject": {"size": 5, "crc32c": "00000001"}}
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.extensions.get('target', b'').decode() or request.url.path}")
        if request.method == "HEAD":
            assert KEY not in str(request.headers)
            return head(len(asked))
        if request.method == "POST":
            return json({"data": {"images": [{"shape": [8, 8], "results": [], "speed": {}}]}})
        return json({"data": model})

    return UltralyticsPlatform("http://service.example", KEY, transport=httpx.MockTransport(handler)), asked


async def test_what_the_service_tells_of_weights_is_not_asked_for() -> None:
    """A prediction is one look for the weights and one request."""
    platform, asked = finding(tells=True, head=lambda number: json({}, 500))
    found = await platform.send(FindCheckpoint(model_id=ID, which="best"))
    assert (found.size_bytes, found.crc32c) == (5, "00000001")
    payload = PredictPayload(model_id=ID, checkpoint_id=found.id, images=(GivenImage(name="a", data="AAAA"),))
    job = await platform.send(CreateJob(job_id=ID, kind="predict", payload=payload.model_dump(mode="json")))
    assert job.status == "succeeded"
    assert asked == [f"GET /v1/models/{ID}", f"POST /v1/predict/{ID}"]
    other = payload.model_copy(update={"checkpoint_id": "f" * 24})
    with pytest.raises(UnsupportedOperation, match="checkpoint"):
        await platform.send(CreateJob(job_id="e" * 24, kind="predict", payload=other.model_dump(mode="json")))
    await platform.aclose()


async def test_who_stores_weights_is_asked_what_they_are() -> None:
    """Again after a failure that may pass, with the query as it was signed."""

    def head(number: int) -> httpx.Response:
        if number == 2:
            raise httpx.ReadError("reset")
        return httpx.Response(200, headers={"content-length": "5", "x-goog-hash": "crc32c=AAAAAQ=="})

    platform, asked = finding(tells=False, head=head)
    found = await platform.send(FindCheckpoint(model_id=ID, which="best"))
    assert (found.size_bytes, found.crc32c) == (5, "00000001")
    assert asked == [f"GET /v1/models/{ID}", *["HEAD /o/1?X-Signature=a%2Bb&x=~c"] * 2]
    await platform.aclose()


async def test_weights_that_cannot_be_reached_are_told_without_their_signature() -> None:
    def head(number: int) -> httpx.Response:
        raise httpx.ConnectError("refused")

    platform, _ = finding(tells=False, head=head)
    with pytest.raises(ConnectionFailed) as failed:
        await platform.send(FindCheckpoint(model_id=ID, which="best"))
    assert "bucket.example" in str(failed.value)
    assert "Signature" not in repr(failed.value)
    await platform.aclose()
