"""Writes the table of which platform has which operation: ``python -m tests.support.capabilities [--check]``.

It is made of what the platforms themselves say (`supports`), never by hand; ``make check`` verifies it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from asyncsdk.platforms.embedded import EmbeddedPlatform
from asyncsdk.platforms.registry import ADAPTERS, adapter_class
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol import all_messages
from asyncsdk.protocol.base import Message

__all__ = ["PAGE", "main", "table"]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "capabilities.md"

_HEAD = """# Capabilities

Which platform has which operation. An operation is a [message](protocol.md); a platform that does not have it raises
`UnsupportedOperation`, before anything is sent. This page is generated from what the platforms themselves say
(`python -m tests.support.capabilities`), and `make check` verifies it.

`embedded` is a data folder in this process, `rest` an asyncsdk server; the others are services, see
[Platforms](../concepts/platforms.md). A note says what a service cannot be told: such a message raises
`UnsupportedOperation` as well.
"""


def _platforms() -> dict[str, Any]:
    """Return what can be asked for each platform, by its name; none is opened."""
    found: dict[str, Any] = {
        "embedded": EmbeddedPlatform(Path("nowhere")),
        "rest": RestPlatform("http://127.0.0.1", "token"),
    }
    return found | {name: adapter_class(name) for name in sorted(ADAPTERS)}


def table() -> str:
    """Return the page."""
    platforms = _platforms()
    lines = [_HEAD]
    messages = sorted(all_messages(), key=lambda message: message.__module__)
    for module, group in groupby(messages, key=lambda message: message.__module__):
        lines += [f"## {module.rpartition('.')[2].replace('_', ' ').capitalize()}", ""]
        lines += [f"| operation | {' | '.join(platforms)} |", f"|---|{'---|' * len(platforms)}"]
        for message in group:
            cells = [_cell(platform, message) for platform in platforms.values()]
            lines.append(f"| `{message.__name__}` | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _cell(platform: Any, message: type[Message[Any]]) -> str:
    if not platform.supports(message):
        return "-"
    notes: Mapping[type[Message[Any]], str] = getattr(platform, "notes", {})
    return f"yes; {notes[message]}" if message in notes else "yes"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with ``--check`` say whether it is as it would be written; 1 when it is not."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.capabilities", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    text = table()
    if not parser.parse_args(arguments).check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE.name} is not as it would be generated; run: python -m tests.support.capabilities", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
