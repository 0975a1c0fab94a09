"""Folders of the store, readable by their owner only."""

from __future__ import annotations

from pathlib import Path

__all__ = ["make_private_folder"]


def make_private_folder(folder: Path) -> None:
    """Make *folder* and those above it, each for its owner only; nothing happens when it is there.

    ``Path.mkdir(mode, parents=True)`` gives its mode to the last one alone, the others are everybody's.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
