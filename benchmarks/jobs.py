"""What a contender is told: one piece of work, as JSON from the runner to the contender's own process.

Files and URLs follow from numbers, so that 50,000 of them need no list: item *i* of a batch is read from
``source/III/IIIIII.bin`` and has the same name below ``url``, ``stored`` and ``destination``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

__all__ = ["KINDS", "Batch", "Item", "Job", "Kind", "item_name", "part_name"]

Kind = Literal["put", "get", "ranges", "put_parts", "post", "platform_put", "platform_get"]
"""``put`` and ``get``: whole objects, files at this end. ``ranges``: one object in ranges into one file. ``put_parts``:
one file as a request for each part. ``post``: small JSON. ``platform_...``: by the entity API of a served platform."""

KINDS: tuple[Kind, ...] = get_args(Kind)


def item_name(number: int) -> str:
    """Return the name of object *number*, at most 1,000 in one folder."""
    return f"{number // 1000:03}/{number:06}.bin"


def part_name(part: int) -> str:
    """Return the name that nginx keeps part *part* (from 1) of a large object under."""
    return f"part-{part:05}"


@dataclass(frozen=True, slots=True)
class Item:
    """One transfer: a file here, an object there.

    Attributes:
        source: File with its bytes.
        url: Where the server has it, or takes it.
        destination: File that a download makes.
        size_bytes: Of the object.
    """

    source: str
    url: str
    destination: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Transfers of one kind and size.

    Attributes:
        count: How many.
        size_bytes: Of each object.
        names: Distinct objects; transfer *i* is that of object ``i % names``.
        sources: Distinct files behind them.
        source: Folder of those files.
        url: Prefix of all URLs, without a slash at its end.
        destination: Folder that downloads go to; its sub-folders are there.
        stored: Folder where the server keeps what is uploaded.
    """

    count: int
    size_bytes: int
    names: int
    sources: int
    source: Path
    url: str
    destination: Path
    stored: Path

    def item(self, number: int) -> Item:
        """Return transfer *number*."""
        name = item_name(number % self.names)
        source = f"{self.source}/{item_name(number % self.names % self.sources)}"
        return Item(source, f"{self.url}/{name}", f"{self.destination}/{name}", self.size_bytes)

    def items(self) -> Iterator[Item]:
        """Yield every transfer."""
        return map(self.item, range(self.count))

    def distinct(self) -> Iterator[Item]:
        """Yield one transfer of each object."""
        return map(self.item, range(min(self.names, self.count)))

    def parts(self, part_size: int) -> list[tuple[int, int, str]]:
        """Return start, stop and URL of each part of the first object."""
        starts = range(0, self.size_bytes, part_size)
        return [
            (start, min(start + part_size, self.size_bytes), f"{self.url}/{part_name(number)}")
            for number, start in enumerate(starts, start=1)
        ]

    @property
    def total_bytes(self) -> int:
        """Bytes that move."""
        return self.count * self.size_bytes


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one contender.

    Attributes:
        case: Its name.
        kind: What is done.
        server: ``nginx``, ``s3`` or ``platform``.
        warm: What is done first, unmeasured.
        main: What is measured.
        endpoint: The server's own URL.
        server_pids: Processes whose CPU is counted, with their children.
        concurrency: Requests at once.
        part_size: Bytes of a part or range.
        loop: ``asyncio`` or ``uvloop``.
        pretouch_bytes: Fresh memory the run will take: handed to this machine beforehand.
        is_lazy: Items are made one by one while they are needed, so that peak memory says something of the contender.
        memory_bytes: Byte budget of our engine; None: its default.
        ca_file: Authority behind the server's certificate.
        status_url: Where nginx counts requests; empty: it is another server.
        token: The platform's token; travels by standard input, never on a command line.
    """

    case: str
    kind: Kind
    server: str
    warm: Batch
    main: Batch
    endpoint: str
    server_pids: tuple[int, ...]
    concurrency: int
    part_size: int
    loop: str = "asyncio"
    pretouch_bytes: int = 0
    is_lazy: bool = False
    memory_bytes: int | None = None
    ca_file: Path | None = None
    status_url: str = ""
    token: str = field(default="", repr=False)

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the job that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        for name in ("warm", "main"):
            paths = {key: Path(values[name][key]) for key in ("source", "destination", "stored")}
            values[name] = Batch(**{**values[name], **paths})
        values["server_pids"] = tuple(values["server_pids"])
        values["ca_file"] = None if values["ca_file"] is None else Path(values["ca_file"])
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
