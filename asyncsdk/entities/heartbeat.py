"""Heartbeats: a training program says now and then that it is alive, so that the platform can tell when it is not."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio

from asyncsdk.domain.environment import agent_name
from asyncsdk.domain.ids import make_id
from asyncsdk.entities.session import Session
from asyncsdk.entities.termination import LastWord
from asyncsdk.errors import AsyncSDKError, ConfigError
from asyncsdk.protocol.agents import LOST_AFTER_INTERVALS, BeatAgent

__all__ = ["AsyncHeartbeat"]

_log = logging.getLogger(__name__)

FIRST_BEAT_SECONDS = 5.0
"""How long `start` waits for the first beat; after that training begins, and the beat is tried on beside it."""

LAST_BEAT_SECONDS = 5.0
"""How long `stop` waits for the last one."""

SIGTERM_SECONDS = 2.0
"""How long SIGTERM waits for it: whoever sends that kills soon after, and the program's own handler needs the time."""

_RETRY_MIN_SECONDS = 0.5
_BEAT_MIN_SECONDS = 5.0
_BEAT_MAX_SECONDS = 60.0


class AsyncHeartbeat:
    """Says to the platform, every *interval* seconds, that this program is at work on a model.

    Use it as ``async with model.heartbeat():``, or call ``start()`` and ``stop()``; after ``stop()`` it can be started
    again and is the same agent. A beat that is lost is tried again and never ends anything: training goes on without a
    network. It takes no thread. A forked child does not beat.

    Beats are sent by the event loop: code that holds up the loop for more than three intervals makes the agent look
    lost. The blocking twin beats in the background of whatever the program does.
    """

    def __init__(
        self, session: Session, model_id: str, *, interval: float, on_sigterm: bool, name: str | None = None
    ) -> None:
        self._session = session
        self._model_id = model_id
        self._interval = interval
        self._on_sigterm = on_sigterm
        self._name = name or agent_name()
        self._proposed_id = make_id()
        self._agent_id: str | None = None
        self._number = 0
        self._missed = 0
        self._pid = os.getpid()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._starting_pid: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._words: set[asyncio.Task[None]] = set()
        self._last_word: LastWord | None = None
        # An interval or a name that cannot be is told now; and what was taken for a number is one from here on.
        self._interval = self._message(stopped=False).interval_seconds

    # --- what is known ---------------------------------------------------------------------------------------

    @property
    def agent_id(self) -> str | None:
        """The id that the platform gave; None before the first beat arrived."""
        return self._agent_id

    @property
    def missed(self) -> int:
        """How many beats in a row were lost; 0 when the last one arrived."""
        return self._missed

    @property
    def is_beating(self) -> bool:
        """Whether it was started and not stopped, in this process."""
        return self._task is not None and not self._task.done() and self._pid == os.getpid()

    # --- start and stop --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to beat. The first beat was answered when it returns, if that took no more than 5 s.

        Raises:
            NotFound, PermissionDenied, Unauthenticated, UnsupportedOperation: There is no such model, or you may not
                say anything of it. No network is no error.
            ConfigError: It beats already, or the client is closed.
        """
        self._listen()
        try:
            await self._start()
        except BaseException:  # whatever ended it: nobody listens to the signal any more
            self._unlisten()
            raise

    async def stop(self) -> None:
        """Say goodbye and beat no more. Waits up to 5 s for that; a goodbye that is lost is told in the log.

        Calling it again, or in a forked child, does nothing.
        """
        self._unlisten()
        await self._stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = "beating" if self.is_beating else "stopped"
        return f"<AsyncHeartbeat {state}, model {self._model_id}, agent {self._agent_id}>"

    # --- for both twins --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Have a last beat sent when SIGTERM comes; on the main thread, whichever thread beats."""
        if self.is_beating or self._is_starting:
            raise ConfigError("this heartbeat beats already; stop() it first, or make another one")
        self._starting_pid = os.getpid()
        if self._on_sigterm:
            word = LastWord(self._begin_last_beat, seconds=SIGTERM_SECONDS)
            self._last_word = word if word.install() else None

    def _unlisten(self) -> None:
        self._starting_pid = None
        word, self._last_word = self._last_word, None
        if word is not None:
            word.remove()

    @property
    def _is_starting(self) -> bool:
        """Whether its first beat is under way, in this process."""
        return self._starting_pid == os.getpid()

    async def _start(self) -> None:
        if self._pid != os.getpid():  # a forked child that begins one of its own is an agent of its own
            self._pid, self._agent_id, self._proposed_id, self._number = os.getpid(), None, make_id(), 0
        self._loop, self._is_stopping, self._missed = asyncio.get_running_loop(), False, 0
        has_arrived = False
        try:
            async with asyncio.timeout(FIRST_BEAT_SECONDS):
                has_arrived = await self._beat()
        except TimeoutError:
            self._lost("no answer yet")
        self._starting_pid = None
        if self._is_stopping:  # stopped by another task or thread while the first beat was under way
            await self._say_goodbye(LAST_BEAT_SECONDS)
            return
        self._task = self._loop.create_task(self._go_on(is_due=not has_arrived), name="asyncsdk heartbeat")

    async def _stop(self) -> None:
        self._is_stopping = True
        task, self._task = self._task, None
        if task is None or self._pid != os.getpid():
            return
        with anyio.CancelScope(shield=True):  # bounded: 5 s for a beat under way, as much for the last
            task.cancel()
            await asyncio.wait({task}, timeout=LAST_BEAT_SECONDS)
            await self._say_goodbye(LAST_BEAT_SECONDS)

    # --- beats -----------------------------------------------------------------------------------------------

    async def _go_on(self, *, is_due: bool) -> None:
        try:
            if not is_due:
                await asyncio.sleep(self._interval)
            while True:
                if await self._beat_in_time():
                    await asyncio.sleep(self._interval)
                else:  # well before the platform gives it up, and not all agents of a cluster at once
                    growing = min(self._interval, _RETRY_MIN_SECONDS * 2.0 ** min(self._missed - 1, 30))
                    await asyncio.sleep(growing * random.uniform(0.5, 1))  # noqa: S311  # no secret
        except asyncio.CancelledError:
            if not self._is_stopping:  # the loop ends without a stop()
                await self._say_goodbye(LAST_BEAT_SECONDS)
            raise

    async def _beat_in_time(self) -> bool:
        try:
            async with asyncio.timeout(min(max(self._interval, _BEAT_MIN_SECONDS), _BEAT_MAX_SECONDS)):
                return await self._beat(is_first=False)
        except TimeoutError:
            self._lost("no answer in time")
            return False

    async def _beat(self, *, is_first: bool = True) -> bool:
        """Send one beat; whether it arrived. What can never arrive is raised when *is_first*."""
        try:
            await self._send(stopped=False)
        except AsyncSDKError as error:
            if is_first and not error.retryable:
                raise
            self._lost(error)
            return False
        except Exception as error:  # a mistake of ours must not become the end of somebody's training: it is told
            if is_first:
                raise
            self._lost(error)
            return False
        if self._missed:
            _log.info("heartbeat of model %s: heard again after %d lost beats", self._model_id, self._missed)
        self._missed = 0
        return True

    async def _send(self, *, stopped: bool) -> None:
        self._number += 1
        reply = await self._session.send(self._message(stopped=stopped))
        self._agent_id = reply.id

    def _message(self, *, stopped: bool) -> BeatAgent:
        return BeatAgent(
            model_id=self._model_id,
            agent_id=self._agent_id,
            proposed_id=self._proposed_id,
            number=max(1, self._number),
            name=self._name,
            interval_seconds=self._interval,
            stopped=stopped,
        )

    def _lost(self, reason: object) -> None:
        self._missed += 1
        # The first of a row, then rarely: hours without a network are one thing to tell, not a thousand.
        level = logging.WARNING if self._missed & (self._missed - 1) == 0 else logging.DEBUG
        _log.log(level, "heartbeat of model %s: %d lost in a row: %s", self._model_id, self._missed, reason)

    # --- the last one ----------------------------------------------------------------------------------------

    async def _say_goodbye(self, seconds: float) -> None:
        reason: object = f"no answer within {seconds:g} s"
        try:
            async with asyncio.timeout(seconds):
                while (error := await self._try_goodbye()) is not None:
                    reason = error
                    await asyncio.sleep(_RETRY_MIN_SECONDS)
            return
        except TimeoutError:  # the reason is that of the last try
            pass
        except Exception as error:  # noqa: BLE001  # leaving a block must not fail for want of a goodbye: it is told
            reason = error
        _log.warning(
            "heartbeat of model %s: the last beat is lost (%s); the agent will look lost %d intervals after the last "
            "beat that arrived",
            self._model_id,
            reason,
            LOST_AFTER_INTERVALS,
        )

    async def _try_goodbye(self) -> AsyncSDKError | None:
        """Send the last beat; returns what is worth another try."""
        try:
            await self._send(stopped=True)
        except AsyncSDKError as error:
            if not error.retryable:
                raise
            return error
        return None

    def _begin_last_beat(self, said: Callable[[], None]) -> None:
        """Send a last beat from whichever loop beats; called by a signal handler, so without waiting."""
        loop = self._loop
        if loop is None:
            said()
            return
        loop.call_soon_threadsafe(self._say_last, said)

    def _say_last(self, said: Callable[[], None]) -> None:
        # Regular beats go on: a program that takes its time to end is alive, and the platform hears of it.
        word = asyncio.ensure_future(self._say_goodbye(SIGTERM_SECONDS))
        self._words.add(word)
        word.add_done_callback(self._words.discard)
        word.add_done_callback(lambda _: said())
