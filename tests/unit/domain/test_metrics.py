"""Metrics as plain values: what is a good one, tables, curves of one line, images."""

from __future__ import annotations

import builtins
import csv
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from asyncsdk.domain.curves import MAX_PANELS, draw
from asyncsdk.domain.metric_table import MetricTable
from asyncsdk.domain.metrics import check_metric, sparkline
from asyncsdk.errors import ConfigError, DestinationUnwritable

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("name", "step", "value", "reason"),
    [
        ("loss", 0, 0.5, None),
        ("x" * 200, None, -0.0, None),
        ("größe/µ", 2**63 - 1, 5e-324, None),
        ("", 0, 0.5, "name"),
        ("x" * 201, 0, 0.5, "name"),
        ("a\tb", 0, 0.5, "name"),
        ("a\ud800", 0, 0.5, "name"),
        (None, 0, 0.5, "name"),
        ("a", -1, 0.5, "step"),
        ("a", 2**63, 0.5, "step"),
        ("a", True, 0.5, "step"),
        ("a", 1.0, 0.5, "step"),
        ("a", 0, math.nan, "finite"),
        ("a", 0, -math.inf, "finite"),
        ("a", 0, None, "finite"),
        ("a", 0, 1, "finite"),
    ],
)
def test_a_metric_is_good_or_the_reason_is_told(name: Any, step: Any, value: Any, reason: str | None) -> None:
    found = check_metric(name, step, value)
    assert found is None if reason is None else found is not None and reason in found


def test_a_curve_of_one_line_shows_the_course() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([7, 0], 8) == "█▁"
    assert sparkline([0, 0, 6, 8], 2) == "▁█"
    assert sparkline([3, 3, 3], 8) == "▅▅▅"
    assert sparkline([], 8) == ""
    assert sparkline([0, 7], 8, only_ascii=True) == "_@"


@given(st.lists(FINITE, max_size=50), st.integers(1, 20))
def test_a_curve_can_be_made_of_all_finite_numbers(values: list[float], width: int) -> None:
    """However large; never wider than it may be; the greatest of few values is drawn highest."""
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    if 0 < len(values) <= width and max(values) / 2 - min(values) / 2 > 0:
        assert line[values.index(max(values))] == "█"
        assert line[values.index(min(values))] == "▁"


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["a", "b,c", 'q"', "step"]), st.none() | st.integers(0, 5)), FINITE, max_size=15
    )
)
def test_a_table_holds_every_value_and_its_file_every_digit(
    tmp_path_factory: pytest.TempPathFactory, values: dict[tuple[str, int | None], float]
) -> None:
    table = MetricTable((name, step, value) for (name, step), value in values.items())
    found = {(name, step): value for name in table.names for step, value in table.series(name).items()}
    found.update({(name, None): value for name, value in table.singles.items()})
    assert found == values
    path: Path = tmp_path_factory.getbasetemp() / "table.csv"
    table.to_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(table) == len(table.to_rows())
    for row, shown in zip(table.to_rows(), rows, strict=True):
        for name, value in row.items():
            assert shown[name] == "" if value is None else float(shown[name]) == value


def test_of_two_values_for_a_place_the_later_counts() -> None:
    table = MetricTable([("a", 1, 1.0), ("a", 1, 2.0), ("a", None, 3.0), ("a", None, 4.0)])
    assert table.to_rows() == [{"step": None, "a": 4.0}, {"step": 1, "a": 2.0}]
    assert repr(table) == "MetricTable(1 names, 2 rows)"


def test_what_cannot_be_drawn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for series, suffix, reason in (
        ({"a": {1: 1.0}}, ".pdf", ".pdf"),
        ({}, ".png", "no series"),
        ({"a": {}}, ".png", "'a'"),
        ({str(n): {1: 1.0} for n in range(MAX_PANELS + 1)}, ".svg", "101"),
    ):
        with pytest.raises(ConfigError, match=reason):
            draw(series, suffix)  # type: ignore[arg-type]
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError("no such module", name="matplotlib")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"matplotlib.*asyncsdk\[plot\]"):
        draw({"a": {1: 1.0}}, ".png")


@pytest.mark.parametrize("values", [[1.0, 1e308, -1e308], [1.7e308, 1e-308], [-1.7e308, 1.79e308], [1e308] * 3])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_training_that_diverges_is_drawn_too(values: list[float], suffix: str) -> None:
    """The largest floats leave no room for the margins of a curve, which matplotlib adds all the same."""
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra plot)")
    assert draw({"loss": dict(enumerate(values))}, suffix)


@pytest.mark.parametrize("path", ["", "/", ".", "a\0b"])
def test_a_table_for_a_path_that_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(DestinationUnwritable):
        MetricTable([("loss", 1, 0.5)]).to_csv(path)


def test_a_file_may_have_the_longest_name_there_is(tmp_path: Path) -> None:
    path = tmp_path / ("日" * 83 + ".csv")
    MetricTable([("loss", 1, 0.5)]).to_csv(path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
