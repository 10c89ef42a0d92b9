"""An end to what a task of asyncio waits for: asyncio.timeout, which Python 3.10 has not.

    with within(seconds): await ...         TimeoutError behind it; 0 for no end

asyncio.wait_for would make a task of what it waits for, for every request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """See above. Whoever cancels the task itself is obeyed."""
    task, late = asyncio.current_task(), False
    assert task is not None
    if not seconds:
        yield
        return

    def end() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, end)
    try:
        yield
    except asyncio.CancelledError:
        if late:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
