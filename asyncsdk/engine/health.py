"""What got through, and how much: the counts that limits are steered by."""

from __future__ import annotations

__all__ = ["Health"]


class Health:
    """Counts of one engine; whoever moves something adds to them, and nothing else is done per object.

    Attributes:
        answers: Requests that were answered, whatever the answer was.
        part_answers: Those of parts among them.
        refusals: Answers that may be asked for again (429, 5xx).
        small_refused: Answers to small objects that did nothing for them (400 and more).
        part_refused: Such answers to parts.
        small_throttled: Those to small objects that said "too many" (429, 503).
        part_throttled: Those to parts that said so.
        moved_bytes: Bytes that moved, sent or received, of small objects and parts; fewer when some are taken back.
        part_bytes: Those of parts among them.
    """

    __slots__ = (
        "answers",
        "moved_bytes",
        "part_answers",
        "part_bytes",
        "part_refused",
        "part_throttled",
        "refusals",
        "small_refused",
        "small_throttled",
    )

    def __init__(self) -> None:
        self.answers = 0
        self.moved_bytes = 0
        self.part_answers = 0
        self.part_bytes = 0
        self.part_refused = 0
        self.part_throttled = 0
        self.refusals = 0
        self.small_refused = 0
        self.small_throttled = 0

    @property
    def successes(self) -> int:
        """Answers that need not be asked for again."""
        return self.answers - self.refusals

    def answered(self) -> None:
        """A server answered, whatever it said."""
        self.answers += 1
