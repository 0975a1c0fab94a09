"""Targets and origins in Google Cloud Storage: signed PUTs, resumable sessions, and signed GETs.

The size is under the signature of a PUT, and so is the checksum where it is known; of a session it is told when it is
begun. Google compares both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from asyncsdk.checksums import crc32c_base64
from asyncsdk.errors import BadRequest
from asyncsdk.server.objects.clouds.gcs_sessions import Session, SessionIds
from asyncsdk.server.objects.clouds.presigning import Presigner
from asyncsdk.server.objects.clouds.side_by_side import arrives_in_parts, mint_side_by_side
from asyncsdk.server.objects.local import check_crc32c
from asyncsdk.server.objects.minting import Wanted
from asyncsdk.targets import Origin, PutTarget, ResumableTarget, Target, UrlOrigin

__all__ = ["HASH_HEADER", "LENGTH_HEADER", "SESSION_SECONDS", "GcsMinter"]

URL_SECONDS = 3600
"""How long signed URLs work."""

SESSION_SECONDS = 7 * 24 * 3600
"""How long a session lasts; Google ends it then."""

_EARLY_SECONDS = 3600
"""A session is given up so long before its end, that nobody finds it ended."""

HASH_HEADER = "x-goog-hash"
LENGTH_HEADER = "x-goog-content-length-range"

PART_BYTES = 64 * 1024 * 1024
"""Parts go one after the other, and each costs a round trip in which nothing moves: at 100 ms and 1 Gbit/s, 8 MiB lose
6 tenths of the time, 64 MiB one sixth. What arrived of a part that breaks stays there."""

STREAM_PART_BYTES = 8 * 1024 * 1024
"""Of an object of unknown size: it is a stream, whose parts are held in memory."""

MAX_OBJECT_BYTES = 5 * 1024**4
"""What Google takes."""


class GcsMinter:
    """A `Minter` of Google Cloud Storage. Begins sessions by asking the store; all else is arithmetic.

    Args:
        presigner: Signs.
        name_of: Gives the name of an object by its id.
        begin_session: Begins a session for the object of that name, size and crc32c (None: not known); returns its
            address.
        stands: Whether there still is a session of that address, or it was finished.
        session_ids: Makes upload ids of sessions.
        asks_to_sign: Whether a signature costs a request: then they are made 16 at once.
        clock: Seconds since 1970 UTC.
    """

    def __init__(
        self,
        presigner: Presigner,
        name_of: Callable[[str], str],
        begin_session: Callable[[str, int | None, str | None], str],
        stands: Callable[[str], bool],
        session_ids: SessionIds,
        *,
        asks_to_sign: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._presigner = presigner
        self._name_of = name_of
        self._begin_session = begin_session
        self._stands = stands
        self._session_ids = session_ids
        self._asks_to_sign = asks_to_sign
        self._clock = clock

    def target(self, object_id: str, *, size_bytes: int | None, crc32c: str | None) -> Target:
        """Return where the bytes of a new object go; see `Minter`.

        Raises:
            BadRequest: The object is larger than Google takes.
            ServerError: The store did not begin a session, or nothing was signed.
        """
        if size_bytes is not None and size_bytes > MAX_OBJECT_BYTES:
            raise BadRequest(f"objects have at most {MAX_OBJECT_BYTES} bytes, not {size_bytes}")
        name = self._name_of(object_id)
        if crc32c is not None:
            check_crc32c(crc32c)
        if arrives_in_parts((object_id, size_bytes, crc32c)):
            url = self._begin_session(name, size_bytes, crc32c)
            session = Session(url, int(self._clock()) + SESSION_SECONDS - _EARLY_SECONDS)
            return _session_target(session, self._session_ids.make(session, name), size_bytes)
        headers = {LENGTH_HEADER: f"{size_bytes},{size_bytes}"}
        if crc32c is not None:
            headers[HASH_HEADER] = f"crc32c={crc32c_base64(int(crc32c, 16))}"
        url, expires_at = self._sign("PUT", name, headers)
        return PutTarget(url, headers, expires_at=expires_at)

    def targets(self, wanted: Sequence[Wanted]) -> list[Target | BadRequest]:
        """Return the targets of many objects; see `Minter`. Sessions are begun 16 at once."""
        return mint_side_by_side(self, wanted, lambda one: self._asks_to_sign or arrives_in_parts(one))

    def renew(
        self, object_id: str, *, size_bytes: int | None, crc32c: str | None, upload_id: str | None, first_part: int
    ) -> Target:
        """Return the target again; see `Minter`. A session that has ended is followed by another, with another id."""
        if upload_id is not None:
            session = self._session_ids.read(upload_id, self._name_of(object_id))
            if session.expires_at > self._clock() and self._stands(session.url):
                return _session_target(session, upload_id, size_bytes)
        return self.target(object_id, size_bytes=size_bytes, crc32c=crc32c)

    def origin(self, object_id: str, *, size_bytes: int, crc32c: str, etag: str) -> Origin:
        """Return where the bytes of a committed object come from; see `Minter`."""
        url, expires_at = self._sign("GET", self._name_of(object_id), {})
        # The platform's validator is none of Google's.
        return UrlOrigin(url, size_bytes=size_bytes, crc32c=crc32c, expires_at=expires_at)

    def _sign(self, method: str, name: str, headers: dict[str, str]) -> tuple[str, int]:
        url = self._presigner.sign(method, name, headers=headers, expires_seconds=URL_SECONDS)
        return url, int(self._clock()) + URL_SECONDS


def _session_target(session: Session, upload_id: str, size_bytes: int | None) -> ResumableTarget:
    part_size = STREAM_PART_BYTES if size_bytes is None else PART_BYTES
    return ResumableTarget(session.url, part_size, upload_id=upload_id, expires_at=float(session.expires_at))
