"""Who may import whom: the house stands only while every arrow points down."""

from __future__ import annotations

import ast

import pytest

from tests.house.source import Import, imports_of, modules

LEAVES = frozenset({"_version", "checksums", "config", "domain", "errors", "loops", "os_errors", "targets"})
"""Importable by everyone."""

ARROWS: dict[str, frozenset[str]] = {
    # leaves
    "_version": frozenset(),
    "checksums": frozenset(),
    "config": frozenset({"errors"}),
    "domain": frozenset({"errors", "os_errors"}),
    "errors": frozenset(),
    "loops": frozenset(),
    "os_errors": frozenset({"errors"}),
    "targets": frozenset({"errors"}),
    # layers, from the bottom up
    "transport": LEAVES,
    "engine": LEAVES | {"transport"},
    "protocol": LEAVES,
    "wires": LEAVES,
    "entities": LEAVES | {"protocol", "engine"},
    "server": LEAVES | {"protocol", "transport"},
    "server.doors": LEAVES | {"protocol", "transport", "wires", "server"},
    "platforms": LEAVES | {"protocol", "transport", "wires"},
    "platforms.embedded": LEAVES | {"protocol", "transport", "wires", "platforms", "server"},
    "client": LEAVES | {"entities", "platforms", "platforms.embedded", "engine", "protocol", "worker"},
    "sync": LEAVES | {"client", "entities", "engine", "protocol"},
    "worker": LEAVES | {"entities", "engine", "protocol"},
    "cli": LEAVES | {"client", "sync", "engine", "server", "server.doors", "entities", "worker"},
    "telemetry": LEAVES | {"engine"},
    "__main__": frozenset({"cli"}),
}
"""What each part may import besides itself. The package's own ``__init__`` may import anything; nobody imports it.

``client`` and ``sync`` name messages and engine types in their signatures; ``cli`` names entities in its own.
"""

KNOWN = frozenset(module.name for module in modules())


def part_of(name: str) -> str:
    """Return the part of the house a module belongs to: the longest one that `ARROWS` names."""
    inner = name.removeprefix("asyncsdk").removeprefix(".")
    first, _, rest = inner.partition(".")
    finer = f"{first}.{rest.partition('.')[0]}"
    return finer if finer in ARROWS else first


def wrong_arrows(name: str, tree: ast.Module) -> list[str]:
    """Return a sentence for every import of module *name* that points where it may not."""
    if name == "asyncsdk":
        return []
    part = part_of(name)
    assert part in ARROWS, f"{name} belongs to no part of the house; add it to ARROWS with what it may import"
    return [
        f"{name}:{found.line} imports {found.target}"
        for found in imports_of(tree, KNOWN)
        if _is_ours(found) and (target := part_of(found.target)) != part and target not in ARROWS[part]
    ]


def _is_ours(found: Import) -> bool:
    return found.target == "asyncsdk" or found.target.startswith("asyncsdk.")


def test_every_import_points_down() -> None:
    """No module imports a part that stands beside or above it; imports in functions and for types count."""
    wrong = [sentence for module in modules() for sentence in wrong_arrows(module.name, module.tree)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("asyncsdk.engine.feed", "from asyncsdk.protocol.base import Message"),
        ("asyncsdk.engine.feed", "def f():\n    import asyncsdk.entities.session"),
        ("asyncsdk.domain.ids", "if TYPE_CHECKING:\n    from asyncsdk import config"),
        ("asyncsdk.entities.base", "from asyncsdk.client import AsyncClient"),
        ("asyncsdk.platforms.rest", "import importlib\nimportlib.import_module('asyncsdk.server')"),
        ("asyncsdk.server.backend", "from asyncsdk import AsyncClient"),
        ("asyncsdk.checksums", "from asyncsdk.errors import ConfigError"),
    ],
)
def test_wrong_arrows_are_found(name: str, source: str) -> None:
    """The walker sees an import wherever it stands and whatever its form."""
    assert len(wrong_arrows(name, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("asyncsdk.engine.feed", "from asyncsdk.engine.transfers import Upload"),
        ("asyncsdk.platforms.embedded", "from asyncsdk.server import backend"),
        ("asyncsdk.server.doors.lightly", "from asyncsdk.wires import lightly"),
        ("asyncsdk.cli.main", "from asyncsdk import errors"),
        ("asyncsdk", "from asyncsdk.client import AsyncClient"),
    ],
)
def test_right_arrows_are_left_alone(name: str, source: str) -> None:
    """What the list allows is no finding."""
    assert not wrong_arrows(name, ast.parse(source))
