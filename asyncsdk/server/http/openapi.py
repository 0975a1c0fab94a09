"""The OpenAPI 3.1 document, derived from the messages: nothing in it is written twice.

Source: OpenAPI Specification 3.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from asyncsdk._version import __version__
from asyncsdk.protocol.base import Message
from asyncsdk.server.http.api import API_PREFIX, reply_adapter

__all__ = ["openapi_document"]

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/"
_ERROR: Schema = {
    "type": "object",
    "description": "The one shape of errors.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": {"type": "string", "description": "Stable word for programs."},
                "message": {"type": "string", "description": "Sentence for people."},
                "request_id": {"type": "string", "description": "Also in the header X-Request-Id and in the log."},
                "ids": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Ids of the entities in the way.",
                },
                "line": {"type": "integer", "description": "Line of a bad row, from 1."},
            },
        }
    },
}
_ERRORS = {
    "400": "The request is wrong: `bad_request`, `invalid_name`.",
    "401": "No token, or one that the server does not know: `unauthenticated`.",
    "403": "The token's user may not do this: `permission_denied`.",
    "404": "There is no such thing: `not_found`.",
    "409": "The name is taken, or the thing changed meanwhile: `conflict`.",
    "413": "The body is too large: `too_large`.",
    "default": "Any other refusal or failure.",
}
_DESCRIPTION = """Everything needs the header `Authorization: Bearer TOKEN`. Bodies and replies are JSON. Times are
milliseconds since 1970 UTC. Ids are 24 lower-case hexadecimal digits; whoever creates may make them, and repeating a
call with the same id changes nothing. In queries, fields that are not text are written as JSON. Bytes of objects travel
through signed URLs below `/objects/`, which the operations that prepare uploads and downloads give out; they need no
token."""


def openapi_document(messages: Sequence[type[Message[Any]]]) -> dict[str, Any]:
    """Return the OpenAPI document of *messages*, JSON-ready."""
    inputs: list[Any] = []
    for message_type in messages:
        inputs.append(((message_type, "in"), "validation", TypeAdapter(message_type)))
        inputs.append(((message_type, "out"), "serialization", reply_adapter(message_type)))
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE + "{model}")
    schemas: dict[str, Schema] = definitions.get("$defs", {})
    paths: dict[str, dict[str, Any]] = {}
    for message_type in messages:
        reference = found[(message_type, "in"), "validation"]
        name = str(reference.get("$ref", "")).removeprefix(_REFERENCE)
        schema = schemas.pop(name) if name else reference
        reply = found[(message_type, "out"), "serialization"]
        path = paths.setdefault(API_PREFIX + message_type.route.path, {})
        path[message_type.route.method.lower()] = _operation(message_type, schema, reply, schemas)
    schemas["Error"] = _ERROR
    return {
        "openapi": "3.1.0",
        "info": {"title": "asyncsdk", "version": __version__, "description": " ".join(_DESCRIPTION.split())},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(map(_tag, messages))],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Made by the server, kept by `login`."}
            },
        },
    }


def _operation(
    message_type: type[Message[Any]], schema: Schema, reply: Schema, schemas: dict[str, Schema]
) -> dict[str, Any]:
    route = message_type.route
    summary, _, details = (message_type.__doc__ or message_type.__name__).strip().partition("\n")
    properties: dict[str, Schema] = schema.get("properties", {})
    required = set(schema.get("required", ()))
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": properties[name]} for name in route.path_fields
    ]
    others = {name: value for name, value in properties.items() if name not in route.path_fields}
    operation: dict[str, Any] = {
        "operationId": message_type.__name__,
        "tags": [_tag(message_type)],
        "summary": _plain(summary),
        "description": _plain(details),
    }
    if route.has_body:
        name = message_type.__name__
        body = {key: value for key, value in schema.items() if key not in {"properties", "required"}}
        body |= {"properties": others, "required": sorted(required - set(route.path_fields))}
        schemas[name] = body
        operation["requestBody"] = {
            "required": bool(body["required"]),
            "content": {"application/json": {"schema": {"$ref": _REFERENCE + name}}},
        }
    else:
        parameters += [_query_parameter(name, value, name in required) for name, value in others.items()]
    operation["parameters"] = parameters
    operation["responses"] = {
        "200": {"description": "Done.", "content": {"application/json": {"schema": reply}}},
        **{
            status: {
                "description": description,
                "content": {"application/json": {"schema": {"$ref": f"{_REFERENCE}Error"}}},
            }
            for status, description in _ERRORS.items()
        },
    }
    return operation


def _query_parameter(name: str, schema: Schema, is_required: bool) -> dict[str, Any]:
    """Return a query parameter. Numbers and booleans look the same as JSON; what has structure says that it is JSON."""
    forms = schema.get("anyOf", [schema])
    is_scalar = all(form.get("type") in {"string", "integer", "number", "boolean", "null"} for form in forms)
    facts: dict[str, Any] = {"name": name, "in": "query", "required": is_required}
    return facts | ({"schema": schema} if is_scalar else {"content": {"application/json": {"schema": schema}}})


def _tag(message_type: type[Message[Any]]) -> str:
    return message_type.__module__.rpartition(".")[2]


def _plain(text: str) -> str:
    """Return a docstring's text as Markdown: code in single backticks, lines joined within paragraphs."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(paragraphs).replace("``", "`")
