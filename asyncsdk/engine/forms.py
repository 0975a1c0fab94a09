"""Forms: what ``multipart/form-data`` puts before and after the file it carries.

Source: RFC 7578; WHATWG HTML, "Multipart form data" (how names are quoted).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from asyncsdk.engine.bodies import Carrying
from asyncsdk.engine.digests import asked_for, filled_in
from asyncsdk.targets import FormTarget
from asyncsdk.transport.base import Body, BytesBody

__all__ = ["form_request"]

_CHECKSUM_FIELD = "x-amz-checksum-"


def form_request(target: FormTarget, name: str, body: Body) -> Carrying:
    """Return the request that carries *body* as the file of a form.

    The boundary occurs in no field, and not in bytes that are in memory. A file is not read for that: it would have to
    hold 128 random bits that are made now.

    Checksums that headers leave empty are taken and compared with what the server states, and not told: there they
    would be of the whole form. Those that fields leave empty are filled in.

    Args:
        name: Of the upload: its last part is the file name where the target does not give one.
    """
    empty = {field: "" for field, text in target.fields if not text and field.lower().startswith(_CHECKSUM_FIELD)}
    takes = tuple(dict.fromkeys((*asked_for(target.headers), *asked_for(empty))))
    made = _made(target, name, body, target.fields)
    if not empty:
        return replace(made, takes=takes)

    def with_digests(known: Mapping[str, bytes]) -> Carrying:
        texts = filled_in(empty, known)
        return _made(target, name, body, tuple((field, text or texts.get(field, "")) for field, text in target.fields))

    return replace(made, takes=takes, with_digests=with_digests)


def _made(target: FormTarget, name: str, body: Body, given: Sequence[tuple[str, str]]) -> Carrying:
    fields = [(_quoted(field), text.encode()) for field, text in given]
    boundary = _boundary(fields, body)
    lines = []
    for field, text in fields:
        lines += [b"--" + boundary, b'Content-Disposition: form-data; name="%s"' % field, b"", text]
    disposition = b'Content-Disposition: form-data; name="%s"' % _quoted(target.file_field)
    file_name = name.replace("\\", "/").rpartition("/")[2] if target.file_name is None else target.file_name
    if file_name:
        disposition += b'; filename="%s"' % _quoted(file_name)
    lines += [b"--" + boundary, disposition]
    if target.content_type:
        lines.append(b"Content-Type: " + target.content_type.encode())
    before = b"\r\n".join([*lines, b"", b""])
    headers = {
        key: value
        for key, value in target.headers.items()
        if key.lower() != "content-type" and (value or not asked_for({key: value}))
    }
    headers["Content-Type"] = f"multipart/form-data; boundary={boundary.decode()}"
    return Carrying(
        target.method,
        target.url,
        headers,
        target.expires_at,
        before=before,
        after=b"\r\n--" + boundary + b"--\r\n",
        success=target.success,
    )


def _boundary(fields: list[tuple[bytes, bytes]], body: Body) -> bytes:
    while True:
        boundary = secrets.token_hex(16).encode()
        is_taken = isinstance(body, BytesBody) and re.search(boundary, body.data) is not None
        if not is_taken and not any(boundary in text for _, text in fields):
            return boundary


def _quoted(name: str) -> bytes:
    return name.encode("utf-8", "replace").replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")
