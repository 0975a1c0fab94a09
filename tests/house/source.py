"""The project's own source, as the house tests look at it: files, modules, syntax trees, imports."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

__all__ = ["PACKAGE", "ROOT", "Import", "Module", "imports_of", "modules", "project_files"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "asyncsdk"


@dataclass(frozen=True)
class Module:
    """One module of the package.

    Attributes:
        name: With dots, e.g. ``asyncsdk.engine.feed``; a package goes by its own name.
        path: Its file.
    """

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    @property
    def is_public(self) -> bool:
        """Whether no part of its name starts with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))

    @property
    def is_generated(self) -> bool:
        """Whether a tool writes it, which then says so at the top."""
        return self.text.startswith("# Generated from ")

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT)) if self.path.is_relative_to(ROOT) else self.name


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the package, by name."""
    return tuple(sorted((_module(path) for path in PACKAGE.rglob("*.py")), key=lambda module: module.name))


def _module(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that belongs to the project: tracked, or new and not ignored."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # a source archive: everything in it belongs to it
        return tuple(path for path in ROOT.rglob("*") if path.is_file() and not _is_hidden(path))
    return tuple(path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(ROOT).parts)


@dataclass(frozen=True)
class Import:
    """One thing that a module imports.

    Attributes:
        target: Module it comes from, resolved as far as a known module goes.
        line: Where.
    """

    target: str
    line: int


def imports_of(tree: ast.Module, known: frozenset[str]) -> Iterator[Import]:
    """Yield every import of a module: at the top, in functions, and for type checking alike.

    ``from asyncsdk import errors`` is an import of ``asyncsdk.errors`` when *known* has that module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"line {node.lineno}: a relative import"
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(inner if inner in known else node.module, node.lineno)
        elif isinstance(node, ast.Call) and _is_dynamic_import(node) and isinstance(node.args[0], ast.Constant):
            yield Import(str(node.args[0].value), node.lineno)


def _is_dynamic_import(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in {"import_module", "__import__"} and bool(node.args)
