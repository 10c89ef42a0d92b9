"""Lanes: answers are those of in_passes, whoever shares a pass; turns, deadlines and limits."""

import os
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from support.serving import Model, Text, wait_for

from refimpl.backends.backend import threads_here, why_not_native
from refimpl.serve.lanes import Lanes, Use
from refimpl.serve.refusals import Refusal


@pytest.fixture
def lanes():
    found = Lanes(10_000, 8_000, budget=100, short=50)
    yield found
    found.stop()


def lengths(lanes, model, given, key="k", batch_size=None):
    out = np.zeros(len(given), int)
    for places, found in lanes.in_passes([Text(n) for n in given], model, batch_size, key=key):
        out[places] = found["length"]
    return out.tolist()


def together(count, does):
    """Results of so many threads, or what they raised."""
    out = [None] * count

    def one(i):
        try:
            out[i] = does(i)
        except Exception as error:
            out[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    return threads, out


@pytest.mark.skipif(sys.platform != "linux" or why_not_native() is not None, reason="the engine's")
def test_the_threads_of_documents_give_way(lanes):
    found = {}
    for name, length in (("query", 50), ("document", 51)):

        def run(batch, name=name):
            found[name] = os.getpriority(os.PRIO_PROCESS, 0)  # of the thread that calls
            return {"length": np.zeros(len(batch))}

        lengths(lanes, run, [length])
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert found == {"query": here, "document": min(here + 10, 19)}


def test_every_caller_gets_its_own_rows(lanes):
    lanes.most = 10**6
    model, rng = Model(), np.random.default_rng(0)
    asked = [rng.integers(1, 130, rng.integers(0, 30)).tolist() for _ in range(40)]
    threads, out = together(40, lambda i: lengths(lanes, model, asked[i], key=i % 3))
    for thread in threads:
        thread.join(120)
    assert out == asked and lanes.waiting == 0 and lanes.calls == 0
    assert Counter(n for one in model.passes for n in one) == Counter(n for a in asked for n in a)
    assert all(len(one) == 1 or sum(one) <= 100 for one in model.passes)


def test_callers_share_a_pass_if_their_keys_are_equal(lanes):
    model = Model()
    model.open.clear()
    threads, _ = together(1, lambda i: lengths(lanes, model, [9]))
    wait_for(lambda: model.started)
    more, out = together(4, lambda i: lengths(lanes, model, [10 + i], key="kkko"[i]))
    wait_for(lambda: lanes.calls == 4)
    model.open.set()
    for thread in threads + more:
        thread.join(120)
    assert out == [[10], [11], [12], [13]]
    assert sorted(map(sorted, model.passes)) == [[9], [10, 11, 12], [13]]


def test_a_query_does_not_wait_for_documents(lanes):
    documents, queries = Model(), Model()
    documents.open.clear()
    threads, out = together(3, lambda i: lengths(lanes, documents, [90] * 5))
    wait_for(lambda: lanes.waiting >= 14 * 90)
    assert lengths(lanes, queries, [7, 8], key="q") == [7, 8]
    documents.open.set()
    for thread in threads:
        thread.join(120)
    assert out == [[90] * 5] * 3


def test_callers_take_turns(lanes):
    model = Model()
    model.open.clear()
    first, _ = together(1, lambda _: lengths(lanes, model, [95] * 8))
    wait_for(lambda: lanes.waiting == 7 * 95)
    second, _ = together(1, lambda _: lengths(lanes, model, [94] * 2))
    wait_for(lambda: lanes.calls == 2)
    model.open.set()
    for thread in first + second:
        thread.join(120)
    turns = [one[0] for one in model.passes]
    assert turns == [95, 95, 94, 95, 94, 95, 95, 95, 95, 95]


def test_batch_size_holds(lanes):
    model = Model()
    assert lengths(lanes, model, [1] * 7, batch_size=3) == [1] * 7
    assert max(map(len, model.passes)) == 3
    with pytest.raises(ValueError, match="batch_size"):
        lengths(lanes, model, [1], batch_size=0)


def test_passes_at_the_same_time_share_the_cores():
    lanes = Lanes(10_000, 8_000, budget=100, short=50, threads=3)
    seen, all_three, lock = [], threading.Barrier(3, timeout=20), threading.Lock()

    def run(batch):
        with lock:
            seen.append(threads_here())
        if len(seen) in (2, 3, 4):
            all_three.wait()
        return {"length": np.array([len(e) for e in batch])}

    try:
        assert lengths(lanes, run, [20]) == [20] and seen == [3]
        held = Model()
        held.open.clear()
        first, _ = together(1, lambda _: lengths(lanes, held, [9], key="held"))
        wait_for(lambda: held.started)
        some, out = together(4, lambda i: lengths(lanes, run, [46 + i]))
        wait_for(lambda: lanes.calls == 4)
        time.sleep(0.05)
        assert seen == [3]  # these would not fill two more: they wait for the one that runs
        more, out_more = together(6, lambda i: lengths(lanes, run, [40 + i]))
        wait_for(lambda: len(seen) == 3)
        held.open.set()
        for thread in first + some + more:
            thread.join(120)
        assert sorted(out + out_more) == [[n] for n in range(40, 50)]
        assert set(seen[1:4]) == {1} and lanes.waiting == 0
        wait_for(lambda: not lanes.busy)
        assert lengths(lanes, run, [30]) == [30] and seen[-1] == 3
    finally:
        lanes.stop()


def test_what_waits_beyond_its_deadline_is_refused_and_not_computed(lanes):
    model = Model()
    model.open.clear()
    threads, _ = together(1, lambda i: lengths(lanes, model, [9]))
    wait_for(lambda: model.started)
    use = Use()
    with lanes.request(use, time.monotonic() + 0.01):
        with pytest.raises(Refusal) as refused:
            lengths(lanes, model, [33])
    assert refused.value.status == 503 and use.tokens == 33
    model.open.set()
    threads[0].join(120)
    assert lengths(lanes, model, [8]) == [8]
    assert [33] not in model.passes and lanes.waiting == 0


def test_no_more_waits_than_may(lanes):
    model = Model()
    model.open.clear()
    threads, _ = together(1, lambda i: lengths(lanes, model, [80] * 99))
    wait_for(lambda: lanes.waiting == 98 * 80)
    with pytest.raises(Refusal) as refused:
        lengths(lanes, model, [80] * 30)
    assert refused.value.status == 429 and refused.value.headers == {"Retry-After": "1"}
    with pytest.raises(Refusal) as refused:
        lengths(lanes, model, [80] * 101)
    assert refused.value.status == 422 and "8080 tokens; at most 8000" in refused.value.message
    model.open.set()
    threads[0].join(120)
    assert lengths(lanes, model, [80] * 100) == [80] * 100


def test_a_fault_of_a_pass_is_told_to_those_in_it_and_to_no_other(lanes):
    def broken(batch):
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        lengths(lanes, broken, [70, 70, 70])
    wait_for(lambda: lanes.calls == 0)
    assert lengths(lanes, Model(), [70, 70]) == [70, 70] and lanes.waiting == 0


def test_calls_of_the_same_texts_stand_apart(lanes):
    """Of several questions about the same texts each is found in the line by what it is, not by
    what it says."""
    model = Model()
    model.open.clear()
    threads, _ = together(1, lambda _: lengths(lanes, model, [9]))
    wait_for(lambda: model.started)
    texts, out = [Text(3), Text(4)], []

    def ask(key):
        (found,) = lanes.in_passes(texts, model, key=key)
        out.append(found[1]["length"].tolist())

    more, failed = [], []
    for i, key in enumerate("abac"):  # the third shares the first's pass, from behind the second
        some, found = together(1, lambda _, key=key: ask(key))
        more, failed = more + some, [*failed, found]
        wait_for(lambda i=i: lanes.calls == i + 1)
    model.open.set()
    for thread in threads + more:
        thread.join(120)
    assert out == [[4, 3]] * 4 and failed == [[None]] * 4 and lanes.waiting == 0


def test_who_is_gone_is_not_computed_for(lanes):
    model, use = Model(), Use()
    model.open.clear()
    threads, _ = together(1, lambda _: lengths(lanes, model, [9]))
    wait_for(lambda: model.started)

    def ask(_):
        with lanes.request(use):
            return lengths(lanes, model, [33])

    more, found = together(1, ask)
    wait_for(lambda: lanes.calls == 1)
    use.gone = True
    model.open.set()
    for thread in threads + more:
        thread.join(120)
    assert found[0].status == 503 and model.passes == [[9]] and lanes.waiting == 0


def test_a_text_that_fails_does_not_fail_those_beside_it(lanes):
    blocked = Model()
    blocked.open.clear()
    threads, _ = together(1, lambda _: lengths(lanes, blocked, [9], key="other"))
    wait_for(lambda: blocked.started)

    def run(batch):
        if any(len(e) == 13 for e in batch):
            raise ValueError("13 is none")
        return {"length": np.array([len(e) for e in batch])}

    more, out = together(4, lambda i: lengths(lanes, run, [11 + i]))
    wait_for(lambda: lanes.calls == 4)
    blocked.open.set()
    for thread in threads + more:
        thread.join(120)
    assert str(out[2]) == "13 is none" and out[:2] + out[3:] == [[11], [12], [14]]


def test_a_fault_of_figures_costs_no_answer():
    def broken(*_):
        raise OSError("the disk is full")

    lanes = Lanes(1000, 1000, observe=broken, queued=broken)
    assert [lengths(lanes, Model(), [n]) for n in (4, 600)] == [[4], [600]]
    lanes.stop()


def test_what_waits_is_told_when_it_changes():
    told, model = [], Model()
    lanes = Lanes(1000, 1000, queued=lambda calls, tokens: told.append((calls, tokens)))
    model.open.clear()
    threads, _ = together(1, lambda _: lengths(lanes, model, [7]))
    wait_for(lambda: model.started)
    more, _ = together(1, lambda _: lengths(lanes, model, [8]))
    wait_for(lambda: lanes.calls == 1)
    model.open.set()
    for thread in threads + more:
        thread.join(120)
    lanes.stop()
    assert told == [(1, 7), (0, 0), (1, 8), (0, 0)]


def test_a_request_is_counted(lanes):
    use = Use()
    with lanes.request(use):
        list(lanes.in_passes([Text(4), Text(5, lost=2)], Model(), key="k"))
        list(lanes.in_passes([Text(60)], Model(), key="k"))
        list(lanes.in_passes([], Model(), key="k"))
    assert (use.texts, use.tokens, use.truncated) == (3, 69, 1)
    assert use.queued_s is not None and use.computed_s >= 0


def test_stopping_computes_what_waits_and_takes_no_more():
    lanes, model = Lanes(1000, 1000), Model()
    model.open.clear()
    threads, first = together(1, lambda i: lengths(lanes, model, [4]))
    wait_for(lambda: model.started)
    more, out = together(3, lambda i: lengths(lanes, model, [5 + i]))
    wait_for(lambda: lanes.calls == 3)
    stopping = threading.Thread(target=lanes.stop)
    stopping.start()
    wait_for(lambda: lanes._stopped)
    with pytest.raises(Refusal, match="stopping"):
        lengths(lanes, model, [1])
    model.open.set()
    for thread in (*threads, *more, stopping):
        thread.join(120)
    assert first == [[4]] and out == [[5], [6], [7]]
