"""What an annotation of asynchronous code becomes in blocking code. Used by `asyncsdk.sync.generate` only."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from asyncsdk.sync.sources import GenerateError, Module, Sources

if TYPE_CHECKING:
    from asyncsdk.sync.blocking_source import Twins

__all__ = ["STANDARD", "AnnotationMapper"]

STANDARD = {
    "AbstractContextManager": "contextlib",
    "Any": "typing",
    "Iterable": "collections.abc",
    "Iterator": "collections.abc",
    "Self": "typing",
    "contextmanager": "contextlib",
    "overload": "typing",
}
"""Names that generated code needs of the standard library, and where they are."""

_RESULTS = {
    "AsyncIterator": "Iterator",
    "AsyncIterable": "Iterator",
    "AsyncGenerator": "Iterator",
    "AbstractAsyncContextManager": "AbstractContextManager",
}
_ITERABLES = {"Iterable", "Iterator", "Generator"}
_ASYNC_ITERABLES = {"AsyncIterable", "AsyncIterator", "AsyncGenerator"}


def _mapping_in(annotation: ast.expr) -> ast.Tuple | None:
    """Return the two arguments of ``Mapping[...]`` when *annotation* is one, or one or None."""
    if isinstance(annotation, ast.BinOp):
        return _mapping_in(annotation.left)
    if not isinstance(annotation, ast.Subscript) or not isinstance(annotation.slice, ast.Tuple):
        return None
    is_mapping = isinstance(annotation.value, ast.Name) and annotation.value.id == "Mapping"
    return annotation.slice if is_mapping else None


class AnnotationMapper:
    """Maps annotations of one module.

    Attributes:
        foreign: Names that mapped annotations use and the module does not have, with the module that has them.
    """

    def __init__(self, sources: Sources, module: Module, twins: Twins) -> None:
        self._sources = sources
        self._module = module
        self._twins = twins
        self.foreign: dict[str, str] = {}

    # --- parameters ----------------------------------------------------------------------------------------

    def parameter(self, annotation: ast.expr) -> ast.expr:
        """Return what callers may give: either twin of an entity, an iterable where an asynchronous one is taken."""
        mapped: ast.expr = _EitherTwin(self._twins).visit(_copy(annotation))
        helper = self.helper(annotation)
        if helper in {"caller_stream", "caller_streams"}:
            iterable = ast.parse(f"Iterable[{self._element_of_stream(annotation)}]", mode="eval").body
            if (mapping := _mapping_in(mapped)) is not None and helper == "caller_streams":
                mapping.elts[1] = ast.BinOp(mapping.elts[1], ast.BitOr(), iterable)
            else:
                mapped = ast.BinOp(mapped, ast.BitOr(), iterable)
        return ast.fix_missing_locations(mapped)

    def helper(self, annotation: ast.expr) -> str | None:
        """Return the function that an argument passes through on its way to the asynchronous object."""
        mapping = _mapping_in(annotation)
        if mapping is not None and self.helper(mapping.elts[1]) == "caller_stream":
            return "caller_streams"
        terminals = list(self._sources.terminals(self._module, annotation))
        names = {name for name, _, _ in terminals}
        if "Callable" in names:
            for name, expression, module in terminals:
                if name == "Callable" and not _returns_none(expression):
                    raise GenerateError(
                        module, annotation, "a callback must return None: its value cannot be waited for"
                    )
            return "on_caller"
        if names & _ASYNC_ITERABLES:
            return "caller_iterable" if names & _ITERABLES else "caller_stream"
        if names & _ITERABLES:
            return "caller_list"
        if any(name in self._twins for name in names):
            return "to_async"
        return None

    def _element_of_stream(self, annotation: ast.expr) -> str:
        for name, expression, module in self._sources.terminals(self._module, annotation):
            if name in _ASYNC_ITERABLES and isinstance(expression, ast.Subscript):
                element = expression.slice.elts[0] if isinstance(expression.slice, ast.Tuple) else expression.slice
                for part in ast.walk(element):
                    if isinstance(part, ast.Name) and part.id not in self._module.imports:
                        imported = module.imports.get(part.id)
                        if imported is not None:
                            self.foreign[part.id] = imported.module
                        elif part.id in module.definitions and module is not self._module:
                            self.foreign[part.id] = module.name
                return ast.unparse(element)
        raise GenerateError(self._module, annotation, "an asynchronous iterable says not of what")

    # --- results -------------------------------------------------------------------------------------------

    def result(self, annotation: ast.expr) -> ast.expr:
        """Return what the blocking method returns."""
        mapped: ast.expr = _BlockingNames(self._twins).visit(_copy(annotation))
        return ast.fix_missing_locations(mapped)

    def converted(self, annotation: ast.expr, value: str) -> str:
        """Return the expression that makes a blocking result of *value*."""
        annotation = _parsed(annotation)
        head, element = _split(annotation)
        if self._is_type_variable(annotation):
            return f"blocking({value})"
        if not self._needs_conversion(annotation):
            return value
        if head in self._twins and head != "AsyncPages":
            return f"{self._twins.name_of(head)}._of({value})"
        if head in _ASYNC_ITERABLES and element is not None:
            converter = self.converter(element)
            return f"iterate({value})" if converter == "unchanged" else f"map({converter}, iterate({value}))"
        if head == "AbstractAsyncContextManager" and element is not None:
            return f"context({value}, {self.converter(element)})"
        if head == "AsyncPages" and element is not None:
            return f"{self._twins.name_of(head)}({value}, {self.converter(element)})"
        if head in {"list", "tuple", "Sequence", "frozenset", "set"} and element is not None:
            made = "tuple" if head == "Sequence" else head
            return f"{made}(map({self.converter(element)}, {value}))"
        if head in {"dict", "Mapping"} and isinstance(annotation, ast.Subscript):
            assert isinstance(annotation.slice, ast.Tuple)
            converter = self.converter(annotation.slice.elts[1])
            return f"{{key: {converter}(entry) for key, entry in {value}.items()}}"
        if isinstance(annotation, ast.BinOp) and _is_none(annotation.right):
            return f"optional({self.converter(annotation.left)}, {value})"
        if isinstance(annotation, ast.Name):
            return f"{self.converter(annotation)}({value})"
        raise GenerateError(
            self._module, annotation, f"nobody knows how to make a blocking result of {ast.unparse(annotation)}"
        )

    def converter(self, annotation: ast.expr) -> str:
        """Return the function that makes a blocking value of one asynchronous one."""
        annotation = _parsed(annotation)
        if not self._needs_conversion(annotation):
            return "unchanged"
        if isinstance(annotation, ast.Name) and annotation.id == "Self":
            return "self._of"
        if isinstance(annotation, ast.Name) and annotation.id in self._twins:
            return f"{self._twins.name_of(annotation.id)}._of"
        if (head := _split(annotation)[0]) in self._twins and head != "AsyncPages":  # a generic one
            return f"{self._twins.name_of(head)}._of"
        raise GenerateError(
            self._module, annotation, f"nobody knows how to make a blocking value of {ast.unparse(annotation)}"
        )

    def _is_type_variable(self, annotation: ast.expr) -> bool:
        """Whether only the value tells whether there is a twin of it."""
        value = self._module.assignments.get(annotation.id) if isinstance(annotation, ast.Name) else None
        return isinstance(value, ast.Call) and ast.unparse(value.func) == "TypeVar"

    def _needs_conversion(self, annotation: ast.expr) -> bool:
        names = {name for name, _, _ in self._sources.terminals(self._module, annotation)}
        unknown = {name for name in names if name.startswith("Async")} - _ASYNC_ITERABLES
        if unknown := {name for name in unknown if name not in self._twins}:
            raise GenerateError(self._module, annotation, f"{min(unknown)} has no blocking twin")
        known = {"Self", "AbstractAsyncContextManager", *_ASYNC_ITERABLES}
        return bool(names & known) or any(name in self._twins for name in names)


class _BlockingNames(ast.NodeTransformer):
    """Twins and standard names, as a result."""

    def __init__(self, twins: Twins) -> None:
        self._twins = twins

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._twins:
            return ast.Name(self._twins.name_of(node.id), ast.Load())
        return ast.Name(_RESULTS.get(node.id, node.id), ast.Load())

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        head, element = _split(node)
        if head == "AsyncGenerator" and element is not None:
            node = ast.Subscript(node.value, element, ast.Load())
        self.generic_visit(node)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return self.visit(_parsed(node)) if isinstance(node.value, str) else node


class _EitherTwin(ast.NodeTransformer):
    """Twins, as a parameter."""

    def __init__(self, twins: Twins) -> None:
        self._twins = twins

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self._twins:
            return node
        blocking = ast.Name(self._twins.name_of(node.id), ast.Load())
        return ast.BinOp(blocking, ast.BitOr(), node)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return self.visit(_parsed(node)) if isinstance(node.value, str) else node


def _copy(annotation: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(annotation), mode="eval").body


def _parsed(annotation: ast.expr) -> ast.expr:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def _split(annotation: ast.expr) -> tuple[str, ast.expr | None]:
    if not isinstance(annotation, ast.Subscript) or not isinstance(annotation.value, ast.Name):
        return "", None
    inner = annotation.slice
    return annotation.value.id, inner.elts[0] if isinstance(inner, ast.Tuple) else inner


def _is_none(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Constant) and annotation.value is None


def _returns_none(expression: ast.expr) -> bool:
    if not isinstance(expression, ast.Subscript) or not isinstance(expression.slice, ast.Tuple):
        return False
    return _is_none(expression.slice.elts[-1])
