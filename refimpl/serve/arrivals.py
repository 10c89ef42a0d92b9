"""Calls to the lanes from an event loop: none holds a thread, and a pass wakes the loop once.

    rows = await arrivals.rows(encodings, run, key, use, deadline)      in the order of the texts

A thread for each request costs more than a small model's text: two switches between threads, and
the interpreter's lock handed around among all that wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..text.tokenizer import Encoded
from .lanes import LATE, Lanes, Use, in_order
from .refusals import Refusal


class Arrivals:
    """Of one loop, that which runs when this is made."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._loop = asyncio.get_running_loop()
        self._found: deque[tuple[asyncio.Future[Any], Any]] = deque()

    async def rows(
        self,
        encodings: Sequence[Encoded],
        run: Callable[[list[Encoded]], np.ndarray],
        key: Hashable,
        use: Use,
        deadline: float,
    ) -> np.ndarray:
        """What `run` gives for each text, of which there is one at least: [texts, ...]. key: see
        batches.in_passes; deadline: of monotonic time. Raises Refusal, and what `run` raises."""
        whole: asyncio.Future[Any] = self._loop.create_future()
        parts: list[tuple[np.ndarray, np.ndarray]] = []

        def told(found: Any) -> None:
            if not isinstance(found, BaseException):
                parts.append(found)  # by two threads at once, maybe: then both find it whole
                if sum(len(places) for places, _ in parts) < len(encodings):
                    return
            self._found.append((whole, found))

        use.deadline = deadline
        call = self._lanes.ask(encodings, run, key=key, use=use, told=told, woken=self._woken)
        timer = self._loop.call_later(max(deadline - time.monotonic(), 0), _late, whole)
        try:
            await whole
        finally:
            timer.cancel()
            call.given_up = True
        return in_order(parts)

    def _woken(self) -> None:
        """In a lane's thread."""
        if self._found:
            with suppress(RuntimeError):  # the loop has ended, and with it those who waited
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        while self._found:
            whole, found = self._found.popleft()
            if whole.done():  # late, or cancelled
                continue
            if isinstance(found, BaseException):
                whole.set_exception(found)
            else:
                whole.set_result(None)


def _late(whole: asyncio.Future[Any]) -> None:
    if not whole.done():
        whole.set_exception(Refusal(503, LATE))
