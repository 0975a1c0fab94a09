"""Frames on the pipes between a parent and its worker processes.

A frame is its length (four bytes) and a pickle of a tuple: a word, then what belongs to it.

Frames hold signed URLs. So they go through inherited pipes without a name, and nothing here writes a frame into an
error or a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pickle
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_FRAME_BYTES", "CannotCross", "Channel", "pickled"]

MAX_FRAME_BYTES = 256 * 1024 * 1024
"""More than any frame may have: the largest hold the 10,000 signed URLs of a few multipart uploads."""

_HEAD = struct.Struct("<I")
_READ_BYTES = 256 * 1024
_KNOWN_MODULES = {"asyncsdk", "builtins", "copyreg", "pathlib"}


class CannotCross(Exception):
    """A message holds an object whose class the other process may not know; says which class."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        """Refuse what is neither plain nor ours. Called for instances of classes only, so that rows cost nothing."""
        kind = value if isinstance(value, type) else type(value)
        if kind.__module__.partition(".")[0] not in _KNOWN_MODULES:
            raise CannotCross(f"{kind.__module__}.{kind.__qualname__}")
        return NotImplemented


def pickled(message: tuple[Any, ...]) -> bytes:
    """Return *message* as bytes.

    Raises:
        CannotCross: Another process may not be able to read it.
    """
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, 5).dump(message)
    except (TypeError, AttributeError, pickle.PicklingError) as error:  # how objects say that they cannot be pickled
        raise CannotCross(type(error).__name__) from None
    return buffer.getvalue()


class Channel:
    """Two pipes to another process, read and written by an event loop without blocking.

    Args:
        reads: Descriptor to read from; closed by `close`.
        writes: Descriptor to write to; closed by `close`.
        on_message: Called with every message that came.
        on_end: Called once when nothing more will come: the other side has ended, closed its pipe, or sent nonsense.
        close: Closes a descriptor.
    """

    def __init__(
        self,
        reads: int,
        writes: int,
        on_message: Callable[[tuple[Any, ...]], None],
        on_end: Callable[[], None],
        close: Callable[[int], None] = os.close,
    ) -> None:
        self._close_descriptor = close
        self._reads = reads
        self._writes = writes
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._came = bytearray()
        self._leaving = bytearray()
        self._is_writing = False
        self._has_ended = False
        os.set_blocking(reads, False)
        os.set_blocking(writes, False)
        self._loop.add_reader(reads, self._read)

    def send(self, message: tuple[Any, ...]) -> None:
        """Send *message*, or keep it until there is room; to a side that has ended, nothing is sent.

        Raises:
            CannotCross: It holds what the other side may not know; nothing of it was sent.
        """
        if self._writes < 0:
            return
        payload = pickled(message)
        frame = _HEAD.pack(len(payload)) + payload
        if self._leaving:
            self._leaving += frame
            return
        written = self._try_to_write(frame)
        if written < len(frame) and self._writes >= 0:
            self._leaving += memoryview(frame)[written:]
            self._is_writing = True
            self._loop.add_writer(self._writes, self._flush)

    def finish(self) -> None:
        """Tell the other side that nothing more will come; what it still says is read."""
        if self._writes >= 0:
            if self._is_writing:
                self._loop.remove_writer(self._writes)
                self._is_writing = False
            self._close_descriptor(self._writes)
            self._writes = -1
            self._leaving.clear()

    def close(self) -> None:
        """Close both ends. Calling it again does nothing."""
        self.finish()
        if self._reads >= 0:
            self._loop.remove_reader(self._reads)
            self._close_descriptor(self._reads)
            self._reads = -1
        self._has_ended = True

    def _try_to_write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._writes, data)
        except BlockingIOError:
            return 0
        except OSError:  # the other side is gone; the end of its own pipe says so, after what it said last
            self.finish()
            return 0

    def _flush(self) -> None:
        written = self._try_to_write(self._leaving)
        del self._leaving[:written]
        if not self._leaving and self._writes >= 0:
            self._loop.remove_writer(self._writes)
            self._is_writing = False

    def _read(self) -> None:
        try:
            data = os.read(self._reads, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # read like an end: either way there is nothing more
            data = b""
        if not data:
            self._end()
            return
        self._came += data
        self._take_frames()

    def _take_frames(self) -> None:
        start = 0
        came = self._came
        try:
            while len(came) - start >= _HEAD.size and not self._has_ended:
                (size,) = _HEAD.unpack_from(came, start)
                if size > MAX_FRAME_BYTES:
                    self._end()
                    return
                stop = start + _HEAD.size + size
                if len(came) < stop:
                    break
                message = self._read_frame(start + _HEAD.size, stop)
                if message is None:
                    self._end()
                    return
                start = stop
                self._on_message(message)
        finally:
            del came[:start]

    def _read_frame(self, start: int, stop: int) -> tuple[Any, ...] | None:
        """Return a message, or None for nonsense."""
        with memoryview(self._came) as came, came[start:stop] as payload:
            try:
                message: tuple[Any, ...] = pickle.loads(payload)  # noqa: S301  # our own parent or worker wrote it
            except Exception:  # noqa: BLE001  # unpickling nonsense may raise anything; it counts as the end
                return None
        return message

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            with contextlib.suppress(ValueError):  # removed already
                self._loop.remove_reader(self._reads)
            self._on_end()
