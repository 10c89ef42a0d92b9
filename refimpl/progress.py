"""A progress line on stderr, for work that may take long: how far, how fast, how long still.

    for item in progress(items, "encode"): ...               encode [####....] 5/10  3.2/s  2 s left
    with Progress("embed") as p: p.advance(32, part=0.4)     embed [####......] 40%  32  3.2/s  ...
    for case in progress(cases, "verify", name=str): ...     verify [##....] 3/27  window-66  1.1/s

By default it is silent unless stderr is a terminal, so that logs and pipes stay clean. It uses no
colour at all, so NO_COLOR has nothing to switch off. Needs no package. Rate and time left are those
of the whole run so far, and shown once it has run for a second.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sized
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

BAR_WIDTH = 24
# Seconds between two redraws: more often than the eye follows only slows the terminal down.
REDRAW_SECONDS = 0.1
# Seconds before a rate means something.
RATE_SECONDS = 1.0


class Progress:
    """One line that is drawn anew as `advance` is called, and ended when the block ends.

    total: how many steps there will be, or None. verbose: True always shows it, False never, None
    only when stderr is a terminal.
    """

    def __init__(self, label: str, total: int | None = None, verbose: bool | None = None) -> None:
        self.label, self.total, self.done = label, total, 0
        self.part: float | None = None
        self.what = ""
        stream = sys.stderr
        self._stream = stream if (stream.isatty() if verbose is None else verbose) else None
        self._start = self._drawn = time.monotonic()
        self._width = 0

    def __enter__(self) -> Progress:
        self._draw()
        return self

    def advance(self, steps: int = 1, part: float | None = None) -> None:
        """So many more steps are done. part: of all the work, in 0 .. 1, where no total is known
        but, say, the bytes of a file are."""
        self.done += steps
        self.part = self.part if part is None else part
        if self._stream is not None and time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._draw()

    def now(self, what: str) -> None:
        """What is in hand, shown at once."""
        self.what = what
        self._draw()

    def clear(self) -> None:
        """Make room for other words on stderr; the line comes back when it is drawn next."""
        if self._stream is not None and self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()
            self._width = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.what = self.what if self.total is None and not self.done else ""
        self._draw("\n")

    def _draw(self, end: str = "") -> None:
        if self._stream is None:
            return
        self._drawn = time.monotonic()
        seconds = self._drawn - self._start
        text = line(self.label, self.done, self.total, seconds, self.part, self.what)
        text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line could not be redrawn
        self._stream.write(f"\r{text}{' ' * (self._width - len(text))}{end}")
        self._stream.flush()
        self._width = len(text)


def progress(
    iterable: Iterable[T],
    label: str,
    verbose: bool | None = None,
    name: Callable[[T], str] | None = None,
) -> Generator[T, None, None]:
    """The items of `iterable`, with a line on stderr that moves as they are taken.

    The total is known when the iterable has a length. name: what an item in hand is called; it
    stands in the line. verbose: see Progress.
    """
    total = len(iterable) if isinstance(iterable, Sized) else None
    with Progress(label, total, verbose) as shown:
        for item in iterable:
            if name is not None:
                shown.now(name(item))
            yield item
            shown.advance()


def line(
    label: str,
    done: int,
    total: int | None,
    seconds: float = 0.0,
    part: float | None = None,
    what: str = "",
) -> str:
    """`label [####....] 5/10  what  3.2/s  2 s left`; without a total its part of the bar in
    percent and the count, without either the count alone, and `label  what` where nothing is
    counted."""
    known = done / total if total else part
    shown = f"{done}/{total}" if total else f"{done}"
    if known is not None:
        full = int(BAR_WIDTH * min(known, 1.0))
        bar = f"[{'#' * full}{'.' * (BAR_WIDTH - full)}]"
        shown = f"{bar} {shown}" if total else f"{bar} {int(100 * known)}%  {shown}"
    if what and not total and not done:
        return f"{label}  {what}"
    out = [f"{label} {shown}", *([what] if what else [])]
    if done and seconds >= RATE_SECONDS:
        out.append(f"{rate(done / seconds)}/s")
        if known and known < 1:
            out.append(f"{duration(seconds * (1 - known) / known)} left")
        else:
            out.append(f"in {duration(seconds)}")
    return "  ".join(out)


def rate(per_second: float) -> str:
    """Three digits that matter: 0.12, 3.4, 163, 12,345."""
    if per_second < 1:
        return f"{per_second:.2g}"
    return f"{per_second:.1f}" if per_second < 10 else f"{per_second:,.0f}"


def duration(seconds: float) -> str:
    """9 s, 1:23 (minutes), 1:02:03."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
