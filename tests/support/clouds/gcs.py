"""Resumable sessions of Google Cloud Storage.

Source: Google Cloud Storage, "Resumable uploads" and "Perform resumable uploads".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import orjson

from asyncsdk.checksums import crc32c, crc32c_base64
from tests.support.http_server import Connection, HttpServer, Received

__all__ = ["GcsServer", "Session"]

UNIT = 256 * 1024
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass
class Session:
    """One upload session."""

    path: str
    data: bytearray = field(default_factory=bytearray)
    is_done: bool = False
    is_gone: bool = False


class GcsServer(HttpServer):
    """Keeps sessions by id and finished objects in ``objects``.

    Attributes:
        keeps_bytes: The most of one request that is kept while bytes are missing; None: all of it.
        states_checksum: Whether the description of an object names its crc32c.
        is_strict: Whether bytes that are there already are refused; Google passes over them.
        refused: What was wrong with requests that break the protocol.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, Session] = {}
        self.keeps_bytes: int | None = None
        self.states_checksum = True
        self.is_strict = False
        self.refused: list[str] = []

    def start(self, path: str) -> str:
        """Begin a session for the object at *path*; returns its URI."""
        name = f"session-{len(self.sessions) + 1:08d}"
        self.sessions[name] = Session(path)
        return self.url(f"{path}?upload_id={name}")

    async def answer(self, connection: Connection, request: Received) -> None:
        session = self.sessions.get(request.query.get("upload_id", ""))
        if session is None or session.is_gone:
            await connection.reply(410, b'{"error": {"code": 410, "message": "gone", "errors": [{"reason": "gone"}]}}')
        elif request.method == "DELETE":
            session.is_gone = True
            self.aborted.append(request.query["upload_id"])
            await connection.reply(499)
        elif session.is_done:
            await self._finished(connection, session)
        else:
            await self._take(connection, request, session)

    async def _take(self, connection: Connection, request: Received, session: Session) -> None:
        match = _RANGE.fullmatch(request.header("content-range") or "")
        if match is None:
            await self._refuse(connection, "no Content-Range")
            return
        total = None if match[3] == "*" else int(match[3])
        if match[1] is not None:
            start, stop = int(match[1]), int(match[2]) + 1
            if stop - start != len(request.body):
                await self._refuse(connection, f"{len(request.body)} bytes for {request.header('content-range')}")
                return
            if stop != total and (stop - start) % UNIT:
                await self._refuse(connection, "a part that is not the last is no multiple of 256 KiB")
                return
            overlap = len(session.data) - start
            if overlap < 0 or (overlap and self.is_strict):
                await self._refuse(connection, f"bytes from {start}, {len(session.data)} are here")
                return
            kept = request.body[overlap:]
            kept = kept if self.keeps_bytes is None else kept[: self.keeps_bytes]
            session.data += kept
        if total is not None and len(session.data) == total:
            session.is_done = True
            self.objects[session.path] = bytes(session.data)
            await self._finished(connection, session)
            return
        there = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
        await connection.reply(308, headers=there)

    async def _finished(self, connection: Connection, session: Session) -> None:
        data = self.objects[session.path]
        facts = {"kind": "storage#object", "name": session.path, "size": str(len(data)), "etag": "CJ1="}
        if self.states_checksum:
            facts["crc32c"] = crc32c_base64(crc32c(data))
        await connection.reply(200, orjson.dumps(facts), {"Content-Type": "application/json"})

    async def _refuse(self, connection: Connection, why: str) -> None:
        self.refused.append(why)
        body = orjson.dumps({"error": {"code": 400, "message": why, "errors": [{"reason": "invalid"}]}})
        await connection.reply(400, body, {"Content-Type": "application/json"})
