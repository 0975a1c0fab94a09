"""The documentation's pages: all reachable, no link into nothing, nothing that only tools of ours would know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.source import PACKAGE, ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

TOPICS = {
    "guides": "upload download checkpoints predictions serve engine command-line tune async-application blocking",
    "concepts": "transfers integrity retries memory cancellation names platforms store",
    "reference": "client entities engine errors config domain protocol server",
}


def links(text: str) -> list[str]:
    """Return where the links of a page lead, code aside."""
    without_code = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", without_code)


def slugs(text: str) -> set[str]:
    """Return the anchors that the headings of a page have."""
    heads = re.findall(r"^#+\s+(.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the project has one at its end, with that heading."""
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        if "://" in name or name.startswith("mailto:"):
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (anchor and anchor not in slugs(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_navigation() -> None:
    """A page that nobody can get to is not documentation."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert [page.name for page in PAGES if page.relative_to(DOCS).as_posix() not in navigation] == []


@pytest.mark.parametrize(("folder", "names"), TOPICS.items())
def test_topics_are_covered(folder: str, names: str) -> None:
    """Each topic has its page."""
    assert [name for name in names.split() if not (DOCS / folder / f"{name}.md").is_file()] == []


def test_reference_names_modules_that_exist() -> None:
    """Every module named in the reference is there."""
    named = [
        name
        for page in PAGES
        for name in re.findall(r"^::: (asyncsdk[\w.]*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert named
    paths = [PACKAGE.joinpath(*name.split(".")[1:]) for name in named]
    assert [path.name for path in paths if not (path.with_suffix(".py").is_file() or path.is_dir())] == []


def test_everything_a_user_holds_is_in_the_reference() -> None:
    """The client, the entities, the errors and the settings have their place in the reference."""
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    public = ["asyncsdk.client", "asyncsdk.errors", "asyncsdk.config", "asyncsdk.engine.transfers", "asyncsdk.targets"]
    public += [f"asyncsdk.entities.{name}" for name in ("datasets", "items", "models", "checkpoints", "projects")]
    assert [name for name in public if f"::: {name}\n" not in text] == []
