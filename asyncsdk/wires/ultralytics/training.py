"""Metrics and heartbeats of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from asyncsdk.errors import BadRequest

__all__ = ["Beat", "BeatAnswer", "metrics_body", "metrics_data", "metrics_from_body", "metrics_from_data"]

EpochMetrics = Mapping[int, Mapping[str, float]]
"""Epoch, then name, then value."""

_MAX_EPOCH = 2**62


def metrics_body(metrics: EpochMetrics) -> dict[str, Any]:
    """Return the body that sends metrics: each epoch's are a text that holds JSON."""
    texts = {str(epoch): orjson.dumps(dict(values)).decode() for epoch, values in metrics.items()}
    return {"metrics": texts, "type": "metrics"}


def metrics_from_body(body: Any) -> dict[int, dict[str, float]]:
    """Return the metrics that a body sends.

    Raises:
        BadRequest: It sends none, or something of it is no epoch, no JSON or no finite number. Nothing of it counts
            then.
    """
    if not isinstance(body, dict) or body.get("type", "metrics") != "metrics":
        raise BadRequest('the body must be {"metrics": {"EPOCH": "JSON"}, "type": "metrics"}')
    given = body.get("metrics")
    if not isinstance(given, dict):
        raise BadRequest("metrics must be a JSON object: epoch to the JSON text of its metrics")
    return {_epoch(epoch): _values(epoch, value) for epoch, value in given.items()}


def metrics_data(metrics: EpochMetrics) -> list[dict[str, Any]]:
    """Return the ``data`` that answers reading metrics, in order of the epochs. Its form is ours."""
    return [{"epoch": epoch, "metrics": dict(metrics[epoch])} for epoch in sorted(metrics)]


def metrics_from_data(data: Any) -> dict[int, dict[str, float]]:
    """Return the metrics that an answer's ``data`` holds.

    Raises:
        ValueError: It is of another form.
    """
    if not isinstance(data, list):
        raise ValueError("data is no list")
    found: dict[int, dict[str, float]] = {}
    for entry in data:
        if not isinstance(entry, dict) or not isinstance(entry.get("epoch"), int):
            raise ValueError("an entry of data has no epoch")
        values = entry.get("metrics")
        if not isinstance(values, dict) or not all(_is_number(value) for value in values.values()):
            raise ValueError("an entry of data has no metrics")
        found[entry["epoch"]] = {name: float(value) for name, value in values.items()}
    return found


@dataclass(frozen=True, slots=True)
class Beat:
    """What an agent says of itself.

    Attributes:
        agent: Its name, e.g. ``python-3.11.7-local``.
        agent_id: The id that the server gave it; None before the first answer.
    """

    agent: str
    agent_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the body of the request."""
        return {"agent": self.agent, "agentId": self.agent_id}

    @classmethod
    def from_json(cls, body: Any) -> Beat:
        """Return what the body of a request says.

        Raises:
            BadRequest: It is no JSON object with the name of an agent.
        """
        if not isinstance(body, dict) or not isinstance(body.get("agent"), str) or not body["agent"]:
            raise BadRequest('the body must be {"agent": NAME, "agentId": ID or null}')
        agent_id = body.get("agentId")
        return cls(body["agent"], agent_id if isinstance(agent_id, str) and agent_id else None)


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """What a beat is answered.

    Attributes:
        agent_id: The agent's id from now on; the server decides.
    """

    agent_id: str

    def to_data(self) -> dict[str, Any]:
        """Return the ``data`` of the answer."""
        return {"agentId": self.agent_id}

    @classmethod
    def from_data(cls, data: Any) -> BeatAnswer:
        """Return what an answer's ``data`` says.

        Raises:
            ValueError: It gives no id.
        """
        if not isinstance(data, dict) or not isinstance(data.get("agentId"), str):
            raise ValueError("data holds no agentId")
        return cls(data["agentId"])


def _epoch(text: Any) -> int:
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or int(text[:20]) > _MAX_EPOCH:
        raise BadRequest(f"{str(text)[:40]!r} is no epoch; epochs are numbers from 0 on")
    return int(text)


def _values(epoch: str, value: Any) -> dict[str, float]:
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the metrics of epoch {epoch} are no JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the metrics of epoch {epoch} are no JSON object")
    for name, number in value.items():
        if not _is_number(number):
            raise BadRequest(f"epoch {epoch}: {name[:100]!r} is no finite number")
    return {name: float(number) for name, number in value.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
