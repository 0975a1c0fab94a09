"""What the entries of an archive are: files that become items, labels of images, the YAML that names classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncsdk.domain.archives import dataset_root
from asyncsdk.domain.formats.yolo import (
    ClassNames,
    KeyPoints,
    class_names,
    image_stem,
    is_image,
    key_points,
    label_stem,
    split_of,
)
from asyncsdk.errors import InvalidArchive
from asyncsdk.worker.zip_reader import ArchiveEntry, ZipReader

__all__ = ["PackedFile", "Plan", "load_yaml", "plan_of"]

_YAML_SUFFIXES = (".yaml", ".yml")
_MAX_YAML_BYTES = 1024 * 1024
_MAX_YAML_FILES = 20
_USUAL_NAMES = ("data", "dataset")


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file that becomes an item.

    Attributes:
        entry: What holds it.
        path: Of the item.
        labels: The entry with its labels; None: it has none.
        split: The split it belongs to; None: none, or the archive has no such thing.
    """

    entry: ArchiveEntry
    path: str
    labels: ArchiveEntry | None = None
    split: str | None = None


@dataclass(slots=True)
class Plan:
    """What becomes of an archive.

    Attributes:
        files: In the archive's order.
        is_yolo: Whether it has labels, or a YAML that names classes.
        names: The classes; None: nothing names them, and numbers stand for them.
        points: Of a dataset of poses.
        lone_labels: Files that look like labels, and no image is theirs: they become items like others.
    """

    files: list[PackedFile] = field(default_factory=list)
    is_yolo: bool = False
    names: ClassNames | None = None
    points: KeyPoints | None = None
    lone_labels: int = 0


def plan_of(reader: ZipReader) -> Plan:
    """Return what is to be done with the entries of an archive. Blocking: it reads the YAML.

    Raises:
        InvalidArchive: It has labels, and the one YAML that could name their classes cannot be read.
    """
    root = dataset_root(entry.name for entry in reader.entries)
    paths = [entry.name[len(root) :] for entry in reader.entries]
    stems = {image_stem(path) for path in paths if is_image(path)}
    labels: dict[str, ArchiveEntry] = {}
    plan = Plan()
    for path, entry in zip(paths, reader.entries, strict=True):
        stem = label_stem(path)
        if stem is not None and stem in stems:
            labels.setdefault(stem, entry)
        elif stem is not None:
            plan.lone_labels += 1
    taken = {entry.name for entry in labels.values()}
    document, name = _dataset_yaml(reader, paths, is_needed=bool(labels))
    if document is not None:
        taken.add(name)
        plan.names, plan.points = _facts_of(document, name)
    plan.is_yolo = bool(labels) or document is not None
    for path, entry in zip(paths, reader.entries, strict=True):
        if entry.name not in taken:
            of_image = labels.get(image_stem(path)) if is_image(path) else None
            split = split_of(path) if plan.is_yolo else None
            plan.files.append(PackedFile(entry, path, of_image, split))
    return plan


def _facts_of(document: Mapping[str, Any], name: str) -> tuple[ClassNames, KeyPoints | None]:
    try:
        return class_names(document), key_points(document)
    except ValueError as error:
        raise InvalidArchive(f"{name}: {error}") from error


def _dataset_yaml(reader: ZipReader, paths: Sequence[str], *, is_needed: bool) -> tuple[Mapping[str, Any] | None, str]:
    """Return the document that has ``names``, and the name of its entry."""
    found = [
        (path, entry)
        for path, entry in zip(paths, reader.entries, strict=True)
        if "/" not in path and path.lower().endswith(_YAML_SUFFIXES)
    ]
    found.sort(key=lambda pair: (pair[0].lower().rpartition(".")[0] not in _USUAL_NAMES, pair[0]))
    broken: InvalidArchive | None = None
    for _, entry in found[:_MAX_YAML_FILES]:
        try:
            document = load_yaml(reader.read(entry, max_bytes=_MAX_YAML_BYTES))
        except InvalidArchive as error:
            broken = broken or InvalidArchive(f"{entry.name}: {error}")
        except ValueError as error:
            broken = broken or InvalidArchive(f"{entry.name}: is no YAML that can be read: {error}")
        else:
            if isinstance(document, Mapping) and "names" in document:
                return document, entry.name
    if broken is not None and is_needed:  # numbers in place of names would look as if they were meant
        raise broken
    return None, ""


def load_yaml(data: bytes) -> Any:
    """Return what a YAML file says: text, lists and mappings, every word as it is written (``yes`` is no truth here).

    References, of which little text makes very much, are not followed.

    Raises:
        ValueError: It is not UTF-8, no YAML, nested too deeply, or has references.
    """
    import yaml

    class Loader(yaml.BaseLoader):  # type: ignore[misc]  # it comes without types
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has references (*name), which are not followed")
            return super().compose_node(parent, index)

    try:
        return yaml.load(data.decode("utf-8-sig"), Loader)  # noqa: S506  # it makes nothing but text, lists and mappings
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error
