"""``asyncsdk model metrics``: the metrics of a model at a glance, as rows, as a file, as curves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.formats import TableWriter, cell
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_project
from asyncsdk.cli.references import Reference, find_model
from asyncsdk.domain.metric_table import MetricTable
from asyncsdk.domain.metrics import sparkline
from asyncsdk.entities.models import AsyncModel
from asyncsdk.errors import ConfigError

__all__ = ["add_metrics_command", "show"]

_CURVE_CHARACTERS = 40


def add_metrics_command(verbs: Any) -> None:
    """Add ``metrics`` to the commands of the group ``model``."""
    parser = verbs.add_parser(
        "metrics",
        help="show the metrics of a model",
        description="Show the series of a model: their last, least and greatest value, and a curve of one line.\n"
        "Single values have no curve.",
    )
    parser.add_argument("model", metavar="MODEL", help="name, project/name, or id")
    add_project(parser)
    parser.add_argument("--name", metavar="SERIES", action="append", help="only this series; may be repeated")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--rows", action="store_true", help="a row for each step, a column for each series")
    form.add_argument("--csv", metavar="FILE", type=Path, help="write the rows into a file")
    form.add_argument("--plot", metavar="FILE", type=Path, help="draw curves into a file, .png or .svg (extra 'plot')")
    parser.add_argument(
        "--send-kept", action="store_true", help="first send what trainings on this machine could not send and kept"
    )
    add_common(parser)
    parser.set_defaults(work=show)


async def show(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk model metrics``."""
    given, output = invocation.arguments, invocation.output
    async with invocation.client() as client:
        model = await find_model(client, Reference.parse(given.model, given.project))
        if given.send_kept:
            kept = await model.metrics.send_kept()
            damaged = f", {kept.damaged} lines were damaged" if kept.damaged else ""
            output.note(f"sent {kept.sent} values from {kept.files} files{damaged}")
        table = await model.metrics.table(names=given.name)
        missing = sorted(set(given.name or ()) - set(table.names))
        if missing:
            raise ConfigError(f"the model has no metric {missing[0]!r}")
        if given.csv is not None or given.plot is not None:
            await _write(invocation, table)
        elif given.rows:
            _show_rows(invocation, table)
        else:
            await _show_series(invocation, model, table)
    if not table.names:
        output.note("no metrics")
    return ExitCode.OK


async def _write(invocation: Invocation, table: MetricTable) -> None:
    given = invocation.arguments
    if given.csv is not None:
        await anyio.to_thread.run_sync(table.to_csv, given.csv)
    else:
        await anyio.to_thread.run_sync(lambda: table.plot(given.plot, names=given.name))
    invocation.output.text(f"wrote {given.csv or given.plot}")


def _show_rows(invocation: Invocation, table: MetricTable) -> None:
    rows = table.to_rows()
    if invocation.output.as_json:
        for row in rows:
            invocation.output.record(row)
        return
    names = ["step", *(name for name in table.names if name != "step")]
    writer = TableWriter([f"{cell(name)}#" for name in names])
    for line in writer.lines([[_number(row[name]) for name in names] for row in rows]) if rows else ():
        invocation.output.text(line)


async def _show_series(invocation: Invocation, model: AsyncModel, table: MetricTable) -> None:
    only_ascii = not (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    writer = TableWriter(["NAME", "VALUES#", "STEP#", "LAST#", "LEAST#", "GREATEST#", "CURVE"])
    names = set(table.names)
    rows = []
    async for one in model.metrics.series():
        if one.name not in names:
            continue
        if invocation.output.as_json:
            invocation.output.record(one.model_dump(mode="json"))
            continue
        numbers = (one.last_value, one.min_value, one.max_value)
        curve = sparkline(list(table.series(one.name).values()), _CURVE_CHARACTERS, only_ascii=only_ascii)
        step = "-" if one.last_step is None else str(one.last_step)
        rows.append([cell(one.name), str(one.count), step, *map(_number, numbers), curve])
    if rows:
        for line in writer.lines(rows):
            invocation.output.text(line)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.6g}"
