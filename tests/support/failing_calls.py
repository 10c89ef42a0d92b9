"""System calls of a forked child that fail on demand, told to this process by the kernel.

    calls = SystemCalls.of(action)            the names of all that `action` makes, in order
    SystemCalls.of(action, fail=(7, EIO))     the same, and the eighth fails without being done
    SystemCalls.of(action, at=(7, function))  ... and this process does something before the eighth
    SystemCalls.of(action, at=(7, kill))      ... such as ending the child, which is no error then

A seccomp filter hands every call of the child to its parent (user notification, Linux 5.5), which
lets it go on or answers in the kernel's place. Left out are memory, signals, clocks and the end of
the process: a save asks for none of these by itself.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

# Of x86-64: what is left alone ...
BRK, MMAP, MPROTECT, MUNMAP, MREMAP = 12, 9, 10, 11, 25
LEFT_ALONE = {
    BRK, MMAP, MPROTECT, MUNMAP, MREMAP, 13, 14, 15, 24, 35, 39, 46, 60, 96, 98, 131, 186, 201,
    202, 228, 230, 231, 234, 334,
}  # fmt: skip
# ... what says that the action is over ...
GETPPID = 110
# ... and what a save may call, with the errors that it can give.
DISK = "EIO ENOSPC EDQUOT EROFS ESTALE"
CALLS: dict[int, tuple[str, str]] = {
    0: ("read", "EIO EINTR ESTALE"),
    1: ("write", f"{DISK} EFBIG EINTR"),
    3: ("close", "EIO ENOSPC EDQUOT EINTR"),
    4: ("stat", "EIO EACCES ENOMEM ELOOP ESTALE"),
    5: ("fstat", "EIO ENOMEM ESTALE"),
    6: ("lstat", "EIO EACCES ENOMEM ESTALE"),
    8: ("lseek", "EINVAL ESPIPE"),
    16: ("ioctl", "ENOTTY EINVAL"),
    17: ("pread64", "EIO EINTR ESTALE"),
    28: ("madvise", "EINVAL EAGAIN EIO ENOMEM"),
    32: ("dup", "EMFILE"),
    72: ("fcntl", "EINVAL EMFILE"),
    73: ("flock", "EWOULDBLOCK ENOLCK EINVAL EINTR ENOSYS EOPNOTSUPP"),
    74: ("fsync", f"{DISK} EINVAL ENOSYS EOPNOTSUPP EINTR"),
    82: ("rename", f"{DISK} EACCES EPERM EBUSY EXDEV ENOMEM"),
    83: ("mkdir", f"{DISK} EACCES EPERM EMLINK ENOMEM"),
    84: ("rmdir", "EIO EACCES EPERM EBUSY EROFS ENOTEMPTY"),
    87: ("unlink", "EIO EACCES EPERM EBUSY EROFS ESTALE"),
    # ENOENT is what a folder that is gone gives, and to glibc the end of one.
    217: ("getdents64", "EIO EACCES"),
    257: ("openat", f"{DISK} EACCES EPERM EMFILE ENFILE ENOMEM EINTR"),
    258: ("mkdirat", f"{DISK} EACCES"),
    262: ("newfstatat", "EIO EACCES ENOMEM ESTALE"),
    263: ("unlinkat", "EIO EACCES EPERM EBUSY EROFS ESTALE"),
    264: ("renameat", f"{DISK} EACCES EXDEV"),
    318: ("getrandom", "ENOSYS EAGAIN"),
    332: ("statx", "EIO EACCES ENOMEM ENOSYS"),
}

SET_FILTER, NEW_LISTENER, NO_NEW_PRIVS, SECCOMP = 1, 8, 38, 317
ASK_PARENT, ALLOW = 0x7FC0_0000, 0x7FFF_0000
RECEIVE, ANSWER, GO_ON = 0xC050_2100, 0xC018_2101, 1
SECONDS = 60  # that an action may take


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def code() -> bytes:
    """The filter: allow what is left alone, ask the parent about the rest."""
    left = sorted(LEFT_ALONE)
    load = struct.pack("HBBI", 0x20, 0, 0, 0)  # the call's number
    jumps = [struct.pack("HBBI", 0x15, len(left) - i, 0, n) for i, n in enumerate(left)]
    ends = [struct.pack("HBBI", 0x06, 0, 0, value) for value in (ASK_PARENT, ALLOW)]
    return b"".join([load, *jumps, *ends])


def listen() -> int:
    """From here on the calls of this process wait for an answer on the descriptor returned."""
    libc = ctypes.CDLL(None, use_errno=True)
    text = code()
    program = Program(len(text) // 8, text)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    found = libc.syscall(SECCOMP, SET_FILTER, NEW_LISTENER, ctypes.byref(program))
    if found < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return found


@dataclass
class SystemCalls:
    """What a run of the action did: the calls that it made, and how it ended."""

    names: list[str]
    error: str  # "" when it returned, else the type of what it raised and its text

    @staticmethod
    def of(
        action: Callable[[], object],
        fail: tuple[int, int] | None = None,
        at: tuple[int, Callable[[int], object]] | None = None,
    ) -> SystemCalls:
        """Run `action` in a child. fail: the place of a call in the order, and its errno. at: such
        a place, and what is done there with the child's id."""
        ours, theirs = socket.socketpair()
        said, say = os.pipe()
        child = os.fork()
        if child == 0:
            run_child(action, theirs, say)
        theirs.close()
        os.close(say)
        ours.settimeout(SECONDS)
        try:
            _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
            names = answer(listener, fail, at, child)
            os.close(listener)
            with os.fdopen(said, "rb") as stream:
                error = stream.read().decode()
            assert os.waitpid(child, 0)[1] == (signal.SIGKILL if at and at[1] is kill else 0), error
        finally:
            ours.close()
        return SystemCalls(names, error)


def run_child(action: Callable[[], object], parent: socket.socket, say: int) -> None:
    try:
        descriptor = array.array("i", [listen()])
        parent.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
        error = ""
        try:
            action()
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
        os.getppid()
        os.write(say, error.encode())
        os._exit(0)
    finally:
        os._exit(1)


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)


def answer(
    listener: int,
    fail: tuple[int, int] | None,
    at: tuple[int, Callable[[int], object]] | None,
    child: int,
) -> list[str]:
    """Answer a child's calls until it ends; the names of those of the action."""
    names: list[str] = []
    over = False
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    while True:
        events = waiting.poll(SECONDS * 1000)
        assert events, f"no call within {SECONDS} s; so far {names[-5:]}"
        if not events[0][1] & select.POLLIN:
            return names
        request = bytearray(80)
        fcntl.ioctl(listener, RECEIVE, request, True)
        asked, number = struct.unpack_from("=Q8xi", request)
        over = over or number == GETPPID
        error = 0
        if not over:
            if fail is not None and fail[0] == len(names):
                error = -fail[1]
            if at is not None and at[0] == len(names):
                at[1](child)
                if at[1] is kill:
                    return names
            names.append(CALLS[number][0] if number in CALLS else f"call {number}")
        reply = struct.pack("=QqiI", asked, 0, error, 0 if error else GO_ON)
        fcntl.ioctl(listener, ANSWER, bytearray(reply), True)


ERRORS = {
    name: [getattr(errno, e) for e in dict.fromkeys(text.split())] for name, text in CALLS.values()
}


def why_not() -> str | None:
    """Why this does not work here, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or not hasattr(socket, "recv_fds"):
        return "needs Linux on x86-64"
    child = os.fork()
    if child == 0:
        try:
            listen()
            os._exit(0)
        except OSError:
            os._exit(1)
    return "needs seccomp" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) else None


where_calls_can_fail = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
