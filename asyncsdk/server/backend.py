"""The platform in one object: a data folder that answers messages. Blocking; call it in worker threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, insert, select

from asyncsdk.errors import AsyncSDKError, UnsupportedOperation
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.users import Role
from asyncsdk.server import migrations, principals
from asyncsdk.server.database import Database
from asyncsdk.server.folder import DataFolder
from asyncsdk.server.handlers import Context, registrations
from asyncsdk.server.handlers.registry import Arrivals
from asyncsdk.server.objects.arrivals import Arrival
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.server.objects.clouds.passing import PassingArrival
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.minting import FileMinter, Minter, UrlMinter
from asyncsdk.server.objects.signing import Signer
from asyncsdk.server.objects.store import ObjectStore
from asyncsdk.server.principals import Principal
from asyncsdk.server.schema import meta
from asyncsdk.server.storing import open_objects
from asyncsdk.server.sweep import SweepReport, claim_sweep, has_unreferenced, reap, sweep

__all__ = ["Backend"]

_log = logging.getLogger(__name__)

R = TypeVar("R")

_OWNER_NAME = "owner"
_OWNER_ID = "owner_id"
_REAP_BATCHES = 10
"""Batches of 1,000 objects whose files go before a delete is answered; the rest goes with later ones and the sweep."""

_TIDY_SECONDS = 5.0
"""How long a write goes on to remove for others before it is answered; the rest goes with later ones and the sweep."""

_TIDY_PAUSE_SECONDS = 60.0
"""How long no write removes objects after one that could not."""


class Backend:
    """A data folder and the handlers over it. Open it with `open`.

    Safe to share between threads, and several processes may have one folder open: reads run side by side, writes one
    after the other. What a write changed is durable when `handle` returns.

    Attributes:
        folder: The data folder.
        objects: The folder's own object store, where URLs that this server signs lead.
        store: Where objects are kept: `objects`, or a cloud's bucket.
        signer: Makes and checks upload keys and URLs.
        handled: The operations this platform has.
    """

    def __init__(
        self,
        folder: DataFolder,
        database: Database,
        objects: LocalObjects,
        signer: Signer,
        owner: Principal,
        cloud: CloudObjects | None = None,
    ) -> None:
        self.folder = folder.path
        self.objects = objects
        self.store: ObjectStore = objects if cloud is None else cloud
        self.signer = signer
        self.handled: frozenset[type[Message[Any]]] = frozenset(registrations)
        self._data_folder = folder
        self._database = database
        self._owner = owner
        self._cloud = cloud
        self._sweeping = threading.Lock()
        self._tidying = threading.Lock()
        self._tidy_after = 0.0  # by the monotonic clock
        self._is_tidy_due = self._is_left_over = False

    @classmethod
    def open(cls, folder: Path, objects: Location | None = None) -> Self:
        """Open a data folder; make it, or upgrade it after a backup, when needed.

        Args:
            folder: Made with mode 0700 when missing; keeps its mode otherwise, and what is made in it is private.
            objects: The bucket that keeps the objects; None: wherever they are, in the folder when it is new. Once
                something is stored it cannot be changed.

        Raises:
            StoreError: The folder cannot be used, its database is damaged or not ours, a newer release made it, its
                objects are kept elsewhere, or the bucket cannot be used.
            ConfigError: The bucket needs an extra that is not installed, or there are no credentials for it.
            ServerError: Another process keeps writing while an upgrade is due (retryable).
        """
        data = DataFolder(folder.absolute())
        data.make()
        with data.locked():
            secret = data.secret()
            data.make_private()
            migrations.prepare(data.database, backups=data.backups)
            database = Database(data.database, version=migrations.SCHEMA_VERSION)
            try:
                owner = _find_owner(database)
                cloud = open_objects(database, data.path, objects, secret)
            except BaseException:  # closed whatever ended it, then raised again
                database.close()
                raise
        return cls(data, database, LocalObjects(data.path), Signer(secret), owner, cloud)

    def handle(self, message: Message[R], principal: Principal, minter: Minter) -> R:
        """Return the reply to *message*.

        Args:
            message: A validated message.
            principal: On whose behalf.
            minter: Makes targets and origins as the caller can reach them.

        Raises:
            UnsupportedOperation: There is no handler for it.
            PermissionDenied: The principal's role does not allow it.
            ResponseError: The handler refused; the subclass says why.
            StoreError: The data folder became unusable.
        """
        registration = registrations.get(type(message))
        operation = type(message).__name__
        if registration is None:
            raise UnsupportedOperation("server", operation)
        principals.require(principal, registration.role, operation)
        now_ms = _now_ms()
        with ExitStack() as opened:
            arrivals = Arrivals({})
            if registration.arrivals is not None:
                with self._reading() as (connection, end):
                    context = Context(connection, principal, minter, self.store, self.signer, now_ms, end_reading=end)
                    arrivals = registration.arrivals(context, message)
                for file in arrivals.files.values():
                    opened.callback(file.close)
                self.store.publish(list(arrivals.objects))
            with self._writing() if registration.writes else self._reading() as (connection, end):
                context = Context(connection, principal, minter, self.store, self.signer, now_ms, arrivals, end)
                reply: R = registration.handler(context, message)
                reap_is_due = registration.writes and (self._is_left_over or has_unreferenced(connection))
        if reap_is_due:
            self._tidy(now_ms)
        return reply

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, Callable[[], None]]]:
        """Give a connection that reads, and what ends its transaction early."""
        with ExitStack() as transaction:
            yield transaction.enter_context(self._database.read()), transaction.close

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, Callable[[], None]]]:
        with self._database.write() as connection:
            yield connection, lambda: None

    def asks_store(self, message_type: type[Message[Any]]) -> bool:
        """Whether a message may take as long as a bucket does; always False with objects in the folder."""
        return self._cloud is not None and registrations[message_type].asks_store

    def _tidy(self, now_ms: int) -> None:
        """Remove objects after a durable change. Failing must not look like that change's: the sweep does it again.

        One thread does, for all others too: a store that does not answer keeps no other. What was left over stays due
        with every write that follows, and each would wait for that store; so a failure is followed by a pause.
        """
        self._is_tidy_due = True
        until = time.monotonic() + _TIDY_SECONDS
        # Looked at again after the release: who came meanwhile went away without.
        while self._is_tidy_due and self._tidying.acquire(blocking=False):
            try:
                self._is_tidy_due = False
                self._remove_some(now_ms)
            finally:
                self._tidying.release()
            if time.monotonic() >= until:  # while others delete there is always more, and this one's client waits
                return

    def _remove_some(self, now_ms: int) -> None:
        if time.monotonic() < self._tidy_after:
            return
        again, self._is_left_over = self._is_left_over, False
        try:
            reap(self._database, self.store, now_ms=now_ms, again=again, max_batches=_REAP_BATCHES)
        except Exception as error:  # noqa: BLE001  # whatever it is, a reply of an odd store included: the change is done
            self._is_left_over = True
            self._tidy_after = time.monotonic() + _TIDY_PAUSE_SECONDS
            is_known = isinstance(error, (AsyncSDKError, OSError))
            _log.warning("left over for later: %s", error, exc_info=not is_known)

    def owner(self) -> Principal:
        """Return the user who owns the platform, made with the folder."""
        return self._owner

    def minter(self, base_url: str | None) -> Minter:
        """Return what mints targets and origins: signed URLs of the bucket, or of this server, or files.

        Args:
            base_url: What URLs of this server start with; None: the caller is in this process.
        """
        if self._cloud is not None:
            return self._cloud.minter
        return FileMinter(self.objects) if base_url is None else UrlMinter(self.signer, base_url)

    def arrival(self, object_id: str) -> Arrival | PassingArrival:
        """Return what takes the bytes of an object that comes through this process and of which nothing is known yet.

        Raises:
            DestinationFull, DestinationUnwritable: The data folder takes no file.
        """
        if self._cloud is not None:
            return PassingArrival(self._cloud, self.folder, object_id)
        return Arrival(self.objects, object_id, None)

    def authenticate(self, token: str) -> Principal | None:
        """Return whom *token* belongs to; None when nobody."""
        with self._database.read() as connection:
            return principals.authenticate(connection, token)

    def create_user(self, name: str, role: Role) -> Principal:
        """Add a user.

        Raises:
            Conflict: The name is taken.
            InvalidName: The name cannot be one.
        """
        with self._database.write() as connection:
            return principals.create_user(
                connection, name=name, role=role, now_ms=_now_ms(), created_by=self._owner.user_id
            )

    def create_token(self, user_id: str, name: str) -> str:
        """Return a new token of a user; it cannot be read again.

        Raises:
            NotFound: There is no such user.
        """
        with self._database.write() as connection:
            return principals.create_token(
                connection, user_id=user_id, name=name, now_ms=_now_ms(), created_by=self._owner.user_id
            )

    def server_token(self) -> str:
        """Return the owner's token that is kept in the folder (``token``, mode 0600), made when it is first asked for.

        A kept token that the database does not know (the folder was put together from two) is replaced.
        """
        with self._data_folder.locked():
            token = self._data_folder.token()
            if token is None or self.authenticate(token) is None:
                token = self.create_token(self._owner.user_id, "server")
                self._data_folder.keep_token(token)
        return token

    def sweep(self, *, now_ms: int | None = None) -> SweepReport:
        """Remove uploads that were never committed and objects that nothing points to any more.

        Args:
            now_ms: Milliseconds since 1970 UTC; None for the clock's.
        """
        with self._sweeping:
            return sweep(self._database, self.store, now_ms=_now_ms() if now_ms is None else now_ms)

    def sweep_if_due(self, *, now_ms: int | None = None) -> SweepReport | None:
        """Sweep unless this or another process did within a day; None then."""
        now_ms = _now_ms() if now_ms is None else now_ms
        return self.sweep(now_ms=now_ms) if claim_sweep(self._database, now_ms=now_ms) else None

    def close(self) -> None:
        """Close the database, stop reading from a bucket and close the connections to it. Again it does nothing."""
        self._database.close()
        if self._cloud is not None:
            self._cloud.close()


def _find_owner(database: Database) -> Principal:
    with database.read() as connection:
        owner_id = connection.execute(select(meta.c.value).where(meta.c.name == _OWNER_ID)).scalar()
        if owner_id is not None:
            return principals.find_user(connection, owner_id)
    with database.write() as connection:
        owner = principals.create_user(connection, name=_OWNER_NAME, role="owner", now_ms=_now_ms(), created_by=None)
        connection.execute(insert(meta).values(name=_OWNER_ID, value=owner.user_id))
    return owner


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
