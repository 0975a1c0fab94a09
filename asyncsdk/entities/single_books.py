"""What an upload of one object keeps in its journal: the names it has at the platform, and its parts.

An object whose bytes arrived is committed again under the id it had: when it was committed already, and only the reply
was lost, the platform answers with what there is.
"""

from __future__ import annotations

import os
from os import PathLike
from typing import Any

import anyio.to_thread

from asyncsdk.domain.ids import is_id
from asyncsdk.engine import Source
from asyncsdk.engine.journal import Identity, Journal, LargeState

__all__ = ["SingleBooks"]

_NAME = "object"


class SingleBooks:
    """The journal of an upload of one object.

    Args:
        journal: Of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._identity: Identity | None = None
        self._state: LargeState | None = None

    async def recall(self, source: Source) -> LargeState | None:
        """Look at the file; return what is known of it from before if it is the same."""
        if not isinstance(source, (str, PathLike)):
            return None
        self._identity = await anyio.to_thread.run_sync(_identity, source)
        if not self._journal.has_entries or self._identity is None:
            return None
        state = await self._journal.recall_large(_NAME)
        facts = state.facts
        is_ours = isinstance(facts.get("key"), str) and is_id(str(facts.get("committed_id")))
        if not is_ours or tuple(facts.get("identity", ())) != self._identity or state.may_be_torn:
            state.forget()
            return None
        self._state = state
        return state

    def begin(self, *, key: str, committed_id: str) -> LargeState | None:
        """Return where parts are told of an upload that begins anew; None: nothing is kept of such a source."""
        if self._identity is None:
            return None
        facts: dict[str, Any] = {"key": key, "committed_id": committed_id, "identity": self._identity}
        self._state = self._journal.new_large(_NAME, facts)
        return self._state

    def came_out_wrong(self) -> None:
        """Forget an upload whose object has other bytes than were sent: what is finished cannot be gone on with."""
        if self._state is not None:
            self._state.forget()

    async def arrived(self, crc32c: str, *, is_copy: bool) -> None:
        """Keep that its bytes arrived, before it is committed."""
        if self._state is not None:
            self._state.arrived(crc32c, is_copy=is_copy)
            await self._journal.flush()


def _identity(source: str | PathLike[str]) -> Identity | None:
    try:
        return Identity.of(os.stat(source))  # noqa: PTH116  # as everywhere where identities are taken
    except (OSError, ValueError):  # opening it will say what is wrong with it
        return None
