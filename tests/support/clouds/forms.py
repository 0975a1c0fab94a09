"""A server that takes ``multipart/form-data`` and is strict about it."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field

from tests.support.http_server import Connection, HttpServer, Received

__all__ = ["Form", "FormServer"]

_DISPOSITION = re.compile(r'Content-Disposition: form-data; name="([^"]*)"(?:; filename="([^"]*)")?')


@dataclass
class Form:
    """One form as it came.

    Attributes:
        fields: Name and value of each field, in order; the file is not among them.
        file_field: Name of the field that held the file; ``file_name`` and ``content_type`` what was said of it.
    """

    fields: list[tuple[str, str]] = field(default_factory=list)
    file_field: str = ""
    file_name: str | None = None
    content_type: str | None = None
    data: bytes = b""


class FormServer(HttpServer):
    """Keeps the file of each form under the path it was sent to, and the forms themselves.

    Attributes:
        status: What a form is answered with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.status = 204

    async def answer(self, connection: Connection, request: Received) -> None:
        told = request.header("content-md5")
        if told is not None and told != base64.b64encode(hashlib.md5(request.body).digest()).decode():
            await connection.reply(400, b"<Error><Code>BadDigest</Code></Error>")
            return
        form = _parse(request)
        if form is None or request.header("transfer-encoding") is not None:
            await connection.reply(400, b"<Error><Code>MalformedPOSTRequest</Code></Error>")
            return
        self.forms.append(form)
        summed = dict(form.fields).get("x-amz-checksum-sha256")
        if summed is not None and summed != base64.b64encode(hashlib.sha256(form.data).digest()).decode():
            await connection.reply(400, b"<Error><Code>BadDigest</Code></Error>")
            return
        self.objects[request.path] = form.data
        elsewhere = {"Location": self.url("/thanks")} if self.status == 303 else {}
        facts = {"ETag": self.etag(request.path), "x-amz-request-id": "r-1"}
        await connection.reply(self.status, headers=facts | elsewhere)


def _parse(request: Received) -> Form | None:
    kind = re.fullmatch(r"multipart/form-data; boundary=([0-9a-f]{32})", request.header("content-type") or "")
    if kind is None:
        return None
    boundary = b"--" + kind[1].encode()
    first, *parts = (b"\r\n" + request.body).split(b"\r\n" + boundary)
    if first or not parts or parts.pop() != b"--\r\n" or any(not part.startswith(b"\r\n") for part in parts):
        return None
    form = Form()
    for number, part in enumerate(parts, start=1):
        head, _, data = part[2:].partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        match = _DISPOSITION.fullmatch(lines[0])
        if match is None:
            return None
        if number < len(parts):
            form.fields.append((match[1], data.decode()))
            continue
        form.file_field, form.file_name, form.data = match[1], match[2], data
        form.content_type = lines[1].removeprefix("Content-Type: ") if len(lines) > 1 else None
    return form
