"""Processes: one that serves, or several that share a socket and the memory of the loaded model.

    serve(settings, tell)       returns the exit code when it was told to end (SIGTERM, SIGINT)

With workers the model is loaded and packed once, and they are forks of that: its pages are theirs
together (workers.py keeps them at work). SIGTERM: not ready at once, requests still taken for
drain_delay seconds, those in hand finished within drain_timeout, exit code 0; or 1, where some were
not, and a line that says so. A second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from .metrics import FOLDER, Metrics
from .service import Service
from .settings import Settings
from .workers import supervise

BACKLOG = 2048
KEEP_ALIVE = 30  # seconds that an idle connection is kept
M_MMAP_THRESHOLD, LARGE = -3, 2**16  # of malloc.h; bytes


def serve(settings: Settings, tell: Callable[[str], object]) -> int:
    """Load, listen, serve. tell: gets the line that says where. Raises OSError, ValueError, and
    what loading raises; MissingExtraError without uvicorn or prometheus_client."""
    needed()
    give_back_memory()
    with listening(settings) as sock:
        if settings.workers == 1:
            metrics = Metrics()
            service = Service(settings)
            service.observe(observe=metrics.observe_pass, queued=metrics.observe_queue)
            service.warm()
            return work(service, metrics, sock, lambda: tell(where(service, sock)), alone=True)
        service = Service(settings)
        service.warm()
        with tempfile.TemporaryDirectory(prefix="modernbert-") as figures:
            os.environ[FOLDER] = figures  # read when prometheus_client is imported, in the forks
            return supervise(
                settings.workers,
                lambda begun: forked(service, sock, begun),
                lambda: tell(where(service, sock)),
                sock.close,  # what the workers do not take is refused, not kept waiting
            )


def needed() -> None:
    """MissingExtraError for what is not installed."""
    from importlib.util import find_spec

    from ..errors import MissingExtraError

    for package in ("uvicorn", "httptools", "prometheus_client"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "serve", "modernbert serve")


def give_back_memory() -> None:
    """Large blocks come from the system and go back to it, where glibc is. Left to itself it soon
    takes them from among the small ones, some of which live on, and what a crowd of requests took
    is never whole again: memory grows for days, if ever more slowly."""
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket on the address, which is free to be taken again at once."""
    kind = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sends small pieces at once (TCP_NODELAY) on sockets that say their protocol; on others
    # a body waits for the acknowledgement of its head, which clients delay by 40 ms.
    with socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise OSError(error.errno, f"cannot listen on {where}: {error.strerror}") from None
        sock.listen(BACKLOG)
        sock.setblocking(False)
        yield sock


def where(service: Service, sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    tasks = ", ".join(service.tasks) or "no task"
    space = f"; {service.space}" if service.space else ""
    return f"{service.name} ({tasks}) on http://{host}:{port}{space}"


# -- one process ----------------------------------------------------------------------------------


def work(
    service: Service,
    metrics: Metrics,
    sock: socket.socket,
    begun: Callable[[], object],
    *,
    alone: bool,
) -> int:
    """Serve until a signal. begun: called when signals are heard and requests taken; alone: Ctrl-C
    is for this process, which has no supervisor."""
    import asyncio
    import warnings

    import uvicorn

    from .app import App
    from .connections import connection

    warnings.simplefilter("ignore")  # they are for callers in-process, and quote texts
    app = App(service, metrics, begun)
    settings = service.settings
    _ = service.lanes
    gc.freeze()  # what is there by now stays: no collection looks through it again
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=connection(settings.body_timeout),
        ws="none",
        loop="asyncio",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
    )

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Ours in the place of uvicorn's, which dies of the signal when all is done."""
            loop = asyncio.get_running_loop()

            def heard(number: int, frame: Any) -> None:
                if app.draining:
                    self.force_exit = self.should_exit = True
                    return
                app.draining = True
                loop.call_soon_threadsafe(loop.call_later, settings.drain_delay, self._end)

            ours = {signal.SIGTERM: heard, signal.SIGINT: heard if alone else signal.SIG_IGN}
            before = {number: signal.signal(number, does) for number, does in ours.items()}
            try:
                yield
            finally:
                for number, does in before.items():
                    signal.signal(number, does)

        def _end(self) -> None:
            self.should_exit = True

    asyncio.run(Server(config).serve(sockets=[sock]))
    if app.cut:
        told = f"{app.cut} requests in hand were not finished"
        print(f"modernbert serve: {told}", file=sys.stderr, flush=True)
    if not app.idle:  # its threads would hold up the interpreter's end, or compute beyond it
        sys.stderr.flush()
        os._exit(int(app.cut > 0))
    return int(app.cut > 0)


def forked(service: Service, sock: socket.socket, begun: Callable[[], object]) -> int:
    """What a worker does, behind the fork."""
    metrics = Metrics()
    service.observe(observe=metrics.observe_pass, queued=metrics.observe_queue)
    return work(service, metrics, sock, begun, alone=False)
