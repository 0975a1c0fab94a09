"""One run of a command: what was given, where words go, and the client it makes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

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
    _drains: list[Callable[[], bool]] = field(default_factory=list, repr=False)

    def settings(self) -> Settings:
        """Return the settings in force.

        Raises:
            ConfigError: A setting makes no sense.
        """
        given = self.arguments
        return Settings.load(
            url=self._url(),
            platform=given.platform,
            token=given.token,
            data=given.data,
            concurrency=given.concurrency,
            part_size=given.part_size,
        )

    def client(self, *, is_drained: bool = True) -> AsyncClient:
        """Return a client as the options say; use it with ``async with``.

        Args:
            is_drained: Whether the first Ctrl-C lets its engine begin nothing new.

        Raises:
            ConfigError: A setting makes no sense.
        """
        given = self.arguments
        client = AsyncClient(
            self._url(),
            platform=given.platform,
            token=given.token,
            data=given.data,
            concurrency=given.concurrency,
            part_size=given.part_size,
            config=self._limits(),
        )

        def drain() -> bool:
            return client.engine.drain()  # made when it is first asked for

        if is_drained:
            self.on_drain(drain)
        return client

    def on_drain(self, drain: Callable[[], bool]) -> None:
        """Have *drain* called by the first Ctrl-C; it returns whether anything is under way that is to be finished."""
        self._drains.append(drain)

    def engine(self) -> Engine:
        """Return an engine without a platform, as the options say; use it with ``async with``."""
        settings = self.settings()
        chosen = {
            name: value
            for name in ("concurrency", "part_size", "memory_bytes")
            if (value := getattr(settings, name)) is not None
        }
        engine = Engine(replace(self._limits(), **chosen))
        self._drains.append(engine.drain)
        return engine

    def _limits(self) -> TransferConfig:
        """Return what the options say that only they can say."""
        given = self.arguments
        limits = TransferConfig(
            bandwidth=given.bandwidth,
            requests_per_second=given.requests_per_second,
            deadline_seconds=given.deadline,
            max_failures=given.max_failures,
            processes=given.processes,
            source_changed=given.source_changed,
        )
        return limits if given.outage is None else replace(limits, outage_seconds=given.outage)

    def drain(self) -> bool:
        """Let the engines finish what is under way and begin nothing new; returns whether anything is under way."""
        is_active = False
        for drain in self._drains:
            with suppress(ConfigError):  # it is closed already
                is_active = drain() or is_active
        return is_active

    def _url(self) -> str | None:
        if self.arguments.data is None:
            return self.arguments.url
        if self.arguments.url:
            raise ConfigError("--data means the embedded platform; give it without --url")
        return ""  # stronger than a URL of the environment or the profile
