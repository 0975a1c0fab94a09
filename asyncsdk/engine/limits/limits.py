"""The limits of one engine, all in one place, and changeable while it runs."""

from __future__ import annotations

from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import Bandwidth, MiB, TransferConfig
from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import LaneName, Slots
from asyncsdk.engine.limits.controller import Step
from asyncsdk.engine.limits.hedging import Hedging
from asyncsdk.engine.limits.origins import Origins
from asyncsdk.engine.limits.pilot import PART_START, SMALL_START, Pilot
from asyncsdk.engine.limits.rates import Gate
from asyncsdk.engine.limits.retry_budget import RetryBudget
from asyncsdk.engine.retries import capped
from asyncsdk.errors import AsyncSDKError, ConfigError
from asyncsdk.transport.base import Transport
from asyncsdk.transport.pacing import PacedTransport

__all__ = ["Limits"]

_MEMORY_PER_PART = 4 * MiB
"""Of the byte budget for each part that may be under way: what a transport holds of one is at most half of that."""


class Limits:
    """How much an engine may do at once and per second; ``engine.limits``.

    ``bandwidth``, ``requests_per_second`` and ``concurrency`` may be set at any time, in the thread of the engine's
    event loop; what is under way goes on by the new ones.

    Attributes:
        slots: Requests that may be in flight.
        health: What got through.
        origins: Servers that asked for a pause, or are out.
        requests: Where requests wait for their turn; None: as many as there are.
        sent: Where bytes that are sent wait; None: as many as there are.
        received: Where bytes that are received wait; None: as many as there are.
        hedging: When a part that is late is asked for once more.
    """

    def __init__(self, config: TransferConfig) -> None:
        self._config = config
        most = config.most_concurrency
        if config.concurrency == "auto":
            self.slots = Slots(most, small=SMALL_START, part=PART_START)
        else:
            self.slots = Slots(most)
        self.health = Health()
        memory = config.memory_bytes or process_budget().limit_bytes
        self.pilot = Pilot(self.slots, self.health, most, max(PART_START, memory // _MEMORY_PER_PART))
        at_once: dict[LaneName, int] = {"small": config.most_concurrency, "part": config.large_objects}
        self.origins = Origins(config.outage_seconds, longest_hold=config.longest_pause, at_once=at_once)
        self.hedging = Hedging(self.slots, self.health, is_on=config.hedge)
        self.requests: Gate | None = None
        self.sent: Gate | None = None
        self.received: Gate | None = None
        self._concurrency = config.concurrency
        self.pilot.is_steering = config.concurrency == "auto"
        self._transport: Transport | None = None
        self._waited = 0.0  # at gates that are gone
        self.bandwidth = config.bandwidth
        self.requests_per_second = config.requests_per_second

    # --- per second ------------------------------------------------------------------------------------------

    @property
    def bandwidth(self) -> Bandwidth | None:
        """Bytes per second of bodies; None: as many as there are. A number that is set holds for each direction."""
        if self.sent is None and self.received is None:
            return None
        return Bandwidth(*(None if gate is None else int(gate.per_second) for gate in (self.sent, self.received)))

    @bandwidth.setter
    def bandwidth(self, value: Bandwidth | int | None) -> None:
        wanted = Bandwidth.of(value)
        self.sent = self._changed(self.sent, wanted.up, least_burst=64 * 1024)
        self.received = self._changed(self.received, wanted.down, least_burst=64 * 1024)
        self._attach()

    @property
    def requests_per_second(self) -> float | None:
        """Requests that may begin per second, all kinds together; None: as many as there are."""
        return None if self.requests is None else self.requests.per_second

    @requests_per_second.setter
    def requests_per_second(self, value: float | None) -> None:
        self.requests = self._changed(self.requests, value)

    def _changed(self, gate: Gate | None, per_second: float | None, *, least_burst: float = 1.0) -> Gate | None:
        if per_second is None:
            if gate is not None:
                self._waited += gate.waited_seconds
                gate.open_up()
            return None
        if gate is None:
            return Gate(per_second, least_burst=least_burst)
        gate.change(per_second)
        return gate

    @property
    def paced(self) -> tuple[int, int]:
        """Connections that wait for the bandwidth right now: to send, and to receive."""
        sent, received = self.sent, self.received
        return (0 if sent is None else sent.waiting, 0 if received is None else received.waiting)

    # --- at once ---------------------------------------------------------------------------------------------

    @property
    def concurrency(self) -> int | str:
        """Requests at once, small objects and parts together, or ``auto``."""
        return self._concurrency

    @concurrency.setter
    def concurrency(self, value: int | str) -> None:
        if value == "auto":
            self._concurrency = "auto"
            most = self._config.most_concurrency
            self.slots.resize(count=most, small=self.pilot.small.limit, part=self.pilot.part.limit)
        elif isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= self._config.most_concurrency:
            self._concurrency = value
            self.slots.resize(count=value, small=value, part=value)
        else:
            raise ConfigError(f"concurrency must be 'auto' or 1 to {self._config.most_concurrency}, not {value!r}")
        self.pilot.is_steering = value == "auto"

    @property
    def trace(self) -> list[Step]:
        """How the number of requests at once changed, and why; empty when it is set."""
        return self.pilot.trace if self._concurrency == "auto" else []

    def trace_since(self, latest: tuple[Step, Step]) -> list[Step]:
        """Return the trace from *latest* (``pilot.latest``, as it was then) on; empty when it is set."""
        return self.pilot.trace_since(latest) if self._concurrency == "auto" else []

    # --- for the engine --------------------------------------------------------------------------------------

    def attach(self, transport: Transport) -> None:
        """Hold the bytes that *transport* moves to the bandwidth."""
        self._transport = transport
        self._attach()

    def _attach(self) -> None:
        transport = self._transport
        if isinstance(transport, PacedTransport):
            transport.pace(self.sent, self.received)
        elif transport is not None and (self.sent is not None or self.received is not None):
            raise ConfigError(f"{type(transport).__name__} cannot hold a bandwidth: it has no method pace")

    def retry_budget(self) -> RetryBudget:
        """Return the budget of a run that begins."""
        retry = self._config.retry
        return RetryBudget(retry.budget_share, retry.budget_least, lambda: self.health.successes)

    def refused(self, url: str, error: AsyncSDKError, status: int, *, is_part: bool, who: int | None = None) -> None:
        """A server refused what was asked of *url*: whoever else wants something of it waits as long as it said.

        Args:
            who: See `Origins.failed`.
        """
        health = self.health
        if error.retryable:
            health.refusals += 1
            self.origins.failed(url, error, who, "part" if is_part else "small")
        if is_part:
            health.part_refused += 1
        else:
            health.small_refused += 1
        if status in {429, 503}:
            if is_part:
                health.part_throttled += 1
            else:
                health.small_throttled += 1
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, (int, float)):
            self.origins.hold(url, capped(self._config.retry, float(asked)))

    def waited(self) -> dict[str, float]:
        """Return what was waited so far, in seconds summed over all that waited: ``slot``, ``rate`` and ``server``.

        Waiting for a slot is counted for parts and for what is tried again; small objects wait in a queue.
        """
        gates = (self.requests, self.sent, self.received)
        rate = self._waited + sum(gate.waited_seconds for gate in gates if gate is not None)
        return {"slot": self.slots.waited_seconds, "rate": rate, "server": self.origins.waited_seconds}
