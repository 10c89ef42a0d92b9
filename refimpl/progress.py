"""A progress bar of one line on stderr, for loops that may take long.

`progress(iterable, label)` yields the items unchanged. By default it is silent unless stderr is a
terminal, so that logs and pipes stay clean. It uses no colour at all, so NO_COLOR has nothing to
switch off. Needs no package; knows the total when the iterable has a length.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Sized
from typing import TypeVar

T = TypeVar("T")

BAR_WIDTH = 24
# Seconds between two redraws: more often than the eye follows only slows the terminal down.
REDRAW_SECONDS = 0.1


def progress(
    iterable: Iterable[T], label: str, verbose: bool | None = None
) -> Generator[T, None, None]:
    """The items of `iterable`, with a bar on stderr that grows as they are taken.

    verbose: True always shows it, False never, None only when stderr is a terminal.
    """
    if verbose is None:
        verbose = sys.stderr.isatty()
    if not verbose:
        yield from iterable
        return
    total = len(iterable) if isinstance(iterable, Sized) else None
    drawn = time.monotonic()
    sys.stderr.write(f"\r{line(label, 0, total)}")
    done = 0
    try:
        for item in iterable:
            yield item
            done += 1
            if time.monotonic() - drawn >= REDRAW_SECONDS:
                drawn = time.monotonic()
                sys.stderr.write(f"\r{line(label, done, total)}")
                sys.stderr.flush()
    finally:
        sys.stderr.write(f"\r{line(label, done, total)}\n")
        sys.stderr.flush()


def line(label: str, done: int, total: int | None) -> str:
    """`label [#####.....] 5/10`, or `label 5` when the total is not known."""
    if not total:
        return f"{label} {done}"
    full = BAR_WIDTH * done // total
    return f"{label} [{'#' * full}{'.' * (BAR_WIDTH - full)}] {done}/{total}"
