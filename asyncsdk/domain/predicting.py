"""How an image is to be predicted: the options of ``model.predict``, checked before anything is sent."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from asyncsdk.errors import ConfigError

__all__ = ["PredictConfig"]

_ALIASES = {"imgsz": "size", "image_size": "size", "confidence": "conf", "max_detections": "max_det", "top_k": "topk"}
_MAX_SIZE = 8192


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """The options of a prediction.

    Attributes:
        size: Height and width in pixels that the image is brought to, 1 to 8192; one number means a square (also
            called ``imgsz``). None: what the model was made for. A model with a fixed size takes that one only.
        conf: Detections with a lower score are left out, 0 to 1.
        iou: Of two boxes of a class that overlap by more than this, only the better one is kept, 0 to 1.
        max_det: Detections of one image at most, 1 to 10,000.
        topk: Classes of one image at most, 1 to 10,000.
    """

    size: tuple[int, int] | None = None
    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300
    topk: int = 5

    def __post_init__(self) -> None:
        # Through __setattr__ of object: the class is frozen, and callers may give text, as forms do.
        for name, value in (
            ("size", _size(self.size)),
            ("conf", _share("conf", self.conf)),
            ("iou", _share("iou", self.iou)),
            ("max_det", _count("max_det", self.max_det, 10_000)),
            ("topk", _count("topk", self.topk, 10_000)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, config: PredictConfig | Mapping[str, Any] | None) -> PredictConfig:
        """Return *config* checked; numbers may be given as text, as forms send them.

        Raises:
            ConfigError: A key is unknown (the message names the nearest one), or a value makes no sense.
        """
        if config is None:
            return cls()
        if isinstance(config, cls):
            return config
        given: Any = config  # callers without a type checker give anything
        if not isinstance(given, Mapping):
            raise ConfigError(f"the configuration of a prediction is a mapping, not {type(given).__name__}")
        known = [field.name for field in fields(cls)]
        found: dict[str, Any] = {}
        for key, value in given.items():
            name = _ALIASES.get(str(key), str(key))
            if name not in known:
                near = difflib.get_close_matches(str(key), [*known, *_ALIASES], n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
                raise ConfigError(f"a prediction has no option {str(key)!r}; {hint}")
            if name in found:
                raise ConfigError(f"the option {name!r} is given twice, once as {str(key)!r}")
            found[name] = value
        return cls(**found)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values; ``parse`` reads them."""
        return {**asdict(self), "size": None if self.size is None else list(self.size)}


def _number(name: str, value: Any) -> float:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise ConfigError(f"the option {name!r} must be a number, not {value!r:.40}")


def _share(name: str, value: Any) -> float:
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise ConfigError(f"the option {name!r} lies between 0 and 1, not {number:g}")
    return number


def _count(name: str, value: Any, most: int) -> int:
    number = _number(name, value)
    if number != int(number) or not 1 <= number <= most:
        raise ConfigError(f"the option {name!r} is a whole number from 1 to {most:,}, not {number:g}")
    return int(number)


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise ConfigError(f"the option 'size' is one number, or height and width, not {len(value)} numbers")
        return _count("size", value[0], _MAX_SIZE), _count("size", value[1], _MAX_SIZE)
    side = _count("size", value, _MAX_SIZE)
    return side, side
