"""The rule by which a soak is judged: leaks show, warm-up and single outliers do not."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from benchmarks.growth import LEAST_POINTS, TOLERANCES, Holding, growths, holding

FLAT = Holding(
    rss_mib=60.0, blocks=250.0, files=9, sockets=20, tasks=2, threads=8, server_rss_mib=80.0, server_files=30
)


def growing(points: list[Holding]) -> set[str]:
    return {growth.measure for growth in growths(points) if growth.grows}


def test_every_measure_has_a_tolerance() -> None:
    """None is left unjudged."""
    assert TOLERANCES.keys() == FLAT.to_json().keys()


@pytest.mark.parametrize("measure", sorted(TOLERANCES))
def test_what_grows_with_every_round_is_found(measure: str) -> None:
    """Each measure alone; the line of the table says so."""
    step = TOLERANCES[measure] / 5
    points = [replace(FLAT, **{measure: getattr(FLAT, measure) + step * number}) for number in range(20)]
    assert growing(points) == {measure}
    assert [growth.measure for growth in growths(points) if growth.line().endswith("GROWS")] == [measure]


def test_a_task_left_behind_by_every_round_is_found_in_the_shortest_run() -> None:
    """Nine rounds are enough for what leaks one by one."""
    points = [replace(FLAT, tasks=2 + number, files=9 + number) for number in range(LEAST_POINTS)]
    assert growing(points) == {"tasks", "files"}


def test_warm_up_and_single_points_do_not_count() -> None:
    """A start that is far below, and a peak at the end, are no growth."""
    warming = [replace(FLAT, rss_mib=20.0 * number) for number in range(3)]
    points = [*warming, *[FLAT] * 11, replace(FLAT, rss_mib=400.0, tasks=90)]
    assert growing(points) == set()
    assert max(growth.highest for growth in growths(points)) == 400.0


def test_too_few_points_are_refused() -> None:
    """Nobody is told that nothing grows when nobody could know."""
    with pytest.raises(ValueError, match="too few"):
        growths([FLAT] * (LEAST_POINTS - 1))


async def test_holding_counts_what_is_there() -> None:
    """Files, sockets and tasks of this process, and a server."""
    before = holding(os.getpid())
    task = asyncio.create_task(asyncio.sleep(60))
    with socket.socket(), open(os.devnull), open(os.devnull):  # noqa: PTH123 - descriptors are all that matters
        during = holding(os.getpid())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    counted = [(point.files, point.sockets, point.tasks) for point in (before, during, holding(os.getpid()))]
    assert [one - other for one, other in zip(counted[1], counted[0], strict=True)] == [2, 1, 1]
    assert counted[2] == counted[0]
    assert during.rss_mib > 10
    assert during.server_files >= during.files + during.sockets
