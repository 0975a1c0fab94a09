"""The OpenAPI document and the page made of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from asyncsdk.protocol import all_messages
from tests.support.server import RunningServer


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/openapi.json").json())


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(part) for part in value.values()))
    if isinstance(value, list):
        return set().union(*(references(part) for part in value))
    return set()


def test_every_handled_message_is_an_operation_with_its_parameters(
    server: RunningServer, document: dict[str, Any]
) -> None:
    assert document["openapi"] == "3.1.0"
    found = {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert found.keys() == {message.__name__ for message in all_messages()}
    for message in all_messages():
        method, path, operation = found[message.__name__]
        assert (method, path) == (message.route.method, f"/v1{message.route.path}")
        in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert in_path == set(re.findall(r"\{([a-z_]+)\}", path))
        named = {p["name"] for p in operation["parameters"]}
        if message.route.has_body:
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            named |= document["components"]["schemas"][reference.rpartition("/")[2]]["properties"].keys()
        assert named == set(message.model_fields)
        assert {"200", "401", "default"} <= operation["responses"].keys()
        assert operation["summary"]
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert document["security"] == [{"token": []}]


def test_every_reference_resolves_and_every_schema_has_an_allowed_name(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    found = references(document)
    assert found
    for reference in found:
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in schemas
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemas)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        for name, value in attrs:
            if name in {"href", "src", "action"}:
                self.links.add(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_docs_page_stands_alone_and_shows_every_operation(server: RunningServer) -> None:
    reply = httpx.get(f"{server.url}/docs")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    page = _Page()
    page.feed(reply.text)
    assert page.open == []
    assert not page.tags & {"script", "img", "link", "iframe", "form"}
    assert all(link == "/openapi.json" or link.removeprefix("#") in page.ids for link in page.links)
    for message in all_messages():
        assert message.__name__ in page.ids
        assert f"{message.route.method} /v1{message.route.path}" in reply.text


def test_the_pages_need_no_token_and_health_answers(server: RunningServer) -> None:
    for path in ("/docs", "/openapi.json", "/health"):
        assert httpx.get(server.url + path).status_code == 200
        assert httpx.head(server.url + path).status_code == 200
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
