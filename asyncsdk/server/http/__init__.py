"""The platform over HTTP. Needs the extra ``server``; nothing of it is imported before `serve` is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsdk.errors import ConfigError
from asyncsdk.server.objects.clouds.location import Location

if TYPE_CHECKING:
    from asyncsdk.server.http.app import OpenDoor  # needs the extra

__all__ = ["serve"]


def serve(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 8750,
    *,
    public_url: str | None = None,
    objects: str | None = None,
    objects_endpoint: str | None = None,
    doors: Mapping[str, OpenDoor] | None = None,
    door_ports: Mapping[str, int] | None = None,
    on_door: Callable[[str, str], None] | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve the platform in *folder* over HTTP until SIGINT or SIGTERM; prints nothing.

    Running requests get 10 s to end, then the database is closed. Several processes may serve one folder, each on its
    own port. Objects that were never committed are swept at the start and then daily.

    Args:
        folder: Data folder; made when missing.
        host: Name or address to listen on. Everything but loopback shows the server to others: it speaks plain HTTP,
            put a proxy with TLS in front.
        port: Port to listen on; 0 takes a free one.
        public_url: What clients call the server, when that is not the ``Host`` they send.
        objects: The bucket that keeps the objects, ``s3://bucket/prefix``; None: wherever they are, in the folder when
            it is new.
        objects_endpoint: URL of the bucket's service; None: the cloud's own, or the one that was given before.
        doors: What opens each of the doors, by its name (`asyncsdk.server.doors.registry.find_doors`); they are at
            ``/doors/NAME``.
        door_ports: Doors that have a port of their own as well, where they are at the root; 0 takes a free one.
        on_door: Called with the name and the URL of each door, before *on_ready*.
        on_ready: Called once with the server's URL when it answers.

    Raises:
        ConfigError: The extra ``server``, or that of the bucket's cloud, is not installed; the address cannot be
            listened on; *objects* names no bucket, or there are no credentials for it.
        StoreError: The folder or the bucket cannot be used, or the folder's objects are elsewhere.
    """
    try:
        from asyncsdk.server.http.server import serve as run  # optional dependencies
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"httptools", "starlette"}:
            raise
        raise ConfigError(f"serving needs {error.name}; install it with: pip install 'asyncsdk[server]'") from error
    bucket = None if objects is None else Location.parse(objects, objects_endpoint)
    run(
        folder,
        host,
        port,
        public_url=public_url,
        objects=bucket,
        doors=doors,
        door_ports=door_ports,
        on_door=on_door,
        on_ready=on_ready,
    )
