"""Spans and metrics of OpenTelemetry, made of events. Needs the extra ``otel``.

It is a consumer of events like any other: the engine has never heard of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncsdk.engine import (
    ConcurrencyChanged,
    Drained,
    Event,
    ObjectFailed,
    ObjectFinished,
    ObjectStarted,
    Renewed,
    Retried,
    RunEnded,
    RunStarted,
    Throttled,
)
from asyncsdk.errors import ConfigError

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, Status, StatusCode, TracerProvider
except ModuleNotFoundError as error:
    raise ConfigError(f"telemetry needs {error.name}; install it with: pip install 'asyncsdk[otel]'") from error

__all__ = ["OpenTelemetry"]

_SCOPE = "asyncsdk"


class OpenTelemetry:
    """Makes spans and metrics of events: ``dataset.upload(..., on_event=OpenTelemetry())``.

    A run is a span below the one that is current when it begins, each large object a span below that; small objects are
    only counted. Memory: one span for every run and every large object under way. One instance serves any number of
    runs, also at once.

    Args:
        tracer_provider: Where spans go; None: the one that the application has set.
        meter_provider: Where metrics go; None: the one that the application has set.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._objects = meter.create_counter("asyncsdk.objects", "{object}", "Objects with an outcome.")
        self._bytes = meter.create_counter("asyncsdk.bytes", "By", "Bytes of objects that arrived.")
        self._duration = meter.create_histogram(
            "asyncsdk.object.duration", "s", "From the start of an object's first attempt to its end."
        )
        self._retries = meter.create_counter("asyncsdk.retries", "{retry}", "Requests that are tried again.")
        self._throttled = meter.create_counter(
            "asyncsdk.throttled", "{refusal}", "Refusals that asked for fewer requests."
        )
        self._waits = meter.create_counter("asyncsdk.waits", "s", "What places of runs spent their time on.")
        self._concurrency = meter.create_gauge("asyncsdk.concurrency", "{request}", "Requests at once.")
        self._runs: dict[str, Span] = {}
        self._large: dict[tuple[str, int], Span] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            RunStarted: self._run_started,
            ObjectStarted: self._object_started,
            ObjectFinished: self._object_finished,
            ObjectFailed: self._object_failed,
            Retried: self._retried,
            Renewed: self._renewed,
            Throttled: self._was_throttled,
            ConcurrencyChanged: self._concurrency_changed,
            Drained: self._drained,
            RunEnded: self._run_ended,
        }

    def __call__(self, event: Event) -> None:
        """Take one event; kinds that are not known are passed over."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    # --- runs ------------------------------------------------------------------------------------------------

    def _run_started(self, event: RunStarted) -> None:
        attributes: dict[str, str | int] = {"asyncsdk.run": event.run, "asyncsdk.concurrency": str(event.concurrency)}
        if event.objects_total is not None:
            attributes["asyncsdk.objects_total"] = event.objects_total
        if event.bytes_total is not None:
            attributes["asyncsdk.bytes_total"] = event.bytes_total
        self._runs[event.run] = self._tracer.start_span("asyncsdk.run", attributes=attributes, start_time=_at(event))

    def _run_ended(self, event: RunEnded) -> None:
        for reason, seconds in event.waits.items():
            self._waits.add(seconds, {"reason": reason.value})
        # What was under way when the run was cancelled has no outcome.
        for key in [key for key in self._large if key[0] == event.run]:
            self._end(self._large.pop(key), event, "cancelled")
        span = self._runs.pop(event.run, None)
        if span is None:
            return
        span.set_attributes(
            {
                "asyncsdk.done": event.done,
                "asyncsdk.skipped": event.skipped,
                "asyncsdk.failed": event.failed,
                "asyncsdk.bytes_done": event.bytes_done,
                "asyncsdk.is_complete": event.is_complete,
                **{f"asyncsdk.waits.{reason.value}": seconds for reason, seconds in event.waits.items()},
            }
        )
        if event.bottleneck is not None and event.bottleneck_share is not None:
            span.set_attribute("asyncsdk.bottleneck", event.bottleneck)
            span.set_attribute("asyncsdk.bottleneck_share", event.bottleneck_share)
        self._end(span, event, event.code)

    def _was_throttled(self, event: Throttled) -> None:
        self._throttled.add(event.count, {"code": event.code})
        facts: dict[str, str | float] = {"asyncsdk.count": event.count, "asyncsdk.code": event.code}
        if event.retry_after is not None:
            facts["asyncsdk.retry_after"] = event.retry_after
        self._note(event, "throttled", facts)

    def _concurrency_changed(self, event: ConcurrencyChanged) -> None:
        self._concurrency.set(event.after, {"lane": event.lane})

    def _drained(self, event: Drained) -> None:
        self._note(event, "drained", {"asyncsdk.active": event.active, "asyncsdk.dropped": event.dropped})

    # --- objects ---------------------------------------------------------------------------------------------

    def _object_started(self, event: ObjectStarted) -> None:
        attributes: dict[str, str | int] = {"asyncsdk.name": event.name, "asyncsdk.run": event.run}
        if event.size_bytes is not None:
            attributes["asyncsdk.size_bytes"] = event.size_bytes
        run = self._runs.get(event.run)
        self._large[event.run, event.number] = self._tracer.start_span(
            f"asyncsdk.{event.direction}",
            context=None if run is None else trace.set_span_in_context(run),
            attributes=attributes,
            start_time=_at(event),
        )

    def _object_finished(self, event: ObjectFinished) -> None:
        self._objects.add(1, {"status": event.status})
        if event.status == "done":
            self._bytes.add(event.size_bytes)
            self._duration.record(event.seconds, {"status": event.status})
        self._object_ended(event, None)

    def _object_failed(self, event: ObjectFailed) -> None:
        self._objects.add(1, {"status": "failed", "code": event.code})
        self._duration.record(event.seconds, {"status": "failed"})
        self._object_ended(event, event.code)

    def _object_ended(self, event: ObjectFinished | ObjectFailed, code: str | None) -> None:
        span = None if event.number is None else self._large.pop((event.run, event.number), None)
        if span is None:
            return
        span.set_attribute("asyncsdk.attempts", event.attempts)
        for reason, seconds in (event.waits or {}).items():
            span.set_attribute(f"asyncsdk.waits.{reason.value}", seconds)
        self._end(span, event, code)

    def _retried(self, event: Retried) -> None:
        self._retries.add(1, {"code": event.code})
        facts: dict[str, str | float] = {
            "asyncsdk.name": event.name,
            "asyncsdk.attempt": event.attempt,
            "asyncsdk.wait_seconds": event.wait_seconds,
            "asyncsdk.code": event.code,
        }
        self._note(event, "retried", facts)

    def _renewed(self, event: Renewed) -> None:
        self._note(event, "renewed", {"asyncsdk.name": event.name, "asyncsdk.first_part": event.first_part})

    # --- spans -----------------------------------------------------------------------------------------------

    def _note(self, event: Event, name: str, facts: dict[str, str | float]) -> None:
        span = self._runs.get(event.run)
        if span is not None:
            span.add_event(name, facts, timestamp=_at(event))

    def _end(self, span: Span, event: Event, code: str | None) -> None:
        if code is not None:
            span.set_status(Status(StatusCode.ERROR, code))
            span.set_attribute("error.type", code)
        span.end(end_time=_at(event))


def _at(event: Event) -> int:
    """Return when, in nanoseconds, as spans want it."""
    return int(event.time * 1e9)
