"""The express lane: first attempts of objects that go by one request, without a task, a future or a thread for any.

One `Carrier` per slot. It is itself the exchange that the lean transport calls back: when a reply is whole, the carrier
makes the outcome, pulls the next transfer and begins it on the connection that just became free, all in the event
loop's callback. Only what goes well goes this way. A failed attempt, a disk that keeps the loop waiting, an object that
needs ranges: the transfer is handed to the workers of the run, with what was found out already.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.engine.downloads import Fetch, LargeObject, NoRanges
from asyncsdk.engine.lanes import Slots
from asyncsdk.engine.small_downloads import SmallFetch
from asyncsdk.engine.sources import FileSource, read_or_open
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.uploads import asks_for_checksum, check_expected, is_confirmed, with_checksum
from asyncsdk.engine.work import SMALL_BYTES, UrlExpired, Work
from asyncsdk.errors import (
    AsyncSDKError,
    ChecksumMismatch,
    IncompleteTransfer,
    RequestError,
    ResponseError,
    SourceChanged,
)
from asyncsdk.targets import PutTarget, UrlOrigin
from asyncsdk.transport.base import BytesBody, FileBody, Reply, Request
from asyncsdk.transport.lean import Exchange, LeanTransport

__all__ = ["Carrier", "Express"]

_STALL_SECONDS = 0.02
"""From here on, opening and reading one small file, or putting one in place, kept the loop."""

_PATIENCE_SECONDS = 0.2
"""How much of a second may go into such stalls. A busy machine causes some, too."""

_DETOUR_SECONDS = 1.0
"""How long threads do it after that, before the loop tries again."""

_REDIRECTS = {301, 302, 303, 307, 308}
_NOTHING = Request("GET", "")

HandOver = Callable[[Work, LargeObject | None], None]


class Express:
    """Moves small objects over a lean transport.

    Args:
        transport: Whose connections are used.
        slots: Shared with everything else that sends requests.
        start: Makes the work of a transfer.
        finish: Takes outcomes.
        hand_over: Takes work that needs more than one request; with a `LargeObject` when it needs ranges.
        on_pulled: Called after a transfer left the queue.
        on_failure: Takes what is no error of one transfer, but a mistake.

    Attributes:
        held: While not 0, the queue is left alone; whoever sets it to 0 again calls `resume`.
    """

    def __init__(
        self,
        transport: LeanTransport,
        slots: Slots,
        start: Callable[[Upload | Download], Work],
        finish: Callable[[Outcome], None],
        hand_over: HandOver,
        on_pulled: Callable[[], None],
        on_failure: Callable[[Exception], None],
        *,
        concurrency: int,
    ) -> None:
        self.transport = transport
        self.slots = slots
        self.start = start
        self.finish = finish
        self.hand_over = hand_over
        self.on_pulled = on_pulled
        self.on_failure = on_failure
        self.queue: deque[Upload | Download] = deque()
        self.idle: list[Carrier] = []
        self.detour_until = 0.0
        self.is_over = False
        self.held = 0
        self._stalls_since = 0.0
        self._stalled = 0.0
        self._carriers: list[Carrier] = []
        self._concurrency = concurrency

    def __len__(self) -> int:
        return len(self.queue)

    @staticmethod
    def takes(transfer: Upload | Download) -> bool:
        """Whether *transfer* may go by one request, from where it can be read to where it can be written at once."""
        if isinstance(transfer, Upload):
            source = transfer.source
            return isinstance(transfer.target, PutTarget) and (
                isinstance(source, (str, Path))
                or (isinstance(source, (bytes, memoryview)) and len(source) <= SMALL_BYTES)
            )
        return isinstance(transfer.origin, UrlOrigin) and isinstance(transfer.sink, (str, Path))

    def put(self, transfer: Upload | Download) -> None:
        """Queue *transfer*."""
        self.queue.append(transfer)
        if self.idle:
            self._wake_one()
        elif len(self._carriers) < self._concurrency:
            carrier = Carrier(self)
            self._carriers.append(carrier)
            carrier.ask_for_slot()

    def resume(self) -> None:
        """Go on with the queue: it is held no longer."""
        for _ in range(min(len(self.queue), len(self.idle))):
            self._wake_one()

    def _wake_one(self) -> None:
        if not self.held:
            self.idle.pop().ask_for_slot()

    def was_slow(self, started: float) -> None:
        """Look at how long the disk kept the loop since *started*; take the detour for a while if that adds up."""
        now = monotonic()
        if now - started < _STALL_SECONDS:
            return
        if now - self._stalls_since > 1.0:
            self._stalls_since, self._stalled = now, 0.0
        self._stalled += now - started
        if self._stalled > _PATIENCE_SECONDS:
            self.detour_until = now + _DETOUR_SECONDS

    def cancel(self) -> None:
        """Drop what is under way, and leave nothing of it behind."""
        self.is_over = True
        self.queue.clear()
        for carrier in self._carriers:
            carrier.cancel()


class Carrier(Exchange):
    """Carries one transfer after the other while it has a slot."""

    __slots__ = ("_checksum", "_express", "_fetch", "_file", "_has_slot", "_is_its_turn", "_loop", "_small", "_work")

    def __init__(self, express: Express) -> None:
        super().__init__(_NOTHING)
        self._express = express
        self._loop = asyncio.get_running_loop()
        self._has_slot = False
        self._is_its_turn = False  # it waited for the slot it has
        self._work: Work | None = None
        self._file: FileSource | None = None
        self._fetch: Fetch | SmallFetch | None = None
        self._small = SmallFetch()
        self._checksum = 0

    # --- slots -----------------------------------------------------------------------------------------------

    def ask_for_slot(self) -> None:
        """Go on when there is a slot, at once if there is one."""
        slots = self._express.slots
        if slots.try_take():
            self._has_slot = True
            self._pull()
        else:
            slots.wait("small", self._take_slot)

    def _take_slot(self) -> bool:
        if self._express.is_over:
            return False
        self._has_slot = self._is_its_turn = True
        self._loop.call_soon(self._pull)
        return True

    def _release_slot(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._express.slots.release()

    def _pull(self) -> None:
        """Begin the next transfer; without one, wait without a slot."""
        express = self._express
        if express.is_over:
            self._release_slot()
            return
        try:
            while express.queue and not express.held:
                if express.slots.is_wanted and not self._is_its_turn:
                    self._release_slot()  # one transfer each: back to the end of the line
                    self.ask_for_slot()
                    return
                self._is_its_turn = False
                transfer = express.queue.popleft()
                express.on_pulled()
                if self._begin(transfer):
                    return
        except Exception as error:  # noqa: BLE001  # a mistake in this package ends the run instead of hanging it
            self._clear()
            express.on_failure(error)
        self._release_slot()
        if not express.is_over:
            express.idle.append(self)

    # --- one transfer ----------------------------------------------------------------------------------------

    def _begin(self, transfer: Upload | Download) -> bool:
        """Send the request for *transfer*; False: nothing is under way, it was finished or handed over."""
        express = self._express
        work = express.start(transfer)
        started = monotonic()
        if started < express.detour_until:
            express.hand_over(work, None)
            return False
        self._work = work
        try:
            if isinstance(transfer, Download):
                self._fetch = self._fetcher(work, transfer)
                self.request = self._fetch.request(work.moved)
            elif not self._prepare_upload(work, transfer):
                self._clear()
                express.hand_over(work, None)
                return False
            express.was_slow(started)
            work.attempts = 1
            self.reported = 0
            self.is_repeated = False
            express.transport.begin(self)
        except AsyncSDKError as error:
            self._clear()
            express.finish(work.failed(error))
            return False
        return True

    def _fetcher(self, work: Work, download: Download) -> Fetch | SmallFetch:
        if not self._small.takes(download):
            return Fetch(work, None, with_range=download.origin.size_bytes is None)
        self._small.begin(work)
        return self._small

    def _prepare_upload(self, work: Work, upload: Upload) -> bool:
        """Open or read the source and make the request; False: that is nothing for the event loop."""
        target, source = upload.target, upload.source
        assert isinstance(target, PutTarget)
        config = work.resources.config
        found = read_or_open(source, check=config.check_source) if isinstance(source, (str, Path)) else source
        headers = target.headers
        body: BytesBody | FileBody
        if isinstance(found, FileSource):
            self._file = found
            body = FileBody(found.fd, 0, found.stop, name=found.name, checksum=Crc32c())
            if asks_for_checksum(headers):
                return False
        else:
            data = found if isinstance(found, bytes) else bytes(found)  # type: ignore[arg-type]  # a view: see `takes`
            body = BytesBody(data)
            self._checksum = checksum = crc32c(data)
            check_expected(upload, checksum)
            if headers and asks_for_checksum(headers):
                headers = with_checksum(headers, checksum)
        if upload.size_bytes is not None and upload.size_bytes != body.size_bytes:
            raise SourceChanged(
                f"{upload.name}: has {body.size_bytes} bytes, {upload.size_bytes} were announced; it was changed since "
                "it was looked at, upload it again",
                source=upload.name,
            )
        self.request = Request(target.method, target.url, headers, body, None, work.moved, None, config.timeouts)
        return True

    # --- how it ended ----------------------------------------------------------------------------------------

    def succeed(self, reply: Reply) -> None:
        """Make the outcome of a reply that is whole, and go on."""
        work = self._work
        assert work is not None
        work.resources.health.answered()
        try:
            if reply.status in _REDIRECTS:
                self._leave(work, None)
            elif self._fetch is None:
                self._sent(work, reply)
            else:
                self._received(work, self._fetch, reply)
        except (AsyncSDKError, UrlExpired, NoRanges) as error:
            self._failed(work, error)
        except Exception as error:  # noqa: BLE001  # a mistake in this package ends the run instead of hanging it
            self._clear()
            self._express.on_failure(error)
        self._pull()

    def fail(self, error: Exception) -> None:
        """Leave what failed to the workers of the run, and go on."""
        work = self._work
        assert work is not None
        if isinstance(error, AsyncSDKError):
            self._failed(work, error)
        else:
            self._clear()
            self._express.on_failure(error)
        self._pull()

    def _sent(self, work: Work, reply: Reply) -> None:
        upload, body = work.transfer, self.request.body
        assert isinstance(upload, Upload)
        assert body is not None
        if not 200 <= reply.status < 300:
            raise work.refused(reply, self.request, upload.target.expires_at)  # type: ignore[union-attr]
        size = body.size_bytes
        if self.reported != size:
            # It said yes before it had everything.
            raise IncompleteTransfer(size, self.reported, source=upload.name)
        checksum = self._checksum
        if isinstance(body, FileBody):
            assert self._file is not None
            assert body.checksum is not None
            checksum = body.checksum.value
            self._file.check_unchanged_now()
            check_expected(upload, checksum)
        verified = is_confirmed(work, reply, checksum)
        self._clear()
        etag = reply.headers.get("etag")
        self._express.finish(work.done(size, checksum, etag=etag, verified=verified, reply=reply.body))

    def _received(self, work: Work, fetch: Fetch | SmallFetch, reply: Reply) -> None:
        fetch.judge(reply, self.request, work.take_back)
        started = monotonic()
        result = fetch.finish(reply)
        self._express.was_slow(started)
        self._clear()
        if isinstance(result, Outcome):
            self._express.finish(result)
        else:
            self._express.hand_over(work, result)

    def _failed(self, work: Work, error: AsyncSDKError | UrlExpired | NoRanges) -> None:
        if self._file is not None and isinstance(error, (ResponseError, ChecksumMismatch, RequestError)):
            # A file that changed while it was read fails in many ways; say what is behind them.
            try:
                self._file.check_unchanged_now()
            except SourceChanged as changed:
                changed.__cause__ = error
                error = changed
        if isinstance(error, SourceChanged):
            self._clear()
            self._express.finish(work.failed(error))
        else:
            self._leave(work, None if isinstance(error, NoRanges) else error)

    def _leave(self, work: Work, error: Exception | None) -> None:
        self._clear()
        work.failed_once(error)
        self._express.hand_over(work, None)

    def cancel(self) -> None:
        """Drop what is under way."""
        using = self._express.transport.abandon(self)
        if using is not None:
            # A thread uses the file: its number must not stand for another one before that ends.
            file, fetch = self._file, self._fetch
            self._file = self._fetch = None
            using.add_done_callback(lambda _: _close(file, fetch))
        self._clear()
        self._release_slot()

    def _clear(self) -> None:
        self._work = None
        if self._file is not None or self._fetch is not None:
            _close(self._file, self._fetch)
            self._file = self._fetch = None
        self.request = _NOTHING


def _close(file: FileSource | None, fetch: Fetch | SmallFetch | None) -> None:
    if file is not None:
        file.close()
    if fetch is not None:
        fetch.close()
