"""Who is speaking."""

from __future__ import annotations

from asyncsdk._version import __version__
from asyncsdk.protocol.users import UserRecord, WhoAmI
from asyncsdk.server.handlers.registry import Context, handles

__all__ = ["who_am_i"]


@handles(WhoAmI, role="viewer")
def who_am_i(context: Context, message: WhoAmI) -> UserRecord:
    who = context.principal
    return UserRecord(id=who.user_id, name=who.name, role=who.role, platform_version=__version__)
