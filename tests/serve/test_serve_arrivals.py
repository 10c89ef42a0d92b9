"""Calls of an event loop to the lanes: rows in order, one wake-up a pass, and an end to waiting."""

import asyncio
import time

import numpy as np
import pytest
from support.serving import Model, Text, wait_for

from refimpl.serve.arrivals import Arrivals
from refimpl.serve.lanes import Lanes, Use
from refimpl.serve.refusals import Refusal
from refimpl.serve.within import within


class Rows(Model):
    """Gives arrays."""

    def __call__(self, batch):
        return super().__call__(batch)["length"][:, None]


@pytest.fixture
def lanes():
    found = Lanes(10_000, 8_000, budget=100, short=50)
    yield found
    found.stop()


async def lengths(arrivals, model, given, key=0, deadline=float("inf"), use=None):
    texts = [Text(n) for n in given]
    deadline = min(deadline, time.monotonic() + 120)
    return (await arrivals.rows(texts, model, key, use or Use(), deadline))[:, 0].tolist()


def test_rows_come_in_the_order_of_the_texts(lanes):
    lanes.most = 10**6
    rng, model = np.random.default_rng(0), Rows()
    asked = [rng.integers(1, 60, rng.integers(1, 20)).tolist() for _ in range(50)]

    async def main():
        arrivals = Arrivals(lanes)
        return await asyncio.gather(*(lengths(arrivals, model, one) for one in asked))

    assert asyncio.run(main()) == asked and lanes.waiting == 0
    wait_for(lambda: not lanes.busy)


def test_a_pass_wakes_the_loop_once(lanes, monkeypatch):
    woken, model = [], Rows()

    async def main():
        loop, arrivals = asyncio.get_running_loop(), Arrivals(lanes)
        plain = loop.call_soon_threadsafe
        monkeypatch.setattr(
            loop, "call_soon_threadsafe", lambda *given: (woken.append(1), plain(*given))
        )
        model.open.clear()
        first = asyncio.ensure_future(lengths(arrivals, model, [50]))
        await asyncio.to_thread(wait_for, lambda: model.started)
        woken.clear()
        others = [asyncio.ensure_future(lengths(arrivals, model, [10])) for _ in range(10)]
        while lanes.calls < 10:
            await asyncio.sleep(0.001)
        model.open.set()
        assert await asyncio.gather(first, *others) == [[50]] + [[10]] * 10
        assert len(model.passes) == 2 and len(woken) == 2

    asyncio.run(main())


def test_faults_and_refusals_reach_who_asked_and_no_other(lanes):
    def broken(batch):
        raise ValueError("no such text")

    async def main():
        arrivals = Arrivals(lanes)
        given = (
            lengths(arrivals, broken, [5], "a"),
            lengths(arrivals, Rows(), [6], "b"),
            lengths(arrivals, Rows(), [8_001], "c"),
        )
        return await asyncio.gather(*given, return_exceptions=True)

    fault, right, much = asyncio.run(main())
    assert isinstance(fault, ValueError) and right == [6]
    assert isinstance(much, Refusal) and much.status == 422


@pytest.mark.parametrize("how", ["late", "cancelled", "gone"])
def test_nobody_waits_for_ever_and_what_nobody_wants_is_not_computed(lanes, how):
    model, use = Rows(), Use()
    model.open.clear()

    async def main():
        arrivals = Arrivals(lanes)
        first = asyncio.ensure_future(lengths(arrivals, model, [9]))
        await asyncio.to_thread(wait_for, lambda: model.started)
        deadline = time.monotonic() + (0.05 if how == "late" else 60)
        second = asyncio.ensure_future(lengths(arrivals, model, [33], 0, deadline, use))
        await asyncio.sleep(0)
        assert lanes.calls == 1 and lanes.busy
        if how == "cancelled":
            second.cancel()
        use.gone = how == "gone"
        if how != "gone":  # it ends while the pass before it runs
            with pytest.raises(Refusal if how == "late" else asyncio.CancelledError):
                await second
        model.open.set()
        if how == "gone":
            with pytest.raises(Refusal):
                await second
        return await first

    assert asyncio.run(main()) == [9]
    wait_for(lambda: not lanes.busy)
    assert len(model.passes) == 1 and lanes.waiting == 0


def test_within_ends_what_takes_too_long_and_nothing_else():
    async def main():
        with within(0), within(60):
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError), within(0.01):
            await asyncio.sleep(60)
        task = asyncio.ensure_future(forever())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def forever():
        with within(60):
            await asyncio.sleep(60)

    asyncio.run(main())
