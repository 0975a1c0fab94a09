"""Settings: arguments, then environment, then profile file, then defaults, in one typed object.

=============== ======================= ==========================================================================
field           environment             meaning
=============== ======================= ==========================================================================
``platform``    ``ASYNCSDK_PLATFORM``   What is spoken to: ``rest``, ``embedded`` or a service; what the others say.
``url``         ``ASYNCSDK_URL``        Server to speak to; empty: the embedded platform.
``api_key``     ``ASYNCSDK_API_KEY``    Key for a service; an asyncsdk server has tokens.
``token``       ``ASYNCSDK_TOKEN``      Token for that server.
``home``        ``ASYNCSDK_HOME``       Folder of profile, journal and embedded data; ``~/.asyncsdk``.
``data``        ``ASYNCSDK_DATA``       Data folder of the embedded platform; ``HOME/data``.
``objects``     ``ASYNCSDK_OBJECTS``    Bucket that keeps the objects of the embedded platform, ``s3://bucket/prefix``;
                                        wherever they are, in the data folder when it is new.
``objects_endpoint`` ``ASYNCSDK_OBJECTS_ENDPOINT`` URL of the bucket's service; the cloud's own.
``concurrency`` ``ASYNCSDK_CONCURRENCY`` Requests at once, or ``auto``; the engine's own default.
``part_size``   ``ASYNCSDK_PART_SIZE``  Bytes per range of a large download; the engine's own default.
``memory_bytes`` ``ASYNCSDK_MEMORY_BYTES`` Upper bound of buffers; 256 MiB.
=============== ======================= ==========================================================================

The profile is ``HOME/profile.json``, mode 0600, written by ``asyncsdk login``.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from asyncsdk.errors import ConfigError

__all__ = ["Settings", "profile_path", "remove_profile", "write_profile"]

_ENVIRONMENT = {
    "platform": "ASYNCSDK_PLATFORM",
    "api_key": "ASYNCSDK_API_KEY",
    "url": "ASYNCSDK_URL",
    "token": "ASYNCSDK_TOKEN",
    "home": "ASYNCSDK_HOME",
    "data": "ASYNCSDK_DATA",
    "objects": "ASYNCSDK_OBJECTS",
    "objects_endpoint": "ASYNCSDK_OBJECTS_ENDPOINT",
    "concurrency": "ASYNCSDK_CONCURRENCY",
    "part_size": "ASYNCSDK_PART_SIZE",
    "memory_bytes": "ASYNCSDK_MEMORY_BYTES",
}
_PROFILE_FIELDS = {"url", "token"}


class Settings(BaseModel):
    """Everything that can be set from outside. Build it with `load`; ``repr`` never shows the token.

    Attributes:
        platform: ``rest`` (an asyncsdk server), ``embedded``, or the name of a service; None: ``rest`` with a URL, else
            ``embedded``.
        api_key: Key for the service; never used with another server than the one it was given with.
        url: Server to speak to, without a path slash at its end; None: the embedded platform.
        token: Token for the server; never used with another server than the one it was given with.
        home: Folder of profile, journal and embedded data.
        data: Data folder of the embedded platform.
        objects: Bucket that keeps the objects of the embedded platform; None: wherever they are.
        objects_endpoint: URL of the bucket's service; None: the cloud's own. Means nothing without *objects*.
        concurrency: Requests at once, or ``auto``; None: the engine's default.
        part_size: Bytes per range of a large download; None: the engine's default.
        memory_bytes: Upper bound of buffers; None: the engine's default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    platform: str | None = None
    url: str | None = None
    token: str | None = Field(default=None, repr=False)
    api_key: str | None = Field(default=None, repr=False)
    home: Path
    data: Path
    objects: str | None = None
    objects_endpoint: str | None = None
    concurrency: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)] | None = None
    part_size: Annotated[int, Field(ge=1024 * 1024, le=5 * 1024**3)] | None = None
    memory_bytes: Annotated[int, Field(ge=8 * 1024 * 1024)] | None = None

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must look like http://host:port or https://host")
        if parts.query or parts.fragment or parts.username or parts.password:
            raise ValueError("must hold no query and no user; the token goes into its own setting")
        return value.rstrip("/")

    @field_validator("token", "api_key")
    @classmethod
    def _check_token(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        value = value.strip()
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("must be one word of printable ASCII")
        return value

    @classmethod
    def load(cls, **arguments: Any) -> Self:
        """Return the settings in force; arguments that are None count as not given.

        A token or key is used only for the server whose URL stands beside it: that of one server is never sent to
        another. ``ASYNCSDK_TOKEN`` and ``ASYNCSDK_API_KEY`` without ``ASYNCSDK_URL`` are for any. A *data* that is
        given means the embedded platform, whatever environment and profile say.

        Raises:
            ConfigError: A value makes no sense, *data* and *url* are both given, or the profile file cannot be read.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        # An empty URL is a choice, the embedded platform; of everything else empty means not given.
        environment = {
            name: os.environ[key]
            for name, key in _ENVIRONMENT.items()
            if os.environ.get(key) or (name == "url" and key in os.environ)
        }
        if "data" in given:
            if given.get("url"):
                raise ConfigError("give url=... (a server) or data=... (a folder of the embedded platform), not both")
            given["url"] = ""
            given.setdefault("platform", "embedded")
        # From the root: whoever is asked later may stand in another folder.
        home = Path(given.get("home") or environment.get("home") or Path.home() / ".asyncsdk").expanduser().absolute()
        profile = _read_profile(home)
        values: dict[str, Any] = {**profile, **environment, **given}
        for secret in ("token", "api_key"):
            if secret not in given:
                stands_beside = environment if secret in environment else profile
                if not _same_server(values.get("url"), stands_beside.get("url", values.get("url"))):
                    values.pop(secret, None)
        values["home"] = home
        values["data"] = Path(values.get("data") or home / "data").expanduser().absolute()
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None


def _same_server(one: Any, other: Any) -> bool:
    return str(one or "").rstrip("/") == str(other or "").rstrip("/")


def profile_path(home: Path) -> Path:
    """Return where the profile of *home* lies."""
    return home / "profile.json"


def write_profile(home: Path, *, url: str, token: str) -> Path:
    """Keep *url* and *token* in the profile, mode 0600, atomically; returns its path."""
    home.mkdir(parents=True, exist_ok=True)
    path = profile_path(home)
    descriptor, temporary = tempfile.mkstemp(dir=home, prefix=".profile-")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps({"url": url, "token": token}))
        Path(temporary).replace(path)
    except BaseException:  # no half-written profile stays, whatever ended it
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def remove_profile(home: Path) -> bool:
    """Forget the profile; False when there was none."""
    try:
        profile_path(home).unlink()
    except FileNotFoundError:
        return False
    return True


def _read_profile(home: Path) -> dict[str, Any]:
    path = profile_path(home)
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise ConfigError(f"{path} can be read by others (mode {mode:o}); run: chmod 600 {path}")
            values = orjson.loads(file.read())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path} is no JSON ({error}); remove it and log in again") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a JSON object; remove it and log in again")
    return {name: value for name, value in values.items() if name in _PROFILE_FIELDS}


def _explain(error: ValidationError) -> str:
    errors = error.errors(include_input=False, include_url=False)
    first = errors[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    known = f" (environment {_ENVIRONMENT[name]})" if name in _ENVIRONMENT else ""
    # One for each of the kinds that the value may have.
    others = [
        each["msg"].removeprefix("Input should be ") for each in errors[1:] if each["loc"][:1] == first["loc"][:1]
    ]
    return f"setting {name!r}{known}: {', or '.join([first['msg'].removeprefix('Value error, '), *others])}"
