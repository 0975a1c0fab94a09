"""One run of a command: what was given, where words go, and the client it makes."""

from __future__ import annotations

from dataclasses import dataclass

from asyncsdk.cli.options import Arguments
from asyncsdk.cli.output import Output
from asyncsdk.client import AsyncClient
from asyncsdk.config import Settings
from asyncsdk.engine import Engine, TransferConfig
from asyncsdk.errors import ConfigError

__all__ = ["Invocation"]


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command at work.

    Attributes:
        arguments: What was given.
        output: Where words go.
    """

    arguments: Arguments
    output: Output

    def settings(self) -> Settings:
        """Return the settings in force.

        Raises:
            ConfigError: A setting makes no sense.
        """
        given = self.arguments
        return Settings.load(
            url=self._url(),
            token=given.token,
            data=given.data,
            concurrency=given.concurrency,
            part_size=given.part_size,
        )

    def client(self) -> AsyncClient:
        """Return a client as the options say; use it with ``async with``.

        Raises:
            ConfigError: A setting makes no sense.
        """
        given = self.arguments
        return AsyncClient(
            self._url(), token=given.token, data=given.data, concurrency=given.concurrency, part_size=given.part_size
        )

    def engine(self) -> Engine:
        """Return an engine without a platform, as the options say; use it with ``async with``."""
        settings = self.settings()
        chosen = {
            name: value
            for name in ("concurrency", "part_size", "memory_bytes")
            if (value := getattr(settings, name)) is not None
        }
        return Engine(TransferConfig(**chosen))

    def _url(self) -> str | None:
        if self.arguments.data is None:
            return self.arguments.url
        if self.arguments.url:
            raise ConfigError("--data means the embedded platform; give it without --url")
        return ""  # stronger than a URL of the environment or the profile
