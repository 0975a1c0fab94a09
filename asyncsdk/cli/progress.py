"""Progress on standard error: a bar on a terminal, otherwise one plain line every few seconds."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from asyncsdk.cli.formats import human_size
from asyncsdk.cli.output import Output
from asyncsdk.engine import Progress

__all__ = ["ProgressDisplay"]

LINE_EVERY_SECONDS = 5.0


class ProgressDisplay:
    """Shows `Progress` events; a terminal that is gone is no error, and nothing is shown any more.

    Args:
        output: Where to; nothing is shown with ``--quiet``.
        label: What is going on, e.g. ``upload``.
        unit: What the counts are of.
    """

    def __init__(self, output: Output, label: str, *, unit: str = "objects") -> None:
        self._output = output
        self._label = label
        self._unit = unit
        self._bar: Any = None
        self._last_line_seconds = 0.0
        self._is_terminal_gone = False

    def show(self, progress: Progress) -> None:
        """Show one event of the run."""
        if self._output.is_quiet:
            return
        if self._is_terminal_gone:
            return
        if self._bar is not None or self._output.is_terminal:
            try:
                self._draw(progress)
            except OSError:  # somebody closed it, or the connection to it broke: the work goes on
                self._is_terminal_gone = True
        elif progress.seconds - self._last_line_seconds >= LINE_EVERY_SECONDS:
            self._last_line_seconds = progress.seconds
            self._output.note(self._line(progress))

    def close(self) -> None:
        """Remove the bar."""
        bar, self._bar = self._bar, None
        if bar is None:
            return
        try:
            bar.close()
        except OSError:  # as in `show`
            self._is_terminal_gone = True

    def _line(self, progress: Progress) -> str:
        total = f" of {progress.objects_total}" if progress.objects_total is not None else ""
        moved = human_size(progress.bytes_done)
        if progress.bytes_total is not None:
            moved += f" of {human_size(progress.bytes_total)}"
        rate = human_size(progress.bytes_done / progress.seconds) if progress.seconds else "0 B"
        failed = f", {progress.failed} failed" if progress.failed else ""
        return f"{self._label}: {progress.finished}{total} {self._unit}, {moved}, {rate}/s{failed}"

    def _draw(self, progress: Progress) -> None:
        # One large object is told in bytes; many small ones by their number.
        in_bytes = progress.bytes_total is not None and (progress.objects_total or 1) == 1
        if self._bar is None:
            tqdm.monitor_interval = 0  # no thread beside the event loop
            self._bar = tqdm(
                desc=self._label,
                unit="B" if in_bytes else f" {self._unit}",
                unit_scale=in_bytes,
                unit_divisor=1024,
                file=self._output.stderr,
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.total = progress.bytes_total if in_bytes else progress.objects_total
        if not in_bytes:
            failed = f", {progress.failed} failed" if progress.failed else ""
            self._bar.set_postfix_str(f"{human_size(progress.bytes_done)}{failed}", refresh=False)
        position = progress.bytes_done if in_bytes else progress.finished
        self._bar.update(position - self._bar.n)  # goes back by the bytes of an attempt that failed
        self._bar.refresh()
