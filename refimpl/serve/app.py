"""The ASGI application: what every request goes through before a route, and behind it.

    size of the body and its time -> key -> JSON -> schema -> a thread runs the task over the lanes,
    or, for vectors of a few short texts, the loop asks these itself -> answer with X-Request-Id,
    X-Embedding-Space, X-Truncated -> one line of the log, no texts

Promise: every refusal has its own status and a sentence; nothing of a body is parsed that is over
its limit; a fault of ours is a 500 whose request id stands beside its traceback in the log. Long
because the order of these checks is the point.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import re
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from .arrivals import Arrivals
from .connections import USES
from .lanes import Use
from .metrics import Metrics
from .openapi import document, page
from .refusals import Refusal, body_of
from .routes import BY_PATH, Answer, Asked, Route
from .schema import checked, parsed
from .service import Service
from .within import within

Receive = Callable[[], Awaitable[Any]]
Headers = dict[str, str]
Written = tuple[bytes, str, Headers]  # content, its type, and what else the head says
ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# Asked by those that have no key: balancers, and a browser that is yet to be given one.
OPEN = ("/health", "/ready", "/docs", "/openapi.json")
HEALTHY = b"{}"
SOON = 2**12
"""Most bytes of a body, and values of an answer, for which no thread is woken."""
BODIES = 8  # of the largest size that are held at a time: each becomes many times that
GONE = 499  # nginx's; nobody gets it, but figures and the log


class App:
    """ASGI. `draining` is set by whoever ends the server; `in_hand` counts requests, `cut` those
    that were not let finish; begun: called when requests are taken."""

    def __init__(
        self, service: Service, metrics: Metrics, begun: Callable[[], object] = lambda: None
    ) -> None:
        self.service, self.metrics, self.settings = service, metrics, service.settings
        self.draining = False
        self._begun = begun
        self.in_hand = self.cut = self._bodies = 0
        self._jobs: set[Future[Any]] = set()
        self._arrivals: Arrivals | None = None
        # Ids of requests: the system is asked for a random number once, not for each.
        self._born, self._numbers = uuid.uuid4().hex[:16], itertools.count(1)
        self._key = (self.settings.api_key or "").encode()
        self._pool = ThreadPoolExecutor(self.settings.max_concurrent_requests, "request")
        self._spec = json.dumps(document(bool(self._key))).encode()
        self._page = page()

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._lifespan(receive, send)
            return
        start = time.monotonic()
        given = {name.lower(): value for name, value in scope["headers"]}
        asked = given.get(b"x-request-id", b"").decode("latin-1")
        request = asked if ID.fullmatch(asked) else f"{self._born}{next(self._numbers):016x}"
        path, use = scope["path"], Use()
        headers: Headers = {"X-Request-Id": request}
        kind = "application/json"
        uses = scope.get("extensions", {}).get(USES, set())
        uses.add(use)
        self.in_hand += 1
        try:
            status = 200
            content, kind, more = await self._answer(scope, given, receive, use, start)
            headers |= more
        except Refusal as refusal:
            status, content = refusal.status, _json(body_of(refusal.status, refusal.message, path))
            headers |= refusal.headers
        except asyncio.CancelledError:
            self.cut += 1
            use.gone = True
            raise
        except Exception:
            status = 500
            print(f"request {request}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            content = _json(body_of(500, f"a fault of the server; request {request}", path))
        finally:
            uses.discard(use)
            self.in_hand -= 1
            self._bodies -= use.body
        known = path if path in BY_PATH or path in self._plain() else "other"
        seconds = time.monotonic() - start
        with suppress(Exception):  # no answer is lost for a full disk or a pipe that nobody reads
            self.metrics.observe_request(known, status, seconds, use)
            self._log(scope, request, known, status, seconds, use, len(content))
        if status == 408 or self.draining:  # what is left of the body is not waited for
            headers["Connection"] = "close"
        raw = [(n.lower().encode(), v.encode("latin-1")) for n, v in headers.items()]
        raw += [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        body = b"" if scope["method"] == "HEAD" else content
        await send({"type": "http.response.body", "body": body})

    @property
    def idle(self) -> bool:
        """Whether no thread works at a request."""
        return not (self._jobs or self.service.lanes.busy)

    # -- the way to an answer ---------------------------------------------------------------------

    async def _answer(
        self, scope: Any, given: dict[bytes, bytes], receive: Receive, use: Use, start: float
    ) -> Written:
        path, method = scope["path"], scope["method"]
        if path not in OPEN:
            self._check_key(given)
        plain = self._plain().get(path)
        if method in ("GET", "HEAD") and plain is not None:
            return plain()
        route = BY_PATH.get(path)
        if route is None and plain is None:
            raise Refusal(404, f"there is no {path[:80]!r}; /docs lists what there is")
        if route is None or method != "POST":
            raise Refusal(405, f"{path} takes {'POST' if route else 'GET'}, not {method}")
        if self.in_hand > self.settings.max_concurrent_requests:
            raise Refusal(429, f"{self.in_hand - 1} requests are in hand; try later")
        encoding = given.get(b"content-encoding", b"identity").decode("latin-1").lower()
        if encoding != "identity":
            raise Refusal(415, f"Content-Encoding is {encoding[:40]!r}; send the body as it is")
        media = given.get(b"content-type", b"application/json").decode("latin-1")
        if media.partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, f"Content-Type is {media[:60]!r}; it must be application/json")
        raw = await self._body(given, receive, use)
        deadline = start + self.settings.timeout
        try:
            if route.soon and len(raw) <= SOON:
                return await self._soon(route, raw, deadline, use)
            return await self._in_thread(self._run, route, raw, deadline, use)
        except Refusal as refusal:
            raise Refusal(GONE, "the client went away") if use.gone else refusal from None

    async def _in_thread(self, does: Callable[..., Any], *given: Any) -> Any:
        job = self._pool.submit(does, *given)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return await asyncio.wrap_future(job)

    def _check_key(self, given: dict[bytes, bytes]) -> None:
        if not self._key:
            return
        scheme, _, key = given.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
            raise Refusal(401, "the API key is missing or wrong: Authorization: Bearer KEY")

    async def _body(self, given: dict[bytes, bytes], receive: Receive, use: Use) -> bytes:
        most = self.settings.max_body_bytes
        told = given.get(b"content-length", b"0")
        if told.isdigit() and int(told) > most:
            raise Refusal(413, f"the body has {int(told)} bytes; at most {most}")
        parts: list[bytes] = []
        try:
            with within(self.settings.body_timeout):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the client went away before its body was here")
                    parts.append(message.get("body", b""))
                    use.body += len(parts[-1])
                    self._bodies += len(parts[-1])
                    if use.body > most:
                        raise Refusal(413, f"the body has more than {most} bytes")
                    if self._bodies > BODIES * most:
                        held = self._bodies - use.body
                        raise Refusal(429, f"bodies of {held} bytes are in hand; try later")
                    more = message.get("more_body", False)
        except TimeoutError:
            seconds = self.settings.body_timeout
            raise Refusal(408, f"the body was not here within {seconds:g} seconds") from None
        return b"".join(parts)

    def _run(self, route: Route, raw: bytes, deadline: float, use: Use) -> Written:
        """In a thread: a body to the bytes of its answer."""
        with self.service.lanes.request(use, deadline), refusing():
            found = route.run(self.service, checked(parsed(raw), route.schema))
            if isinstance(found, Asked):
                found = found.then(self.service.vectors(found.of))
        return self._written(found, use)

    async def _soon(self, route: Route, raw: bytes, deadline: float, use: Use) -> Written:
        """In the loop: the same, where it takes no time but that of the lanes."""
        with refusing():
            found = route.run(self.service, checked(parsed(raw), route.schema))
            assert isinstance(found, Asked)
            asked = found.of
            self._arrivals = self._arrivals or Arrivals(self.service.lanes)
            rows = await self._arrivals.rows(asked.encodings, asked.run, asked.key, use, deadline)

        def write() -> Written:
            return self._written(found.then(rows), use)

        return write() if asked.values <= SOON else await self._in_thread(write)

    def _written(self, found: Answer, use: Use) -> Written:
        return _json(self._completed(found, use)), "application/json", self._told(found, use)

    def _completed(self, found: Answer, use: Use) -> Any:
        """The answer with what it took, where it is an object."""
        content = found.content
        if isinstance(content, dict) and found.usage:
            content["usage"] = dict.fromkeys(found.usage, use.tokens)
            content["truncated"] = use.truncated
            if found.space is not None:
                content["embedding_space"] = found.space
        return content

    def _told(self, found: Answer, use: Use) -> Headers:
        headers = {"X-Truncated": str(use.truncated), "X-Tokens": str(use.tokens)}
        return headers | ({} if found.space is None else {"X-Embedding-Space": found.space})

    # -- what is asked without a body -------------------------------------------------------------

    def _plain(self) -> dict[str, Callable[[], Written]]:
        return {
            "/health": lambda: (HEALTHY, "application/json", {}),
            "/ready": self._readiness,
            "/info": lambda: (_json(self.service.facts()), "application/json", {}),
            "/metrics": self._metrics,
            "/v1/models": self._models,
            "/openapi.json": lambda: (self._spec, "application/json", {}),
            "/docs": lambda: (self._page, "text/html; charset=utf-8", {}),
        }

    def _readiness(self) -> Written:
        if self.draining:
            raise Refusal(503, "the server is stopping")
        return HEALTHY, "application/json", {}

    def _metrics(self) -> Written:
        return *self.metrics.text(), {}

    def _models(self) -> Written:
        service = self.service
        one = {"id": service.name, "object": "model", "created": service.born, "owned_by": "local"}
        return _json({"object": "list", "data": [one]}), "application/json", {}

    # -- around it --------------------------------------------------------------------------------

    def _log(
        self, scope: Any, request: str, path: str, status: int, seconds: float, use: Use, size: int
    ) -> None:
        if self.settings.log == "none":
            return
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": request,
            "client": (scope.get("client") or ["-"])[0],
            "method": scope["method"] if scope["method"].isalpha() else "-",
            "path": path,
            "status": status,
            "ms": round(1e3 * seconds, 2),
            "queued_ms": None if use.queued_s is None else round(1e3 * use.queued_s, 2),
            "texts": use.texts,
            "tokens": use.tokens,
            "truncated": use.truncated,
            "bytes": size,
        }
        print(json.dumps(line), file=sys.stderr, flush=True)

    async def _lifespan(self, receive: Receive, send: Any) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.shutdown":
                self._pool.shutdown(wait=False)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.startup":
                self._begun()
            if kind == "lifespan.shutdown":
                return


@contextmanager
def refusing() -> Iterator[None]:
    """What a task says of its texts and options is what is wrong with the request."""
    try:
        yield
    except (ValueError, TypeError) as error:
        told = str(error).replace('pass truncate="warn"', 'send "truncate": true')
        raise Refusal(422, " ".join(told.split())) from None


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))  # json.dumps makes one a call


def _json(content: Any) -> bytes:
    return _ENCODER.encode(content).encode()
