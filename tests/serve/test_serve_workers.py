"""The supervisor: strangers among its children, and a signal while it starts."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.extras
pytest.importorskip("prometheus_client")

START = """
import os, signal, sys, tempfile, time
os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()
from refimpl.serve.workers import supervise
def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as stream:
        return len(stream.read().split())
"""
STRANGER = """
gone, leave = os.pipe()
if os.fork() == 0:  # as a container hands orphans to its first process
    os.close(leave)
    os.read(gone, 1)
    os._exit(5)
os.close(gone)
def child(begun):
    os.close(leave)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    begun()
    while True: signal.pause()
def begun():
    os.close(leave)
    looks = iter(range(120))
    def look(*_):
        if children() != 2 and next(looks, None) is not None:
            signal.alarm(1)  # the stranger has not ended, or another took its place
            return
        print("children", children(), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGALRM, look)
    signal.alarm(1)
print("code", supervise(2, child, begun))
"""
EARLY = """
def child(begun):
    os.kill(os.getppid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True: signal.pause()
print("code", supervise(40, child, lambda: print("begun")), children())
"""


def output(script):
    run = subprocess.run(
        [sys.executable, "-c", START + script], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.split("\n"), run.stderr


def test_a_stranger_that_ends_is_no_worker():
    out, err = output(STRANGER)
    assert out == ["children 2", "code 0", ""] and err == ""


def test_a_signal_while_it_starts_ends_all_of_it():
    out, _ = output(EARLY)
    assert out == ["code 0 0", ""]
