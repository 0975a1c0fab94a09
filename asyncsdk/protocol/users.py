"""Who is speaking, and who else is there."""

from __future__ import annotations

from typing import ClassVar, Literal

from asyncsdk.domain.ids import Id
from asyncsdk.protocol.base import Get, ListMessage, Message, Record, Timestamp

__all__ = ["GetUser", "ListUsers", "Role", "UserRecord", "WhoAmI"]

Role = Literal["viewer", "editor", "owner"]
"""``viewer`` reads, ``editor`` also writes, ``owner`` also manages users."""


class UserRecord(Record):
    """A user of the platform.

    Attributes:
        id: 24 lower-case hexadecimal digits.
        name: Unique on the platform.
        role: What they may do.
        platform_version: Version of the software that answered.
        created_at: When they were added; None when the platform does not say.
    """

    id: Id
    name: str
    role: Role
    platform_version: str = ""
    created_at: Timestamp | None = None


class WhoAmI(Message[UserRecord]):
    """Return the user that the token belongs to."""

    route: ClassVar = Get("/whoami")


class GetUser(Message[UserRecord]):
    """Return one user. Owners see everybody, others themselves."""

    route: ClassVar = Get("/users/{user_id}")
    user_id: Id


class ListUsers(ListMessage[UserRecord]):
    """List the users of the platform, by name unless sorted otherwise. Owners see everybody, others themselves."""

    route: ClassVar = Get("/users")
