"""Names of upload sessions of Google Cloud Storage, as clients remember them.

Whoever has a session's address can write the object for a week, so no journal may hold it. The upload id that clients
get is the address encrypted with a key of the platform (AES-GCM): the platform reads it when an upload is gone on with,
and needs no table of sessions.
"""

from __future__ import annotations

import base64
import hmac
import os
import struct
from dataclasses import dataclass, field

from asyncsdk.errors import BadRequest

__all__ = ["Session", "SessionIds"]

_NONCE_BYTES = 12
_EXPIRY = struct.Struct(">Q")
_MOST_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """An upload session.

    Attributes:
        url: Its address, without which nothing can be sent to it; ``repr`` does not show it.
        expires_at: When it is given up, seconds since 1970 UTC.
    """

    url: str = field(repr=False)
    expires_at: int


class SessionIds:
    """Makes upload ids of sessions, and reads them. Safe to share between threads.

    Args:
        secret: Of the platform. With another one, ids given out before are not recognised.
    """

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # of the extra `gcs`

        self._cipher = AESGCM(hmac.digest(secret, b"asyncsdk upload session 1", "sha256"))

    def make(self, session: Session, name: str) -> str:
        """Return the id of the session of the object of that name."""
        nonce = os.urandom(_NONCE_BYTES)
        content = _EXPIRY.pack(session.expires_at) + session.url.encode()
        sealed = nonce + self._cipher.encrypt(nonce, content, name.encode())
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def read(self, upload_id: str, name: str) -> Session:
        """Return the session of that id.

        Raises:
            BadRequest: It is none of an object of that name.
        """
        from cryptography.exceptions import InvalidTag

        try:
            if len(upload_id) > _MOST_CHARACTERS:
                raise ValueError
            sealed = base64.b64decode(upload_id + "=" * (-len(upload_id) % 4), altchars=b"-_", validate=True)
            content = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (ValueError, InvalidTag):
            raise BadRequest("this is no upload id for this object; use the one that was given") from None
        return Session(content[_EXPIRY.size :].decode(), _EXPIRY.unpack_from(content)[0])
