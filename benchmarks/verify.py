"""Whether everything arrived, byte for byte; after the clock stopped."""

from __future__ import annotations

from pathlib import Path

from benchmarks.jobs import Job, item_name, part_name

__all__ = ["VerificationFailed", "same_bytes", "verify"]

BLOCK_BYTES = 1024 * 1024


class VerificationFailed(RuntimeError):
    """Something is missing or has other bytes: there is no figure."""


def verify(job: Job, served: int | None) -> None:
    """Compare what arrived with what was there.

    Args:
        job: What was to be done.
        served: Requests that the server counted; None: it counts none. Fewer than transfers is a failure: a name that
            is written more than once shows only its last transfer.

    Raises:
        VerificationFailed: Anything differs.
    """
    batch = job.main
    if job.kind == "put":
        pairs = [(item.source, batch.stored / item_name(n), 0) for n, item in enumerate(batch.distinct())]
    elif job.kind in {"get", "ranges", "platform_get"}:
        pairs = [(item.source, Path(item.destination), 0) for item in batch.distinct()]
    elif job.kind == "put_parts":
        source = batch.item(0).source
        parts = batch.parts(job.part_size)
        pairs = [(source, batch.stored / part_name(n), start) for n, (start, _, _) in enumerate(parts, start=1)]
        if sum(path.stat().st_size for _, path, _ in pairs) != batch.size_bytes:
            raise VerificationFailed("the parts do not add up to the object")
    else:
        pairs = []  # answers of POST are checked one by one by the contender, datasets by `check_arrived`
    for source, arrived, start in pairs:
        if not same_bytes(Path(source), arrived, start=start, is_whole=job.kind != "put_parts"):
            raise VerificationFailed(f"{arrived.parent.name}/{arrived.name} has other bytes, or is not there")
    if served is not None and served < batch.count:
        raise VerificationFailed(f"{served} requests reached the server, {batch.count} were to be sent")


def same_bytes(source: Path, arrived: Path, *, start: int = 0, is_whole: bool = True) -> bool:
    """Whether *arrived* holds the bytes of *source* from *start* on.

    Args:
        source: Original.
        arrived: Copy, of all of it or of a part.
        start: Where in the original the copy begins.
        is_whole: Whether the copy must reach to the end of the original.
    """
    if not arrived.is_file() or (is_whole and arrived.stat().st_size != source.stat().st_size - start):
        return False
    with source.open("rb", buffering=0) as left, arrived.open("rb", buffering=0) as right:
        left.seek(start)
        while block := right.read(BLOCK_BYTES):
            if left.read(len(block)) != block:
                return False
    return True
