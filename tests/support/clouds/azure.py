"""Azure's block blobs: Put Blob, Put Block, Put Block List, Get Block List, behind a signature that is not computed.

Source: Azure Storage REST reference.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from datetime import UTC, datetime

from tests.support.http_server import Connection, HttpServer, Received

__all__ = ["AzureServer"]

BOM = b"\xef\xbb\xbf"


class AzureServer(HttpServer):
    """Keeps blobs in ``objects``, blocks that are in no list in ``blocks``, by path and name.

    Attributes:
        may_read: Whether the signature allows to ask for the list of blocks.
        committed: Names of the blocks that each blob is made of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.committed: dict[str, dict[str, bytes]] = {}
        self.may_read = True

    async def answer(self, connection: Connection, request: Received) -> None:
        query = request.query
        expiry = datetime.strptime(query["se"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        if query.get("sig") != "c2lnbmF0dXJl=" or expiry <= (self.clock or time.time()):
            detail = (
                "<AuthenticationErrorDetail>Signature not valid in the specified time frame</AuthenticationErrorDetail>"
            )
            await self._refuse(connection, 403, "AuthenticationFailed", detail)
        elif request.header("x-ms-version") is None:
            await self._refuse(connection, 400, "MissingRequiredHeader")
        elif request.method == "GET" and query.get("comp") == "blocklist":
            await self._list(connection, request, query["blocklisttype"])
        elif request.method == "GET" and self.may_read and "comp" not in query and request.path in self.objects:
            body = self.objects[request.path]
            await connection.reply(200, body, {"Content-MD5": _md5(body), "ETag": '"0x8D"'})
        elif request.method != "PUT":
            await self._refuse(connection, 405, "UnsupportedHttpVerb")
        elif (told := request.header("content-md5")) not in {None, _md5(request.body)}:
            await self._refuse(connection, 400, "Md5Mismatch")
        elif query.get("comp") == "block":
            await self._block(connection, request, query["blockid"], told)
        elif query.get("comp") == "blocklist":
            await self._commit(connection, request)
        else:
            await self._blob(connection, request)

    async def _blob(self, connection: Connection, request: Received) -> None:
        if request.header("x-ms-blob-type") != "BlockBlob":
            await self._refuse(connection, 400, "MissingRequiredHeader")
        elif self._is_taken(request):
            await self._refuse(connection, 409, "BlobAlreadyExists")
        else:
            self.objects[request.path] = request.body
            self.committed[request.path] = {}
            await connection.reply(201, headers=self._facts(request) | {"ETag": '"0x8D"'})

    async def _block(self, connection: Connection, request: Received, name: str, told: str | None) -> None:
        there = self.blocks.setdefault(request.path, {})
        if any(len(other) != len(name) for other in there) or len(base64.b64decode(name, validate=True)) > 64:
            await self._refuse(connection, 400, "InvalidBlobOrBlock")
            return
        there[name] = request.body
        await connection.reply(201, headers=self._facts(request))

    async def _commit(self, connection: Connection, request: Received) -> None:
        names = re.findall(r"<Latest>(.*?)</Latest>", request.body.decode())
        there = self.committed.get(request.path, {}) | self.blocks.get(request.path, {})
        if self._is_taken(request):
            await self._refuse(connection, 409, "BlobAlreadyExists")
        elif not names or any(name not in there for name in names):
            await self._refuse(connection, 400, "InvalidBlockList")
        else:
            self.blocks.pop(request.path, None)
            self.committed[request.path] = {name: there[name] for name in names}
            self.objects[request.path] = b"".join(there[name] for name in names)
            await connection.reply(201, headers={"ETag": '"0x8D"'})

    async def _list(self, connection: Connection, request: Received, kind: str) -> None:
        if not self.may_read:
            await self._refuse(connection, 403, "AuthorizationPermissionMismatch")
            return
        if request.path not in self.blocks and request.path not in self.committed:
            await self._refuse(connection, 404, "BlobNotFound")
            return
        committed = self.committed.get(request.path, {}) if kind != "uncommitted" else {}
        waiting = self.blocks.get(request.path, {}) if kind != "committed" else {}
        body = (
            '<?xml version="1.0" encoding="utf-8"?><BlockList>'
            f"<CommittedBlocks>{_listed(committed)}</CommittedBlocks>"
            f"<UncommittedBlocks>{_listed(waiting)}</UncommittedBlocks></BlockList>"
        )
        await connection.reply(200, BOM + body.encode(), {"Content-Type": "application/xml"})

    def _is_taken(self, request: Received) -> bool:
        return request.header("if-none-match") == "*" and request.path in self.objects

    def _facts(self, request: Received) -> dict[str, str]:
        told = request.header("content-md5")
        return {} if told is None else {"Content-MD5": told}

    async def _refuse(self, connection: Connection, status: int, code: str, more: str = "") -> None:
        text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>No.</Message>{more}</Error>'
        await connection.reply(status, BOM + text.encode(), {"x-ms-error-code": code, "x-ms-request-id": "r-1"})


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def _listed(blocks: dict[str, bytes]) -> str:
    return "".join(f"<Block><Name>{name}</Name><Size>{len(data)}</Size></Block>" for name, data in blocks.items())
