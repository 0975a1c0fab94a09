"""OpenTelemetry: spans and metrics made of events, with the real SDK and an exporter in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from asyncsdk.engine import ConcurrencyChanged, Download, Engine, PutTarget, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.telemetry import OpenTelemetry
from tests.support.feeds import multipart_target
from tests.support.http_server import HttpServer, answer, stall
from tests.unit.engine.conftest import config

SECRET = "s3cr3t"


class Exported:
    """What left a telemetry object."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = OpenTelemetry(self.tracers, self._meters)

    def close(self) -> None:
        self.tracers.shutdown()
        self._meters.shutdown()

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    @property
    def metrics(self) -> dict[str, dict[tuple[tuple[str, Any], ...], float]]:
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: {
                tuple(sorted(dict(point.attributes or {}).items())): point.value
                if isinstance(point, NumberDataPoint)
                else point.count
                for point in metric.data.data_points
            }
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def exported() -> Iterator[Exported]:
    found = Exported()
    yield found
    found.close()


@pytest.fixture
async def server() -> Any:
    async with HttpServer() as running:
        yield running


async def test_runs_and_large_objects_are_spans(server: HttpServer, tmp_path: Path, exported: Exported) -> None:
    """The run below the caller's span, large objects below the run, small ones only counted; no secret anywhere."""
    (tmp_path / "small").write_bytes(b"x" * 100)
    (tmp_path / "big").write_bytes(bytes(3 * MiB))
    server.objects["/got"] = bytes(3 * MiB)
    server.script("/o", answer(503))
    server.script("/denied", answer(403, f"<Error><Code>{SECRET}</Code></Error>".encode()))
    transfers = [
        Upload(tmp_path / "small", PutTarget(server.url(f"/o?sig={SECRET}"))),
        Upload(tmp_path / "small", PutTarget(server.url(f"/denied?sig={SECRET}"))),
        Upload(tmp_path / "big", multipart_target(server, 3, version=SECRET), size_bytes=3 * MiB),
        Download(UrlOrigin(server.url(f"/got?sig={SECRET}"), size_bytes=3 * MiB)),
    ]
    tracer = exported.tracers.get_tracer("test")
    async with Engine(config()) as engine:
        with tracer.start_as_current_span("caller"):
            await engine.collect(transfers, on_event=exported.telemetry, objects_total=4)
    run, upload, download = map(exported.span, ("asyncsdk.run", "asyncsdk.upload", "asyncsdk.download"))
    assert run.parent == exported.span("caller").context
    assert upload.parent == download.parent == run.context
    assert len(exported.spans) == 4
    facts = dict(run.attributes or {})
    assert (facts["asyncsdk.done"], facts["asyncsdk.failed"], facts["asyncsdk.objects_total"]) == (3, 1, 4)
    assert [event.name for event in run.events] == ["retried"]
    assert dict(upload.attributes or {})["asyncsdk.size_bytes"] == 3 * MiB
    assert run.start_time is not None
    assert run.end_time is not None
    assert run.start_time <= (upload.start_time or 0) <= (upload.end_time or 0) <= run.end_time
    metrics = exported.metrics
    assert metrics["asyncsdk.objects"] == {
        (("status", "done"),): 3,
        (("code", "permission_denied"), ("status", "failed")): 1,
    }
    assert metrics["asyncsdk.bytes"] == {(): 100 + 6 * MiB}
    assert metrics["asyncsdk.retries"] == {(("code", "server_error"),): 1}
    assert metrics["asyncsdk.object.duration"] == {(("status", "done"),): 3, (("status", "failed"),): 1}
    assert SECRET not in "".join(span.to_json() for span in exported.spans) + repr(metrics)


async def test_a_run_that_is_cancelled_leaves_no_span_open(
    server: HttpServer, tmp_path: Path, exported: Exported
) -> None:
    """The object that was under way ends with it, as an error."""
    (tmp_path / "big").write_bytes(bytes(3 * MiB))
    server.script("/m", stall())
    async with Engine(config()) as engine:
        with pytest.raises(KeyError):
            async with engine.run(
                [Upload(tmp_path / "big", multipart_target(server, 3))], on_event=exported.telemetry
            ) as outcomes:
                while not server.requests:
                    await asyncio.sleep(0.01)
                del outcomes
                raise KeyError
    assert exported.span("asyncsdk.upload").status.status_code is StatusCode.ERROR
    assert exported.span("asyncsdk.run").end_time is not None
    assert exported.telemetry._runs == exported.telemetry._large == {}


def test_concurrency_is_a_gauge(exported: Exported) -> None:
    exported.telemetry(ConcurrencyChanged(run="r", lane="small", before=16, after=24))
    exported.telemetry(ConcurrencyChanged(run="r", lane="small", before=24, after=20))
    assert exported.metrics["asyncsdk.concurrency"] == {(("lane", "small"),): 20}


def test_without_the_extra_it_says_what_to_install() -> None:
    """And nothing else needs it."""
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import asyncsdk\n"
        "try:\n"
        "    import asyncsdk.telemetry\n"
        "except asyncsdk.errors.ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "asyncsdk[otel]" in done.stdout, done.stderr
