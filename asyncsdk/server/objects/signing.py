"""Upload keys and signed object URLs: what lets a request through without asking the database.

Both are HMAC-SHA256 under keys derived from the platform's one secret, so that neither can stand in for the other.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asyncsdk.domain.ids import is_id
from asyncsdk.errors import ConfigError, PermissionDenied

__all__ = ["OBJECTS_PATH", "Grant", "Signer", "object_etag"]

OBJECTS_PATH = "/objects/"
"""Path of every object URL, followed by the object's id."""

_BLOCK_BYTES = 64  # of SHA-256

_KEY = re.compile(r"[0-9a-f]{24}-[0-9a-f]{32}")
# Unreserved characters only: no client has a reason to write them another way.
_SIGNABLE_QUERY = re.compile(r"[A-Za-z0-9-]+=[A-Za-z0-9._~-]+(?:&[A-Za-z0-9-]+=[A-Za-z0-9._~-]+)*")
_SIGNATURE = "&signature="


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

    __slots__ = ("_key_mac_of", "_url_mac_of")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ConfigError(f"the signing secret must have 32 bytes, not {len(secret)}")
        self._key_mac_of = _Mac(hmac.digest(secret, b"asyncsdk upload key 1", "sha256"))
        self._url_mac_of = _Mac(hmac.digest(secret, b"asyncsdk object url 1", "sha256"))

    def make_key(self, object_id: str, *, scope_id: str, user_id: str) -> str:
        """Return the upload key of *object_id*, good for one scope and one user: ``<24 hex id>-<32 hex mac>``."""
        return f"{object_id}-{self._key_mac(object_id, scope_id, user_id)}"

    def check_key(self, key: str, *, scope_id: str, user_id: str) -> str:
        """Return the object id in *key*.

        Raises:
            PermissionDenied: It was not made here for this scope and this user.
        """
        if _KEY.fullmatch(key) is None or not hmac.compare_digest(self._key_mac(key[:24], scope_id, user_id), key[25:]):
            raise PermissionDenied("this upload key was not made for this user and place; prepare the upload again")
        return key[:24]

    def check_keys(self, keys: Iterable[str], *, scope_id: str, user_id: str) -> dict[str, str]:
        """Return the object ids in those of *keys* that were made here for this scope and this user, by key."""
        found = {}
        whose = f"\0{scope_id}\0{user_id}".encode()
        mac_of, is_equal = self._key_mac_of, hmac.compare_digest
        for key in keys:
            object_id = key[:24]
            # The whole key is compared with the one that would be made of its id: no other form can pass.
            if key.isascii() and is_equal(f"{object_id}-{mac_of(object_id.encode() + whose)[:32]}", key):
                found[key] = object_id
        return found

    def sign_url(self, method: str, object_id: str, parameters: Mapping[str, str | int], *, expires_at: int) -> str:
        """Return path and query that allow *method* on one object until *expires_at* (seconds since 1970 UTC).

        Every parameter is under the signature, byte for byte and in this order; nothing can be added or removed.
        """
        path = OBJECTS_PATH + object_id
        query = "&".join([f"{name}={value}" for name, value in parameters.items()])
        if _SIGNABLE_QUERY.fullmatch(query) is None or query.count("=") != len(parameters):
            raise ConfigError("parameters of an object URL hold letters, digits and . _ ~ - only")
        query = f"{query}&expires={expires_at}"
        return f"{path}?{query}{_SIGNATURE}{self._url_mac(method, path, query)}"

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
        # What stands before the signature needs no look before it: only `sign_url` makes queries that pass.
        signed, _, signature = query.rpartition(_SIGNATURE)
        object_id = path.removeprefix(OBJECTS_PATH)
        signed_method = "GET" if method == "HEAD" else method
        if (
            not is_id(object_id)
            or not signature.isascii()  # others cannot be compared
            or not hmac.compare_digest(self._url_mac(signed_method, path, signed), signature)
        ):
            raise PermissionDenied("this URL is not signed for this request; ask the platform for one")
        parameters = dict(pair.split("=") for pair in signed.split("&"))
        if int(parameters["expires"]) <= (time.time() if now is None else now):
            raise PermissionDenied("this URL has expired; ask the platform for a fresh one", code="expired_url")
        return Grant(method, object_id, parameters)

    def _key_mac(self, object_id: str, scope_id: str, user_id: str) -> str:
        # The ids are of fixed length, or hold no NUL: no two triples give one text.
        return self._key_mac_of(f"{object_id}\0{scope_id}\0{user_id}".encode())[:32]

    def _url_mac(self, method: str, path: str, query: str) -> str:
        # Neither method nor path can hold a line break, so that it is clear where the query begins.
        return self._url_mac_of(f"{method}\n{path}\n{query}".encode())


class _Mac:
    """HMAC-SHA256 under one key, as hexadecimal digits; what depends on the key alone is done once.

    The same value as ``hmac.digest``, which sets up the key anew for every message: that is half of what it costs.

    Source: RFC 2104, section 2, and section 4 on keeping the two halves.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        assert len(key) <= _BLOCK_BYTES  # a longer one would have to be hashed first
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def __call__(self, message: bytes) -> str:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()
