"""The transports that the contract is for, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from asyncsdk.transport.base import Transport
from asyncsdk.transport.httpx_transport import HttpxTransport
from asyncsdk.transport.lean import LeanTransport

__all__ = ["TRANSPORTS"]

TRANSPORTS: Mapping[str, Callable[..., Transport]] = {"httpx": HttpxTransport, "lean": LeanTransport}
"""Constructors; all take the keywords of `HttpxTransport`."""
