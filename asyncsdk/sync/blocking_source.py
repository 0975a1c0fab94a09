"""One asynchronous module in, the text of its blocking twin out. Used by `asyncsdk.sync.generate` only."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from asyncsdk.sync.annotations import STANDARD, AnnotationMapper
from asyncsdk.sync.sources import GenerateError, Module, Sources

__all__ = ["BlockingModule", "Twins", "reworded"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef

_HELPERS = {
    "run": "bridge",
    "on_caller": "bridge",
    "caller_iterable": "iterables",
    "caller_list": "iterables",
    "caller_stream": "iterables",
    "caller_streams": "iterables",
    "context": "iteration",
    "iterate": "iteration",
    "closed_at_exit": "loop",
    "blocking": "twins",
    "BlockingRecord": "twins",
    "BlockingTwin": "twins",
    "optional": "twins",
    "to_async": "twins",
    "unchanged": "twins",
}
_RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
_SKIPPED_SPECIAL = {"__init__", "__del__", "__eq__", "__hash__"}
_DECORATORS = {"property", "cached_property", "classmethod", "staticmethod", "overload", "asynccontextmanager"}

_WORDS = (
    (re.compile(r"\basync (for|with|def)\b"), r"\1"),
    (re.compile(r"\bawait "), ""),
    (re.compile(r"\b([Aa])n (`+)Async(?=[B-DF-HJ-NP-TV-Z])"), r"\1 \2"),
    (re.compile(r"\bAsync(?=[A-Z])(?!SDK|Iter|Gener)"), ""),
    (re.compile(r"\baclose\b"), "close"),
    (re.compile(r"\b[Aa]n asynchronous (?=iterable|iterator)"), "an "),
    (re.compile(r"\(asynchronous\) |\(async\) "), ""),
    (re.compile(r"\basynchronous (?=iterable|iterator)"), ""),
    (re.compile(r"\bin the event loop\b"), "on the calling thread"),
    (re.compile(r"\b([Mm])any tasks of one event loop\b"), r"\1any threads"),
)


def reworded(text: str) -> str:
    """Return a docstring as it reads in blocking code."""
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    return text


class Twins:
    """Which classes have a blocking twin, and where it is.

    Args:
        modules: The sources.
        package: Their package.
        handwritten: Module and name of the twins that are written by hand, by the name of the asynchronous class.
        async_only: Members without a blocking form, as ``AsyncThing.member``.

    Raises:
        GenerateError: A public class is left out of ``__all__``, or a public function is asynchronous.
    """

    def __init__(
        self,
        modules: Iterable[Module],
        package: str,
        handwritten: Mapping[str, tuple[str, str]],
        async_only: Collection[str],
    ) -> None:
        self._package = package
        self._handwritten = handwritten
        self.async_only = async_only
        self.home: dict[str, Module] = {}
        for module in modules:
            for name, node in module.classes.items():
                if not name.startswith("Async"):
                    continue
                if name not in module.public_names:
                    raise GenerateError(module, node, f"{name} must stand in __all__, or begin with an underscore")
                self.home[name] = module
            for function in module.tree.body:
                # Entities call functions of other modules; those of the client's module are the user's.
                if (
                    isinstance(function, ast.AsyncFunctionDef)
                    and function.name in module.public_names
                    and module.name == f"{package}.client"
                ):
                    raise GenerateError(module, function, f"{function.name}: make it a method of a class")

    def __contains__(self, name: str) -> bool:
        return name in self.home

    def name_of(self, name: str) -> str:
        """The twin's name."""
        return self._handwritten[name][1] if name in self._handwritten else name.removeprefix("Async")

    def place_of(self, name: str) -> str:
        """The module of the twin of *name*."""
        return self._handwritten[name][0] if name in self._handwritten else self.module_of(self.home[name])

    def module_of(self, module: Module) -> str:
        """The generated module for *module*."""
        return module.name.replace(self._package, f"{self._package}.sync", 1)

    def defined_in(self, module: Module) -> list[str]:
        """The classes of *module* to be generated, in order."""
        return [name for name in module.classes if self.home.get(name) is module and name not in self._handwritten]


@dataclass(slots=True)
class _Method:
    """One method on its way."""

    node: _Function
    decorators: set[str]
    lines: list[str] = field(default_factory=list)

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)


class BlockingModule:
    """The twin of one module."""

    def __init__(self, sources: Sources, module: Module, twins: Twins) -> None:
        self._sources = sources
        self._module = module
        self._twins = twins
        self._map = AnnotationMapper(sources, module, twins)

    def render(self) -> str:
        """Return the module's text, imports in no particular order."""
        classes = [self._class(self._module.classes[name]) for name in self._twins.defined_in(self._module)]
        body = "\n\n\n".join(classes)
        names = sorted(self._twins.name_of(name) for name in self._twins.defined_in(self._module))
        exported = ", ".join(f'"{name}"' for name in names)
        head = [
            _docstring(reworded(self._module.docstring), ""),
            "from __future__ import annotations",
            *self._imports(body),
            f"__all__ = [{exported}]",
        ]
        return "\n\n".join(head) + "\n\n\n" + body + "\n"

    # --- classes -------------------------------------------------------------------------------------------

    def _class(self, node: ast.ClassDef) -> str:
        bases = [ast.unparse(base) for base in node.bases]
        is_record = "BoundRecord" in bases
        has_close = any(isinstance(part, ast.AsyncFunctionDef) and part.name == "aclose" for part in node.body)
        if is_record:
            names = {"BoundRecord": "BlockingRecord"}
            new_bases = [names.get(base, self._twins.name_of(base) if base in self._twins else base) for base in bases]
        elif any(base in self._twins for base in bases):
            new_bases = [self._twins.name_of(base) if base in self._twins else base for base in bases]
        else:
            new_bases = [f"BlockingTwin[{node.name}]", *bases]
        lines = [f"class {self._twins.name_of(node.name)}({', '.join(new_bases)}):"]
        if doc := ast.get_docstring(node):
            lines.append(_docstring(reworded(doc), "    "))
        if is_record:
            parameters = "".join(base.removeprefix("Generic") for base in bases if base.startswith("Generic["))
            lines += [
                "    @property",
                f"    def _twin(self) -> {node.name}{parameters}:",
                f"        return {node.name}._bind(self, self._client)",
            ]
        parts: list[str] = []
        for part in node.body:
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if part.name == "__init__":
                    self._check_attributes(part)
                    if has_close:
                        parts.append(self._constructor(part, node.name))
                elif text := self._method(part, node):
                    parts.append(text)
            elif isinstance(part, (ast.Assign, ast.AnnAssign)):
                self._check_class_attribute(part)
        text = "\n".join(lines)
        return "\n\n".join([text, *parts]) if parts or len(lines) > 1 else f"{text}\n    pass"

    def _check_attributes(self, constructor: _Function) -> None:
        for node in ast.walk(constructor):
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            for target in targets:
                if isinstance(target, ast.Attribute) and not target.attr.startswith("_"):
                    raise GenerateError(self._module, node, f"public attribute {target.attr!r}: make it a property")

    def _check_class_attribute(self, node: ast.Assign | ast.AnnAssign) -> None:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and not target.id.startswith("_"):
            raise GenerateError(self._module, node, f"public attribute {target.id!r}: make it a property or a field")

    def _constructor(self, node: _Function, name: str) -> str:
        lines = [f"    def __init__({self._parameters(node)}) -> None:"]
        if doc := ast.get_docstring(node):
            lines.append(_docstring(reworded(doc), "        "))
        arguments = self._arguments(_Method(node, set()), is_run=False)
        lines.append(f"        super().__init__({name}({', '.join(arguments)}))")
        lines.append("        closed_at_exit(self._twin)")
        return "\n".join(lines)

    # --- methods -------------------------------------------------------------------------------------------

    def _method(self, node: _Function, owner: ast.ClassDef) -> str | None:
        is_special = node.name.startswith("__") and node.name.endswith("__")
        if node.name in _SKIPPED_SPECIAL or (node.name.startswith("_") and not is_special):
            return None
        if f"{owner.name}.{node.name}" in self._twins.async_only:
            return None
        if node.name == "__repr__":
            twin = self._twins.name_of(owner.name)
            body = f'return repr(self._twin).replace("{owner.name}", "{twin}")'
            return f"    def __repr__(self) -> str:\n        {body}"
        if is_special and node.name not in _RENAMED:
            raise GenerateError(self._module, node, f"{node.name} has no blocking form")
        method = _Method(node, self._decorators(node))
        if node.name == "__aenter__":
            return "    def __enter__(self) -> Self:\n        run(self._twin.__aenter__)\n        return self"
        if node.returns is None:
            raise GenerateError(self._module, node, f"{node.name} says not what it returns")
        lines = [f"    @{_blocking_decorator(name)}" for name in sorted(method.decorators)]
        returns = ast.unparse(self._map.result(node.returns))
        name = _RENAMED.get(node.name, node.name)
        lines.append(f"    def {name}({self._parameters(node)}) -> {returns}:")
        doc = ast.get_docstring(node)
        if doc:
            lines.append(_docstring(reworded(doc), "        "))
        if "overload" in method.decorators:
            lines[-1] += " ..." if not doc else ""
            return "\n".join(lines)
        lines += [f"        {line}" for line in self._body(method, owner)]
        return "\n".join(lines)

    def _decorators(self, node: _Function) -> set[str]:
        names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
        if unknown := names - _DECORATORS:
            raise GenerateError(self._module, node, f"decorator {min(unknown)!r} has no blocking form")
        return names

    def _body(self, method: _Method, owner: ast.ClassDef) -> Iterator[str]:
        node = method.node
        assert node.returns is not None
        for twin in sorted(self._lazy_twins(node.returns)):
            yield f"from {self._twins.place_of(twin)} import {self._twins.name_of(twin)}"
        receiver = "self._twin"
        if method.decorators & {"classmethod", "staticmethod"}:
            receiver = owner.name
        if self._is_overloaded(node, owner):  # no type checker follows overloads through a bridge
            yield f"twin: Any = {receiver}"
            receiver = "twin"
        target = f"{receiver}.{node.name}"
        if method.decorators & {"property", "cached_property"}:
            yield self._return(node, target)
        elif node.name == "__aiter__":
            yield self._return(node, receiver)
        elif "asynccontextmanager" in method.decorators:
            call = f"{target}({', '.join(self._arguments(method, is_run=False))})"
            yield f"with context({call}, {self._map.converter(_element(node.returns))}) as value:"
            yield "    yield value"
        elif method.is_async and not _is_generator(node):
            yield self._return(node, f"run({', '.join([target, *self._arguments(method, is_run=True)])})")
        else:
            yield self._return(node, f"{target}({', '.join(self._arguments(method, is_run=False))})")

    def _return(self, node: _Function, value: str) -> str:
        assert node.returns is not None
        converted = self._map.converted(node.returns, value)
        is_nothing = isinstance(node.returns, ast.Constant) and node.returns.value is None
        return converted if is_nothing else f"return {converted}"

    def _is_overloaded(self, node: _Function, owner: ast.ClassDef) -> bool:
        same_name = [part for part in owner.body if isinstance(part, _Function) and part.name == node.name]
        return len(same_name) > 1

    def _lazy_twins(self, annotation: ast.expr) -> set[str]:
        names = {name for name, _, _ in self._sources.terminals(self._module, annotation) if name in self._twins}
        return {name for name in names if (found := self._module.imports.get(name)) is not None and found.is_lazy}

    # --- parameters ----------------------------------------------------------------------------------------

    def _parameters(self, node: _Function) -> str:
        arguments = ast.parse(f"def f({ast.unparse(node.args)}): ...").body[0]
        assert isinstance(arguments, ast.FunctionDef)
        for argument in _all_arguments(arguments.args):
            if argument.annotation is not None:
                argument.annotation = self._map.parameter(argument.annotation)
        return ast.unparse(arguments.args)

    def _arguments(self, method: _Method, *, is_run: bool) -> list[str]:
        args = method.node.args
        positional = [*args.posonlyargs, *args.args]
        if "staticmethod" not in method.decorators:
            positional = positional[1:]
        result = [self._argument(argument, is_run=is_run) for argument in positional]
        if args.vararg:
            result.append(f"*{args.vararg.arg}")
        result += [f"{argument.arg}={self._argument(argument, is_run=is_run)}" for argument in args.kwonlyargs]
        if args.kwarg:
            result.append(f"**{args.kwarg.arg}")
        return result

    def _argument(self, argument: ast.arg, *, is_run: bool) -> str:
        if argument.annotation is None:
            return argument.arg
        helper = self._map.helper(argument.annotation)
        if helper in {"on_caller", "caller_iterable", "caller_stream", "caller_streams"} and not is_run:
            raise GenerateError(
                self._module, argument, f"{argument.arg}: only `async def` methods can take callbacks and iterables"
            )
        return f"{helper}({argument.arg})" if helper else argument.arg

    # --- imports -------------------------------------------------------------------------------------------

    def _imports(self, body: str) -> list[str]:
        tree = ast.parse(body)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        local = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        own = {self._twins.name_of(name) for name in self._twins.defined_in(self._module)}
        eager: list[str] = []
        lazy: list[str] = []
        for name in sorted(used - own - set(dir(builtins)) - {"self", "cls"}):
            if line := self._import_of(name):
                (lazy if name in local else eager).append(line)
        if lazy:
            eager.append("from typing import TYPE_CHECKING")
        result = ["\n".join(eager)] if eager else []
        if lazy:
            result.append("\n".join(["if TYPE_CHECKING:", *(f"    {line}" for line in lazy)]))
        return result

    def _import_of(self, name: str) -> str | None:
        if name in _HELPERS:
            return f"from asyncsdk.sync.{_HELPERS[name]} import {name}"
        for twin in self._twins.home:
            if self._twins.name_of(twin) == name:
                return f"from {self._twins.place_of(twin)} import {name}"
        if name in self._twins:
            return f"from {self._twins.home[name].name} import {name}"
        if name in STANDARD:
            return f"from {STANDARD[name]} import {name}"
        if name in self._map.foreign:
            return f"from {self._map.foreign[name]} import {name}"
        if (found := self._module.imports.get(name)) is not None:
            if found.name is None:
                return f"import {found.module}" + ("" if found.module == name else f" as {name}")
            return f"from {found.module} import {found.name}" + ("" if found.name == name else f" as {name}")
        if name in self._module.definitions:
            return f"from {self._module.name} import {name}"
        return None  # a parameter or local variable


def _all_arguments(args: ast.arguments) -> Iterator[ast.arg]:
    yield from args.posonlyargs
    yield from args.args
    yield from args.kwonlyargs
    if args.vararg:
        yield args.vararg
    if args.kwarg:
        yield args.kwarg


def _blocking_decorator(name: str) -> str:
    return {"asynccontextmanager": "contextmanager", "cached_property": "property"}.get(name, name)


def _element(annotation: ast.expr) -> ast.expr:
    return annotation.slice if isinstance(annotation, ast.Subscript) else ast.Constant(None)


def _is_generator(node: ast.AST) -> bool:
    for part in ast.iter_child_nodes(node):
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            continue  # a function inside of this one
        if isinstance(part, ast.Yield) or _is_generator(part):
            return True
    return False


def _docstring(text: str, indent: str) -> str:
    lines = text.splitlines() or [""]
    body = "\n".join([lines[0], *(f"{indent}{line}" if line else "" for line in lines[1:])])
    prefix = "r" if "\\" in body else ""
    end = f"\n{indent}" if len(lines) > 1 else ""
    return f'{indent}{prefix}"""{body}{end}"""'
