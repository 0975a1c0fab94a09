"""The main job on real input, from one end to the other, every byte compared: ``make demo``.

Starts a served platform as its own process on a free loopback port, then, as its client: a folder of real images
becomes a dataset and comes back, 91 MB of real weights become a checkpoint and come back, real predictions go up and
are read again; then a short version of the same through the blocking client. Ends with a table. The exit status is 0
only when nothing failed and nothing differs. Leaves nothing behind but the cached weights.
"""

from __future__ import annotations

import asyncio
import filecmp
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

import asyncsdk
from asyncsdk.engine import Progress
from benchmarks.realdata import RealDataUnavailable, digit_path, digits, fetch_model, write_images
from benchmarks.servers import ServedPlatform, ServerFailed

__all__ = ["Step", "differences", "prediction_rows"]

TASK = "digit"
PLAIN_SECONDS = 3.0


@dataclass(slots=True)
class Step:
    """One line of the table.

    Attributes:
        name: What was done.
        objects: How many files or rows.
        size_bytes: How many bytes; 0 where that says nothing.
        seconds: How long it took.
        problems: What failed or differs.
    """

    name: str
    objects: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def count(self, report: Any) -> None:
        """Take the figures of a report."""
        self.objects, self.size_bytes = report.done, report.bytes_done
        self.problems += [f"{failure.name}: {failure.error}" for failure in report.failures]
        if report.failed > len(report.failures):
            self.problems.append(f"and {report.failed - len(report.failures)} more")

    def expect(self, objects: int) -> None:
        """Note a problem unless there were so many."""
        if self.objects != objects:
            self.problems.append(f"{self.objects} instead of {objects}")


class Display:
    """Progress of one step: a bar on a terminal, else a plain line every few seconds.

    Args:
        name: What is being done.
        objects: Files there will be; None shows bytes alone.
        size_bytes: Bytes there will be.
    """

    def __init__(self, name: str, *, objects: int | None = None, size_bytes: int | None = None) -> None:
        self._name = name
        self._by_files = objects is not None
        self._total = objects if objects is not None else size_bytes
        self._bar: tqdm[Any] | None = None
        self._last_line = time.monotonic()
        if sys.stderr.isatty():
            unit: dict[str, Any] = {"unit": " files"} if self._by_files else {"unit": "B", "unit_scale": True}
            self._bar = tqdm(desc=f"{name:32}", total=self._total, leave=False, dynamic_ncols=True, **unit)

    def __call__(self, progress: Progress) -> None:
        position = progress.finished if self._by_files else progress.bytes_done
        if self._bar is not None:
            self._bar.update(position - self._bar.n)
        elif (now := time.monotonic()) - self._last_line >= PLAIN_SECONDS:
            self._last_line = now
            unit = "files" if self._by_files else "bytes"
            print(f"  {self._name}: {position:,} of {self._total:,} {unit}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


class Job:
    """The steps so far, each announced when it begins and told when it ends."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    @contextmanager
    def step(
        self, name: str, *, objects: int | None = None, size_bytes: int | None = None
    ) -> Iterator[tuple[Step, Callable[[Progress], None]]]:
        """Time one step and keep its line."""
        step = Step(name)
        display = Display(name, objects=objects, size_bytes=size_bytes)
        started = time.perf_counter()
        try:
            yield step, display
        finally:
            step.seconds = time.perf_counter() - started
            display.close()
        self.steps.append(step)
        state = "differs or failed" if step.problems else "ok"
        print(f"{name}: {step.objects:,} in {step.seconds:.2f} s, {state}", flush=True)

    @property
    def is_good(self) -> bool:
        """Whether nothing failed and nothing differs."""
        return not any(step.problems for step in self.steps)

    def table(self) -> str:
        """Return the figures of every step."""
        lines = [f"{'step':34}{'objects':>9}{'bytes':>13}{'seconds':>9}{'files/s':>9}{'MB/s':>9}{'failures':>10}"]
        for step in self.steps:
            files = f"{step.objects / step.seconds:,.0f}" if step.objects > 1 else ""
            rate = f"{step.size_bytes / step.seconds / 1e6:,.1f}" if step.size_bytes else ""
            size = f"{step.size_bytes:,}" if step.size_bytes else ""
            lines.append(
                f"{step.name:34}{step.objects:>9,}{size:>13}{step.seconds:>9.2f}{files:>9}{rate:>9}{len(step.problems):>10}"
            )
        lines += [f"  {step.name}: {problem}" for step in self.steps for problem in step.problems[:20]]
        return "\n".join(lines)


def differences(left: Path, right: Path) -> list[str]:
    """Return what differs between two folders, every byte compared; empty when nothing does."""
    names = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (left, right)]
    found = [f"{name}: only on one side" for name in sorted(names[0] ^ names[1])]
    both = sorted(names[0] & names[1])
    return found + [
        f"{name}: other bytes" for name in both if not filecmp.cmp(left / name, right / name, shallow=False)
    ]


def prediction_rows() -> list[dict[str, Any]]:
    """Return a row for each digit: its label, where its ink is, and how sure a logistic regression is of it.

    The classifier learns from the first half and is asked about all of them.
    """
    from sklearn.linear_model import LogisticRegression

    bunch = digits()
    data, half = bunch.data / 16, len(bunch.data) // 2
    classifier = LogisticRegression(max_iter=1000).fit(data[:half], bunch.target[:half])
    rows = []
    for number, (pixels, label, scores) in enumerate(
        zip(bunch.images, bunch.target, classifier.predict_proba(data), strict=True)
    ):
        ys, xs = pixels.nonzero()
        left, top = int(xs.min()), int(ys.min())
        prediction = {
            "category": str(label),
            "score": float(scores[label]),
            "bbox": [left, top, int(xs.max()) + 1 - left, int(ys.max()) + 1 - top],
            "probabilities": [float(score) for score in scores],
        }
        rows.append({"path": digit_path(number, int(label)), "predictions": [prediction]})
    return rows


def _row_differences(sent: list[dict[str, Any]], stored: dict[str, list[dict[str, Any]]]) -> list[str]:
    wanted = {row["path"]: row["predictions"] for row in sent}
    found = [f"{path}: not what was sent" for path in wanted if stored.get(path) != wanted[path]]
    return found + [f"{path}: was never sent" for path in stored.keys() - wanted.keys()]


async def run_async(job: Job, server: ServedPlatform, folder: Path, images: Path, model_file: Path) -> None:
    """Do the whole job through the async client."""
    files = [path for path in images.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    async with asyncsdk.AsyncClient(server.url, token=server.token) as client:
        project = await client.projects.create("demo")
        dataset = await client.datasets.create("pictures", project=project, kind="images")

        with job.step("folder to dataset", objects=len(files)) as (step, show):
            step.count(await dataset.upload(images, on_progress=show))
            step.expect(len(files))
        with job.step("the same again (nothing to send)", objects=len(files)) as (step, show):
            report = await dataset.upload(images, on_progress=show)
            step.count(report)
            step.objects = report.skipped
            step.expect(len(files))
        with job.step("list items") as (step, _):
            listed = [item async for item in dataset.items.list()]
            step.objects = len(listed)
            step.expect(len(files))
            if sum(item.size_bytes for item in listed) != size:
                step.problems.append("the sizes do not add up")
        copy = folder / "copy"
        with job.step("dataset to folder", objects=len(files)) as (step, show):
            step.count(await dataset.download(copy, on_progress=show))
            step.expect(len(files))
        with job.step("compare every byte") as (step, _):
            step.objects, step.size_bytes = len(files), size
            step.problems += differences(images, copy)

        model = await client.models.create("sentence-encoder", project=project, framework="safetensors")
        size = model_file.stat().st_size
        with job.step("checkpoint up, in parts", size_bytes=size) as (step, show):
            await model.upload_checkpoint(model_file, epoch=3, is_best=True, metrics={"map": 0.61}, on_progress=show)
            step.objects, step.size_bytes = 1, size
        fetched = folder / "best.safetensors"
        with job.step("checkpoint down, by ranges", size_bytes=size) as (step, show):
            await model.download_checkpoint(fetched, which="best", on_progress=show)
            step.objects, step.size_bytes = 1, size
        with job.step("compare every byte of it") as (step, _):
            step.objects, step.size_bytes = 1, size
            if not filecmp.cmp(model_file, fetched, shallow=False):
                step.problems.append("the checkpoint came back with other bytes")

        rows = prediction_rows()
        await dataset.prediction_tasks.create(TASK, kind="object-detection", categories=[str(n) for n in range(10)])
        with job.step("prediction rows up") as (step, _):
            report = await dataset.upload_predictions(TASK, rows)
            step.count(report)
            step.expect(len(rows))
        with job.step("prediction rows back, compared") as (step, _):
            stored = {row.path: list(row.predictions) async for row in dataset.predictions.list(TASK)}
            step.objects = len(stored)
            step.expect(len(rows))
            step.problems += _row_differences(rows, stored)


def run_blocking(job: Job, server: ServedPlatform, folder: Path, images: Path, model_file: Path) -> None:
    """Do a short version of it through the blocking client."""
    pictures = images / "pictures"
    count = sum(path.is_file() for path in pictures.rglob("*"))
    with asyncsdk.Client(server.url, token=server.token) as client:
        project = client.projects.get(name="demo")
        dataset = client.datasets.create("pictures, blocking", project=project)
        with job.step("blocking: folder up, down", objects=2 * count) as (step, _):
            step.count(dataset.upload(pictures))
            step.expect(count)
            report = dataset.download(folder / "copy-blocking")
            report.raise_for_failures()
            step.objects += report.done
            step.size_bytes += report.bytes_done
            step.problems += differences(pictures, folder / "copy-blocking")
        with job.step("blocking: checkpoint up, down") as (step, _):
            with model_file.open("rb") as file:
                weights = file.read(20_000_000)
            model = client.models.create("slice", project=project)
            model.upload_checkpoint(weights, epoch=0, is_final=True)
            model.download_checkpoint(folder / "slice", which="final")
            step.objects, step.size_bytes = 2, 2 * len(weights)
            if (folder / "slice").read_bytes() != weights:
                step.problems.append("the checkpoint came back with other bytes")
        with job.step("blocking: prediction rows") as (step, _):
            items = list(dataset.items.list(limit=20))
            rows = [
                {"path": item.path, "predictions": [{"category": "picture", "score": 1 / (n + 1)}]}
                for n, item in enumerate(items)
            ]
            dataset.prediction_tasks.create("kind", kind="classification", categories=["picture"])
            step.count(dataset.upload_predictions("kind", rows))
            step.expect(len(rows))
            stored = {row.path: list(row.predictions) for row in dataset.predictions.list("kind")}
            step.problems += _row_differences(rows, stored)


def run() -> int:
    """Do everything and return the exit status."""
    job = Job()
    with tempfile.TemporaryDirectory(prefix="asyncsdk-demo-") as name:
        folder = Path(name)
        os.environ["ASYNCSDK_HOME"] = str(folder / "home")  # nothing of the user's own settings, none left behind
        for variable in ("ASYNCSDK_URL", "ASYNCSDK_TOKEN", "ASYNCSDK_DATA"):
            os.environ.pop(variable, None)
        images = write_images(folder / "images")
        print(f"real images: {images.files:,} files, {images.size_bytes:,} bytes")
        model_file = fetch_model()
        print(f"real weights: {model_file.name}, {model_file.stat().st_size:,} bytes")
        with ServedPlatform(folder) as server:
            print(f"served platform: {server.url}\n", flush=True)
            asyncio.run(run_async(job, server, folder, images.folder, model_file))
            run_blocking(job, server, folder, images.folder, model_file)
    print(f"\n{job.table()}\n")
    if not job.is_good:
        print("demo: something failed or differs, see above", file=sys.stderr)
        return 1
    print(
        "Everything came back as it went. Where to look next:\n"
        "  README.md               the same in ten lines of your own\n"
        "  make docs               guides, concepts and reference in site/index.html\n"
        "  make serve              a platform that stays, with its API described at /docs\n"
        "  .venv/bin/asyncsdk -h   the same from the command line"
    )
    return 0


def main() -> int:
    """Run the demo; expected failures end with one line instead of a traceback."""
    try:
        return run()
    except (RealDataUnavailable, ServerFailed, asyncsdk.AsyncSDKError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
