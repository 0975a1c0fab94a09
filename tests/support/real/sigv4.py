"""S3's signed URLs (AWS signature version 4 in the query), made here so that tests need no SDK.

Source: Amazon S3 API reference, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from tests.support.real.running import RealServer

__all__ = ["presign"]


def presign(
    server: RealServer,
    method: str,
    key: str,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    expires_seconds: int = 3600,
    now: dt.datetime | None = None,
) -> str:
    """Return a URL that may do one thing with one object.

    Args:
        server: Who will be asked, with whose key it is signed.
        method: ``GET``, ``PUT`` ...
        key: Of the object; empty: the bucket itself.
        query: Parameters of the operation: ``uploadId``, ``partNumber``, ``uploads`` (with an empty value) ...
        headers: Those that the request must carry exactly so, as they are signed too.
        expires_seconds: How long it is good for.
        now: When it was signed; None: now.
    """
    moment = (now or dt.datetime.now(dt.UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{server.region}/s3/aws4_request"
    parts = urlsplit(server.url)
    path = quote(f"{parts.path}/{server.bucket}" + (f"/{key}" if key else ""), safe="/-_.~")
    signed = {"host": parts.netloc} | {name.lower(): value.strip() for name, value in (headers or {}).items()}
    names = ";".join(sorted(signed))
    parameters = {
        **(query or {}),
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{server.access_key}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(expires_seconds),
        "X-Amz-SignedHeaders": names,
    }
    text = "&".join(
        sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in parameters.items())
    )
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    request = f"{method}\n{path}\n{text}\n{lines}\n{names}\nUNSIGNED-PAYLOAD"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    secret = f"AWS4{server.secret_key}".encode()
    for step in scope.split("/"):
        secret = hmac.digest(secret, step.encode(), "sha256")
    signature = hmac.digest(secret, to_sign.encode(), "sha256").hex()
    return f"{parts.scheme}://{parts.netloc}{path}?{text}&X-Amz-Signature={signature}"
