"""Users: the people and programs that may use a platform. All of them together are its team."""

from __future__ import annotations

from collections.abc import Sequence

from asyncsdk.domain.filters import Condition, Filter
from asyncsdk.domain.ids import is_id
from asyncsdk.entities.lookup import exactly_one
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError, NotFound
from asyncsdk.protocol.users import GetUser, ListUsers, UserRecord

__all__ = ["AsyncUsers"]


class AsyncUsers:
    """The users of a platform. Owners see everybody, others themselves; `AsyncClient.whoami` tells who that is."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, user: UserRecord | str | None = None, *, name: str | None = None) -> UserRecord:
        """Return one user, by id or by name.

        Raises:
            NotFound: There is none, or by that name none that you may see.
            PermissionDenied: It is the id of another user, and you are no owner.
        """
        exactly_one("user", user, name)
        if name is not None:
            page = await self._session.send(ListUsers(filter=Condition("name", "eq", name), limit=1))
            if not page.entries:
                raise NotFound(f"there is no user named {name!r}, or none that you may see")
            return page.entries[0]
        user_id = user.id if isinstance(user, UserRecord) else str(user)
        if not is_id(user_id):
            raise ConfigError(f"{user!r} is no id of a user (24 hexadecimal digits); to find one by name use name=...")
        return await self._session.send(GetUser(user_id=user_id))

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[UserRecord]:
        """List users, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all that you may see.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListUsers(filter=filter, sort=tuple(sort))
        return listing(self._session, message, lambda record: record, limit=limit)
