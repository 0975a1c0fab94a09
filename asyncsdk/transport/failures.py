"""Why there is no connection, in the same words whichever transport could not make it."""

from __future__ import annotations

import os
import ssl

from asyncsdk.errors import ConnectionFailed, redact_url

__all__ = ["no_connection", "proxy_refused", "tls_reason"]

_FINAL_REASONS = frozenset(
    {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "TLSV13_ALERT_CERTIFICATE_REQUIRED"}
)
"""What TLS says of settings that do not fit; they will not fit the next time either."""

_TRY_AGAIN_STATUSES = frozenset({408, 429})


def tls_reason(error: ssl.SSLError) -> str:
    """Return what TLS says went wrong; never names a URL or what was sent."""
    return getattr(error, "verify_message", "") or error.reason or "the handshake failed"


def no_connection(error: BaseException, url: str, *, whom: str = "") -> ConnectionFailed:
    """Return the failure to connect, in the words of the operating system or of TLS; those hold no URL.

    Certificates that are refused, and versions of TLS that do not fit, make it final: ``retryable`` is False.

    Args:
        error: What was raised; its causes are looked through for one that says something.
        url: Where to; loses whatever could authorize anybody.
        whom: What that is, when it is not the server, as ``the proxy``.
    """
    url = f"{whom} {redact_url(url)}".lstrip()
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            failed = ConnectionFailed(f"no connection to {url}: TLS, {tls_reason(seen)}")
            failed.retryable = not (isinstance(seen, ssl.SSLCertVerificationError) or seen.reason in _FINAL_REASONS)
            return _never_there(failed)
        if isinstance(seen, OSError) and seen.errno:
            # asyncio's own text repeats the address; a failed name lookup has a code below zero and a text of its own.
            why = os.strerror(seen.errno) if seen.errno > 0 else seen.strerror or "the name is not known"
            return _never_there(ConnectionFailed(f"no connection to {url}: {why}"))
        seen = seen.__cause__ or seen.__context__
    return _never_there(ConnectionFailed(f"no connection to {url}: the address cannot be reached"))


def proxy_refused(status: int | None, url: str) -> ConnectionFailed:
    """Return the failure of a proxy that will not connect to *url*.

    Final (``retryable`` is False) when the proxy says that the request is at fault, which is its 4xx but 408 and 429.

    Args:
        status: What it answered to CONNECT; None: not known.
        url: Where to; loses whatever could authorize anybody.
    """
    said = f" with status {status}" if status else ""
    hint = "; give user and password in the proxy's URL, as http://USER:PASSWORD@HOST:PORT" if status == 407 else ""
    failed = ConnectionFailed(f"the proxy refused{said} to connect to {redact_url(url)}{hint}")
    failed.retryable = not (status and 400 <= status < 500 and status not in _TRY_AGAIN_STATUSES)
    return _never_there(failed)


def _never_there(error: ConnectionFailed) -> ConnectionFailed:
    error.was_connected = False
    return error
