"""Public names: each module says which they are, and each of them is explained."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from functools import cache

import pytest

from tests.house.source import Module, modules

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

PUBLIC = [module for module in modules() if module.is_public]


def sort_key(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order the linter keeps."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), name


def exported(module: Module) -> list[str] | None:
    """Return ``__all__`` as it is written, None when there is none."""
    for node in module.tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, (ast.Assign, ast.AnnAssign))
            assert node.value is not None
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def is_registered(node: Definition) -> bool:
    """Whether it is a handler: found through its message, which says what it does; nobody calls it by its name."""
    return any(ast.unparse(decorator).startswith("handles(") for decorator in node.decorator_list)


def definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """Yield the functions and classes defined right in *body*, in branches too."""
    for node in body:
        if isinstance(node, Definition):
            yield node
        elif isinstance(node, (ast.If, ast.Try)):
            yield from definitions(node.body)
            yield from definitions(node.orelse)


def has_only_imports(module: Module) -> bool:
    """Whether there is nothing in it but a docstring (a package that only holds others)."""
    return all(isinstance(node, ast.Expr) for node in module.tree.body)


@pytest.mark.parametrize("module", PUBLIC, ids=str)
def test_module_says_what_is_public(module: Module) -> None:
    """``__all__`` is there, sorted, without doubles, and holds every public function and class of the module."""
    names = exported(module)
    if names is None:
        assert has_only_imports(module), f"{module} has no __all__"
        return
    assert names == sorted(set(names), key=sort_key)
    defined = {
        node.name for node in definitions(module.tree.body) if not (node.name.startswith("_") or is_registered(node))
    }
    missing = sorted(defined - set(names))
    assert not missing, f"{module}: public by their names, but not in __all__: {', '.join(missing)}"


@pytest.mark.parametrize("module", PUBLIC, ids=str)
def test_public_names_exist(module: Module) -> None:
    """Every name in ``__all__`` can be got from the module."""
    names = exported(module) or []
    loaded = importlib.import_module(module.name)
    assert [name for name in names if not hasattr(loaded, name)] == []


def _is_overload(node: Definition) -> bool:
    return any(
        ast.unparse(decorator).split(".")[-1] in {"overload", "setter", "deleter"} for decorator in node.decorator_list
    )


@cache
def seam_methods() -> frozenset[str]:
    """Methods that a Protocol of the package explains; whoever implements it need not say it again."""
    return frozenset(
        method.name
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)
        for method in node.body
        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(method)
    )


def unexplained(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Yield the public functions, classes and methods without a docstring."""
    for node in definitions(body):
        if node.name.startswith("_") or _is_overload(node) or is_registered(node):
            continue
        if not ast.get_docstring(node) and not (prefix and node.name in seam_methods()):
            yield f"{prefix}{node.name} (line {node.lineno})"
        if isinstance(node, ast.ClassDef):
            yield from unexplained(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("module", modules(), ids=str)
def test_everything_public_is_explained(module: Module) -> None:
    """Modules, public classes, functions and methods have a docstring."""
    assert ast.get_docstring(module.tree), f"{module} does not say what it is"
    if module.is_public:
        assert not (found := list(unexplained(module.tree.body))), f"{module}: no docstring: {', '.join(found)}"
