"""Requests that run at the same time share passes: the batcher with two lanes.

    lanes.in_passes     in the place of batches.in_passes: a task runs as it does in-process
    with lanes.request(use, deadline): ...      who asks, and what it took: texts, tokens, cut
    lanes.ask(..., told, woken)                 the same without waiting (arrivals.py)

A call waits for all of its tokens, so that decides its lane: up to SHORT it is a query, else a
document. Each lane computes beside the other: a query never waits for the end of a long pass, whose
threads give way to it. Where a lane has several passes to do, they run at the same time and share
the cores: of as many as there are cores each has a thread, which waits for no other. Within a lane
calls take turns, a pass each, and one that leaves room in its pass takes others along; what may
share one is batches.fits' to say. Promise: no more than `most` tokens wait (Refusal 429); what
waits beyond its deadline (503), or for somebody who is gone, is not computed. Long because turns,
limits and threads are one lock's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.backend import give_way, on_threads
from ..tasks.batches import TOKENS, check_batch_size, fits
from ..text.tokenizer import Encoded
from .refusals import Refusal

SHORT = 512
"""Tokens of a call that counts as a query."""
LONG = 1  # the lane of documents
LATE = "the request was not done within its time"


@dataclass(eq=False)
class Use:
    """What a request took: of texts, their tokens, those that were cut; seconds that it waited for
    its first pass, and that passes ran. body: its bytes; deadline: of monotonic time; who asked may
    be gone."""

    deadline: float = float("inf")
    gone: bool = False
    body: int = 0
    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    queued_s: float | None = None
    computed_s: float = 0.0


def nobody() -> None:
    """Who waits for its own call is woken by what it is told."""


@dataclass(eq=False)  # a call is none but itself, whatever its texts
class Call:
    """One call: places by length, those from `next` on still to run. Of each pass the lane's thread
    gives `told` (places, rows), or what was raised, and calls `woken` when all who shared it were
    told: neither may wait."""

    encodings: Sequence[Encoded]
    order: Any
    run: Callable[[list[Encoded]], Any]
    key: Hashable
    batch_size: int | None
    use: Use
    told: Callable[[Any], object]
    woken: Callable[[], object] = nobody
    born: float = field(default_factory=time.monotonic)
    next: int = 0
    given_up: bool = False

    def lengths(self) -> Iterator[int]:
        return (len(self.encodings[i]) for i in self.order[self.next :])


class Lanes:
    """See above. most: tokens that may wait in all; of_request: that one request may have (Refusal
    422); budget: tokens of a pass; threads: that one takes; observe(texts, tokens, seconds) is told
    of each pass, queued(calls, tokens) of what waits whenever it changes."""

    def __init__(
        self,
        most: int,
        of_request: int,
        *,
        budget: int = TOKENS,
        short: int = SHORT,
        threads: int = 1,
        observe: Callable[[int, int, float], object] = lambda *_: None,
        queued: Callable[[int, int], object] = lambda *_: None,
    ) -> None:
        self.most, self.of_request, self.budget = most, of_request, budget
        self.short, self.observe, self.queued = short, observe, queued
        self._cores = threads  # and a lane's own threads: so many passes it runs at a time
        self._calls: tuple[deque[Call], deque[Call]] = deque(), deque()
        self._lock = threading.Lock()
        self._news = [threading.Condition(self._lock) for _ in self._calls]  # of each lane
        self._of_thread = threading.local()
        self._stopped = False
        # Of each lane: tokens that wait, passes that run, and cores that these have.
        self._tokens, self._running, self._taken = [0, 0], [0, 0], [0, 0]
        self._threads = [
            threading.Thread(target=self._work, args=(which,), daemon=True, name=f"lane-{name}")
            for which, name in ((0, "short"), (LONG, "long"))
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Tokens that wait."""
        return sum(self._tokens)

    @property
    def calls(self) -> int:
        """Calls that wait or run."""
        with self._lock:
            return self._count()

    def _count(self) -> int:
        return sum(map(len, self._calls))

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        with self._lock:
            return bool(sum(self._running) or self._count())

    @contextmanager
    def request(self, use: Use, deadline: float = float("inf")) -> Iterator[None]:
        """The calls of this thread within the block are one request's, which `use` counts.
        deadline: of monotonic time."""
        use.deadline = deadline
        self._of_thread.use = use
        try:
            yield
        finally:
            del self._of_thread.use

    def in_passes(
        self,
        encodings: Sequence[Encoded],
        run: Callable[[list[Encoded]], Any],
        batch_size: int | None = None,
        *,
        key: Hashable = None,
        **_: Any,
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """See batches.in_passes. Raises Refusal, and what `run` raises."""
        use = getattr(self._of_thread, "use", None) or Use()
        found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = self.ask(encodings, run, batch_size, key=key, use=use, told=found.put)
        return self._results(call, found)

    def ask(
        self,
        encodings: Sequence[Encoded],
        run: Callable[[list[Encoded]], Any],
        batch_size: int | None = None,
        *,
        key: Hashable,
        use: Use,
        told: Callable[[Any], object],
        woken: Callable[[], object] = nobody,
    ) -> Call:
        """Get in line, and return. Raises Refusal. See Call; of no texts nothing is told."""
        check_batch_size(batch_size)
        lengths = [len(e) for e in encodings]
        tokens = sum(lengths)
        if use.tokens + tokens > self.of_request:
            raise Refusal(422, f"{use.tokens + tokens} tokens; at most {self.of_request} a request")
        order = np.argsort([-n for n in lengths], kind="stable")
        call = Call(encodings, order, run, key, batch_size, use, told, woken)
        lane = int(tokens > self.short)
        with self._lock:
            if self._stopped:
                raise Refusal(503, "the server is stopping")
            if self.waiting and self.waiting + tokens > self.most:
                raise Refusal(
                    429, f"{self.waiting} tokens wait already, of {self.most} that may; try later"
                )
            self._tokens[lane] += tokens
            use.texts += len(encodings)
            use.tokens += tokens
            use.truncated += sum(e.lost > 0 for e in encodings)
            if lengths:
                self._calls[lane].append(call)
                if self._begins(lane):
                    self._news[lane].notify()
            self._tell(self.queued, self._count(), self.waiting)
        return call

    def stop(self) -> None:
        """Compute what waits, take no more, and end."""
        with self._lock:
            self._stopped = True
            for news in self._news:
                news.notify_all()
        for thread in self._threads:
            thread.join()

    def _results(
        self, call: Call, told: queue.SimpleQueue[Any]
    ) -> Iterator[tuple[np.ndarray, Any]]:
        left = len(call.encodings)
        try:
            while left:
                wait = call.use.deadline - time.monotonic()
                try:
                    found = told.get(timeout=None if wait == float("inf") else max(wait, 0))
                except queue.Empty:
                    raise Refusal(503, LATE) from None
                if isinstance(found, BaseException):
                    raise found
                left -= len(found[0])
                yield found
        finally:
            call.given_up = True

    # -- the lane's thread ------------------------------------------------------------------------

    def _work(self, which: int) -> None:
        calls, news = self._calls[which], self._news[which]
        if which == LONG:
            give_way()
        while True:
            with self._lock:
                while not (self._stopped or self._begins(which)):
                    news.wait()
                if not calls:
                    return
                shares = self._next_pass(which)
                threads = self._share(which) if shares else 0
                self._running[which] += bool(shares)
                self._taken[which] += threads
                if self._begins(which):
                    news.notify()
                self._tell(self.queued, self._count(), self.waiting)
            if shares:
                with on_threads(threads):
                    self._run(shares)
                with self._lock:
                    self._running[which] -= 1
                    self._taken[which] -= threads

    def _begins(self, which: int) -> bool:
        """Whether there is something to do for one more of the lane's threads: passes leave it a
        core, or there are more to be filled than threads."""
        idle = self._cores - self._running[which]
        plenty = self._tokens[which] >= idle * self.budget
        return bool(self._calls[which]) and (self._taken[which] < self._cores or plenty)

    def _share(self, which: int) -> int:
        """Threads of a pass that begins, of those that run and those that could be filled."""
        passes = self._running[which] + 1 + self._tokens[which] // self.budget
        return max(1, self._cores // passes)

    def _next_pass(self, which: int) -> list[tuple[Call, np.ndarray]]:
        """Who shares the next pass, and with which places. The first call goes to the end of the
        line where it is not done."""
        now, calls = time.monotonic(), self._calls[which]
        for call in [c for c in calls if c.given_up or c.use.gone or c.use.deadline < now]:
            calls.remove(call)
            self._tokens[which] -= sum(call.lengths())
            call.told(Refusal(503, "the request waited beyond its time"))
            call.woken()
        if not calls:
            return []
        first = calls[0]
        together = [c for c in calls if c.key == first.key and c.batch_size == first.batch_size]
        lengths = (n for call in together for n in call.lengths())
        count = fits(lengths, first.batch_size, self.budget)
        shares = []
        for call in together:
            places = call.order[call.next : call.next + count]
            if not len(places):
                break
            call.next += len(places)
            count -= len(places)
            shares.append((call, places))
            self._tokens[which] -= sum(len(call.encodings[i]) for i in places)
            if call.use.queued_s is None:
                call.use.queued_s = now - call.born
            if call.next == len(call.order):
                calls.remove(call)
        if calls and calls[0] is first:
            calls.rotate(-1)
        return shares

    def _run(self, shares: list[tuple[Call, np.ndarray]]) -> None:
        batch = [call.encodings[i] for call, places in shares for i in places]
        start = time.monotonic()
        try:
            found = shares[0][0].run(batch)
        except BaseException as error:
            if len(shares) > 1:  # whose fault it is shows when each is alone
                for one in shares:
                    self._run([one])
                return
            ((call, _),) = shares
            call.given_up = True
            call.told(error)
            call.woken()
            return
        seconds = time.monotonic() - start
        at = 0
        for call, places in shares:
            call.use.computed_s += seconds
            call.told((places, rows(found, at, at + len(places))))
            at += len(places)
        for woken in {call.woken for call, _ in shares}:
            woken()
        self._tell(self.observe, len(batch), sum(map(len, batch)), seconds)

    @staticmethod
    def _tell(told: Callable[..., object], *what: Any) -> None:
        """No figure is worth an answer."""
        with suppress(Exception):
            told(*what)


def rows(found: Any, start: int, end: int) -> Any:
    """Some rows of a pass' result: of an array, or of each array of a dict."""
    if isinstance(found, dict):
        return {name: value[start:end] for name, value in found.items()}
    return found[start:end]


def in_order(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The rows of all passes of a call, of which there is one at least, in the order of its texts:
    [texts, ...]."""
    places, found = zip(*parts, strict=True)
    if len(found) == 1 == len(found[0]):
        return found[0]
    out = np.empty_like(together := np.concatenate(found))
    out[np.concatenate(places)] = together
    return out
