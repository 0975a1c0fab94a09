"""What a report keeps of its failures: what is needed to tell them, and nothing of the objects."""

from __future__ import annotations

import gc
import weakref

import pytest

from asyncsdk.engine import Engine, PutTarget, Report, Upload
from asyncsdk.engine.report import MAX_FAILURES_KEPT
from asyncsdk.errors import NotFound, SourceUnreadable
from tests.support.http_server import HttpServer, answer
from tests.unit.engine.conftest import config


class Content(bytearray):
    """Bytes whose end can be watched."""


def failed_with(content: Content, *, foreign: bool = False) -> Exception:
    """Return an error whose traceback, cause and context hold frames with *content*."""

    def read() -> None:
        held = content
        raise OSError(len(held))

    try:
        try:
            read()
        except OSError as error:
            kind = ValueError if foreign else SourceUnreadable
            raise kind("cannot be read") from error
    except (SourceUnreadable, ValueError) as error:
        return error


@pytest.mark.parametrize("foreign", [False, True])
def test_a_report_holds_nothing_of_what_failed(foreign: bool) -> None:
    """The bytes go when the outcome goes, whatever the error's traceback, cause and context led to."""
    report, content = Report(), Content(b"x" * 1000)
    watched = weakref.ref(content)
    report.add_failure("a", failed_with(content, foreign=foreign))
    del content
    gc.collect()
    assert watched() is None
    assert str(report.failures[0].error) == "cannot be read"


def test_whoever_was_told_the_outcome_keeps_its_traceback() -> None:
    report, error = Report(), failed_with(Content(b"x"))
    report.add_failure("a", error)
    assert error.__traceback__ is not None
    assert isinstance(error.__cause__, OSError)
    kept = report.failures[0].error
    assert (type(kept), kept.__traceback__, kept.__cause__) == (SourceUnreadable, None, None)


def test_long_words_of_a_server_are_cut() -> None:
    report, error = Report(), NotFound("gone", body="x" * 60_000)
    report.add_failure("a", error)
    kept = report.failures[0].error
    assert isinstance(kept, NotFound)
    assert (len(error.body), len(kept.body)) == (60_000, 1003)


async def test_a_run_of_failures_holds_no_sources(server: HttpServer) -> None:
    """Also not by way of the engine itself: every source can go while its report lives."""
    count = 20
    for number in range(count):
        server.script(f"/{number}", answer(404))
    contents = [Content(b"x" * 1000) for _ in range(count)]
    watched = [weakref.ref(content) for content in contents]
    transfers = [
        Upload(content, PutTarget(server.url(f"/{number}")), name=str(number))
        for number, content in enumerate(contents)
    ]
    async with Engine(config()) as engine:
        report = await engine.collect(transfers)
    del transfers, contents
    gc.collect()
    assert report.failed == count
    assert all(isinstance(failure.error, NotFound) for failure in report.failures)
    assert [one for one in watched if one() is not None] == []


def test_failures_beyond_the_first_thousand_are_only_counted() -> None:
    report = Report()
    for number in range(MAX_FAILURES_KEPT + 5):
        report.add_failure(str(number), NotFound("gone"))
    assert (report.failed, len(report.failures)) == (MAX_FAILURES_KEPT + 5, MAX_FAILURES_KEPT)
