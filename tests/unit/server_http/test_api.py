"""The REST API as any HTTP client sees it."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from asyncsdk.domain.ids import make_id
from asyncsdk.protocol import all_messages
from asyncsdk.server.backend import Backend
from tests.support.server import RunningServer


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=server.headers) as client:
        yield client


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """Return the error after seeing that it has the one shape."""
    error = reply.json()["error"]
    assert {"code", "message", "request_id"} <= error.keys()
    assert error["request_id"] == reply.headers["x-request-id"]
    assert isinstance(error["message"], str)
    return dict(error)


def test_an_entity_is_made_read_listed_changed_and_deleted(client: httpx.Client) -> None:
    name = f"streets {make_id()}"
    made = client.post("/v1/projects", json={"name": name}).json()
    assert made["name"] == name
    path = f"/v1/projects/{made['id']}"
    assert client.get(path).json() == made
    filtered = {"filter": f'{{"kind":"condition","field":"name","op":"eq","value":"{name}"}}', "total": "true"}
    page = client.get("/v1/projects", params=filtered).json()
    assert (page["entries"], page["total"]) == ([made], 1)
    assert client.patch(path, json={"description": "all"}).json()["description"] == "all"
    assert client.delete(path).json() == {}
    assert (client.get(path).status_code, error_of(client.get(path))["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}, {"Authorization": "Basic YTpi"}],
)
def test_every_operation_needs_a_token(server: RunningServer, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=f"{server.url}/v1", headers=headers) as stranger:
        for message_type in all_messages():
            path = re.sub(r"\{[a-z_]+\}", make_id(), message_type.route.path)
            reply = stranger.request(message_type.route.method, path, content=b"no JSON")
            assert (reply.status_code, error_of(reply)["code"]) == (401, "unauthenticated"), message_type
            assert reply.headers["www-authenticate"].startswith("Bearer")


def test_without_a_token_the_body_is_not_read(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(30)
        connection.sendall(b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")


def test_bad_input_names_the_field_and_never_the_value(client: httpx.Client) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"json": {"name": 5}}, "name"),
        ({"json": {}}, "name"),
        ({"json": {"name": "a", "colour": "sesame"}}, "colour"),
        ({"json": {"name": "a", "project_id": "sesame"}}, "project_id"),
        ({"json": ["sesame"]}, "JSON object"),
        ({"content": b"{sesame"}, "JSON"),
        ({"content": b"\xff\xfe"}, "JSON"),
        ({"content": b'{"name": "a", "metadata": {"a": NaN}}'}, "JSON"),
        ({"json": {"name": "a"}, "params": {"name": "sesame"}}, "query"),
    ]
    for request, expected in cases:
        reply = client.post("/v1/projects", **request)
        assert (reply.status_code, error_of(reply)["code"]) == (400, "bad_request"), request
        assert expected in error_of(reply)["message"]
        assert "sesame" not in reply.text
    for query in ("limit=many", "limit=0", "limit=1&limit=2", "nothing=1", "filter=%7B", "%ff=1", "x"):
        reply = client.get(f"/v1/projects?{query}")
        assert (reply.status_code, error_of(reply)["code"]) == (400, "bad_request"), query
    assert client.get("/v1/projects/not-an-id").status_code == 400
    twice = client.patch(f"/v1/projects/{make_id()}", json={"project_id": make_id()})
    assert "project_id" in error_of(twice)["message"]


def test_malformed_messages_are_bad_requests_whatever_they_hold(client: httpx.Client) -> None:
    made = client.post("/v1/projects", json={"name": make_id()}).json()
    one = '{"kind":"condition","field":"name","op":"eq","value":"sesame"}'
    for text in (
        '{"kind":"condition","field":"name"}',
        '{"kind":"condition","field":"name","op":"eq","value":"sesame","self":1}',
        '{"kind":"all","parts":5}',
        '{"kind":"any"}',
        '{"kind":"not","part":' * 300 + one + "}" * 300,
        '{"kind":"not","part":' * 900 + one + "}" * 900,
    ):
        reply = client.get("/v1/projects", params={"filter": text})
        assert (reply.status_code, error_of(reply)["code"]) == (400, "bad_request"), text[:100]
        assert "sesame" not in reply.text
        assert len(reply.text) < 2000
    deep = '{"name":"a","metadata":' + '{"a":' * 900 + "1" + "}" * 900 + "}"
    for reply in (
        client.post("/v1/projects", json={"name": "a", "self": 1}),
        client.post("/v1/projects", content=deep.encode()),
        client.patch(f"/v1/projects/{made['id']}", json={"if_updated_at": 10**18, "description": "x"}),
        client.patch(f"/v1/projects/{made['id']}", json={"if_updated_at": -(10**30), "description": "x"}),
        client.get("/v1/projects", params={"sort": '["metadata.a\\"b"]'}),
    ):
        assert (reply.status_code, error_of(reply)["code"]) == (400, "bad_request"), reply.text
        assert len(reply.text) < 2000
    several = client.post("/v1/projects", json={"name": 1, "description": 2, "colour": 3})
    assert all(name in error_of(several)["message"] for name in ("name", "description", "colour"))


def test_a_conflict_names_the_ids_in_the_way(client: httpx.Client) -> None:
    name = f"taken {make_id()}"
    made = client.post("/v1/projects", json={"name": name}).json()
    reply = client.post("/v1/projects", json={"name": name})
    assert (reply.status_code, error_of(reply)["ids"]) == (409, [made["id"]])


def test_a_body_over_the_limit_is_413_declared_or_not(client: httpx.Client) -> None:
    declared = client.post("/v1/projects", content=b" " * (16 * 1024 * 1024 + 1))
    chunked = client.post("/v1/projects", content=iter([b" " * 1024 * 1024] * 17))
    assert [reply.status_code for reply in (declared, chunked)] == [413, 413]
    assert error_of(declared)["code"] == "too_large"


def test_unknown_paths_and_other_methods_have_the_same_shape(client: httpx.Client) -> None:
    for path in ("/", "/v1", "/v1/nothing", "/v1/projects/", "/v2/projects", "/objects", "/docs/"):
        reply = client.get(path)
        assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found"), path
    reply = client.put("/v1/projects", json={})
    assert (reply.status_code, error_of(reply)["code"]) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, POST"
    assert client.post("/health").status_code == 405


def test_request_ids_are_taken_when_sane_and_made_otherwise(client: httpx.Client) -> None:
    assert client.get("/health", headers={"X-Request-Id": "job-7.a_b"}).headers["x-request-id"] == "job-7.a_b"
    for odd in ("", "a b", "x" * 65, "a\tb", '"'):
        made = client.get("/health", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{24}", made)


def test_an_unexpected_failure_is_logged_and_tells_nothing(
    server: RunningServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(Backend, "handle", broken)
    with caplog.at_level(logging.ERROR):
        reply = client.get("/v1/whoami")
    assert (reply.status_code, error_of(reply)["code"]) == (500, "internal_error")
    assert "secret" not in reply.text
    record = next(record for record in caplog.records if record.name == "asyncsdk.server")
    assert reply.headers["x-request-id"] in record.getMessage()
    assert record.exc_info is not None
    assert "the secret inside" in str(record.exc_info[1])


def test_neither_tokens_nor_queries_reach_any_log(
    server: RunningServer, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    object_id, digest = server.publish(b"logged")
    origin = server.minter().origin(object_id, size_bytes=6, crc32c=digest, etag="")
    with caplog.at_level(logging.DEBUG):
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the client of this test, not the subject
        try:
            client.get("/v1/projects", params={"cursor": "visible"})
            client.get("/v1/whoami", headers={"Authorization": "Bearer guessed"})
            httpx.get(origin.url)  # type: ignore[union-attr]  # over HTTP it has a URL
            httpx.get(origin.url + "0")  # type: ignore[union-attr]
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(b"\x00Authorization: guessed\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 400")
        finally:
            for name in ("httpx", "httpcore"):
                logging.getLogger(name).setLevel(logging.NOTSET)
    assert f"/objects/{object_id}" in caplog.text, "the test sees the server's log"
    for secret in (server.token, "guessed", "signature", "visible"):
        assert secret not in caplog.text


def test_minted_urls_begin_as_the_client_called_the_server(server: RunningServer, client: httpx.Client) -> None:
    dataset = client.post("/v1/datasets", json={"name": f"photos {make_id()}"}).json()["id"]
    path = f"/v1/datasets/{dataset}/uploads/prepare"
    body = {"entries": [{"path": "a.jpg", "size_bytes": 1}]}

    def url(**headers: str) -> str:
        reply = client.post(path, json=body, headers=headers)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["entries"][0]["target"]["url"])

    assert url().startswith(f"{server.url}/objects/")
    assert url(Host="data.example:8080").startswith("http://data.example:8080/objects/")
    assert url(Host="[::1]:99").startswith("http://[::1]:99/objects/")
    for host in ("a/b", "a@b", "a b", "a:b", "", "a:123456", 'a"b', "-a"):
        assert client.post(path, json=body, headers={"Host": host}).status_code == 400, host


def test_nonsense_and_endless_heads_are_refused_in_the_same_shape(server: RunningServer) -> None:
    for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x: %s\r\n" % (b"y" * 1000) * 100):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(30)
            connection.sendall(sent)
            received = connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert b'"code":"bad_request"' in body


def test_the_configured_public_url_wins(tmp_path: Any) -> None:
    with RunningServer(tmp_path / "data", public_url="https://data.example/") as server:
        with httpx.Client(base_url=server.url, headers=server.headers) as client:
            dataset = client.post("/v1/datasets", json={"name": "photos"}).json()["id"]
            body = {"entries": [{"path": "a.jpg", "size_bytes": 1}]}
            reply = client.post(f"/v1/datasets/{dataset}/uploads/prepare", json=body).json()
        assert reply["entries"][0]["target"]["url"].startswith("https://data.example/objects/")
