"""House rules that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.house.source import ROOT, Module, imports_of, modules, project_files

MAX_LINES = 450
LONGER = {
    "asyncsdk/errors.py": "one tree, drawn on top, read as one page",
}
"""Modules that may be longer, each with its reason."""

BASE = frozenset({"aiofiles", "anyio", "google-crc32c", "httpx", "orjson", "pydantic", "sniffio", "sqlalchemy", "tqdm"})
"""What a plain install brings along: enough for the engine and the embedded platform, and nothing more."""

DISTRIBUTION_OF = {
    "azure": "azure-storage-blob",
    "certifi": "httpx",
    "google": "google-cloud-storage",
    "google_crc32c": "google-crc32c",
    "opentelemetry": "opentelemetry-api",
    "httpcore": "httpx",
    "PIL": "pillow",
    "pydantic_core": "pydantic",
    "python_multipart": "python-multipart",
    "requests": "google-cloud-storage",
    "yaml": "pyyaml",
}
"""Where the import name is not that of the distribution, or comes along with another one."""

TEXT_SUFFIXES = frozenset({"", ".cfg", ".css", ".csv", ".html", ".in", ".ini", ".json", ".jsonl", ".md", ".py", ".pyi",
                           ".sh", ".sql", ".toml", ".txt", ".yaml", ".yml"})  # fmt: skip


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.suffix in TEXT_SUFFIXES else ""


def python_files() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- errors are not swallowed ---


def silent_handlers(source: str) -> list[int]:
    """Return the lines of handlers that catch everything, do not end by raising again, and give no reason."""
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node):
            beside = [lines[node.lineno - 1].partition("#")[2]]
            after = lines[node.lineno].strip() if node.lineno < len(lines) else ""
            beside.append(after[1:] if after.startswith("#") else "")
            if not any(_is_reason(text) for text in beside):
                found.append(node.lineno)
    return found


def _is_broad(node: ast.ExceptHandler) -> bool:
    types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in types)


def _raises_again(node: ast.ExceptHandler) -> bool:
    return isinstance(node.body[-1], ast.Raise)


def _is_reason(comment: str) -> bool:
    codes = r"(noqa|ruff)(:\s*[A-Z]+[0-9]+(,\s*[A-Z]+[0-9]+)*)?|type:\s*ignore(\[[^\]]*\])?|pragma:\s*no\s*\w+"
    return len(re.findall(r"[A-Za-z]{2,}", re.sub(codes, "", comment))) >= 3


@pytest.mark.parametrize("module", modules(), ids=str)
def test_broad_handlers_give_their_reason(module: Module) -> None:
    """Catching everything without raising again needs its reason beside it."""
    assert silent_handlers(module.text) == []


@pytest.mark.parametrize(
    ("handler", "is_found"),
    [
        ("except Exception:\n    pass", True),
        ("except:\n    pass", True),
        ("except (ValueError, BaseException) as error:\n    log(error)", True),
        ("except Exception:  # noqa: BLE001\n    pass", True),
        ("except Exception:  # noqa: BLE001 - a callback may raise anything\n    pass", False),
        ("except Exception as error:  # whatever it was, it is logged\n    log(error)", False),
        ("except BaseException:\n    undo()\n    raise", False),
        ("except ValueError:\n    pass", False),
    ],
)
def test_silent_handlers_are_found(handler: str, is_found: bool) -> None:
    """The search sees every form of a handler that swallows, and no other."""
    assert bool(silent_handlers(f"try:\n    work()\n{handler}\n")) is is_found


# --- nothing is left over ---

MARKERS = re.compile(
    "|".join([r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bXX" + r"X\b", "raise Not" + "ImplementedError"])
)


def test_nothing_is_marked_as_unfinished() -> None:
    """No left-over markers, and no method that only says it is not there."""
    found = [
        f"{_name(path)}:{number}"
        for path in python_files()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if MARKERS.search(line)
    ]
    assert found == []


def test_skips_say_why() -> None:
    """A skipped test prints what is missing."""
    empty = re.compile(r"pytest\.skip\(\s*(\"\"|'')?\s*\)|mark\.skip(if)?\(\s*\)")
    assert [_name(path) for path in python_files() if empty.search(text_of(path))] == []


def test_modules_have_one_subject() -> None:
    """No module is so long that a second subject must be in it; generated ones aside."""
    lengths = {_name(module.path): len(module.text.splitlines()) for module in modules() if not module.is_generated}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES and name not in LONGER}
    assert long == {}
    assert [name for name in LONGER if lengths.get(name, 0) <= MAX_LINES] == [], "needs no exception any more"


# --- nothing of this machine, nothing of its network ---


def machine_paths() -> list[str]:
    """Return the folders that only this machine has."""
    common = {
        Path(name) for name in ("/", "/home", "/opt", "/srv", "/tmp", "/usr", "/usr/src", "/var/tmp", "/workspace")
    }
    return [f"{folder}/" for folder in {ROOT, ROOT.parent, Path.home()} if folder not in common]


def test_no_file_holds_a_path_of_this_machine() -> None:
    """What is written here works elsewhere."""
    folders = machine_paths()
    found = [(_name(path), folder) for path in project_files() for folder in folders if folder in text_of(path)]
    assert found == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    """Where packages come from is the business of whoever installs them."""
    hosts = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "deb.deb" + "ian.org"]
    found = [(_name(path), host) for path in project_files() for host in hosts if host in text_of(path)]
    assert found == []


def test_no_file_is_larger_than_a_mebibyte() -> None:
    """Data is fetched or made, never kept in the repository."""
    assert [_name(path) for path in project_files() if path.stat().st_size > 1024 * 1024] == []


# --- a plain install stays light ---


def _project() -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _names(requirements: object) -> set[str]:
    assert isinstance(requirements, list)
    return {re.split(r"[\s<>=!~;\[]", str(text), maxsplit=1)[0].lower() for text in requirements}


def test_plain_install_brings_only_what_is_listed() -> None:
    """A new base dependency is a decision, made here and in pyproject.toml."""
    assert _names(_project()["dependencies"]) == BASE


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_come_from_declared_dependencies(module: Module) -> None:
    """Every foreign import is the standard library's, a base dependency's, or, where it belongs, an extra's."""
    import sys

    extras = _project()["optional-dependencies"]
    assert isinstance(extras, dict)
    allowed = set(BASE)
    if module.name.startswith(("asyncsdk.server.http", "asyncsdk.server.doors")):
        allowed |= _names(extras["server"])
    if module.name == "asyncsdk.loops":
        allowed |= _names(extras["fast"])
    if module.name.startswith(("asyncsdk.worker.onnx", "asyncsdk.worker.torchscript")):
        allowed |= _names(extras["predict"]) | _names(extras["torch"])
    if module.name == "asyncsdk.worker.yolo_layout":
        allowed |= _names(extras["archive"])
    if module.name == "asyncsdk.domain.curves":
        allowed |= _names(extras["plot"])
    if module.name == "asyncsdk.telemetry":
        allowed |= _names(extras["otel"])
    if module.name.startswith("asyncsdk.server.objects.clouds."):
        allowed |= _names(extras["s3"]) | _names(extras["azure"]) | _names(extras["gcs"])
    foreign = {
        found.target.partition(".")[0]
        for found in imports_of(module.tree, frozenset())
        if found.target.partition(".")[0] not in sys.stdlib_module_names | {"asyncsdk"}
    }
    assert {DISTRIBUTION_OF.get(name, name.lower()) for name in foreign} <= allowed
