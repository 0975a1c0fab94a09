"""When files belong in threads."""

from __future__ import annotations

from asyncsdk.server.http.front.pace import PAUSE_SECONDS, SLOW_SECONDS, FilePace


def test_fast_files_stay_in_the_loop_and_one_hiccup_changes_nothing() -> None:
    now = 0.0
    pace = FilePace(lambda: now)
    for _ in range(1000):
        pace.took(SLOW_SECONDS / 20)
    pace.took(SLOW_SECONDS * 15)
    assert not pace.is_slow


def test_slow_files_go_to_threads_for_a_while_and_soon_again_when_nothing_got_better() -> None:
    now = 0.0
    pace = FilePace(lambda: now)
    for _ in range(200):
        pace.took(SLOW_SECONDS * 2)
    assert pace.is_slow
    now += PAUSE_SECONDS + 0.1
    assert not pace.is_slow, "it tries again"
    for _ in range(30):
        pace.took(SLOW_SECONDS * 2)
    assert pace.is_slow


def test_one_file_that_takes_for_ever_is_enough() -> None:
    pace = FilePace(lambda: 0.0)
    pace.took(SLOW_SECONDS * 100)
    assert pace.is_slow
