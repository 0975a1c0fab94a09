"""What all transfers of one engine share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asyncsdk.engine.budget import Budget
from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.expiry import Clocks
from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import Slots
from asyncsdk.engine.limits import Limits
from asyncsdk.engine.limits.retry_budget import RetryBudget
from asyncsdk.transport.base import Transport
from asyncsdk.transport.threads import Threads

if TYPE_CHECKING:
    from asyncsdk.engine.crew.crew import Crew

__all__ = ["Resources"]


@dataclass(frozen=True, slots=True)
class Resources:
    """What all transfers of an engine share."""

    config: TransferConfig
    transport: Transport
    threads: Threads
    slots: Slots
    budget: Budget
    health: Health
    limits: Limits
    retries: RetryBudget | None = None
    crew: Crew | None = None
    clocks: Clocks = field(default_factory=Clocks)
