"""Which real servers and programs must be there: ``ASYNCSDK_TESTS_REQUIRE=rclone,swift`` or ``=all``.

Whatever is missing skips the tests that want it, with the reason. Where a build is meant to have them, a test that did
not run would look like one that passed: what is named here is a failure instead.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["NAMES", "missing", "parse"]

NAMES = frozenset({"azurite", "gcs", "hub-sdk", "nginx", "rclone", "swift"})


def parse(text: str) -> frozenset[str]:
    """Return the names in *text*, with commas between them.

    Raises:
        ValueError: One of them is none: a build that requires what does not exist would require nothing.
    """
    named = {name.strip() for name in text.split(",") if name.strip()}
    if "all" in named:
        return NAMES
    if unknown := named - NAMES:
        raise ValueError(
            f"ASYNCSDK_TESTS_REQUIRE names {', '.join(sorted(unknown))}; there are {', '.join(sorted(NAMES))}"
        )
    return frozenset(named)


_REQUIRED = parse(os.environ.get("ASYNCSDK_TESTS_REQUIRE", ""))  # now: tests do not see the settings of who runs them


def missing(name: str, reason: str, required: frozenset[str] | None = None) -> NoReturn:
    """Skip the test that wants *name*, which cannot be had; or fail it, if *name* is required."""
    assert name in NAMES
    if name in (_REQUIRED if required is None else required):
        pytest.fail(f"{name} is required by ASYNCSDK_TESTS_REQUIRE, and missing: {reason}", pytrace=False)
    pytest.skip(reason)
