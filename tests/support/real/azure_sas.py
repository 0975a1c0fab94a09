"""Azure's signed URLs (shared access signatures), made here so that tests need no SDK.

Source: Azure Storage REST reference, "Create a service SAS" and "Create an account SAS", version 2020-12-06.
"""

from __future__ import annotations

import base64
import datetime as dt
import hmac
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from tests.support.real.running import RealServer

__all__ = ["VERSION", "account_url", "sign_blob"]

VERSION = "2020-12-06"
"""Of the storage service; also what ``x-ms-version`` says."""


def sign_blob(
    server: RealServer,
    name: str,
    *,
    permissions: str = "rcw",
    query: Mapping[str, str] | None = None,
    expires_seconds: float = 3600,
    starts_in_seconds: float = 0,
) -> str:
    """Return the URL of one blob with its signature.

    Args:
        server: Azurite, or whoever has its account.
        name: Of the blob.
        permissions: ``r`` read, ``c`` create, ``w`` write, ``d`` delete, in this order.
        query: Parameters of the operation (``comp``, ``blockid``); they are not signed.
        expires_seconds: When it ends, from now.
        starts_in_seconds: When it begins, from now; 0: it has begun.
    """
    start = _time(starts_in_seconds) if starts_in_seconds else ""
    expiry = _time(expires_seconds)
    resource = f"/blob/{server.access_key}/{server.bucket}/{name}"
    # The empty lines are: identifier, address; and at the end snapshot, encryption scope, five reply headers.
    lines = [permissions, start, expiry, resource, "", "", "", VERSION, "b", "", "", "", "", "", "", ""]
    parameters = {**(query or {}), "sv": VERSION, "se": expiry, "sr": "b", "sp": permissions}
    if start:
        parameters["st"] = start
    parameters["sig"] = _sign(server, lines)
    return f"{server.object_url(quote(name))}?{urlencode(parameters)}"


def account_url(server: RealServer, path: str, query: Mapping[str, str]) -> str:
    """Return a URL of the account that may do anything with containers and blobs, for an hour."""
    expiry = _time(3600)
    permissions, services, resources = "rwdlacup", "b", "sco"
    lines = [server.access_key, permissions, services, resources, "", expiry, "", "", VERSION, "", ""]
    parameters = {**query, "sv": VERSION, "ss": services, "srt": resources, "sp": permissions, "se": expiry}
    return f"{server.url}/{path}?{urlencode({**parameters, 'sig': _sign(server, lines)})}"


def _time(seconds: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sign(server: RealServer, lines: list[str]) -> str:
    key = base64.b64decode(server.secret_key)
    return base64.b64encode(hmac.digest(key, "\n".join(lines).encode(), "sha256")).decode()
