"""The lean transport: HTTP/1.1 on our own non-blocking sockets."""

from asyncsdk.transport.lean.exchange import Exchange
from asyncsdk.transport.lean.transport import LeanTransport

__all__ = ["Exchange", "LeanTransport"]
