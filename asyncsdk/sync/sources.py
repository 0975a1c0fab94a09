"""The asynchronous sources as syntax trees, and where their names come from. Used by `asyncsdk.sync.generate` only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["GenerateError", "Import", "Module", "Sources"]


class GenerateError(Exception):
    """A source holds something that has no blocking form; the message says where, and what to write instead."""

    def __init__(self, module: Module, node: ast.AST, reason: str) -> None:
        super().__init__(f"{module.path}:{getattr(node, 'lineno', 0)}: {reason}")


@dataclass(frozen=True, slots=True)
class Import:
    """Where a name of a module comes from.

    Attributes:
        module: The module imported from; the module itself for ``import module``.
        name: What it is called there; None for ``import module``.
        is_lazy: Whether it is there for type checkers only, or inside of one function.
    """

    module: str
    name: str | None
    is_lazy: bool


class Module:
    """One parsed module: its classes, its other definitions, its imports."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        self.docstring = ast.get_docstring(self.tree) or ""
        self.classes = {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}
        self.assignments: dict[str, ast.expr] = {}
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.assignments[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                self.assignments[node.target.id] = node.value
        self.definitions = {*self.classes, *self.assignments}
        self.imports = dict(self._imports())

    @property
    def public_names(self) -> list[str]:
        """What ``__all__`` names."""
        value = self.assignments.get("__all__")
        return list(ast.literal_eval(value)) if value is not None else []

    def _imports(self) -> Iterator[tuple[str, Import]]:
        top: set[ast.AST] = set(self.tree.body)
        # Lazy ones first: an import that works at run time wins over one of the same name that does not.
        nodes = sorted(
            (node for node in ast.walk(self.tree) if isinstance(node, (ast.Import, ast.ImportFrom))),
            key=lambda node: node in top,
        )
        for node in nodes:
            for alias in node.names:
                bound = alias.asname or alias.name
                if isinstance(node, ast.ImportFrom):
                    yield bound, Import(node.module or "", alias.name, node not in top)
                else:
                    yield bound, Import(alias.name, None, node not in top)


class Sources:
    """The modules below one folder.

    Args:
        root: The folder that holds the package.
        package: Its name.
    """

    def __init__(self, root: Path, package: str) -> None:
        self.root = root
        self.package = package
        self.module = cache(self._module)

    def _module(self, name: str) -> Module | None:
        if name.split(".")[0] != self.package:
            return None
        path = self.root.joinpath(*name.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return Module(name, candidate)
        return None

    def terminals(self, module: Module, annotation: ast.expr) -> Iterator[tuple[str, ast.expr, Module]]:
        """Yield every name that *annotation* is made of, aliases resolved.

        Yields:
            The last word of the name, the whole expression it heads (``Iterable[int]`` for ``Iterable``), and the
            module where that stands.
        """
        yield from self._terminals(module, annotation, frozenset())

    def _terminals(
        self, module: Module, node: ast.expr, seen: frozenset[tuple[str, str]]
    ) -> Iterator[tuple[str, ast.expr, Module]]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        if isinstance(node, ast.Subscript):
            head = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            if head == "Literal":  # its texts are no annotations
                return
            yield head, node, module
            yield from self._terminals(module, node.slice, seen)
        elif isinstance(node, ast.Attribute):
            yield node.attr, node, module
        elif isinstance(node, ast.Name):
            yield from self._terminals_of_name(module, node, seen)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    yield from self._terminals(module, child, seen)

    def _terminals_of_name(
        self, module: Module, node: ast.Name, seen: frozenset[tuple[str, str]]
    ) -> Iterator[tuple[str, ast.expr, Module]]:
        place: Module | None = module
        name = node.id
        while place is not None and (place.name, name) not in seen:
            seen |= {(place.name, name)}
            if name in place.assignments and name not in place.classes:
                yield from self._terminals(place, place.assignments[name], seen)
                return
            imported = place.imports.get(name)
            if imported is None or imported.name is None:
                break
            place, name = self.module(imported.module), imported.name
        yield node.id, node, module
