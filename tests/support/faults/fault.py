"""What a fault is: steps of an exchange that go another way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

from tests.support.faults.exchange import Exchange

__all__ = ["Direction", "Fault", "end"]

Direction = Literal["up", "down"]
"""Of the body of the request, or of the reply."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Nothing goes wrong. Faults override the step that they spoil; they hold no state, so one serves many requests."""

    async def on_head(self, exchange: Exchange) -> None:
        """The head came, the body did not; whoever sets ``exchange.answer`` refuses the request before it is done."""

    async def on_body(self, exchange: Exchange) -> None:
        """The whole request came, nobody has acted on it."""

    async def on_answer(self, exchange: Exchange) -> None:
        """It was acted on, the reply is in ``exchange.answer``."""

    async def send(self, exchange: Exchange) -> None:
        """Send the reply."""
        await exchange.send()


def end(exchange: Exchange, how: Literal["reset", "close"]) -> NoReturn:
    """End the connection, by RST or by FIN alone, and the script with it."""
    if how == "reset":
        exchange.wire.reset()
    else:
        exchange.wire.drop()
    raise EOFError
