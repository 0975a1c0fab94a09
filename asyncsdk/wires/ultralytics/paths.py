"""Where things live, how lists are asked for and answered, and the envelope of every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from asyncsdk.errors import BadRequest

__all__ = [
    "AUTH_PATH",
    "KEY_HEADER",
    "MAX_PAGE",
    "ListAnswer",
    "ListQuery",
    "Resource",
    "answer",
    "collection_path",
    "data_of",
    "entity_path",
    "export_path",
    "flag",
    "heartbeat_path",
    "metrics_path",
    "predict_path",
    "refusal",
    "refusal_text",
    "upload_path",
]

Resource = Literal["models", "datasets", "projects", "users", "teams"]

AUTH_PATH = "/v1/auth"
"""POST without a body: whether the key is good."""

KEY_HEADER = "x-api-key"
"""Carries the key; ``Authorization: Bearer`` is heard as well, and first."""

MAX_PAGE = 1000
_MAX_SKIPPED = 10_000


def collection_path(resource: Resource) -> str:
    """Return where a resource is listed (GET) and created (POST)."""
    return f"/v1/{resource}"


def entity_path(resource: Resource, entity_id: str) -> str:
    """Return where one is read (GET), changed (PATCH) and deleted (DELETE); metrics of a model are posted there."""
    return f"/v1/{resource}/{entity_id}"


def upload_path(resource: Resource, entity_id: str) -> str:
    """Return where the file of one goes (POST, a form)."""
    return f"/v1/{resource}/{entity_id}/upload"


def metrics_path(model_id: str) -> str:
    """Return where the metrics of a model are read (GET)."""
    return f"/v1/models/{model_id}/metrics"


def export_path(model_id: str) -> str:
    """Return where an export is asked for (POST)."""
    return f"/v1/models/{model_id}/export"


def predict_path(model_id: str) -> str:
    """Return where an image is predicted (POST, a form)."""
    return f"/v1/predict/{model_id}"


def heartbeat_path(model_id: str) -> str:
    """Return where an agent says that it is alive (POST)."""
    return f"/v1/agent/heartbeat/models/{model_id}"


# --- answers -----------------------------------------------------------------------------------------------------


def answer(data: Any, message: str = "") -> dict[str, Any]:
    """Return the body of a success."""
    return {"success": True, **({"message": message} if message else {}), "data": data}


def refusal(message: str, *, code: str = "", ids: Sequence[str] = ()) -> dict[str, Any]:
    """Return the body of a refusal. A stable word and the ids of what is in the way are ours."""
    return {
        "message": message,
        "success": False,
        **({"code": code} if code else {}),
        **({"ids": list(ids)} if ids else {}),
    }


def data_of(body: Any) -> Any:
    """Return the ``data`` of an answer.

    Raises:
        ValueError: The body is no answer, or says that it failed although its status does not.
    """
    if not isinstance(body, dict) or "data" not in body:
        raise ValueError("it is no JSON object with a member data")
    if body.get("success") is False:
        raise ValueError(f"it says that it failed: {refusal_text(body) or 'without a reason'}")
    return body["data"]


def refusal_text(body: Any) -> str | None:
    """Return the reason that a refusal gives; None without one."""
    text = body.get("message") if isinstance(body, dict) else None
    return text if isinstance(text, str) and text else None


# --- lists -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a listing is asked for.

    Attributes:
        limit: Records of a page, 1 to 1,000.
        last_doc_id: Where the page before ended: its ``lastRecordId``, opaque to whoever asks.
        query: Part of the name; None for all.
        public: Only those that everybody may see (true); the caller's own when false or None.
        page: Pages to pass over, in place of ``last_doc_id``; 0 for none.
    """

    limit: int = 10
    last_doc_id: str | None = None
    query: str | None = None
    public: bool | None = None
    page: int = 0

    def to_params(self) -> dict[str, str]:
        """Return the query of the request."""
        params = {"limit": str(self.limit)}
        if self.last_doc_id is not None:
            params["last_doc_id"] = self.last_doc_id
        if self.query:
            params["query"] = self.query
        if self.public is not None:
            params["public"] = str(self.public)
        if self.page:
            params["page"] = str(self.page)
        return params

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> ListQuery:
        """Return what the query of a request says; names that are not known are passed over.

        Raises:
            BadRequest: A number is none, or out of its bounds.
        """
        limit = _number(params, "limit", 10, 1, MAX_PAGE)
        page = _number(params, "page", 0, 0, _MAX_SKIPPED)
        if page * limit > _MAX_SKIPPED:
            raise BadRequest(f"page {page} lies beyond the first {_MAX_SKIPPED} records; go on with last_doc_id")
        return cls(
            limit=limit,
            last_doc_id=params.get("last_doc_id") or None,
            query=params.get("query") or None,
            public=None if "public" not in params else flag(params["public"]),
            page=page,
        )


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """One page of a listing.

    Attributes:
        results: The records' data.
        total: Records of the whole listing.
        last_record_id: Asks for the next page; None on the last.
    """

    results: Sequence[Mapping[str, Any]]
    total: int
    last_record_id: str | None

    def to_data(self) -> dict[str, Any]:
        """Return the ``data`` of the answer."""
        return {"results": list(self.results), "total": self.total, "lastRecordId": self.last_record_id}

    @classmethod
    def from_data(cls, data: Any) -> ListAnswer:
        """Return what an answer's ``data`` says.

        Raises:
            ValueError: It is no page.
        """
        if not isinstance(data, dict) or not isinstance(data.get("results"), list):
            raise ValueError("data holds no list of results")
        total, last = data.get("total"), data.get("lastRecordId")
        if not isinstance(total, int) or not (last is None or isinstance(last, str)):
            raise ValueError("total or lastRecordId has the wrong type")
        return cls(data["results"], total, last)


def flag(text: str) -> bool:
    """Return a truth value as the client writes it: ``True``, ``False``, in any case, or 1 and 0.

    Raises:
        BadRequest: It is none.
    """
    value = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
    if value is None:
        raise BadRequest(f"{text[:20]!r} must be True or False")
    return value


def _number(params: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not least <= int(text[:9]) <= most:
        raise BadRequest(f"{name} must be a number from {least} to {most}")
    return int(text)
