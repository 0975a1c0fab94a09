"""``--events FILE``: what happens in a run, as JSON lines (docs/reference/events.md)."""

from __future__ import annotations

from pathlib import Path

from asyncsdk.cli.lines import LineWriter, open_alone
from asyncsdk.cli.output import Output, json_line
from asyncsdk.engine import Event

__all__ = ["EventWriter"]


class EventWriter:
    """Takes events and writes them as they come.

    Args:
        path: The file, replaced; ``-`` means standard output, where lines of ``--json`` may stand between them.
        output: Where standard output is.

    Raises:
        ConfigError: Another run writes it.
        DestinationUnwritable, DestinationFull: It cannot be written.
    """

    def __init__(self, path: Path, output: Output) -> None:
        self._output = output
        self._lines: LineWriter | None = None
        if str(path) != "-":
            self._lines = LineWriter(open_alone(path), path, "asyncsdk events")

    def __call__(self, event: Event) -> None:
        """Write one event.

        Raises:
            DestinationFull, DestinationUnwritable: An earlier one could not be written.
        """
        if self._lines is None:
            self._output.record(event.to_json())
        else:
            self._lines.check()
            self._lines.write(json_line(event.to_json()))

    def close(self) -> None:
        """Write what is left.

        Raises:
            DestinationFull, DestinationUnwritable: An event could not be written.
        """
        if self._lines is not None:
            self._lines.close()
            self._lines.check()
