"""Users, tokens, and what each role may do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from asyncsdk.errors import Conflict, InvalidName, NotFound, PermissionDenied
from asyncsdk.protocol import all_messages
from asyncsdk.protocol.projects import CreateProject, ListProjects
from asyncsdk.protocol.users import WhoAmI
from asyncsdk.server.backend import Backend
from asyncsdk.server.handlers import registrations
from asyncsdk.server.objects.minting import FileMinter
from asyncsdk.server.principals import Principal, require


def test_every_message_has_a_handler_that_states_its_role(backend: Backend) -> None:
    """Nothing is reachable without a role, and whatever writes asks for more than reading."""
    assert set(registrations) == set(all_messages()) == backend.handled
    readable = {m.__name__ for m, r in registrations.items() if r.role == "viewer"}
    assert all(name.startswith(("Get", "List", "Find", "WhoAmI", "PrepareDownloads")) or name.endswith("Download")
               for name in readable)  # fmt: skip
    assert not any(r.writes for r in registrations.values() if r.role == "viewer")


@pytest.mark.parametrize(
    ("role", "needed", "passes"),
    [
        ("viewer", "viewer", True),
        ("viewer", "editor", False),
        ("editor", "editor", True),
        ("editor", "owner", False),
        ("owner", "editor", True),
        ("owner", "owner", True),
    ],
)
def test_a_role_includes_the_ones_below(role: str, needed: str, passes: bool) -> None:
    principal = Principal("0" * 24, "someone", role)  # type: ignore[arg-type]
    if passes:
        require(principal, needed, "Work")  # type: ignore[arg-type]
    else:
        with pytest.raises(PermissionDenied, match=f"Work needs the role '{needed}'"):
            require(principal, needed, "Work")  # type: ignore[arg-type]


def test_a_viewer_reads_and_does_not_write(backend: Backend) -> None:
    viewer = backend.create_user("guest", "viewer")
    minter = FileMinter(backend.objects)
    assert backend.handle(WhoAmI(), viewer, minter).name == "guest"
    with pytest.raises(PermissionDenied):
        backend.handle(CreateProject(name="mine"), viewer, minter)
    assert backend.handle(ListProjects(), viewer, minter).entries == ()


def test_a_token_speaks_for_its_user(backend: Backend) -> None:
    viewer = backend.create_user("guest", "viewer")
    token = backend.create_token(viewer.user_id, "laptop")
    assert backend.authenticate(token) == viewer
    assert backend.authenticate(token + "x") is None
    assert backend.authenticate("") is None
    assert backend.authenticate("\udcff") is None


def test_tokens_are_kept_as_digests_only(backend: Backend, tmp_path: Path) -> None:
    """Whoever reads the database cannot speak for anybody."""
    token = backend.create_token(backend.owner().user_id, "laptop")
    backend.close()
    with closing(sqlite3.connect(tmp_path / "data" / "asyncsdk.db")) as connection:
        dump = "\n".join(connection.iterdump())
    assert "laptop" in dump
    assert token not in dump
    assert token.removeprefix("ask_") not in dump


def test_the_server_token_is_made_once(backend: Backend, tmp_path: Path) -> None:
    """It belongs to the owner, survives a restart, and is replaced when the database does not know it."""
    token = backend.server_token()
    assert backend.authenticate(token) == backend.owner()
    assert backend.server_token() == token == (tmp_path / "data" / "token").read_text().strip()
    again = Backend.open(tmp_path / "data")
    try:
        assert (again.server_token(), again.owner()) == (token, backend.owner())
    finally:
        again.close()
    (tmp_path / "data" / "token").write_text("ask_of-another-folder\n")
    fresh = backend.server_token()
    assert fresh not in {token, "ask_of-another-folder"}
    assert backend.authenticate(fresh) == backend.owner()


def test_users_have_names_of_their_own(backend: Backend) -> None:
    guest = backend.create_user("guest", "editor")
    with pytest.raises(Conflict) as taken:
        backend.create_user("guest", "viewer")
    assert taken.value.ids == (guest.user_id,)
    with pytest.raises(InvalidName):
        backend.create_user(" ", "viewer")
    with pytest.raises(NotFound):
        backend.create_token("f" * 24, "laptop")
