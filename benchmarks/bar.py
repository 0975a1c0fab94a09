"""The bar: how our engine must compare with the others, and whether it does.

Each row is a figure of one workload, divided by the same figure of whom it is compared with, both medians of the same
interleaved run. A row without a result on either side says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["BAR", "Row", "Verdict", "bar_table", "judge"]

OURS = "ours_"
RUST = ("pyreqwest", "obstore")
BUDGET_MIB = 256.0
"""Byte budget of our engine in the memory workloads."""


@dataclass(frozen=True, slots=True)
class Row:
    """One demand.

    Attributes:
        case: Workload.
        figure: What is compared; see `benchmarks.summarize.summarize`.
        peers: Names (without event loop) of whom it is compared with, the best of them counts; empty: everybody but
            ourselves. None: an absolute limit.
        limit: Highest ratio, or the absolute limit.
        stretch: What would be better still; None: nothing is said.
        other_case: Our own figure of this workload is what it is compared with, as a difference.
    """

    case: str
    figure: str
    peers: tuple[str, ...] | None
    limit: float
    stretch: float | None = None
    other_case: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a row for one of our contenders.

    Attributes:
        row: The demand.
        ours: Who of ours.
        value: Our figure, None without a result.
        peer: Whom it is compared with.
        theirs: Their figure, None without a result.
        ratio: What is held against the limit, None without a result.
        word: ``stretch``, ``met``, ``missed``, or ``no result``.
    """

    row: Row
    ours: str
    value: float | None
    peer: str
    theirs: float | None
    ratio: float | None
    word: str


def _both(name: str, *rows: tuple[str, tuple[str, ...] | None, float, float | None]) -> list[Row]:
    return [
        Row(f"{name}-{scheme}", figure, peers, limit, stretch)
        for scheme in ("plain", "tls")
        for figure, peers, limit, stretch in rows
    ]


BAR: tuple[Row, ...] = (
    *_both("small-up", ("client", ("curl",), 1.0, 0.8), ("client", RUST, 1.0, 0.8)),
    *_both("small-down", ("client", ("curl",), 0.9, 0.75), ("client", RUST, 1.0, 0.75)),
    Row("medium-up-plain", "client", (), 0.6, 0.4),
    Row("medium-down-plain", "client", (), 0.8, 0.65),
    Row("large-down-plain", "total", (), 0.75),
    Row("large-down-plain", "wall", (), 0.8),
    Row("large-down-tls", "total", (), 0.95),
    Row("large-down-tls", "wall", (), 1.0),
    *_both("large-up", ("total", (), 1.05, None), ("client_user", None, 0.03, None)),
    Row("post-plain", "client", (), 0.7, 0.5),
    *(
        Row(case, "client", (peer,), 1 / 15, 1 / 20)
        for case in ("small-up-plain", "small-down-plain", "post-plain")
        for peer in ("requests_threads", "httpx")
    ),
    Row("memory-up", "rss_above_start_mib", None, BUDGET_MIB + 64),
    Row("memory-down", "rss_above_start_mib", None, BUDGET_MIB + 64),
    Row("many-50k", "rss_above_start_mib", None, 16.0, other_case="many-5k"),
)


def judge(summary: Sequence[Mapping[str, Any]], ours: str) -> list[Verdict]:
    """Return a verdict for each row of the bar whose workload was run at all.

    Args:
        summary: Entries of `benchmarks.summarize.summarize`.
        ours: The contender that is judged.
    """
    medians = {
        (entry["case"], entry["contender"]): {name: value["median"] for name, value in entry["figures"].items()}
        for entry in summary
        if entry["runs"]
    }
    cases = {entry["case"] for entry in summary}
    return [_judge(row, ours, medians) for row in BAR if row.case in cases]


def _judge(row: Row, ours: str, medians: Mapping[tuple[str, str], Mapping[str, float]]) -> Verdict:
    value = medians.get((row.case, ours), {}).get(row.figure)
    if row.peers is None:
        peer, theirs = row.other_case or "limit", None
        if row.other_case:
            theirs = medians.get((row.other_case, ours), {}).get(row.figure)
            measured = None if value is None or theirs is None else value - theirs
        else:
            measured = value
    else:
        found = {
            name: figures[row.figure]
            for (case, name), figures in medians.items()
            if case == row.case and not name.startswith(OURS) and (not row.peers or _module(name) in row.peers)
        }
        peer = min(found, key=lambda name: found[name], default=" or ".join(row.peers) or "any peer")
        theirs = found.get(peer)
        measured = None if value is None or not theirs else value / theirs
    if measured is None:
        word = "no result"
    elif row.stretch is not None and measured <= row.stretch:
        word = "stretch"
    else:
        word = "met" if measured <= row.limit else "missed"
    return Verdict(row, ours, value, peer, theirs, measured, word)


def _module(name: str) -> str:
    return name.partition(":")[0]


def bar_table(results: Mapping[str, Any]) -> str:
    """Return the verdicts for each of our contenders over the lean transport; nothing when none took part."""
    summary = results["summary"]
    names = dict.fromkeys(e["contender"] for e in summary if _module(e["contender"]) == "ours_lean")
    head = f"{'the bar':20}{'figure':21}{'ours':20}{'value':>10}  {'against':22}{'value':>10}{'ratio':>10}"
    lines = [f"{head}{'limit':>9}{'stretch':>9}  verdict"]
    for name in names:
        for verdict in judge(summary, name):
            row = verdict.row
            lines.append(
                f"{row.case:20}{row.figure:21}{name:20}{_number(verdict.value):>10}  {verdict.peer:22}"
                f"{_number(verdict.theirs):>10}{_number(verdict.ratio):>10}{_number(row.limit):>9}"
                f"{_number(row.stretch):>9}  {verdict.word}"
            )
    return "\n".join(lines) if len(lines) > 1 else "the bar: our engine took no part, or in nothing the bar speaks of"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
