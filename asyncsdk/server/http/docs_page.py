"""The page at ``/docs``: the OpenAPI document for people. One HTML text: no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from typing import Any

__all__ = ["docs_page"]

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid; }
details { margin: .5rem 0; padding: .4rem .8rem; border: 1px solid #8886; border-radius: .4rem; }
summary { cursor: pointer; }
summary code { font-weight: bold; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-top: 1px solid #8886; }
nav a { margin-right: 1rem; }
"""


def docs_page(document: dict[str, Any]) -> tuple[bytes, str]:
    """Return the page and its content security policy: this very style sheet, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    info = document["info"]
    tags = [tag["name"] for tag in document["tags"]]
    operations = {tag: "".join(_operations(document, tag)) for tag in tags}
    links = "".join(f'<a href="#{tag}">{escape(tag)}</a>' for tag in tags)
    sections = "".join(f'<h2 id="{tag}">{escape(tag)}</h2>{operations[tag]}' for tag in tags)
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"{_text(schema.get('description', ''))}{_fields(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_text(info['description'])}"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a></p><nav>{links}<a href="#schemas">schemas</a></nav>'
        f'{sections}<h2 id="schemas">schemas</h2>{schemas}</body></html>'
    )
    return page.encode(), policy


def _operations(document: dict[str, Any], tag: str) -> list[str]:
    return [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    ]


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        (
            parameter["name"],
            f"{parameter['in']}{', required' if parameter['required'] else ''}",
            _type(parameter.get("schema") or parameter["content"]["application/json"]["schema"]),
        )
        for parameter in operation["parameters"]
    ]
    body = ""
    if "requestBody" in operation:
        body = f"<p>Body: {_type(operation['requestBody']['content']['application/json']['schema'])}</p>"
    reply = _type(operation["responses"]["200"]["content"]["application/json"]["schema"])
    errors = ", ".join(status for status in operation["responses"] if status.isdigit() and status != "200")
    return (
        f'<details id="{operation["operationId"]}"><summary><code>{method.upper()} {escape(path)}</code> '
        f"{_inline(operation['summary'])}</summary>{_text(operation['description'])}"
        f"{_table(('parameter', 'where', 'type'), rows)}{body}<p>Reply: {reply}</p><p>Refusals: {errors}</p></details>"
    )


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (name, "required" if name in required else "", _type(value))
        for name, value in schema.get("properties", {}).items()
    ]
    return _table(("field", "", "type"), rows)


def _table(heads: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(where)}</td><td>{kind}</td></tr>"
        for name, where, kind in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _type(schema: dict[str, Any]) -> str:
    """Return a schema in a few words, with links to the named ones."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(map(_type, schema[key]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in values)
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"array of {_type(schema.get('items') or {})}"
    limits = [
        f"{key} {schema[key]}"
        for key in ("pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")
        if key in schema
    ]
    return escape(f"{kind} ({', '.join(limits)})" if limits else kind)


def _text(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph.strip())


def _inline(text: str) -> str:
    return re.sub(r"`{1,2}([^`]+)`{1,2}", r"<code>\1</code>", escape(text, quote=False))
