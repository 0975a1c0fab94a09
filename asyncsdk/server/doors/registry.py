"""Which doors there are, one line each; a door is imported when it is opened."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from asyncsdk.errors import ConfigError
from asyncsdk.server.http.app import OpenDoor

__all__ = ["DOORS", "find_doors"]

DOORS = {
    "ultralytics": "asyncsdk.server.doors.ultralytics.door",
}
"""Name, as in ``--doors`` and in the path ``/doors/NAME``, and the module whose ``open_door`` makes it."""


def find_doors(names: Iterable[str]) -> dict[str, OpenDoor]:
    """Return what opens each of the doors named.

    Raises:
        ConfigError: There is no door of that name, or the extra ``server`` is missing.
    """
    found = {}
    for name in names:
        if name not in DOORS:
            raise ConfigError(f"there is no door {name!r}; there is: {', '.join(sorted(DOORS))}")
        try:
            module = import_module(DOORS[name])
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("asyncsdk"):
                raise
            raise ConfigError(f"doors need {error.name}; install it with: pip install 'asyncsdk[server]'") from error
        found[name] = module.open_door
    return found
