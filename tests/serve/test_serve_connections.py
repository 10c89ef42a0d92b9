"""An answer goes with its head; one that is not taken is not kept; one taken slowly arrives."""

import asyncio
import socket
import threading

import pytest
from support.serving import wait_for

from refimpl.serve import connections
from refimpl.serve.server import listening
from refimpl.serve.settings import Settings

pytestmark = pytest.mark.extras
uvicorn = pytest.importorskip("uvicorn")
ServerState = pytest.importorskip("uvicorn.server").ServerState

LARGE = 2**25


@pytest.fixture
def port():
    """Of a server in this process whose answers are LARGE."""

    async def app(scope, receive, send):
        length = (b"content-length", b"%d" % LARGE)
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": bytes(LARGE)})

    config = uvicorn.Config(
        app, http=connections.connection(20), log_config=None, access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.setblocking(False)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
        thread.start()
        yield sock.getsockname()[1], server.server_state.connections
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def test_an_answer_goes_out_at_once():
    """The socket is one on which asyncio sets TCP_NODELAY, and so are those that it accepts."""
    found = []

    async def accepted(sock):
        loop = asyncio.get_running_loop()
        place = loop.create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                place.set_result(transport.get_extra_info("socket"))

        served = await loop.create_server(Protocol, sock=sock)
        _, writer = await asyncio.open_connection(*sock.getsockname())
        own = await place
        found.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
        served.close()

    with listening(Settings(port=0)) as sock:
        asyncio.run(accepted(sock))
    assert found[0] != 0


def written(protocol, request, size):
    """The pieces that a class of connections writes, for answers of so many bytes."""

    class Transport(asyncio.Transport):
        def __init__(self):
            super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
            self.pieces, self.closed = [], False

        def write(self, data):
            assert not self.closed
            self.pieces.append(bytes(data))

        def close(self):
            self.closed = True

        def is_closing(self):
            return self.closed

        def get_write_buffer_size(self):
            return 0

        def pause_reading(self):
            """All is here."""

        resume_reading = pause_reading

    async def app(scope, receive, send):
        await receive()
        length = (b"content-length", b"%d" % size)
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def main():
        config, state, transport = uvicorn.Config(app), ServerState(), Transport()
        one = protocol(config=config, server_state=state, app_state={})
        one.connection_made(transport)
        one.data_received(request)
        while state.tasks:
            await asyncio.gather(*state.tasks)
            await asyncio.sleep(0)
        return transport.pieces, transport.closed

    return asyncio.run(asyncio.wait_for(main(), 60))


GET, CLOSE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"Connection: close\r\n\r\n"
WAITS = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx"


@pytest.mark.parametrize(
    ("request_", "size", "pieces"),
    [
        (GET, 10, 1),
        (GET, 0, 1),
        (GET, connections.PIECE, 1),
        (GET, connections.PIECE + 1, 2),
        (GET[:-2] + CLOSE, 10, 1),
        (GET.replace(b"GET", b"HEAD"), 10, 1),
        (GET.replace(b"GET", b"HEAD")[:-2] + CLOSE, 10, 1),
        (GET + GET + GET, 10, 3),
        (WAITS, 10, 2),
    ],
    ids=["plain", "empty", "piece", "large", "last", "head", "last-head", "pipelined", "continue"],
)
def test_an_answer_is_one_piece_of_the_bytes_that_uvicorn_writes(request_, size, pieces):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    found, closed = written(connections.connection(20), request_, size)
    whole, as_well = written(HttpToolsProtocol, request_, size)
    assert b"".join(found) == b"".join(whole) and closed == as_well
    assert len([x for x in found if x]) == pieces
    assert b"".join(found).count(b"200 OK") == request_.count(b"Host")


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_an_answer_that_is_not_taken_is_dropped(port, more, monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.2)
    number, held = port
    with socket.create_connection(("127.0.0.1", number), timeout=60) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n")
        wait_for(lambda: held)
        wait_for(lambda: not held)


def test_an_answer_that_is_taken_arrives(port):
    number, _ = port
    with socket.create_connection(("127.0.0.1", number), timeout=60) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = 0
        while part := sock.recv(2**22):
            size += len(part)
        assert size > LARGE


@pytest.mark.parametrize(
    ("left", "does"),
    [
        ([300_000, 200_000, 100_000, 30_000, 0], "waits"),  # slowly, but as much as it must
        ([300_000, 300_000 - connections.LEAST, 0], "waits"),
        ([300_000, 300_001 - connections.LEAST], "aborts"),
        ([300_000, 200_000, 200_000], "aborts"),
        ([10_000, 9_000], "aborts"),
        ([0], "waits"),
    ],
)
def test_patience_is_for_those_who_take(left, does):
    """What is left of an answer whenever the connection looks, and what becomes of it; no clock."""
    looks, done, left = [], [], iter(left)

    class Transport:
        def get_write_buffer_size(self):
            return next(left)

        def abort(self):
            done.append("aborts")

    class Loop:
        def call_later(self, seconds, does, *given):
            assert seconds == connections.PATIENCE
            looks.append((does, given))

    one = object.__new__(connections.connection(20))
    one.transport, one.loop = Transport(), Loop()
    if size := one.transport.get_write_buffer_size():  # as behind a complete answer
        one.loop.call_later(connections.PATIENCE, one._taken, size)
    while looks:
        look, given = looks.pop()
        look(*given)
    assert next(left, None) is None and done == ([] if does == "waits" else ["aborts"])
