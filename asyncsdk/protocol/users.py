"""Who is speaking."""

from __future__ import annotations

from typing import ClassVar, Literal

from asyncsdk.domain.ids import Id
from asyncsdk.protocol.base import Get, Message, Record

__all__ = ["Role", "UserRecord", "WhoAmI"]

Role = Literal["viewer", "editor", "owner"]
"""``viewer`` reads, ``editor`` also writes, ``owner`` also manages users."""


class UserRecord(Record):
    """A user of the platform, as they see themselves.

    Attributes:
        id: 24 lower-case hexadecimal digits.
        name: Unique on the platform.
        role: What they may do.
        platform_version: Version of the software that answered.
    """

    id: Id
    name: str
    role: Role
    platform_version: str = ""


class WhoAmI(Message[UserRecord]):
    """Return the user that the token belongs to."""

    route: ClassVar = Get("/whoami")
