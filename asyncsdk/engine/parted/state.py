"""What may be remembered of an upload in parts, so that another process can go on with it.

No URL, no header and no token is part of it: where to go on is asked of the platform anew. And it only saves work: what
the server says it has is what counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

__all__ = ["Resume", "SentPart"]


@dataclass(frozen=True, slots=True)
class SentPart:
    """One part that the server has.

    Attributes:
        number: From 1.
        size_bytes: Its size.
        crc32c: Checksum of its bytes as they were sent, eight hexadecimal digits.
        etag: Validator that the server gave for it; empty when it gives none.
        verified: Whether the server named a checksum, and the right one.
    """

    number: int
    size_bytes: int
    crc32c: str
    etag: str = ""
    verified: bool = False


@dataclass(slots=True)
class Resume:
    """Asks that an upload can be gone on with, and says what is known of it already.

    An upload that has one keeps its parts at the server when it fails or is cancelled, unless they are known to be
    wrong. What is remembered counts only if it is of the same upload (id and part size), and for a part that the server
    has with the same size and validator (or names when the object is made, if it cannot be asked before); such a part
    is not sent again. A part of a file is then not read either: the file that is opened must be the one of
    *identity*, else what is remembered is of other bytes and void.

    Args:
        upload_id: Of the upload that *parts* belong to, as *on_begin* was told it.
        part_size: That it was begun with.
        parts: That arrived.
        on_begin: Told upload id and part size before the first part is sent, and again should the server have lost
            the upload and another one be begun: what was remembered is void then.
        on_part: Told of every part when it has arrived. Both are called in the event loop and must neither block nor
            raise.
        keeps_parts: Whether parts stay with the server when the upload fails, and are not sent again. False: what is
            remembered only serves to recognise an upload that was completed by somebody who could not say so any more;
            and a session goes on where it is, since it takes nothing twice.
        identity: Size in bytes, time of the last change (ns) and inode of the file that *parts* are of, and whose parts
            are to be told; compared with the file when it is open. None: whoever gives it has made sure of that.
        flush: Awaited before the object is made of its parts; returns when neither a kill nor a loss of power loses
            anything of what *on_part* was told. Then whoever goes on recognises the object. Must not raise. None:
            nobody waits.
        may_be_there: Whether somebody who ended before saying so may have sent all of it already: where the target only
            takes what is new, that something is there is no conflict as yet.
        is_kept: Whether what it is told is really kept, asked when parts are to be left; None: it is.
    """

    upload_id: str = ""
    part_size: int = 0
    parts: Sequence[SentPart] = ()
    on_begin: Callable[[str, int], None] | None = None
    on_part: Callable[[SentPart], None] | None = None
    keeps_parts: bool = True
    identity: tuple[int, int, int] | None = None
    flush: Callable[[], Awaitable[None]] | None = None
    is_kept: Callable[[], bool] | None = None
    may_be_there: bool = False

    @property
    def may_leave(self) -> bool:
        """Whether parts that are left at the server now can be found again."""
        return self.keeps_parts and (self.is_kept is None or self.is_kept())
