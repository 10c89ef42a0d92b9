"""An interrupt at a chosen place: at each line, and before each system call, of a wait for input.

A library that is loaded before the others (`raising.c`, built here) stands in for `select`, `read`
and `recv`: it raises the signal when Python has looked for signals the last time, and the call has
not begun. That is the one place from which a read that waits does not come back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which(os.environ.get("CC", "cc"))
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None, reason="needs Linux and a C compiler"
)

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

static const char* armed = "";
static int left = 0, seen = 0;

/* SIGINT before the n-th call, from 0, of that function. */
void arm(const char* name, int n) { armed = strdup(name), left = n, seen = 0; }
int calls(void) { return seen; }
static void here(const char* name) {
  if (strcmp(name, armed)) return;
  ++seen;
  if (left-- == 0) raise(SIGINT);
}
int select(int n, fd_set* r, fd_set* w, fd_set* e, struct timeval* t) {
  here("select");
  int (*real)(int, fd_set*, fd_set*, fd_set*, struct timeval*) = dlsym(RTLD_NEXT, "select");
  return real(n, r, w, e, t);
}
ssize_t read(int f, void* p, size_t n) {
  here("read");
  return ((ssize_t (*)(int, void*, size_t))dlsym(RTLD_NEXT, "read"))(f, p, n);
}
ssize_t recv(int f, void* p, size_t n, int o) {
  here("recv");
  return ((ssize_t (*)(int, void*, size_t, int))dlsym(RTLD_NEXT, "recv"))(f, p, n, o);
}
"""

# What a child does, with its input open and silent: read one line, and then wait for the next.
CHILD = r"""
import ctypes, os, signal, stat, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.alarm(60)  # a lost interrupt: the wait does not end
from refimpl.cli.streams import listening, raw_lines

shim = ctypes.PyDLL(sys.argv[1])
source, into = os.pipe()


def check_wakeup():
    '''Nothing is written to a descriptor that is closed, and soon another file's.'''
    left = signal.set_wakeup_fd(-1)
    assert left == -1 or stat.S_ISSOCK(os.fstat(left).st_mode), left


def waits():
    '''Whether an interrupt ended a wait for the second line.'''
    os.write(into, b"a\n")
    with open(source, "rb", closefd=False) as stream:
        try:
            for line in raw_lines(stream):
                assert line == b"a\n"
        except KeyboardInterrupt:
            return True
    return False
"""

AT_CALLS = r"""
for name, count in ("select", 3), ("read", 1), ("recv", 1):
    for n in range(count):
        shim.arm(name.encode(), n)
        if name == "recv":  # is not reached without another signal, which is no interrupt
            signal.signal(signal.SIGUSR1, lambda *_: None)
            signal.set_wakeup_fd(-1)
            signal.setitimer(signal.ITIMER_REAL, 60)
            pid = os.getpid()
            import threading
            threading.Timer(0.2, lambda: os.kill(pid, signal.SIGUSR1)).start()
        assert waits(), (name, n)
        check_wakeup()
        while True:  # the line that was not read
            os.set_blocking(source, False)
            try:
                if not os.read(source, 4096):
                    break
            except BlockingIOError:
                break
        os.set_blocking(source, True)
        print(name, n)
"""

AT_LINES = r"""
def interrupted_at(n):
    '''Whether there was an n-th line, at which an interrupt came.'''
    count = 0

    def at_line(frame, event, argument):
        nonlocal count
        if event == "line" and "streams.py" in frame.f_code.co_filename:
            count += 1
            if count == n + 1:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return at_line

    shim.arm(b"select", 2)  # the end of lines: the wait
    sys.settrace(at_line)
    try:
        assert waits(), n
    finally:
        sys.settrace(None)
    return count > n


n = 0
while interrupted_at(n):
    check_wakeup()
    os.set_blocking(source, False)
    try:
        os.read(source, 4096)
    except BlockingIOError:
        pass
    os.set_blocking(source, True)
    n += 1
print(n)
"""

UNHEARD = r"""
class Deaf:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # what its handler raises ends here

shim.arm(b"", 0)
with listening():
    Deaf()
    assert waits()
print("heard")
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shim")
    (place / "raising.c").write_text(SHIM)
    built = [COMPILER, "-shared", "-fPIC", "-o", place / "raising.so", place / "raising.c", "-ldl"]
    subprocess.run(built, check=True, timeout=120)
    return place / "raising.so"


def said(shim: Path, script: str) -> list[str]:
    env = {**os.environ, "LD_PRELOAD": str(shim)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD + script, shim],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout.splitlines()


def test_interrupt_before_each_call_of_a_wait_ends_it(shim: Path) -> None:
    assert said(shim, AT_CALLS) == ["select 0", "select 1", "select 2", "read 0", "recv 0"]


def test_interrupt_at_each_line_of_a_wait_ends_it(shim: Path) -> None:
    (lines,) = said(shim, AT_LINES)
    assert int(lines) > 20


def test_interrupt_that_nobody_heard_ends_the_next_wait(shim: Path) -> None:
    assert said(shim, UNHEARD) == ["heard"]
