"""The forms that carry files: names and order of their fields.

Text fields first, the file last; the file's field and file name are what the table says, whatever the file is called.

=============== ===================================== ============ ============
form            text fields, in order                 file field   file name
=============== ===================================== ============ ============
epoch's weights ``epoch``, ``type=epoch``, ``isBest`` ``last.pt``  ``last.pt``
final weights   ``epoch``, ``type=final``, ``map``    ``best.pt``  ``best.pt``
dataset archive none                                  its own name its own name
project image   none                                  ``file``     its own name
predict         each entry of the configuration       ``image``    ``image``
=============== ===================================== ============ ============
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from asyncsdk.errors import BadRequest
from asyncsdk.wires.ultralytics.paths import flag

__all__ = ["IMAGE_FIELD", "PROJECT_IMAGE_FIELD", "WeightsForm"]

IMAGE_FIELD = "image"
"""Field and file name of an image to predict."""

PROJECT_IMAGE_FIELD = "file"

_MAX_EPOCH = 2**31 - 1


@dataclass(frozen=True, slots=True)
class WeightsForm:
    """What is told about weights.

    Attributes:
        epoch: Epoch they were saved after.
        is_final: Whether they are the result of the training; then they are its best as well.
        is_best: Whether they are the best so far; of final ones nothing is sent.
        map: Mean average precision of final ones, 0.0 when not known; of others nothing is sent.
    """

    epoch: int
    is_final: bool = False
    is_best: bool = False
    map: float = 0.0

    @property
    def file_name(self) -> str:
        """Field and file name of the file."""
        return "best.pt" if self.is_final else "last.pt"

    def to_fields(self) -> tuple[tuple[str, str], ...]:
        """Return the text fields, in order."""
        last = ("map", repr(self.map)) if self.is_final else ("isBest", str(self.is_best))
        return (("epoch", str(self.epoch)), ("type", "final" if self.is_final else "epoch"), last)

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> WeightsForm:
        """Return what the fields of a form say.

        Raises:
            BadRequest: One is missing, or cannot be read.
        """
        epoch = fields.get("epoch", "").strip()
        if not epoch.isascii() or not epoch.isdigit() or len(epoch) > 20 or int(epoch) > _MAX_EPOCH:
            raise BadRequest(f"the field epoch must be a number from 0 to {_MAX_EPOCH}")
        kind = fields.get("type")
        if kind not in {"epoch", "final"}:
            raise BadRequest("the field type must be epoch or final")
        if kind == "final":
            return cls(int(epoch), is_final=True, is_best=True, map=_decimal(fields.get("map", "0.0")))
        return cls(int(epoch), is_best=flag(fields.get("isBest", "False")))


def _decimal(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRequest("the field map must be a finite number")
    return value
