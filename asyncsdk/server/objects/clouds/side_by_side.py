"""Minting for many objects where some of them cost a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from asyncsdk.errors import BadRequest
from asyncsdk.server.objects.minting import MULTIPART_THRESHOLD, Minter, Wanted, target_or_refusal
from asyncsdk.targets import Target

__all__ = ["arrives_in_parts", "mint_side_by_side"]

AT_ONCE = 16
"""Requests that one message has under way."""


def arrives_in_parts(wanted: Wanted) -> bool:
    """Whether an object is large, or nobody knows how large it is."""
    _, size_bytes, _ = wanted
    return size_bytes is None or size_bytes > MULTIPART_THRESHOLD


def mint_side_by_side(
    minter: Minter, wanted: Sequence[Wanted], costs_a_request: Callable[[Wanted], bool]
) -> list[Target | BadRequest]:
    """Return the targets of many objects, in order, or why there is none; 16 requests at once.

    Raises:
        ServerError: The store failed; none is minted then.
    """
    slow = [number for number, one in enumerate(wanted) if costs_a_request(one)]
    if len(slow) < 2:
        return [target_or_refusal(minter, one) for one in wanted]
    with ThreadPoolExecutor(min(AT_ONCE, len(slow)), thread_name_prefix="asyncsdk-minting") as pool:
        asked = {number: pool.submit(target_or_refusal, minter, wanted[number]) for number in slow}
        try:
            return [
                asked[number].result() if number in asked else target_or_refusal(minter, one)
                for number, one in enumerate(wanted)
            ]
        finally:
            for future in asked.values():
                future.cancel()  # after a failure nobody wants the others
