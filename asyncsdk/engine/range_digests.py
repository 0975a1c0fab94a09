"""What answers to range requests state of checksums: that of the object, or of the range alone.

Google states ``x-goog-hash`` of the whole object with every range, and S3 says which one it means where it says
``x-amz-checksum-type: FULL_OBJECT``. Others do not say, and some state the checksum of the range, or of the part that
was uploaded where a range begins. So a value that is the checksum of the very range it came with says nothing of the
object; and what nobody calls that of the object counts as that only when all ranges, more than one, state the same.

Source: Google Cloud Storage, "Hashes and ETags"; Amazon S3 API reference, "GetObject".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asyncsdk.engine.digests import reply_crc32c

__all__ = ["Stated", "judge_stated", "stated_by"]


@dataclass(frozen=True, slots=True)
class Stated:
    """What one answer states.

    Attributes:
        crc32c: The checksum.
        is_of_object: Whether the server says that it is that of the whole object.
    """

    crc32c: int
    is_of_object: bool


def stated_by(headers: Mapping[str, str]) -> Stated | None:
    """Return what the head of an answer states, or None."""
    value = reply_crc32c(headers)
    if value is None:
        return None
    is_of_object = (
        "x-amz-checksum-crc32c" not in headers or headers.get("x-amz-checksum-type", "").upper() == "FULL_OBJECT"
    )
    return Stated(value, is_of_object)


def judge_stated(
    stated: Mapping[int, Stated], came: Mapping[int, tuple[int, int]], checksum: int
) -> tuple[int | None, bool]:
    """Return what the object must have by what was stated, and whether its bytes were confirmed.

    Args:
        stated: By number of the range that it came with.
        came: Checksum and size of every range of the object, by number.
        checksum: Of the object, as it came.

    Returns:
        The crc32c of the object that the server states, None where it is not known to mean the object; and whether
        all bytes are known to have a checksum that the server stated.
    """
    is_one = len(came) == 1
    others = {number: said for number, said in stated.items() if is_one or said.crc32c != came[number][0]}
    if not others:
        return None, bool(came) and len(stated) == len(came)
    clear = [said.crc32c for said in others.values() if said.is_of_object or is_one]
    values = {said.crc32c for said in others.values()}
    if not clear and len(values) == 1 and len(others) == len(stated) > 1:
        clear = list(values)
    wrong = next((value for value in clear if value != checksum), None)
    if wrong is not None:
        return wrong, False
    return (checksum if clear else None), checksum in values
