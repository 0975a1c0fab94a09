"""Which services a client can speak to, one line each; an adapter is imported when it is used."""

from __future__ import annotations

from importlib import import_module

from asyncsdk.errors import ConfigError
from asyncsdk.platforms.base import Platform
from asyncsdk.transport.tls import TlsConfig

__all__ = ["ADAPTERS", "adapter_class", "open_adapter"]

ADAPTERS = {
    "ultralytics": "asyncsdk.platforms.ultralytics.adapter:UltralyticsPlatform",
}
"""Name, as in ``platform=``, and the class that speaks to it."""


def adapter_class(name: str) -> type[Platform]:
    """Return the class that speaks to a service.

    Raises:
        ConfigError: There is none for that name.
    """
    place = ADAPTERS.get(name)
    if place is None:
        known = ", ".join(["embedded", "rest", *sorted(ADAPTERS)])
        raise ConfigError(f"there is no platform {name!r}; there are {known}")
    module, _, class_name = place.partition(":")
    found: type[Platform] = getattr(import_module(module), class_name)
    return found


def open_adapter(name: str, url: str, api_key: str, *, tls: TlsConfig | None = None) -> Platform:
    """Return a platform that speaks to the service *name* at *url*, trusting whom *tls* says. Nothing is sent yet.

    Raises:
        ConfigError: There is no such service, or the URL or the key cannot be one.
    """
    opening: type = adapter_class(name)
    platform: Platform = opening(url, api_key, tls=tls)
    return platform
