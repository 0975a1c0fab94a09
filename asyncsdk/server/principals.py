"""Who is speaking: users, their tokens, and what a role may do.

A token belongs to a user and is kept only as its SHA-256: who reads the database cannot speak for anybody. Tokens hold
256 random bits, so that no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from asyncsdk.domain.ids import make_id
from asyncsdk.domain.paths import check_name
from asyncsdk.errors import Conflict, NotFound, PermissionDenied
from asyncsdk.protocol.users import Role
from asyncsdk.server.schema import tokens, users

__all__ = ["Principal", "authenticate", "create_token", "create_user", "find_user", "require"]

_RANK: dict[str, int] = {"viewer": 1, "editor": 2, "owner": 3}


@dataclass(frozen=True, slots=True)
class Principal:
    """The user on whose behalf a message is handled.

    Attributes:
        user_id: Id of the user.
        name: Name of the user.
        role: ``viewer`` reads, ``editor`` also writes, ``owner`` also manages users.
    """

    user_id: str
    name: str
    role: Role


def require(principal: Principal, role: Role, operation: str) -> None:
    """Let *principal* pass when it may do what *role* may.

    Raises:
        PermissionDenied: It may not.
    """
    if _RANK[principal.role] < _RANK[role]:
        raise PermissionDenied(
            f"{operation} needs the role {role!r}; user {principal.name!r} has the role {principal.role!r}"
        )


def create_user(connection: Connection, *, name: str, role: Role, now_ms: int, created_by: str | None) -> Principal:
    """Add a user.

    Raises:
        InvalidName: The name cannot be one.
        Conflict: The name is taken.
    """
    check_name(name)
    if role not in _RANK:
        raise ValueError(f"role must be one of {', '.join(_RANK)}, not {role!r}")
    taken = connection.execute(select(users.c.id).where(users.c.name == name)).scalar()
    if taken is not None:
        raise Conflict(f"there is a user named {name!r} already", ids=(taken,))
    user = Principal(make_id(), name, role)
    connection.execute(
        insert(users).values(
            id=user.user_id, name=name, role=role, created_at=now_ms, updated_at=now_ms, created_by=created_by
        )
    )
    return user


def find_user(connection: Connection, user_id: str) -> Principal:
    """Return the user of that id.

    Raises:
        NotFound: There is none.
    """
    row = connection.execute(select(users.c.name, users.c.role).where(users.c.id == user_id)).first()
    if row is None:
        raise NotFound(f"there is no user {user_id}")
    return Principal(user_id, row.name, row.role)


def create_token(connection: Connection, *, user_id: str, name: str, now_ms: int, created_by: str | None) -> str:
    """Return a new token of a user. It can never be read again.

    Raises:
        NotFound: There is no such user.
        InvalidName: The name cannot be one.
    """
    check_name(name)
    find_user(connection, user_id)
    token = f"ask_{secrets.token_urlsafe(32)}"
    connection.execute(
        insert(tokens).values(
            id=make_id(),
            user_id=user_id,
            name=name,
            sha256=_digest(token),
            created_at=now_ms,
            updated_at=now_ms,
            created_by=created_by,
        )
    )
    return token


def authenticate(connection: Connection, token: str) -> Principal | None:
    """Return whom *token* belongs to, None when nobody."""
    row = connection.execute(
        select(users.c.id, users.c.name, users.c.role)
        .join_from(tokens, users, tokens.c.user_id == users.c.id)
        .where(tokens.c.sha256 == _digest(token))
    ).first()
    return None if row is None else Principal(row.id, row.name, row.role)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
