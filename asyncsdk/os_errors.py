"""What the operating system says of files at either end of a transfer, as errors of this package."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from asyncsdk.errors import (
    AsyncSDKError,
    DestinationFull,
    DestinationUnwritable,
    SourceNotFound,
    SourceUnreadable,
    TransferError,
)

__all__ = ["os_error", "os_errors"]

_SOURCE_ERRNO = {errno.ENOENT: SourceNotFound, errno.ENOTDIR: SourceNotFound}
_FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def os_errors(
    role: Literal["source", "destination"],
    *,
    source: str = "",
    destination: str = "",
    part: int | None = None,
) -> Iterator[None]:
    """Translate `OSError`, and what Python says of impossible paths, into the error that says which end it concerns."""
    try:
        yield
    except AsyncSDKError:
        raise
    except (OSError, ValueError) as error:
        raise os_error(error, role, source=source, destination=destination, part=part) from error


def os_error(
    error: OSError | ValueError,
    role: Literal["source", "destination"],
    *,
    source: str = "",
    destination: str = "",
    part: int | None = None,
) -> TransferError:
    """Return the transfer error for an `OSError`, or an impossible path, at the *role* end of a transfer."""
    number = getattr(error, "errno", None) or 0
    reason = getattr(error, "strerror", None) or str(error)
    cls: type[TransferError]
    if role == "source":
        cls = _SOURCE_ERRNO.get(number, SourceUnreadable)
        shown = source
    else:
        cls = DestinationFull if number in _FULL_ERRNO else DestinationUnwritable
        shown = destination
    if isinstance(error, UnicodeError) or "\0" in shown:
        shown, reason = ascii(shown), "the path holds a NUL or characters that no file name can have"
    return cls(f"{shown}: {reason}", source=source, destination=destination, part=part)
