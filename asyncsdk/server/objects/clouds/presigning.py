"""Signed URLs of S3 and of Google: signature version 4 in the query. A seventh of the CPU that S3's SDK takes for one.

Google's is Amazon's with other names; a key of a service account signs it too (RSA) in place of a shared secret.

Source: Amazon S3 API reference, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)"; Google
Cloud Storage, "V4 signing process with your own program", "Signatures", "Canonical requests".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from asyncsdk.transport.urls import split_url

__all__ = ["AMAZON", "GOOGLE", "Credentials", "Dialect", "Presigner"]

_SAFE = "-_.~"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The names in a signature.

    Attributes:
        name: What the algorithm, the key's derivation and the end of the scope begin with.
        prefix: What the parameters of the query begin with.
        service: Of the scope.
    """

    name: str
    prefix: str
    service: str


AMAZON = Dialect("AWS4", "X-Amz", "s3")
GOOGLE = Dialect("GOOG4", "X-Goog", "storage")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What URLs are signed with; ``repr`` shows none of it.

    Attributes:
        access_key: Stands in every URL. Google's service accounts: the address.
        secret_key: Stands nowhere; empty where *sign* is given.
        token: Of temporary credentials, stands in every URL; empty for others.
        sign: Signs with RSA and SHA-256 in place of a secret; may ask somebody who has the key.
    """

    access_key: str = field(repr=False)
    secret_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    sign: Callable[[bytes], bytes] | None = field(default=None, repr=False)


class Presigner:
    """Signs URLs of one bucket. Safe to share between threads.

    Args:
        base_url: Of the bucket as clients reach it, without a slash at its end.
        region: Of the bucket.
        credentials: Returns those in force.
        clock: Seconds since 1970 UTC.
        dialect: Whose URLs.
    """

    def __init__(
        self,
        base_url: str,
        region: str,
        credentials: Callable[[], Credentials],
        clock: Callable[[], float],
        dialect: Dialect = AMAZON,
    ) -> None:
        # What clients send as ``Host``, which is under the signature: in small letters, without the usual port.
        address, path = split_url(base_url)
        self._origin = f"{address.scheme}://{address.authority}"
        self._host = address.authority
        self._path = path.decode().rstrip("/")
        self._region = region
        self._credentials = credentials
        self._clock = clock
        self._dialect = dialect
        self._end = f"{dialect.name.lower()}_request"
        self._key = ("", "", b"")  # day, secret, what both make

    def sign(
        self,
        method: str,
        name: str,
        *,
        expires_seconds: int,
        parameters: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str | int] | None = None,
    ) -> str:
        """Return a URL that may do one thing with one object.

        Args:
            method: ``GET``, ``PUT`` ...
            name: Of the object.
            expires_seconds: How long it is good for; at most a week.
            parameters: Of the operation: ``uploadId``, ``partNumber`` ...
            headers: Names in lower case; those that the request must carry exactly so.
        """
        credentials, prefix = self._credentials(), self._dialect.prefix
        algorithm = f"{self._dialect.name}-{'HMAC' if credentials.sign is None else 'RSA'}-SHA256"
        moment = datetime.fromtimestamp(self._clock(), tz=UTC).strftime("%Y%m%dT%H%M%SZ")
        day = moment[:8]
        scope = f"{day}/{self._region}/{self._dialect.service}/{self._end}"
        signed = {"host": self._host, **(headers or {})}
        names = ";".join(sorted(signed))
        query: dict[str, str | int] = {
            **(parameters or {}),
            f"{prefix}-Algorithm": algorithm,
            f"{prefix}-Credential": f"{credentials.access_key}/{scope}",
            f"{prefix}-Date": moment,
            f"{prefix}-Expires": expires_seconds,
            f"{prefix}-SignedHeaders": names,
        }
        if credentials.token:
            query[f"{prefix}-Security-Token"] = credentials.token
        text = "&".join(sorted(f"{quote(key, _SAFE)}={quote(str(value), _SAFE)}" for key, value in query.items()))
        path = f"{self._path}/{quote(name, '/' + _SAFE)}"
        lines = "".join(f"{header}:{signed[header]}\n" for header in sorted(signed))
        request = f"{method}\n{path}\n{text}\n{lines}\n{names}\nUNSIGNED-PAYLOAD"
        to_sign = f"{algorithm}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}".encode()
        if credentials.sign is None:
            signature = hmac.digest(self._key_of(day, credentials.secret_key), to_sign, "sha256")
        else:
            signature = credentials.sign(to_sign)
        return f"{self._origin}{path}?{text}&{prefix}-Signature={signature.hex()}"

    def _key_of(self, day: str, secret_key: str) -> bytes:
        known_day, known_secret, key = self._key
        if (known_day, known_secret) != (day, secret_key):
            key = f"{self._dialect.name}{secret_key}".encode()
            for step in (day, self._region, self._dialect.service, self._end):
                key = hmac.digest(key, step.encode(), "sha256")
            self._key = (day, secret_key, key)
        return key
