"""Whether anything gets through at all, and how much."""

from __future__ import annotations

__all__ = ["Health"]


class Health:
    """Counts what found no connection though it was tried again and again, since the last answer of any server.

    While it says that the network is down, things are tried once instead of again and again: with a server gone for
    good, thousands of objects would wait for minutes, one after the other, for what the first ones found out already.
    The first answer ends that.

    Args:
        patience: How many must have failed after all their attempts.

    Attributes:
        answers: Requests that were answered, whatever the answer was.
        part_answers: Those of parts among them.
        refusals: Answers that may be asked for again (429, 5xx).
        small_throttled: Answers to small objects that said "too many" (429, 503).
        part_throttled: Answers to parts that said so.
        part_bytes: Bytes of parts that moved, sent or received.
    """

    __slots__ = (
        "_failed",
        "answers",
        "part_answers",
        "part_bytes",
        "part_throttled",
        "patience",
        "refusals",
        "small_throttled",
    )

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self._failed = 0
        self.answers = 0
        self.part_answers = 0
        self.part_bytes = 0
        self.refusals = 0
        self.small_throttled = 0
        self.part_throttled = 0

    @property
    def is_down(self) -> bool:
        """Whether nothing gets through."""
        return self._failed >= self.patience

    @property
    def successes(self) -> int:
        """Answers that need not be asked for again."""
        return self.answers - self.refusals

    def answered(self) -> None:
        """A server answered, whatever it said."""
        self._failed = 0
        self.answers += 1

    def gave_up(self) -> None:
        """Something found no connection and is not tried again."""
        self._failed += 1
