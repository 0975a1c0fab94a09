"""Pictures as files, told by their first bytes."""

from __future__ import annotations

__all__ = ["MAX_IMAGE_BYTES", "image_type"]

MAX_IMAGE_BYTES = 32 * 1024 * 1024
"""Of the image of a project."""

HEAD_BYTES = 16
"""What `image_type` looks at."""

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
)


def image_type(head: bytes) -> str | None:
    """Return what a file is that begins with *head* (16 bytes tell): ``png``, ``jpg``, ``gif``, ``webp``, ``bmp``.

    Only the signature is looked at: a damaged picture passes. None: it is none of these.
    """
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    # Two letters alone would let any text that begins with BM pass; the reserved bytes after the size are zero.
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and len(head) >= HEAD_BYTES:
        return "bmp"
    return None
