"""The generator of the blocking twin: what it writes of a small example, what it refuses, how it notices drift."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from asyncsdk.sync.blocking_source import reworded
from asyncsdk.sync.generate import generate, main
from asyncsdk.sync.sources import GenerateError

BASE = """
from typing import Callable, AsyncIterable, Iterable

class BoundRecord: ...

class AsyncPages: ...

Told = Callable[[int], None]
Rows = str | Iterable[dict] | AsyncIterable[dict]
Bytes = bytes | AsyncIterable[bytes]

__all__ = ["AsyncPages", "BoundRecord", "Told", "Rows", "Bytes"]
"""

TAGS = '''
"""Tags, and what `AsyncTag` can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Self, overload

from example.entities.base import AsyncPages, BoundRecord, Bytes, Rows, Told
from example.protocol import TagRecord

if TYPE_CHECKING:
    from example.entities.sets import AsyncSet

__all__ = ["AsyncTag", "AsyncTags"]

DEFAULT = 3


class AsyncTag(BoundRecord, TagRecord):
    """A tag: ``await tag.refresh()`` gives an `AsyncTag`."""

    @property
    def set(self) -> AsyncSet:
        """The set it belongs to."""

    async def refresh(self) -> Self:
        """Return it as it is now."""

    async def _private(self) -> None: ...

    def label(self, number: int = DEFAULT) -> str:
        """Return a name."""


class AsyncTags:
    """All tags; ``async with`` and ``async for`` work, ``aclose()`` ends."""

    def __init__(self, session: object) -> None:
        self._session = session

    @overload
    async def get(self, tag: str) -> AsyncTag: ...
    @overload
    async def get(self, tag: None = None, *, name: str) -> AsyncTag | None: ...
    async def get(self, tag: str | None = None, *, name: str = "") -> AsyncTag | None:
        """Return one."""

    def list(self, limit: int | None = None, /, *names: str, **more: int) -> AsyncPages[AsyncTag]:
        """List."""

    async def upload(self, rows: Rows, *, data: Bytes = b"", told: Told | None = None) -> dict[str, AsyncTag]:
        """Upload."""

    async def merge(self, tags: list[AsyncTag], names: Iterable[str] = ()) -> list[AsyncTag]:
        """Merge."""

    async def watch(self) -> AsyncIterator[AsyncTag]:
        """Yield them as they come."""
        yield

    @asynccontextmanager
    async def hold(self, seconds: float) -> AsyncIterator[AsyncTag]:
        """Hold one."""
        yield

    def open(self) -> AbstractAsyncContextManager[int]:
        """Open."""
'''

SETS = '''
"""Sets."""

from __future__ import annotations

from example.entities.tags import AsyncTag

__all__ = ["AsyncSet"]


class AsyncSet:
    """A set."""

    @classmethod
    async def load(cls, path: str) -> AsyncSet:
        """Load one."""

    async def first(self) -> AsyncTag:
        """Return the first."""

    async def aclose(self) -> None:
        """Close."""
'''

GOLDEN_TAGS = '''
# Generated from example/entities/tags.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Tags, and what `Tag` can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Self, overload

from asyncsdk.sync.bridge import on_caller, run
from asyncsdk.sync.iterables import caller_iterable, caller_list, caller_stream
from asyncsdk.sync.iteration import context, iterate
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin, optional, to_async, unchanged
from example.entities.base import Bytes, Rows, Told
from example.entities.tags import DEFAULT, AsyncTag, AsyncTags
from example.protocol import TagRecord

if TYPE_CHECKING:
    from example.sync.entities.sets import Set

__all__ = ["Tag", "Tags"]


class Tag(BlockingRecord, TagRecord):
    """A tag: ``tag.refresh()`` gives a `Tag`."""

    @property
    def _twin(self) -> AsyncTag:
        return AsyncTag._bind(self, self._client)

    @property
    def set(self) -> Set:
        """The set it belongs to."""
        from example.sync.entities.sets import Set

        return Set._of(self._twin.set)

    def refresh(self) -> Self:
        """Return it as it is now."""
        return self._of(run(self._twin.refresh))

    def label(self, number: int = DEFAULT) -> str:
        """Return a name."""
        return self._twin.label(number)


class Tags(BlockingTwin[AsyncTags]):
    """All tags; ``with`` and ``for`` work, ``close()`` ends."""

    @overload
    def get(self, tag: str) -> Tag: ...

    @overload
    def get(self, tag: None = None, *, name: str) -> Tag | None: ...

    def get(self, tag: str | None = None, *, name: str = "") -> Tag | None:
        """Return one."""
        twin: Any = self._twin
        return optional(Tag._of, run(twin.get, tag, name=name))

    def list(self, limit: int | None = None, /, *names: str, **more: int) -> Pages[Tag]:
        """List."""
        return Pages(self._twin.list(limit, *names, **more), Tag._of)

    def upload(
        self, rows: Rows, *, data: Bytes | Iterable[bytes] = b"", told: Told | None = None
    ) -> dict[str, Tag]:
        """Upload."""
        return {
            key: Tag._of(entry)
            for key, entry in run(
                self._twin.upload, caller_iterable(rows), data=caller_stream(data), told=on_caller(told)
            ).items()
        }

    def merge(self, tags: list[Tag | AsyncTag], names: Iterable[str] = ()) -> list[Tag]:
        """Merge."""
        return list(map(Tag._of, run(self._twin.merge, to_async(tags), caller_list(names))))

    def watch(self) -> Iterator[Tag]:
        """Yield them as they come."""
        return map(Tag._of, iterate(self._twin.watch()))

    @contextmanager
    def hold(self, seconds: float) -> Iterator[Tag]:
        """Hold one."""
        with context(self._twin.hold(seconds), Tag._of) as value:
            yield value

    def open(self) -> AbstractContextManager[int]:
        """Open."""
        return context(self._twin.open(), unchanged)
'''

GOLDEN_SETS = '''
# Generated from example/entities/sets.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Sets."""

from __future__ import annotations

from asyncsdk.sync.bridge import run
from asyncsdk.sync.twins import BlockingTwin
from example.entities.sets import AsyncSet
from example.sync.entities.tags import Tag

__all__ = ["Set"]


class Set(BlockingTwin[AsyncSet]):
    """A set."""

    @classmethod
    def load(cls, path: str) -> Set:
        """Load one."""
        return Set._of(run(AsyncSet.load, path))

    def first(self) -> Tag:
        """Return the first."""
        return Tag._of(run(self._twin.first))

    def close(self) -> None:
        """Close."""
        run(self._twin.aclose)
'''

CLIENT = '''
"""The client."""

from __future__ import annotations

from types import TracebackType
from typing import Self

__all__ = ["AsyncClient"]


class AsyncClient:
    """Speaks."""

    def __init__(self, url: str | None = None, *, token: str = "") -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    async def aclose(self) -> None:
        r"""Close, with a \\ in its text."""

    def __repr__(self) -> str:
        return "AsyncClient()"
'''

GOLDEN_CLIENT = '''
# Generated from example/client.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""The client."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from asyncsdk.sync.bridge import run
from asyncsdk.sync.loop import closed_at_exit
from asyncsdk.sync.twins import BlockingTwin
from example.client import AsyncClient

__all__ = ["Client"]


class Client(BlockingTwin[AsyncClient]):
    """Speaks."""

    def __init__(self, url: str | None = None, *, token: str = "") -> None:
        super().__init__(AsyncClient(url, token=token))
        closed_at_exit(self._twin)

    def __enter__(self) -> Self:
        run(self._twin.__aenter__)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        run(self._twin.__aexit__, kind, error, trace)

    def close(self) -> None:
        r"""Close, with a \\ in its text."""
        run(self._twin.aclose)

    def __repr__(self) -> str:
        return repr(self._twin).replace("AsyncClient", "Client")
'''


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A package with one client and two entities."""
    entities = tmp_path / "example" / "entities"
    entities.mkdir(parents=True)
    (entities / "__init__.py").write_text("")
    (entities / "base.py").write_text(BASE)
    (entities / "tags.py").write_text(TAGS)
    (entities / "sets.py").write_text(SETS)
    (tmp_path / "example" / "client.py").write_text(CLIENT)
    return tmp_path


def written(root: Path, name: str) -> str:
    return (root / "example" / "sync" / name).read_text()


@pytest.mark.parametrize(
    ("name", "golden"),
    [("entities/tags.py", GOLDEN_TAGS), ("entities/sets.py", GOLDEN_SETS), ("client.py", GOLDEN_CLIENT)],
)
def test_example_gives_the_text_that_is_meant(example: Path, name: str, golden: str) -> None:
    """Every kind of member is written as it should read, formatted, with the imports it needs and no others."""
    assert main([], root=example, package="example") == 0
    # Where a formatter breaks a long line is its own affair.
    assert ast.dump(ast.parse(written(example, name))) == ast.dump(ast.parse(golden))
    assert written(example, name).splitlines()[:2] == golden.splitlines()[1:3]


def test_base_classes_of_entities_are_not_generated(example: Path) -> None:
    """A module without an asynchronous class of its own has no twin; a handwritten twin is not generated."""
    texts = {path.relative_to(example).as_posix() for path in generate(example, "example")}
    assert texts == {
        "example/sync/client.py",
        "example/sync/entities/__init__.py",
        "example/sync/entities/sets.py",
        "example/sync/entities/tags.py",
    }


def test_check_passes_on_what_was_just_written(example: Path) -> None:
    """``--check`` agrees with the generator, also on the first run."""
    assert main([], root=example, package="example") == 0
    assert main(["--check"], root=example, package="example") == 0


@pytest.mark.parametrize("change", ["edited", "missing", "left over", "source changed"])
def test_check_fails_on_drift_and_writes_nothing(
    example: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` fails when a file was edited, removed, left over or its source changed; a run then mends it."""
    main([], root=example, package="example")
    tags = example / "example" / "sync" / "entities" / "tags.py"
    if change == "edited":
        tags.write_text(tags.read_text().replace("Return a name.", "Return another name."))
    elif change == "missing":
        tags.unlink()
    elif change == "left over":
        (tags.parent / "gone.py").write_text("")
    else:
        source = example / "example" / "entities" / "tags.py"
        source.write_text(source.read_text().replace("number: int = DEFAULT", "number: int = 4"))
    before = {path: path.read_text() for path in tags.parent.glob("*.py")}
    assert main(["--check"], root=example, package="example") == 1
    assert {path: path.read_text() for path in tags.parent.glob("*.py")} == before
    assert ("gone.py" if change == "left over" else "tags.py") in capsys.readouterr().err
    assert main([], root=example, package="example") == 0
    assert main(["--check"], root=example, package="example") == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    async def f(self) -> AsyncOther: ...", "AsyncOther has no blocking twin"),
        ("    async def f(self) -> tuple[AsyncX, int] | int: ...", "blocking result"),
        ("    async def f(self): ...", "says not what it returns"),
        ("    async def f(self, g: Callable[[int], bool]) -> None: ...", "must return None"),
        ("    def f(self, g: Callable[[int], None]) -> None: ...", "only `async def`"),
        ("    @retried\n    async def f(self) -> None: ...", "'retried'"),
        ("    def __await__(self) -> None: ...", "__await__ has no blocking form"),
        ("    def __init__(self) -> None:\n        self.items = 1", "public attribute 'items'"),
        ("    items: int = 1", "public attribute 'items'"),
    ],
)
def test_what_has_no_blocking_form_is_refused(example: Path, body: str, reason: str) -> None:
    """The generator stops at what it cannot translate and says where it stands; it never guesses."""
    source = f'from collections.abc import Callable\n\n__all__ = ["AsyncX"]\n\nclass AsyncX:\n{body}\n'
    (example / "example" / "entities" / "x.py").write_text(source)
    with pytest.raises(GenerateError, match=r"x\.py:\d+: ") as caught:
        generate(example, "example")
    assert reason in str(caught.value)
    assert main([], root=example, package="example") == 2


def test_class_left_out_of_all_is_refused(example: Path) -> None:
    """A class that looks public must be named in ``__all__``: else a twin might be forgotten."""
    (example / "example" / "entities" / "x.py").write_text("__all__ = []\n\nclass AsyncX:\n    pass\n")
    with pytest.raises(GenerateError, match="AsyncX must stand in __all__"):
        generate(example, "example")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("``async with AsyncClient() as c``", "``with Client() as c``"),
        ("``async for x in await f()``", "``for x in f()``"),
        ("an (asynchronous) iterable, an asynchronous iterable of bytes", "an iterable, an iterable of bytes"),
        ("Asynchronous things of AsyncSDKError", "Asynchronous things of AsyncSDKError"),
    ],
)
def test_docstrings_are_reworded(text: str, wanted: str) -> None:
    """Docstrings read as blocking code does."""
    assert reworded(textwrap.dedent(text)) == wanted
