"""A connection as uvicorn speaks HTTP/1.1 on it, with an end to everything that is waited for.

    a head that does not arrive             408 after `seconds`; of more than HEAD bytes 431
    a body behind an answer                 is read away for `seconds`, so that the answer arrives
    a client that ends within its request   400
    an answer that is not taken             the connection is cut
    an answer of up to PIECE bytes          goes with its head, in one piece

uvicorn itself ends an idle connection. The time of a body is the application's (app.py).
"""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any

from .lanes import Use
from .refusals import body_of

HEAD = 2**16  # most bytes of a request's head
PIECE = 2**15  # bytes read or written at a time; asyncio's 2**18 would come from the system
PATIENCE = 30.0  # seconds in which a client takes LEAST bytes of its answer, or all
LEAST = 2**16
USES = "modernbert.uses"
"""Of ASGI's extensions: a set, in which a request's Use learns that its client is gone."""
UPGRADE = (b"connection", b"upgrade", b"http2-settings")


class Answer:
    """The transport as uvicorn writes one answer to it: the head waits for the content, and both go
    as one piece, which is one call of the system here and one there."""

    def __init__(self, cycle: Any) -> None:
        self._cycle, self._transport = cycle, cycle.transport
        self._begun, self._head = cycle.scope["method"] == "HEAD", b""
        self.close, self.is_closing = self._transport.close, self._transport.is_closing

    def write(self, data: bytes) -> None:
        if self._cycle.response_started and not self._begun:  # not yet: 100 Continue
            self._begun, self._head = True, data
            return
        head, self._head = self._head, b""
        for piece in [head + data] if len(data) <= PIECE else [head, data]:
            self._transport.write(piece)


def connection(seconds: float) -> type[asyncio.Protocol]:
    """The class of a server's connections. seconds: for a request to arrive; 0 for any."""
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Connection(HttpToolsProtocol):
        parser: Any
        _due: asyncio.TimerHandle | None = None
        _head = 0  # bytes of a head that is not whole
        _in_head = False
        _data = b""
        _uses: set[Use]

        # -- what the client owes -----------------------------------------------------------------

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.max_size = PIECE
            self._uses = set()
            self._expect(transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect(None)
            for use in self._uses:
                use.gone = True
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._head += len(data)
            self._data = data
            super().data_received(data)
            if self.transport.is_closing():
                return
            if self._in_head and self._head > HEAD:
                self._refuse(431, f"the head has more than {HEAD} bytes")
            elif self._due is None and self._in_head:
                self._expect(self._late)
            elif self._due is None and self._answered():
                self._expect(self.transport.close)  # what is left of a body, and then a request

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["extensions"] = {USES: self._uses}
            self._head, self._in_head = 0, True
            self._expect(None)

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._expect(None)
            if not self.parser.should_upgrade():
                super().on_headers_complete()
                self.cycle.transport = Answer(self.cycle)

        def on_message_complete(self) -> None:
            if not self.parser.should_upgrade():
                super().on_message_complete()

        def _unsupported_upgrade_warning(self) -> None:
            """Asked for another protocol, as Java's client asks for HTTP/2 in its first request: it
            is answered in this one. The parser has taken the body for the other's bytes, so that it
            gets the request anew, without the question."""
            upgrade: Any = sys.exc_info()[1]
            (place,) = upgrade.args
            method, version = self.parser.get_method(), self.parser.get_http_version()
            lines = [method + b" " + self.url + b" HTTP/" + version.encode()]
            lines += [name + b": " + value for name, value in self.headers if name not in UPGRADE]
            self.parser = httptools.HttpRequestParser(self)
            super().data_received(b"\r\n".join(lines) + b"\r\n\r\n" + self._data[place:])

        def eof_received(self) -> None:
            """The end of what the client says, and of the connection: as it seems to be gone, its
            request is given up, and told so where it was not whole."""
            if self._in_head or not (self._answered() or not self.cycle.more_body):
                self._refuse(400, "the request ends before it is whole")

        def _answered(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _expect(self, otherwise: Any) -> None:
            """Call this, unless something else is expected within the time."""
            if self._due is not None:
                self._due.cancel()
            self._due = self.loop.call_later(seconds, otherwise) if otherwise and seconds else None

        def _late(self) -> None:
            self._refuse(408, f"the head was not here within {seconds:g} seconds")

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "this is no HTTP/1.1")

        def _refuse(self, status: int, message: str) -> None:
            """In the place of an application's answer, unless one is on its way."""
            if self._answered() or not self.cycle.response_started:
                body = json.dumps(body_of(status, message, self._path())).encode()
                line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                self.transport.write(f"{line}{head}connection: close\r\n\r\n".encode() + body)
            self.transport.close()

        def _path(self) -> str:
            return bytes(getattr(self, "url", b"")).decode("latin-1")

        # -- what the client takes ----------------------------------------------------------------

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if left := self.transport.get_write_buffer_size():
                self.loop.call_later(PATIENCE, self._taken, left)

        def _taken(self, before: int) -> None:
            left = self.transport.get_write_buffer_size()
            if left > before - LEAST and left:
                self.transport.abort()
            elif left:
                self.loop.call_later(PATIENCE, self._taken, left)

    return Connection
