"""Upload keys and signed object URLs: what lets a request through without asking the database.

Both are HMAC-SHA256 under keys derived from the platform's one secret, so that neither can stand in for the other.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from asyncsdk.domain.ids import is_id
from asyncsdk.errors import ConfigError, PermissionDenied

__all__ = ["OBJECTS_PATH", "Grant", "Signer", "object_etag"]

OBJECTS_PATH = "/objects/"
"""Path of every object URL, followed by the object's id."""

_KEY = re.compile(r"([0-9a-f]{24})-([0-9a-f]{32})")
# Unreserved characters only: no client has a reason to write them another way.
_VALUE = re.compile(r"[A-Za-z0-9._~-]+")
_PAIRS = r"[A-Za-z0-9-]+=[A-Za-z0-9._~-]+(?:&[A-Za-z0-9-]+=[A-Za-z0-9._~-]+)*"
_SIGNED_QUERY = re.compile(rf"({_PAIRS})&signature=([0-9a-f]{{64}})")


def object_etag(object_id: str, crc32c: str) -> str:
    """Return the validator of a whole object, with its quotes."""
    return f'"{crc32c}-{object_id}"'


@dataclass(frozen=True, slots=True)
class Grant:
    """What a signed URL allows: one method on one object, with these parameters."""

    method: str
    object_id: str
    parameters: Mapping[str, str]


class Signer:
    """Makes and checks upload keys and object URLs. Compares in constant time; safe to share between threads.

    Args:
        secret: 32 random bytes, kept by the platform; whoever has them can sign anything.
    """

    __slots__ = ("_key_key", "_url_key")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ConfigError(f"the signing secret must have 32 bytes, not {len(secret)}")
        self._key_key = hmac.digest(secret, b"asyncsdk upload key 1", "sha256")
        self._url_key = hmac.digest(secret, b"asyncsdk object url 1", "sha256")

    def make_key(self, object_id: str, *, scope_id: str, user_id: str) -> str:
        """Return the upload key of *object_id*, good for one scope and one user: ``<24 hex id>-<32 hex mac>``."""
        return f"{object_id}-{self._key_mac(object_id, scope_id, user_id)}"

    def check_key(self, key: str, *, scope_id: str, user_id: str) -> str:
        """Return the object id in *key*.

        Raises:
            PermissionDenied: It was not made here for this scope and this user.
        """
        match = _KEY.fullmatch(key)
        if match is None or not hmac.compare_digest(self._key_mac(match[1], scope_id, user_id), match[2]):
            raise PermissionDenied("this upload key was not made for this user and place; prepare the upload again")
        return match[1]

    def sign_url(self, method: str, object_id: str, parameters: Mapping[str, str | int], *, expires_at: int) -> str:
        """Return path and query that allow *method* on one object until *expires_at* (seconds since 1970 UTC).

        Every parameter is under the signature, byte for byte and in this order; nothing can be added or removed.
        """
        path = OBJECTS_PATH + object_id
        query = "&".join([*(f"{name}={value}" for name, value in parameters.items()), f"expires={expires_at}"])
        if not all(_VALUE.fullmatch(str(value)) for value in parameters.values()):
            raise ConfigError("parameters of an object URL hold letters, digits and . _ ~ - only")
        return f"{path}?{query}&signature={self._url_mac(method, path, query)}"

    def check_url(self, method: str, path: str, query: str, *, now: float | None = None) -> Grant:
        """Return what a request's URL allows.

        A URL made for GET is good for HEAD, which tells less.

        Args:
            method: The request's, in capitals.
            path: As it came, not decoded.
            query: As it came, not decoded.
            now: Seconds since 1970 UTC; None for the clock's.

        Raises:
            PermissionDenied: No signature, one made for something else (code ``permission_denied``), or one that has
                expired (code ``expired_url``).
        """
        match = _SIGNED_QUERY.fullmatch(query)
        object_id = path.removeprefix(OBJECTS_PATH)
        signed_method = "GET" if method == "HEAD" else method
        if (
            match is None
            or not is_id(object_id)
            or not hmac.compare_digest(self._url_mac(signed_method, path, match[1]), match[2])
        ):
            raise PermissionDenied("this URL is not signed for this request; ask the platform for one")
        parameters = dict(pair.split("=") for pair in match[1].split("&"))
        if int(parameters["expires"]) <= (time.time() if now is None else now):
            raise PermissionDenied("this URL has expired; ask the platform for a fresh one", code="expired_url")
        return Grant(method, object_id, parameters)

    def _key_mac(self, object_id: str, scope_id: str, user_id: str) -> str:
        # The ids are of fixed length, or hold no NUL: no two triples give one text.
        text = f"{object_id}\0{scope_id}\0{user_id}"
        return hmac.digest(self._key_key, text.encode(), "sha256").hex()[:32]

    def _url_mac(self, method: str, path: str, query: str) -> str:
        # None of the three can hold a line break: sign_url and check_url see to it.
        return hmac.digest(self._url_key, f"{method}\n{path}\n{query}".encode(), "sha256").hex()
