"""Who is speaking, and who else is there."""

from __future__ import annotations

from functools import partial

from sqlalchemy import select

from asyncsdk._version import __version__
from asyncsdk.errors import NotFound, PermissionDenied
from asyncsdk.protocol.base import Page
from asyncsdk.protocol.users import GetUser, ListUsers, UserRecord, WhoAmI
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import users

__all__ = ["who_am_i"]

_LISTING = Listing(
    fields={
        "id": Field(users.c.id, is_unique=True),
        "name": Field(users.c.name, is_unique=True),
        "role": Field(users.c.role),
        "created_at": Field(users.c.created_at, "number"),
    },
    default_sort=("name",),
)

_COLUMNS = (users.c.id, users.c.name, users.c.role, users.c.created_at)

_record = partial(UserRecord.model_validate, from_attributes=True)


@handles(WhoAmI, role="viewer")
def who_am_i(context: Context, message: WhoAmI) -> UserRecord:
    who = context.principal
    return UserRecord(id=who.user_id, name=who.name, role=who.role, platform_version=__version__)


@handles(GetUser, role="viewer")
def get_user(context: Context, message: GetUser) -> UserRecord:
    # Before looking: who may not see others does not learn which ids there are.
    if context.principal.role != "owner" and message.user_id != context.principal.user_id:
        raise PermissionDenied("only owners see other users; whoami tells who you are")
    row = context.connection.execute(select(*_COLUMNS).where(users.c.id == message.user_id)).first()
    if row is None:
        raise NotFound(f"there is no user {message.user_id}")
    return _record(row)


@handles(ListUsers, role="viewer")
def list_users(context: Context, message: ListUsers) -> Page[UserRecord]:
    statement = select(*_COLUMNS)
    if context.principal.role != "owner":
        statement = statement.where(users.c.id == context.principal.user_id)
    return list_page(context.connection, _LISTING, statement, message, _record)
