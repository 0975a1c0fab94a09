"""When a run ends before its feed does because going on would only make failures."""

from __future__ import annotations

from time import monotonic

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.transfers import Outcome
from asyncsdk.errors import AsyncSDKError, CircuitOpen, TooManyFailures

__all__ = ["Endings"]

_MANY = 256
"""Objects in a row whose server has been out for too long: whoever begins a run then need not wait to see it."""

_LEAST_SECONDS = 1.0


class Endings:
    """Looks at the outcomes of a run.

    Args:
        config: How many may fail, and how long a server may be out.
    """

    def __init__(self, config: TransferConfig) -> None:
        self._most = config.max_failures
        self._outage_seconds = max(_LEAST_SECONDS, config.outage_seconds)
        self._failed = 0
        self._first: tuple[str, AsyncSDKError] | None = None
        self._out = 0
        self._well_at = monotonic()

    def saw(self, outcome: Outcome) -> AsyncSDKError | None:
        """Count *outcome*; returns the error that the run ends with because of it, if it is to end."""
        error = outcome.error
        if error is None:
            self._out = 0
            self._well_at = monotonic()
            return None
        self._failed += 1
        if self._first is None:
            self._first = outcome.name, error
        if self._most is not None and self._failed >= self._most:
            return self._too_many(*self._first)
        if isinstance(error, CircuitOpen):
            self._out += 1
            if self._out >= _MANY or monotonic() - self._well_at >= self._outage_seconds:
                return error
        return None

    def _too_many(self, name: str, error: AsyncSDKError) -> TooManyFailures:
        said = str(error)
        first = said if name in said else f"{name}: {said}"
        return TooManyFailures(f"{self._failed} objects failed, and more are not tried; the first of them: {first}")
