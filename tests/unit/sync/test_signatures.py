"""The blocking API is the asynchronous one: same names, parameters, defaults, annotations, and docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncsdk.entities
from asyncsdk.sync.blocking_source import reworded
from asyncsdk.sync.generate import ASYNC_ONLY, HANDWRITTEN, main

RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
SPECIAL = {"__aenter__", "__aexit__", "__aiter__", "__init__"}


def _async_classes() -> Iterator[type]:
    names = ["asyncsdk.client"]
    names += [f"asyncsdk.entities.{module.name}" for module in pkgutil.iter_modules(asyncsdk.entities.__path__)]
    for name in names:
        module = importlib.import_module(name)
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__ == name and value.__name__.startswith("Async"):
                yield value


ASYNC_CLASSES = sorted(_async_classes(), key=lambda cls: cls.__name__)


def _twin_of(cls: type) -> type:
    if cls.__name__ in HANDWRITTEN:
        module, name = HANDWRITTEN[cls.__name__]
    else:
        module, name = cls.__module__.replace("asyncsdk.", "asyncsdk.sync.", 1), cls.__name__.removeprefix("Async")
    twin = getattr(importlib.import_module(module), name)
    assert isinstance(twin, type)
    return twin


def _members(cls: type) -> dict[str, typing.Any]:
    return {
        name: value
        for name, value in vars(cls).items()
        if (not name.startswith("_") or name in SPECIAL)
        and not name.startswith("model_")
        and (callable(value) or isinstance(value, (property, classmethod, staticmethod)))
    }


MEMBERS = [
    pytest.param(cls, name, id=f"{cls.__name__}.{name}")
    for cls in ASYNC_CLASSES
    for name in _members(cls)
    if f"{cls.__name__}.{name}" not in ASYNC_ONLY and not (name == "__init__" and cls.__name__ != "AsyncClient")
]


def _function(value: typing.Any) -> typing.Any:
    if isinstance(value, property):
        return value.fget
    return getattr(value, "__func__", value)


class _Blocking(ast.NodeTransformer):
    """How an annotation of the asynchronous API reads in the blocking one."""

    def visit_Name(self, node: ast.Name) -> ast.Name:
        name = {"AsyncIterator": "Iterator", "AbstractAsyncContextManager": "AbstractContextManager"}.get(
            node.id, node.id
        )
        return ast.Name(name.removeprefix("Async") if name.startswith("Async") else name, ast.Load())


def _blocking(annotation: str) -> str:
    return ast.unparse(_Blocking().visit(ast.parse(annotation, mode="eval")))


def test_there_is_something_to_compare() -> None:
    """The client and the entities of the first slice are among the classes compared."""
    names = {cls.__name__ for cls in ASYNC_CLASSES}
    assert names >= {
        "AsyncCheckpoint", "AsyncClient", "AsyncDataset", "AsyncItem", "AsyncModel", "AsyncPages",
        "AsyncPredictionTask", "AsyncPredictions", "AsyncProject",
    }  # fmt: skip


@pytest.mark.parametrize("cls", ASYNC_CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_has_a_twin_with_the_same_members(cls: type) -> None:
    """A twin has every public name of its class and none besides; what it lacks is listed with a reason."""
    twin = _twin_of(cls)
    left_out = {name.split(".")[1] for name in ASYNC_ONLY if name.split(".")[0] == cls.__name__}
    wanted = {RENAMED.get(name, name) for name in _members(cls)} - left_out
    found = set(_members(twin)) | {name for name in vars(twin) if name in RENAMED.values()}
    assert found - {"__init__"} == wanted - {"__init__"}
    assert not left_out - set(vars(cls)) - set(_members(cls)), "what is listed as left out must exist"
    assert all(ASYNC_ONLY.values())


@pytest.mark.parametrize("cls", ASYNC_CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_is_described(cls: type) -> None:
    """Both classes have a docstring, and the twin's is the same but for the words of asynchronous code."""
    assert cls.__dict__["__doc__"]
    assert _twin_of(cls).__dict__["__doc__"] == reworded(cls.__dict__["__doc__"])


@pytest.mark.parametrize(("cls", "name"), MEMBERS)
def test_signatures_are_equal(cls: type, name: str) -> None:
    """Names, kinds, defaults and annotations of parameters are the same; so is the result, modulo its twin."""
    twin = _twin_of(cls)
    original = _members(cls)[name]
    blocking = vars(twin)[RENAMED.get(name, name)]
    assert isinstance(blocking, property) == isinstance(original, property)
    assert not inspect.iscoroutinefunction(_function(blocking))
    assert not inspect.isasyncgenfunction(_function(blocking))
    expected = inspect.signature(_function(original))
    found = inspect.signature(_function(blocking))
    assert list(found.parameters) == list(expected.parameters)
    for parameter, other in zip(expected.parameters.values(), found.parameters.values(), strict=True):
        assert other.kind == parameter.kind
        assert other.default == parameter.default
        # A stream of bytes may be a plain iterable here, and so may each of a mapping.
        if "Mapping[str, Source]" in str(parameter.annotation):
            streams = parameter.annotation.replace("Source]", "Source | Iterable[bytes]]")
            assert other.annotation == streams
        else:
            assert other.annotation in {parameter.annotation, f"{parameter.annotation} | Iterable[bytes]"}
    assert found.return_annotation == _blocking(expected.return_annotation)


@pytest.mark.parametrize(("cls", "name"), [case for case in MEMBERS if not str(case.id).split(".")[1].startswith("__")])
def test_members_are_described(cls: type, name: str) -> None:
    """Every public verb and property has a docstring, reworded and not emptied."""
    original = inspect.getdoc(_function(_members(cls)[name]))
    blocking = inspect.getdoc(_function(vars(_twin_of(cls))[RENAMED.get(name, name)]))
    assert original
    assert blocking == reworded(original)


def test_annotations_can_be_resolved() -> None:
    """Everything that the annotations of generated code name is imported there."""
    for cls in ASYNC_CLASSES:
        twin = _twin_of(cls)
        for value in _members(twin).values():
            if "TYPE_CHECKING" not in Path(inspect.getfile(twin)).read_text():
                typing.get_type_hints(_function(value), localns={"list": list, "set": set})


def test_generated_sources_are_up_to_date() -> None:
    """What is checked in is what the generator writes now."""
    assert main(["--check"]) == 0
