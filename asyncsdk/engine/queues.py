"""The queues of one run: where a transfer waits until somebody begins it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.draining import drop_waiting, take_waiting
from asyncsdk.engine.express import Express
from asyncsdk.engine.parking import Parking
from asyncsdk.engine.performing import is_large
from asyncsdk.engine.room import Waiting
from asyncsdk.engine.transfers import Download, Upload
from asyncsdk.engine.work import Work
from asyncsdk.engine.workers import Workers

if TYPE_CHECKING:
    from asyncsdk.engine.crew.shift import Shift

__all__ = ["Queues"]


@dataclass(slots=True)
class Queues:
    """All of them. Made before those who fill and empty them, who are told of it.

    Attributes:
        config: Says what is large.
        parking: What may not begin now.
        workers: Who moves what nobody else does.
        express: The express lane; None: there is none.
        shift: Worker processes; None: there are none.
    """

    config: TransferConfig
    parking: Parking = field(init=False)
    workers: Workers = field(init=False)
    express: Express | None = None
    shift: Shift | None = None

    def place(self, transfer: Upload | Download) -> None:
        """Queue *transfer* where it belongs."""
        if self.shift is not None and self.shift.takes(transfer):
            self.shift.put(transfer)
        elif self.express is not None and self.express.takes(transfer, self.config):
            self.express.put(transfer)
        elif is_large(transfer, self.config):
            self.workers.put_large(transfer, None)
        else:
            self.workers.put_small(transfer)

    def hand_over(self, work: Work, found: LargeObject | None) -> None:
        """Queue *work* of the express lane, which needs more than one request; with *found*, ranges."""
        if found is None:
            # While workers are busy trying again, the express lane adds nothing to what they have to do.
            assert self.express is not None
            self.express.held += 1
            self.workers.put_small(work)
        else:
            self.workers.put_large(work, found)

    def taken_up(self) -> None:
        """A worker goes on with what was handed over to it."""
        assert self.express is not None
        self.express.held -= 1
        if not self.express.held:
            self.express.resume()

    def waiting(self) -> Waiting:
        """Return what nobody has begun."""
        small, large = len(self.workers.small), len(self.workers.large)
        if self.express is not None:
            small += len(self.express)
        if self.shift is not None:
            small, large = small + len(self.shift), large + self.shift.waiting(0) - len(self.shift)
        return Waiting(small, large, self.parking.large)

    def drop(self) -> int:
        """Forget every transfer that nobody has begun; returns how many."""
        return drop_waiting(self.express, self.shift, self.workers.small, self.workers.large) + self.parking.drop()

    def take(self, on_failure: Callable[[Exception], None]) -> list[Work | Upload | Download]:
        """Take everything out that is with no worker, of this process, see `take_waiting`."""
        waiting = take_waiting(self.express, self.workers.small, self.workers.large, on_failure)
        return [*waiting, *self.parking.items()]
