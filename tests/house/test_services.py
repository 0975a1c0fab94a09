"""A service is known to its wire, its adapter and its door, and to one line each of the two registries."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from asyncsdk.platforms.registry import ADAPTERS
from asyncsdk.server.doors.registry import DOORS
from tests.house.source import Module, modules

SERVICES = sorted({*ADAPTERS, *DOORS})
OWN = ("asyncsdk.wires", "asyncsdk.platforms", "asyncsdk.server.doors")
REGISTRIES = {"asyncsdk.platforms.registry", "asyncsdk.server.doors.registry"}


def words(tree: ast.Module) -> Iterator[str]:
    """Yield what a module's code consists of: names, attributes, imports, texts; what it says to readers aside."""
    said = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            said.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.alias | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in said:
            yield node.value


def naming(service: str) -> list[str]:
    """Return the modules whose code names a service and that are not its own."""
    return [module.name for module in modules() if not _is_own(module, service) and _names(module, service)]


def _is_own(module: Module, service: str) -> bool:
    return any(module.name == f"{part}.{service}" or module.name.startswith(f"{part}.{service}.") for part in OWN)


def _names(module: Module, service: str) -> bool:
    return any(re.search(service, word, re.IGNORECASE) for word in words(module.tree))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_known_in_its_own_place_only(service: str) -> None:
    """Whoever else tests for its name has missed a capability."""
    assert set(naming(service)) <= REGISTRIES


@pytest.mark.parametrize("service", SERVICES)
def test_a_registry_has_one_line_for_it(service: str) -> None:
    for module in modules():
        if module.name in REGISTRIES:
            assert sum(service in line.lower() for line in module.text.splitlines()) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_all_three(service: str) -> None:
    """The wire is used by both: what only one of them knows nobody has proven."""
    names = {module.name for module in modules()}
    for part in OWN:
        assert any(name == f"{part}.{service}" for name in names), part
    assert service in ADAPTERS
    assert service in DOORS


def test_names_in_code_are_found() -> None:
    """In whatever form; what is said to readers is none."""
    for text in ("x.ultralytics()", "x = 'Ultralytics'", "from a.ultralytics import b", "class Ultralytics: ..."):
        assert any("ultralytics" in word.lower() for word in words(ast.parse(text))), text
    assert not any(
        "ultralytics" in word.lower() for word in words(ast.parse('"""Ultralytics"""\nx = 1  # ultralytics'))
    )
