"""Write the blocking twin of the client and its entities: ``python -m asyncsdk.sync.generate [--check]``.

Reads ``client.py`` and every module of ``entities/`` as syntax trees, never by importing them, and writes a module of
the same name below ``sync/``. A public class ``AsyncThing`` gives a class ``Thing`` with the same names, parameters,
defaults, overloads and docstrings, whose bodies delegate to the asynchronous object. ``--check`` writes nothing and
fails when a file is not what would be written. What has no blocking form stops the generator with the line it is on.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from asyncsdk.sync.blocking_source import BlockingModule, Twins
from asyncsdk.sync.sources import GenerateError, Sources

__all__ = ["ASYNC_ONLY", "HANDWRITTEN", "generate", "main"]

HANDWRITTEN = {
    "AsyncHeartbeat": ("asyncsdk.sync.heartbeats", "Heartbeat"),
    "AsyncPages": ("asyncsdk.sync.pages", "Pages"),
}
"""Classes whose twin is written by hand: where it is."""

ASYNC_ONLY = {
    "AsyncJob.__await__": "`wait_result` does the same and has a name",
    "AsyncClient.engine": "an engine works inside of one event loop; its verbs are reached through the entities",
    "AsyncClient.platform": "a platform works inside of one event loop; `Client.send` reaches it",
}
"""Public names that blocking classes do not have, and why."""

STAMP = """\
# Generated from {source}: change that file, then run
#     python -m asyncsdk.sync.generate
"""


def generate(root: Path, package: str = "asyncsdk") -> dict[Path, str]:
    """Return the text of every generated module by its path.

    Args:
        root: The folder that holds the package.
        package: The package with ``client.py`` and ``entities/``.

    Raises:
        GenerateError: A source holds something that has no blocking form.
    """
    sources = Sources(root, package)
    modules = [module for name in _source_names(root / package, package) if (module := sources.module(name))]
    twins = Twins(modules, package, HANDWRITTEN, ASYNC_ONLY)
    result: dict[Path, str] = {}
    for module in modules:
        if not twins.defined_in(module):
            continue
        blocking = BlockingModule(sources, module, twins)
        target = root.joinpath(*twins.module_of(module).split(".")).with_suffix(".py")
        stamp = STAMP.format(source=module.path.relative_to(root).as_posix())
        result[target] = _formatted(f"{stamp}\n{blocking.render()}", target, package)
    entities = root / package / "sync" / "entities" / "__init__.py"
    result[entities] = '"""The blocking entities, one module for each of `asyncsdk.entities`; all generated."""\n'
    return result


def _source_names(folder: Path, package: str) -> Iterator[str]:
    if (folder / "client.py").is_file():
        yield f"{package}.client"
    for path in sorted((folder / "entities").glob("*.py")):
        if path.stem != "__init__":
            yield f"{package}.entities.{path.stem}"


def _formatted(text: str, path: Path, package: str) -> str:
    # Said, because ruff looks for the files that are imported, and these may not be written yet.
    first_party = f'lint.isort.known-first-party = ["{package}"]'
    for arguments in (["check", "--select", "I", "--fix", "--exit-zero", "--config", first_party], ["format"]):
        done = subprocess.run(  # noqa: S603  # the formatter of this environment, by its own interpreter
            [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename", str(path), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"ruff cannot format {path.name}: {done.stderr.strip()}\n{text}")
        text = done.stdout
    return text


def _differences(wanted: dict[Path, str], root: Path) -> Iterator[str]:
    for path, text in wanted.items():
        shown = path.relative_to(root).as_posix()
        found = path.read_text(encoding="utf-8") if path.is_file() else ""
        if found != text:
            yield "".join(difflib.unified_diff(found.splitlines(True), text.splitlines(True), shown, "generated"))
    for path in _left_over(wanted):
        yield f"{path.relative_to(root).as_posix()}: has no source any more\n"


def _left_over(wanted: dict[Path, str]) -> list[Path]:
    folders = {path.parent for path in wanted if path.name == "__init__.py"}
    return sorted(path for folder in folders for path in folder.glob("*.py") if path not in wanted)


def main(arguments: Sequence[str] | None = None, *, root: Path | None = None, package: str = "asyncsdk") -> int:
    """Run the command; returns its exit status: 0 in order, 1 drift found by ``--check``, 2 a source cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m asyncsdk.sync.generate", description="Write the blocking twin.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file would change")
    options = parser.parse_args(arguments)
    root = root or Path(__file__).resolve().parents[2]
    try:
        wanted = generate(root, package)
    except (GenerateError, SyntaxError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.check:
        differences = list(_differences(wanted, root))
        sys.stderr.writelines(differences)
        if differences:
            sys.stderr.write("the blocking twin is not up to date; run: python -m asyncsdk.sync.generate\n")
        return 1 if differences else 0
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in _left_over(wanted):
        path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
