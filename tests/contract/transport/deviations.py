"""Where a transport is known to differ from the strict promise, each with its reason; asserted, not skipped."""

from __future__ import annotations

__all__ = ["HTTPX_READS"]

HTTPX_READS = frozenset(
    {
        "bare LF after the status line",
        "bare LF after a header",
        "bare LF ends the head",
        "bare LF everywhere",
        "obs-fold",
    }
)
"""Bad heads that httpx reads. h11 takes a line feed alone for a line end, as RFC 9112 section 2.2 allows, and joins
folded lines with a blank, as section 5.2 asks of user agents; it shows nobody the bytes. What it makes of them is the
body that the head declares, so nothing can be smuggled to a client that is alone on its connection."""
