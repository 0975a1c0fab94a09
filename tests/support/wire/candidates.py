"""The transports that the contract is for, by name."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping

from asyncsdk.transport.base import Transport
from asyncsdk.transport.httpx_transport import HttpxTransport

__all__ = ["TRANSPORTS"]


def _transports() -> Mapping[str, Callable[..., Transport]]:
    found: dict[str, Callable[..., Transport]] = {"httpx": HttpxTransport}
    with contextlib.suppress(ModuleNotFoundError):  # what it is judged by stands without it
        found["lean"] = importlib.import_module("asyncsdk.transport.lean.transport").LeanTransport
    return found


TRANSPORTS: Mapping[str, Callable[..., Transport]] = _transports()
"""Constructors; all take the keywords of `HttpxTransport`."""
