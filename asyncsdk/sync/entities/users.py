# Generated from asyncsdk/entities/users.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Users: the people and programs that may use a platform. All of them together are its team."""

from __future__ import annotations

from collections.abc import Sequence

from asyncsdk.domain.filters import Filter
from asyncsdk.entities.users import AsyncUsers
from asyncsdk.protocol.users import UserRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingTwin, unchanged

__all__ = ["Users"]


class Users(BlockingTwin[AsyncUsers]):
    """The users of a platform. Owners see everybody, others themselves; `Client.whoami` tells who that is."""

    def get(self, user: UserRecord | str | None = None, *, name: str | None = None) -> UserRecord:
        """Return one user, by id or by name.

        Raises:
            NotFound: There is none, or by that name none that you may see.
            PermissionDenied: It is the id of another user, and you are no owner.
        """
        return run(self._twin.get, user, name=name)

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[UserRecord]:
        """List users, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all that you may see.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), unchanged)
