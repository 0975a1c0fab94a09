"""Where a data folder keeps its objects: in itself, or in a bucket. Its database says which, and it stays so."""

from __future__ import annotations

import secrets
from pathlib import Path

import orjson
from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from asyncsdk.errors import ServerError, StoreError
from asyncsdk.server.database import Database
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.server.schema import meta

__all__ = ["open_objects"]

_NAME = "objects"
_NAMESPACE_BYTES = 16


def open_objects(database: Database, folder: Path, wanted: Location | None, secret: bytes) -> CloudObjects | None:
    """Return the store of a data folder's objects in a cloud; None when they lie in the folder.

    What is wanted is recorded the first time, as long as nothing is stored; later the record decides. Another endpoint
    may be wanted later: the store must know the folder there. The caller holds the folder's lock.

    Args:
        database: Of the folder.
        folder: The folder.
        wanted: Where objects shall be; None: wherever they are.
        secret: The folder's signing secret.

    Raises:
        StoreError: They are elsewhere, the store cannot be used, or it is not the one that has them.
        ConfigError: The extra of that cloud is not installed, or there are no credentials.
    """
    with database.read() as connection:
        recorded = _recorded(connection)
        has_objects = (
            connection.exec_driver_sql("SELECT 1 FROM blobs WHERE references_count > -2 LIMIT 1").first() is not None
        )
    if recorded is None:
        if wanted is None:
            return None
        if has_objects:
            raise StoreError(folder, f"its objects lie in the folder itself, not in {wanted}; take another data folder")
        location, namespace = wanted, secrets.token_hex(_NAMESPACE_BYTES)
    else:
        location, namespace = recorded
        if wanted is not None and str(wanted) != str(location):
            raise StoreError(folder, f"its objects lie in {location}, not in {wanted}; take another data folder")
        if wanted is not None and wanted.endpoint:
            location = wanted
    # Imported where a cloud is used: nothing of it is loaded for a local folder.
    from asyncsdk.server.objects.clouds.opening import open_cloud

    try:
        objects = open_cloud(location, namespace, secret)
        try:
            if recorded is None:
                objects.claim()
            elif not objects.is_claimed():
                where = f"{location} at {location.endpoint}" if location.endpoint else str(location)
                raise StoreError(
                    folder, f"{where} has no objects of this folder; is it another store, or was it emptied?"
                )
            objects.look()
            if recorded is None or recorded[0] != location:
                with database.write() as connection:
                    _record(connection, location, namespace)
        except BaseException:  # closed whatever ended it, then raised again
            objects.close()
            raise
    except ServerError as error:
        raise StoreError(folder, f"its objects in {location} cannot be reached: {error}") from error
    return objects


def _recorded(connection: Connection) -> tuple[Location, str] | None:
    text = connection.exec_driver_sql("SELECT value FROM meta WHERE name = ?", (_NAME,)).scalar()
    if text is None:
        return None
    facts = orjson.loads(text)
    return Location.parse(facts["location"], facts["endpoint"]), facts["namespace"]


def _record(connection: Connection, location: Location, namespace: str) -> None:
    facts = {"location": str(location), "endpoint": location.endpoint, "namespace": namespace}
    statement = insert(meta).values(name=_NAME, value=orjson.dumps(facts).decode())
    changed = {"value": statement.excluded.value}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))
