"""The engine among threads, forks and signals: what one process expects of another's guest.

No test asserts on time; those that wait for something to happen end with the limit of every test.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.cases import Case, integers
from support.children import in_child
from support.native import engine_of, extension, repeated, tiers

import refimpl

native = extension()

CASE = Case("process", "v5", "fsfs", 64, 4, 96, 61, 16, 1e4, 1e3)
IDS = integers((400,), CASE.vocab, 1, "ids")
WHOLE = np.array([0, 400])
FORKS = 50


def tiny(**options) -> refimpl.ModernBERT:
    return refimpl.ModernBERT.from_variant("tiny", pretrained=True, backend="native", **options)


def test_a_fork_after_use_answers():
    engine = engine_of(CASE, tiers()[0], num_threads=4)
    expected = engine.packed(IDS, WHOLE)
    for _ in range(FORKS):
        assert in_child(lambda: np.array_equal(engine.packed(IDS, WHOLE), expected)) == 0
    # the parent's helpers are still there, and a child's child gets its own
    assert np.array_equal(engine.packed(IDS, WHOLE), expected)
    assert in_child(lambda: in_child(lambda: engine.packed(IDS, WHOLE).any()) == 0) == 0


def test_a_fork_while_others_compute_answers():
    engine = engine_of(CASE, tiers()[0], num_threads=2)
    expected = engine.packed(IDS, WHOLE)
    with repeated(lambda: engine.packed(IDS, WHOLE)):
        for _ in range(10):
            assert in_child(lambda: np.array_equal(engine.packed(IDS, WHOLE), expected)) == 0


def test_several_threads_share_a_model_and_pack_it_once(monkeypatch):
    made = []
    plain = refimpl.backends.engine.Engine.__init__

    def counted(self, *args, **kwargs):
        made.append(self)
        plain(self, *args, **kwargs)

    monkeypatch.setattr(refimpl.backends.engine.Engine, "__init__", counted)
    model, ids = tiny(num_threads=2), IDS[None] % 50
    results = [None] * 6
    start = threading.Barrier(len(results))

    def run(i):
        start.wait()
        results[i] = model(ids[:, : 50 * (i + 1)])["last_hidden_state"]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(results))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(made) == 1
    for i, found in enumerate(results):
        np.testing.assert_array_equal(found, model(ids[:, : 50 * (i + 1)])["last_hidden_state"])


def test_copies_of_a_used_model_answer_the_same():
    model, ids = tiny(), IDS[None, :20] % 50
    expected = model(ids)["last_hidden_state"]
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        assert other.backend == "native"
        np.testing.assert_array_equal(other(ids)["last_hidden_state"], expected)


def test_other_python_threads_run_during_a_forward_pass():
    engine, ids = engine_of(CASE, tiers()[0]), np.tile(IDS, 20)
    started, done, turns = threading.Event(), threading.Event(), 0

    def compute():
        started.set()
        engine.packed(ids, np.array([0, len(ids)]))
        done.set()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e6)  # whoever has the GIL gives it away by itself, or not at all
    try:
        thread = threading.Thread(target=compute)
        thread.start()
        started.wait()
        while not done.is_set():
            turns += 1
            time.sleep(0)
        thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert turns > 1


@pytest.mark.parametrize("threads", [1, 2])
def test_signals_are_handled_within_a_layer(threads):
    """The third call of the handler ends a pass of one layer: had they waited for the layer's end,
    many signals would be one call."""
    engine = engine_of(Case("wide", "v5", "f", 64, 4, 96, 61, 16, 1e4, 1e3), tiers()[0], threads)
    ids, calls = np.tile(IDS, 60), []

    def handler(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        signal.setitimer(
            signal.ITIMER_REAL, 0.001
        )  # from here, so that no call begins within a call

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        with pytest.raises(KeyboardInterrupt):
            engine.packed(ids, np.array([0, len(ids)]))
        during = len(calls)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert during == 3
    assert engine.packed(IDS, WHOLE).any()


def test_ctrl_c_ends_a_forward_pass_and_leaves_the_engine_whole():
    engine = engine_of(CASE, tiers()[0], num_threads=2)
    expected = engine.packed(IDS, WHOLE)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            while True:
                engine.packed(IDS, WHOLE)
    finally:
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(engine.packed(IDS, WHOLE), expected)


def child(code: str, variables: dict[str, str]) -> str:
    """What another Python prints, without this one's choice of threads."""
    env = {k: v for k, v in os.environ.items() if not k.endswith("_THREADS")} | variables
    installed = Path(refimpl.__file__).parents[1]  # where the tested package is, with its extension
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed, env=env, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "cpus", "expected"),
    [
        ({}, 1, 1),
        ({"REFIMPL_THREADS": "5"}, 1, 5),
        ({"OMP_NUM_THREADS": "3"}, 1, 3),
        ({"REFIMPL_THREADS": "2", "OMP_NUM_THREADS": "7"}, 1, 2),
        ({"REFIMPL_THREADS": "x", "OMP_NUM_THREADS": "-1"}, 1, 1),
        ({"REFIMPL_THREADS": "99999999999"}, 1, 256),
    ],
)
def test_threads_follow_the_environment_else_the_affinity(variables, cpus, expected):
    code = (
        f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cpus}])\n"
        "from refimpl.backends.backend import native; print(native().default_threads())"
    )
    assert int(child(code, variables)) == expected


def test_threads_beyond_the_engines_most_are_told_as_that():
    most = child(
        "from refimpl.backends.backend import native; print(native().default_threads())",
        {"REFIMPL_THREADS": str(10**9)},
    )
    model = refimpl.ModernBERT.from_variant("tiny", backend="native", num_threads=10**30)
    assert model.engine.num_threads == int(most)
    assert model([[1, 2]])["last_hidden_state"].shape == (1, 2, 256)


def test_one_cpu_of_affinity_uses_one_thread():
    code = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from refimpl import ModernBERT\n"
        "import threading\n"
        "first = threading.Thread(target=int)\n"  # a sanitizer's own thread is born with it
        "first.start(), first.join()\n"
        "def threads_born(**options):\n"
        "    model = ModernBERT.from_variant('tiny', backend='native', **options)\n"
        "    before = set(os.listdir('/proc/self/task'))\n"
        "    model([list(range(5, 305))])\n"
        "    return len(set(os.listdir('/proc/self/task')) - before)\n"
        "print(threads_born(), threads_born(num_threads=3))"
    )
    assert child(code, {}) == "0 2"


@pytest.mark.parametrize(
    "call",
    ["forward(ids, None, whole)", "trace(ids, None, whole, tap=lambda *_: None)"],
    ids=["forward", "trace"],
)
def test_a_daemon_thread_within_the_engine_does_not_abort_the_exit(call):
    """Python ends such a thread when it asks for the GIL back, here or in a callback."""
    code = (
        "import threading, numpy as np\n"
        "from refimpl import ModernBERT\n"
        "from refimpl.backends.engine import Engine\n"
        "model = ModernBERT.from_variant('tiny')\n"
        "engine = Engine(model.config, dict(model.params), 1)._native\n"
        "ids, whole, begun = np.arange(20), np.array([0, 20]), threading.Event()\n"
        "def compute():\n"
        "    while True:\n"
        f"        engine.{call}\n"
        "        begun.set()\n"
        "threading.Thread(target=compute, daemon=True).start()\n"
        "begun.wait()\n"
        "print('over')"
    )
    assert child(code, {}) == "over"
