"""Contract suites on platforms that are adapters: what they lack is skipped, what they do otherwise is written down."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest

from asyncsdk.errors import UnsupportedOperation
from asyncsdk.platforms.registry import ADAPTERS

__all__ = ["expect_deviations", "skip_unsupported"]


def skip_unsupported() -> Generator[None, Any, Any]:
    """Run a test, or set it up; skip it with the reason when an adapter says that it has no such operation."""
    try:
        return (yield)
    except UnsupportedOperation as error:
        if error.platform in ADAPTERS:
            pytest.skip(str(error))
        raise


def expect_deviations(
    items: list[pytest.Item],
    deviations: Mapping[str, Mapping[str, str]],
    without: Mapping[str, Mapping[str, str]],
) -> None:
    """Mark the tests that an adapter is known to fail; one that passes after all is an error.

    Args:
        items: The tests.
        without: By the name of the adapter: modules of tests about what it does not have at all, and what that is; they
            are skipped without starting anything.
        deviations: By the name of the adapter: name of the test function or of one of its cases, and why.
    """
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        for adapter, modules in without.items():
            lacking = modules.get(item.path.stem)
            if lacking is not None and adapter in parameters.values():
                item.add_marker(pytest.mark.skip(reason=f"{adapter} has no {lacking}"))
        for adapter, reasons in deviations.items():
            reason = reasons.get(item.name) or reasons.get(getattr(item, "originalname", item.name))
            if reason is not None and adapter in parameters.values():
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
