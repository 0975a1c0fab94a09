"""``asyncsdk model predict|export``: work that a worker does with the weights of a model."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.formats import human_size
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.metrics import add_metrics_command
from asyncsdk.cli.options import add_common, add_project, parsed_as
from asyncsdk.cli.references import Reference, find_model
from asyncsdk.domain.exporting import EXPORT_FORMATS, export_format
from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.results import PredictionResult
from asyncsdk.entities.jobs import AsyncJob
from asyncsdk.entities.model_work import AsyncExport
from asyncsdk.errors import AsyncSDKError, ConfigError

__all__ = ["add_commands", "export", "predict"]

_OPTIONS = ("size", "conf", "iou", "max_det", "topk")
_CANCEL_SECONDS = 2.0


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    group = commands.add_parser("model", help="predict images with a model, export its weights, show its metrics")
    add_common(group)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = verbs.add_parser(
        "predict",
        help="predict images with a model",
        description="Predict images with a checkpoint of a model: ONNX, run by a worker of the platform; the embedded "
        "platform\nstarts one in this process, with the extra 'predict'. Fails when an image could not be predicted, "
        "after\nall others were.",
    )
    parser.add_argument("model", metavar="MODEL", help="name, project/name, or id")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="image file")
    add_project(parser)
    _add_checkpoint(parser)
    parser.add_argument("--size", metavar="N", help="height and width that images are brought to (default: as the "
                        "model was made)")  # fmt: skip
    parser.add_argument("--conf", metavar="SHARE", help="leave out detections with a lower score (default: 0.25)")
    parser.add_argument("--iou", metavar="SHARE", help="of two boxes that overlap by more, keep the better one "
                        "(default: 0.45)")  # fmt: skip
    parser.add_argument("--max-det", metavar="N", help="detections of an image at most (default: 300)")
    parser.add_argument("--topk", metavar="N", help="classes of an image at most (default: 5)")
    add_common(parser)
    parser.set_defaults(work=predict)

    parser = verbs.add_parser(
        "export",
        help="export the weights of a model in another format",
        description="Export a checkpoint of a model. Formats that have a name: "
        f"{', '.join(one.name for one in EXPORT_FORMATS)};\nwhich of them are made depends on the platform's workers.",
    )
    parser.add_argument("model", metavar="MODEL", help="name, project/name, or id")
    parser.add_argument("format", metavar="FORMAT", type=parsed_as(_parse_format), help="such as onnx")
    add_project(parser)
    _add_checkpoint(parser)
    parser.add_argument("--output", "-o", metavar="FILE", type=Path, default=Path(), help="file, or a folder that "
                        "exists (default: this folder)")  # fmt: skip
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--half", action="store_true", help="16-bit floats")
    precision.add_argument("--int8", action="store_true", help="8-bit weights")
    parser.add_argument("--size", metavar="N", type=int, help="height and width of its images, where the weights do "
                        "not say")  # fmt: skip
    add_common(parser)
    parser.set_defaults(work=export)
    add_metrics_command(verbs)


def _add_checkpoint(parser: Any) -> None:
    parser.add_argument("--checkpoint", metavar="best|last|final|EPOCH", type=parsed_as(_parse_checkpoint),
                        default="best", help="which weights (default: best, else final, else last)")  # fmt: skip


def _parse_format(text: str) -> str:
    return export_format(text).name


def _parse_checkpoint(text: str) -> str | int:
    if text in {"best", "last", "final"}:
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise ConfigError(f"{text!r} is not best, last, final or the number of an epoch")


async def predict(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk model predict``."""
    given, output = invocation.arguments, invocation.output
    told = {name: value for name in _OPTIONS if (value := getattr(given, name)) is not None}
    config = PredictConfig.parse(told)
    failed = 0
    async with invocation.client() as client:
        model = await find_model(client, Reference.parse(given.model, given.project))
        results = model.predict_many(given.images, config, checkpoint=given.checkpoint)
        number = 0
        async for result in results:
            path = str(given.images[number])
            number += 1
            if not result.ok:
                failed += 1
            if output.as_json:
                output.record({"path": path, **result.model_dump(mode="json")})
            _print(invocation, path, result)
    if failed:
        output.problem(f"{failed} of {number} images could not be predicted")
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _print(invocation: Invocation, path: str, result: PredictionResult) -> None:
    output = invocation.output
    if result.problem is not None:
        output.problem(f"{path}: {result.problem.message}")
        return
    found = [f"{one.label} {one.score:.3f}" for one in result.classes]
    for thing in result.detections:
        box = " ".join(f"{edge:.0f}" for edge in thing.box)
        found.append(f"{thing.label} {thing.score:.3f} at {box}")
    output.text(f"{path}: {', '.join(found) or 'nothing found'} ({result.timing.total_ms:.1f} ms)")


async def export(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk model export``."""
    given, output = invocation.arguments, invocation.output
    async with invocation.client() as client:
        model = await find_model(client, Reference.parse(given.model, given.project))
        job = await model.export(
            given.format, half=given.half, int8=given.int8, size=given.size, checkpoint=given.checkpoint
        )
        output.note(f"job {job.id}")
        made = await _result(job)
        await made.download(given.output)
    path = given.output / made.name if given.output.is_dir() else given.output
    if output.as_json:
        output.record({"path": str(path), **made.to_json()})
    output.text(f"{path}: {made.format}, {human_size(made.size_bytes)}")
    return ExitCode.OK


async def _result(job: AsyncJob[AsyncExport]) -> AsyncExport:
    try:
        return await job
    except anyio.get_cancelled_exc_class():
        # Ctrl-C: nobody waits for the job any more.
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_SECONDS), suppress(AsyncSDKError):
            await job.cancel()
        raise
