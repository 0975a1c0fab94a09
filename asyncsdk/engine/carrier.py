"""Who moves one transfer after the other in the express lane, without a task, a future or a thread for any.

A `Carrier` is itself the exchange that the lean transport calls back: when a reply is whole, it makes the outcome,
pulls the next transfer and begins it on the connection that just became free, all in the event loop's callback.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.engine.downloads import Fetch, NoRanges
from asyncsdk.engine.redirects import REDIRECTS
from asyncsdk.engine.small_downloads import SmallFetch
from asyncsdk.engine.sources import FileSource, MemorySource, check_size, read_or_open
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.uploads import asks_for_checksum, check_expected, is_confirmed, with_checksum
from asyncsdk.engine.work import UrlExpired, Work
from asyncsdk.errors import (
    AsyncSDKError,
    ChecksumMismatch,
    IncompleteTransfer,
    RequestError,
    ResponseError,
    SourceChanged,
)
from asyncsdk.targets import PutTarget
from asyncsdk.transport.base import BytesBody, FileBody, Reply, Request
from asyncsdk.transport.lean import Exchange

if TYPE_CHECKING:
    from asyncsdk.engine.express import Express

__all__ = ["Carrier"]

_NOTHING = Request("GET", "")

_PER_TURN = 32
"""Transfers that may end without a request before the event loop gets its turn."""


class Carrier(Exchange):
    """Carries one transfer after the other while it has a slot."""

    __slots__ = (
        "_checksum",
        "_express",
        "_fetch",
        "_file",
        "_has_slot",
        "_is_its_turn",
        "_is_pulling",
        "_loop",
        "_small",
        "_work",
    )

    def __init__(self, express: Express) -> None:
        super().__init__(_NOTHING)
        self._express = express
        self._loop = asyncio.get_running_loop()
        self._has_slot = False
        self._is_its_turn = False  # it waited for the slot it has
        self._is_pulling = False
        self._work: Work | None = None
        self._file: FileSource | None = None
        self._fetch: Fetch | SmallFetch | None = None
        self._small = SmallFetch()
        self._checksum = 0

    # --- slots -----------------------------------------------------------------------------------------------

    def ask_for_slot(self) -> None:
        """Go on when there is a slot, in the next turn of the event loop if there is one."""
        slots = self._express.slots
        if slots.try_take():
            self._has_slot = True
            self._loop.call_soon(self._pull)
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
        if self._is_pulling:
            return  # what it is beginning just now ended at once
        express = self._express
        self._is_pulling = True
        left = _PER_TURN
        try:
            while express.queue and not express.held and not express.is_over:
                if not self._is_its_turn and express.slots.is_wanted:
                    self._release_slot()  # one transfer each: back to the end of the line
                    self.ask_for_slot()
                    return
                if not left:
                    self._loop.call_soon(self._pull)
                    return
                left -= 1
                self._is_its_turn = False
                transfer = express.queue.popleft()
                express.on_pulled()
                if self._begin(transfer):
                    return
        except Exception as error:  # noqa: BLE001  # a mistake in this package ends the run instead of hanging it
            self._broke(error)
        finally:
            self._is_pulling = False
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
                self._leave(work, None)
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
        return self._work is not None  # else it has ended already

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
        else:
            data = found if isinstance(found, bytes) else bytes(found)  # type: ignore[arg-type]  # a view: see `takes`
            body = BytesBody(data)
        check_size(upload, body.size_bytes)
        if isinstance(body, BytesBody):
            self._checksum = checksum = crc32c(data)
            check_expected(upload, checksum)
            if headers and asks_for_checksum(headers):
                headers = with_checksum(headers, checksum)
        elif asks_for_checksum(headers):
            return False
        self.request = Request(target.method, target.url, headers, body, None, work.moved, None, config.timeouts)
        return True

    # --- how it ended ----------------------------------------------------------------------------------------

    def succeed(self, reply: Reply) -> None:
        """Make the outcome of a reply that is whole, and go on."""
        work = self._work
        assert work is not None
        work.resources.health.answered()
        try:
            try:
                if reply.status in REDIRECTS:
                    self._leave(work, None)
                elif self._fetch is None:
                    self._sent(work, reply)
                else:
                    self._received(work, self._fetch, reply)
            except (AsyncSDKError, UrlExpired, NoRanges) as error:
                self._failed(work, error)
        except AsyncSDKError as error:  # what is left of it cannot be removed
            self._express.finish(work.failed(error))
        except Exception as error:  # noqa: BLE001  # a mistake in this package ends the run instead of hanging it
            self._broke(error)
        self._pull()

    def fail(self, error: Exception) -> None:
        """Leave what failed to the workers of the run, or tell that it failed for good, and go on."""
        work = self._work
        if work is None:
            return  # it was abandoned
        try:
            if isinstance(error, AsyncSDKError):
                self._failed(work, error)
            else:
                self._broke(error)
        except AsyncSDKError as left:  # what is left of it cannot be removed
            self._express.finish(work.failed(left))
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
        verified = is_confirmed(work, reply, checksum)
        if self._file is not None:
            self._file.check_unchanged_now()
            check_expected(upload, checksum)
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
        if not isinstance(error, AsyncSDKError) or not work.is_final(error, 1):
            self._leave(work, error)
            return
        if self._file is not None and isinstance(error, (ResponseError, ChecksumMismatch, RequestError)):
            # A file that changed while it was read fails in many ways; say what is behind them.
            try:
                self._file.check_unchanged_now()
            except SourceChanged as changed:
                changed.__cause__ = error
                error = changed
        self._clear()
        self._express.finish(work.failed(error))

    def _leave(self, work: Work, error: Exception | None) -> None:
        body = self.request.body
        if self._file is not None:
            work.opened, self._file = self._file, None
        elif isinstance(body, BytesBody):
            work.opened = MemorySource(body.data, self._checksum)  # what is sent again is what was sent
        self._clear()
        work.failed_once(error)
        self._express.hand_over(work, None)

    # --- the end ---------------------------------------------------------------------------------------------

    def abandon(self) -> list[asyncio.Future[Any]]:
        """Stop what is under way. Returns what has to end by itself before `drop` may be called."""
        if self._work is None:
            return []
        connecting = self.connecting
        using = self._express.transport.abandon(self)
        return [future for future in (connecting, using) if future is not None]

    def drop(self) -> None:
        """Leave nothing behind of what was under way."""
        try:
            self._clear()
        except AsyncSDKError as error:
            self._express.on_failure(error)
        self._release_slot()

    def _broke(self, error: Exception) -> None:
        """End the run because of a mistake."""
        self._express.on_failure(error)  # the first one counts
        try:
            self._clear()
        except AsyncSDKError as left:
            self._express.on_failure(left)

    def _clear(self) -> None:
        """Forget the transfer, and close and remove what belongs to it."""
        self._work = None
        self.request = _NOTHING
        file, fetch = self._file, self._fetch
        if file is not None:
            self._file = None
            file.close()
        if fetch is not None:
            self._fetch = None
            fetch.close()
