"""Questions that several tasks have in the same moment, asked by one message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from asyncsdk.errors import AsyncSDKError, MalformedResponse

__all__ = ["Together"]

Q = TypeVar("Q")
A = TypeVar("A")


class _Asked(Generic[Q, A]):
    """One question, and what becomes of it."""

    def __init__(self, question: Q) -> None:
        self.question = question
        self.answer: asyncio.Future[A | _Anew | _Alone] = asyncio.get_running_loop().create_future()


class _Anew:
    """Whoever asked for all was cancelled: ask again."""


class _Alone:
    """The message was refused, perhaps because of another question in it: ask for oneself."""


_ANEW: Final = _Anew()
_ALONE: Final = _Alone()


class Together(Generic[Q, A]):
    """Asks what is asked in one turn of the event loop by one message; nobody waits for anything but that turn.

    After a pause (a laptop that slept) the URLs of everything under way are old at once: without this each object would
    cost a message.

    There is no task of its own: the first who asked sends the message, and when that one is cancelled, another does. A
    refusal that trying again does not change may concern a single question: each is then asked alone.

    Args:
        ask: Sends the message of so many questions; returns the answers in their order.
        most: Questions of one message, at most.
    """

    def __init__(self, ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], most: int) -> None:
        self._ask = ask
        self._most = most
        self._asked: list[_Asked[Q, A]] = []

    async def __call__(self, question: Q) -> A:
        """Return the answer to *question*.

        Raises:
            AsyncSDKError: What the message came to.
        """
        while True:
            mine = _Asked[Q, A](question)
            self._asked.append(mine)
            try:
                await asyncio.sleep(0)  # who asks in this turn goes along
            except asyncio.CancelledError:
                self._forget(mine)
                raise
            answer = await (self._lead(mine) if mine in self._asked[: self._most] else mine.answer)
            if isinstance(answer, _Alone):
                return (await self._answers([question]))[0]
            if not isinstance(answer, _Anew):
                return answer

    def _forget(self, mine: _Asked[Q, A]) -> None:
        if mine in self._asked:
            self._asked.remove(mine)

    async def _lead(self, mine: _Asked[Q, A]) -> A | _Alone:
        """Send the message of those who are there; returns the answer to *mine*, which is among them."""
        batch, self._asked = self._asked[: self._most], self._asked[self._most :]
        rest: A | _Anew | _Alone | Exception = _ANEW
        try:
            answers = await self._answers([asked.question for asked in batch])
        except AsyncSDKError as error:
            if error.retryable or len(batch) == 1:
                rest = error
                raise
            rest = _ALONE
            return _ALONE
        else:
            for asked, answer in zip(batch, answers, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(answer)
            return answers[batch.index(mine)]
        finally:
            for asked in batch:
                if asked is not mine and not asked.answer.done():
                    if isinstance(rest, Exception):
                        asked.answer.set_exception(rest)
                    else:
                        asked.answer.set_result(rest)

    async def _answers(self, questions: Sequence[Q]) -> Sequence[A]:
        answers = await self._ask(questions)
        if len(answers) != len(questions):
            raise MalformedResponse(f"{len(questions)} questions were asked, {len(answers)} answers came")
        return answers
