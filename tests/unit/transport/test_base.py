"""Settings of transports: what makes no sense is refused where it is said."""

from __future__ import annotations

import math

import pytest

from asyncsdk.errors import ConfigError
from asyncsdk.transport.base import Timeouts


@pytest.mark.parametrize("name", ["connect", "idle", "reply", "rate_seconds", "rate_bytes"])
@pytest.mark.parametrize("value", [-1, -0.5, math.nan, "1", None, True])
def test_timeouts_are_positive_numbers(name: str, value: object) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ConfigError, match=f"the timeout {name} must be"):
        Timeouts(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["connect", "idle", "reply", "rate_seconds"])
def test_no_timeout_is_zero(name: str) -> None:
    """It would be over before it began."""
    with pytest.raises(ConfigError, match=f"{name} must be more than 0 seconds"):
        Timeouts(**{name: 0})


def test_the_default_rate_ends_what_only_drips() -> None:
    """A byte a second is no rate; a modem of forty years ago was faster. None at all can be asked for."""
    limits = Timeouts()
    assert 1 < limits.rate_bytes <= 100
    assert limits.rate_seconds >= limits.idle
    assert Timeouts(rate_bytes=0, idle=0.001, reply=math.inf).rate_bytes == 0
