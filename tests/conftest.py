"""Settings that every test shares: processes, one BLAS thread, and the hypothesis profiles.

`pytest` alone, which runs everything, runs it in a process a core where pytest-xdist is installed;
what is named (`pytest tests/files`), and anything under `-s` or `--pdb`, runs in this process.

`ci` (the default) draws the same few examples on every run, so that a red run can be repeated;
`HYPOTHESIS_PROFILE=soak` draws many new ones and remembers those that failed.
Neither has a deadline: no test asserts on time. But no test waits for ever: one that takes longer
than LIMIT fails where it stands, and where even that does not end it, the run ends with every
thread's stack.
"""

import faulthandler
import importlib.util
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

# Seconds of one test with its fixtures, many times what the slowest takes on an idle machine; those
# run by hand take minutes.
LIMIT, LIMIT_BY_HAND = 600, 7200
BY_HAND = ("soak", "oracle", "gallery")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MOST_PROCESSES = 8  # each collects every test


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    options, whole = config.option, config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if "PYTEST_XDIST_WORKER" in os.environ or not whole:  # a worker starts no workers
        return
    unsaid = getattr(options, "numprocesses", 0) is None and options.dist == "no"
    if unsaid and options.capture != "no" and not options.usepdb:
        options.numprocesses, options.dist = min(CORES, MOST_PROCESSES), "worksteal"


_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        config.stash[_stderr] = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    by_hand = any(item.get_closest_marker(name) for name in BY_HAND)
    limit = LIMIT_BY_HAND if by_hand else LIMIT
    faulthandler.dump_traceback_later(limit + 60, exit=True, file=item.config.stash[_stderr])
    before = None
    if hasattr(signal, "SIGALRM"):

        def over(number: int, frame: FrameType | None) -> None:
            pytest.fail(f"{item.nodeid} took more than {limit} s")

        before = signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        if before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


# Read by numpy's BLAS when it loads, which is after this file. The products here are small: more
# threads than idle cores make them many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Children import the package that is tested here, installed or not, wherever they start. It is
# found without being imported.
_package = importlib.util.find_spec("refimpl")
assert _package and _package.origin
_place = str(Path(_package.origin).parents[1])
if _place not in (_paths := os.environ.get("PYTHONPATH", "").split(os.pathsep)):
    os.environ["PYTHONPATH"] = os.pathsep.join([_place, *filter(None, _paths)])

settings.register_profile(
    "ci",
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "soak",
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where it can be had: the disk's time is none of these tests'."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)
