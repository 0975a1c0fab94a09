"""Which request meets which fault: by its number, by its path, by chance with a seed."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from tests.support.faults import breaks, refusals
from tests.support.faults.fault import Fault
from tests.support.wire.server import Seen

__all__ = ["FAULTS", "Connection", "ConnectionFault", "Plan", "Rule"]

FAULTS: Mapping[str, type[Fault]] = {
    name: kind for module in (breaks, refusals) for name in module.__all__ for kind in (getattr(module, name),)
}
"""By the names that scripts call them."""

ConnectionFault = Literal["refuse", "silent", "cut", "expired", "wrong_host", "self_signed"]
"""What may happen to a connection before its first request: reset at once; accepted and never heard of again; reset
within the TLS handshake; a certificate that ended yesterday, is for another host, or signed by nobody."""


@dataclasses.dataclass
class Rule:
    """A fault, and which requests meet it. Everything that is given must fit.

    Attributes:
        fault: What goes wrong.
        method: Of the request.
        path: Pattern (``*`` and ``?``) of the path; ``target`` is the same of path and query.
        nth: Which of the requests that fit, counted from 1; empty: all of them.
        every: Every so many of them, by count; 0: all.
        of_each: Whether ``nth`` and ``every`` count for each method, target and range (that is asked for, or that is
            sent) by itself, as in "the first try of every object".
        probability: Of meeting the fault, when everything else fits.
        times: How often at most; None: no end.
    """

    fault: Fault
    method: str = "*"
    path: str = "*"
    target: str = "*"
    nth: Sequence[int] = ()
    every: int = 0
    of_each: bool = False
    probability: float = 1.0
    times: int | None = None
    _seen: Counter[str] = dataclasses.field(default_factory=Counter, repr=False)
    _met: int = dataclasses.field(default=0, repr=False)

    def meets(self, seen: Seen, chance: random.Random) -> bool:
        """Count the request, and say whether it meets the fault."""
        path = seen.target.partition("?")[0]
        fits = fnmatchcase(seen.method, self.method) and fnmatchcase(path, self.path)
        if not (fits and fnmatchcase(seen.target, self.target)):
            return False
        extents = f"{seen.headers.get('range', '')} {seen.headers.get('content-range', '')}"
        key = f"{seen.method} {seen.target} {extents}" if self.of_each else ""
        self._seen[key] += 1
        number = self._seen[key]
        if (self.nth and number not in self.nth) or (self.every and number % self.every):
            return False
        if self.times is not None and self._met >= self.times:
            return False
        if self.probability < 1.0 and chance.random() >= self.probability:
            return False
        self._met += 1
        return True


@dataclasses.dataclass
class Connection:
    """A fault of connections: which of them, counted from 1 (none named: all), and by which chance."""

    fault: ConnectionFault
    nth: Sequence[int] = ()
    probability: float = 1.0


class Plan:
    """What will go wrong.

    Args:
        rules: The first that a request meets counts; all that fit count the request.
        connections: The same for connections.
        seed: Of chance: the same requests in the same order meet the same faults.

    Attributes:
        met: How often each fault was met, by name.
    """

    def __init__(
        self, rules: Iterable[Rule | Fault] = (), connections: Iterable[Connection] = (), *, seed: int = 0
    ) -> None:
        self.random = random.Random(seed)
        self.met: Counter[str] = Counter()
        self._rules = [rule if isinstance(rule, Rule) else Rule(rule) for rule in rules]
        self._connections = list(connections)

    @classmethod
    def load(cls, file: Path) -> Plan:
        """Return the plan that a script holds: JSON, ``{"seed": 1, "rules": [...], "connections": [...]}``.

        A rule holds the fields of `Rule`, with the name of its fault; what is left is for the fault itself:
        ``{"fault": "Refuse", "status": 429, "retry_after": 1, "method": "PUT", "probability": 0.05}``.
        """
        return cls.parse(json.loads(file.read_text(encoding="utf-8")))

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> Plan:
        """The same from what was decoded already.

        Raises:
            ValueError: There is no such fault, or it has no such field.
        """
        if unknown := set(said) - {"seed", "rules", "connections"}:
            raise ValueError(f"a script has no {', '.join(sorted(unknown))}")
        connections = [Connection(**connection) for connection in said.get("connections", ())]
        return cls([_rule(rule) for rule in said.get("rules", ())], connections, seed=said.get("seed", 0))

    def next_for(self, seen: Seen) -> Fault:
        """Return what happens to a request; `Fault` itself: nothing."""
        met = [rule for rule in self._rules if rule.meets(seen, self.random)]
        if not met:
            return Fault()
        self.met[type(met[0].fault).__name__] += 1
        return met[0].fault

    def next_connection(self, number: int) -> ConnectionFault | None:
        """Return what happens to connection *number*, None: nothing."""
        for connection in self._connections:
            if (not connection.nth or number in connection.nth) and self.random.random() < connection.probability:
                self.met[connection.fault] += 1
                return connection.fault
        return None


def _rule(said: Mapping[str, Any]) -> Rule:
    fields = {field.name for field in dataclasses.fields(Rule) if not field.name.startswith("_")} - {"fault"}
    kind = FAULTS.get(said["fault"])
    if kind is None:
        raise ValueError(f"there is no fault {said['fault']!r}; there are {', '.join(sorted(FAULTS))}")
    own = {name: value for name, value in said.items() if name not in fields and name != "fault"}
    try:
        return Rule(kind(**own), **{name: value for name, value in said.items() if name in fields})
    except TypeError as error:
        raise ValueError(f"{said['fault']}: {error}") from error
