"""The server as processes: keys, limits, faults of clients, its end, workers that die."""

import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading

import numpy as np
import pytest
from support.children import PROGRAM
from support.serving import Server, wait_for

import refimpl

pytestmark = pytest.mark.extras
pytest.importorskip("uvicorn")

LIMITS = {
    "max-body-bytes": 20_000, "max-texts": 5, "max-request-tokens": 2_000, "body-timeout": 600,
    "max-concurrent-requests": 4, "timeout": 600, "threads": 1,
}  # fmt: skip
# Of the bundled model, a pass each: a while on any machine; and what is never waited for.
LONG, ENDLESS = {"inputs": ["a " * 2000] * 8}, {"inputs": ["a " * 8000] * 16}


@pytest.fixture(scope="module")
def limited(folders):
    options = [x for name, value in LIMITS.items() for x in (f"--{name}", str(value))]
    server = Server("--model", folders["embed"], *options, "--api-key", "key 1")
    yield server
    assert server.end() == 0


KEY = {"Authorization": "Bearer key 1"}


def head(body=b"", *more, path="/embed"):
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json",
             f"Authorization: {KEY['Authorization']}", *more]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status_of(raw):
    found = re.match(rb"HTTP/1.1 (\d+)", raw)
    return int(found[1]) if found else None


def test_the_key_is_asked_for(limited):
    for given in ({}, {"Authorization": "Bearer key 2"}, {"Authorization": "Basic key 1"},
                  {"Authorization": "Bearer"}):  # fmt: skip
        for path in ("/embed", "/info", "/metrics", "/nothing"):
            assert limited.ask(path, headers=given)[0] == 401, (path, given)
    for path in ("/health", "/ready", "/openapi.json", "/docs"):
        assert limited.ask(path, raw=True)[0] == 200
    assert limited.ask("/embed", {"inputs": "a"}, KEY)[0] == 200
    assert "key 1" not in limited.log()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (json.dumps({"inputs": "a" * 30_000}).encode(), 413, "30014 bytes; at most 20000"),
        (json.dumps({"inputs": ["a"] * 6}).encode(), 413, "6 texts; at most 5"),
        (json.dumps({"inputs": ["a " * 1900] * 2}).encode(), 422, "tokens; at most 2000"),
        (b"\xff\xfe", 400, "not UTF-8"),
        (b'{"inputs": NaN}', 400, "NaN"),
        (b"[" * 19_000, 400, "not JSON"),
        (b'{"inputs": "\\ud800"}', 422, "lone surrogate"),
        (b'{"inputs": "a", "dimensions": 33}', 422, "dimensions is 33; vectors have 32"),
        (b'{"inputs": "a", "prompt_name": "no"}', 422, "prompt_name 'no' is unknown"),
        (b'{"inputs": "a", "truncation_direction": "Left"}', 422, "texts are cut right"),
        (b"", 400, "not JSON"),
    ],
)
def test_each_refusal_has_its_status(limited, body, status, said):
    found = limited.ask("/embed", body, KEY)
    assert found[0] == status and said in found[1]["error"], found


def test_encodings_and_media_are_refused_before_they_are_read(limited):
    bomb = gzip.compress(b" " * 10_000_000)
    for more, said in (
        ({"Content-Encoding": "gzip"}, "gzip"),
        ({"Content-Type": "text/plain"}, "text/plain"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "multipart"),
    ):
        status, found, _ = limited.ask("/embed", bomb[:9000], KEY | more)
        assert status == 415 and said in found["error"]


def test_what_does_not_arrive_is_not_waited_for(folders):
    server = Server("--model", folders["embed"], "--body-timeout", "0.5", "--threads", "1")
    slow = server.raw(head(b'{"inp', "Content-Length: 50"))
    assert status_of(slow) == 408 and b"the body was not here within 0.5 seconds" in slow
    for part in (b"P", head()[:-2]):
        slow = server.raw(part)
        assert status_of(slow) == 408 and b"the head was not here within 0.5 seconds" in slow
    for part in (b"", b"\r\n"):  # who says nothing is told nothing, and let go
        assert server.raw(part) == b""
    assert server.end() == 0


def test_half_closed_endless_and_nonsensical_requests(limited):
    for part in (head()[:-2], head(b'{"inp', "Content-Length: 50")):
        half = limited.raw(part, half_close=True)
        assert status_of(half) == 400 and b"ends before it is whole" in half
    endless = head(b"", "Transfer-Encoding: chunked", "Connection: close")
    endless += (b"2000\r\n" + b"a" * 0x2000 + b"\r\n") * 4
    assert status_of(limited.raw(endless)) == 413
    for long in (b"a: b\r\n" * 100_000, b"a: " + b"b" * 400_000):
        assert status_of(limited.raw(b"GET / HTTP/1.1\r\n" + long)) == 431
    chunked = "Transfer-Encoding: chunked"
    for wrong in (
        b"nonsense\r\n\r\n",
        head(b"zz\r\n", chunked),
        head(b"", "Content-Length: 4", "Content-Length: 5"),
        head(b"0\r\n\r\n", chunked, "Content-Length: 5"),
    ):
        found = limited.raw(wrong)
        assert status_of(found) == 400 and b"no HTTP/1.1" in found
    assert limited.ask("/embed", {"inputs": "a"}, KEY)[0] == 200
    assert limited.ask("/ready")[0] == 200


def test_a_body_that_is_not_wanted_is_read_away(limited):
    """So that its sender finds the answer, and asks again over the same connection."""
    connection = limited.connection()
    said = KEY | {"Content-Type": "application/json"}
    connection.request("POST", "/embed", b" " * 3_000_000, said)
    answer = connection.getresponse()
    assert answer.status == 413 and b"3000000 bytes" in answer.read()
    connection.request("POST", "/embed", b'{"inputs": "a"}', said)
    assert connection.getresponse().status == 200
    connection.close()


def test_another_protocol_is_not_taken_up_and_the_request_answered(limited):
    """As Java's client asks for HTTP/2 in its first request."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA")
    body = b'{"inputs": "a"}'
    with socket.create_connection(("127.0.0.1", limited.port), timeout=20) as sock:
        for more in (upgrade, (), upgrade):
            sock.sendall(head(body, *more, f"Content-Length: {len(body)}"))
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            assert answer.status == 200 and answer.read().startswith(b"[[")


def test_who_goes_away_is_not_computed_for(limited):
    """Large requests whose clients leave at once, until one of them was given up."""
    body = json.dumps({"inputs": ["a " * 390] * 5}).encode()
    before = len(limited.lines())

    def statuses():
        return [line["status"] for line in limited.lines()[before:]]

    def leave():
        with socket.create_connection(("127.0.0.1", limited.port), timeout=60) as sock:
            sock.sendall(head(body, f"Content-Length: {len(body)}"))
        return 499 in statuses()

    wait_for(leave)
    wait_for(lambda: limited.ask("/embed", {"inputs": "a"}, KEY)[0] == 200)
    assert set(statuses()) <= {200, 429, 499}, statuses()


def test_more_than_may_at_a_time_is_refused_at_once(folders):
    """Four bodies that do not arrive hold the four places; a fifth is told to come again."""
    options = ("--max-concurrent-requests", "4", "--body-timeout", "600", "--threads", "1")
    server = Server("--model", folders["embed"], *options)
    sockets = []
    for _ in range(4):
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.sendall(head(b'{"inp', "Content-Length: 50"))
        sockets.append(sock)
    wait_for(lambda: server.ask("/embed", {"inputs": "a"})[0] != 200)  # they are on their way
    status, _, told = server.ask("/embed", {"inputs": "a"})
    assert status == 429 and told["retry-after"] == "1"
    for sock in sockets:
        sock.close()
    wait_for(lambda: server.ask("/embed", {"inputs": "a"})[0] == 200)
    assert server.end() == 0


def test_bodies_are_held_to_a_size_together(folders):
    """Twelve that are nearly as large as one may be, and do not arrive whole: eight are held."""
    options = ("--max-body-bytes", "20000", "--body-timeout", "600", "--threads", "1")
    server = Server("--model", folders["embed"], *options)
    sockets = []
    for _ in range(12):
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        sock.sendall(head(b" " * 19_000, "Content-Length: 19500"))
        sockets.append(sock)
    wait_for(lambda: [x["status"] for x in server.lines()].count(429) >= 4)
    assert server.ask("/ready")[0] == 200
    for sock in sockets:
        sock.close()
    wait_for(lambda: server.ask("/embed", {"inputs": "a" * 15_000})[0] == 200)
    assert server.end() == 0


def test_settings_come_from_the_environment(folders):
    env = {"REFIMPL_SERVE_MODEL": folders["embed"], "REFIMPL_SERVE_SERVED_NAME": "its-name",
           "REFIMPL_SERVE_TRUNCATE": "error", "REFIMPL_SERVE_LOG": "none"}  # fmt: skip
    server = Server(env=env)
    assert server.ask("/info")[1]["model_id"] == "its-name"
    assert server.ask("/embed", {"inputs": "a " * 9000})[0] == 422
    assert server.lines() == []
    assert server.end(signal.SIGINT) == 0


def test_wrong_starts_are_told(folders):
    def told(*options, **env):
        run = subprocess.run(
            [*PROGRAM, "serve", *options],
            capture_output=True, text=True, env={**os.environ, **env}, timeout=120,
        )  # fmt: skip
        return run.returncode, run.stderr

    server = Server("--model", folders["embed"])
    code, err = told("--port", str(server.port))
    assert code == 1 and f"cannot listen on 127.0.0.1:{server.port}" in err
    assert server.end() == 0
    code, err = told("--workers", "0")
    assert code == 2 and "workers is 0" in err
    code, err = told("--port", "0", "--model", "/nowhere/at/all")
    assert code == 1 and "/nowhere/at/all" in err


def gone(server):
    """Whether nobody listens any more: every process has heard the signal."""
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=60).close()
    except ConnectionRefusedError:
        return True
    return False


def computing(server):
    """Whether a pass has run of a request that has many."""
    return server.figure("te_batch_next_size_count") >= 1


def test_sigterm_loses_no_request_that_was_taken():
    """One that is computed when the signal comes, and takes longer than that."""
    server = Server("--threads", "1", "--timeout", "600", "--drain-timeout", "600")
    found = []
    thread = threading.Thread(target=lambda: found.append(server.ask("/embed", LONG)))
    thread.start()
    wait_for(lambda: computing(server))
    server.process.send_signal(signal.SIGTERM)
    thread.join(600)
    assert server.process.wait(60) == 0
    ((status, rows, _),) = found
    wanted = refimpl.SentenceEncoder().encode(LONG["inputs"][:1], normalize_embeddings=True)
    assert status == 200 and np.array_equal(np.array(rows, np.float32), wanted.repeat(8, 0))


def test_requests_are_taken_for_a_while_after_sigterm(folders):
    """It is told before it stops to listen; a second signal ends the delay."""
    server = Server("--model", folders["embed"], "--drain-delay", "600", "--threads", "1")
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.ask("/ready")[0] == 503)
    assert server.ask("/embed", {"inputs": "a"})[0] == 200
    assert server.end() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("signals", [1, 2])
def test_an_end_that_cuts_requests_off_says_so(workers, signals):
    """A drain that may take no time, and a second signal."""
    drain = ("--drain-timeout", "0" if signals == 1 else "600")
    server = Server(*drain, "--threads", "1", "--workers", workers, "--timeout", "600")
    found = []

    def ask():
        try:
            found.append(server.ask("/embed", ENDLESS, raw=True)[0])
        except (OSError, http.client.HTTPException) as error:
            found.append(type(error).__name__)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: computing(server))
    server.process.send_signal(signal.SIGTERM)
    if signals == 2:
        wait_for(lambda: gone(server))
        server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 1 and "1 requests in hand were not finished" in server.log()
    thread.join(60)
    assert found and found[0] != 200


def test_a_log_that_nobody_reads_costs_no_answer(folders):
    reads, writes = os.pipe()
    command = [*PROGRAM, "serve", "--port", "0", "--model", folders["embed"]]
    process = subprocess.Popen(command, stderr=writes)
    os.close(writes)
    with open(reads, encoding="utf-8") as stream:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", stream.readline())[1])
    for _ in range(2):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(
            "POST", "/embed", b'{"inputs": "a"}', {"Content-Type": "application/json"}
        )
        assert connection.getresponse().status == 200
        connection.close()
    process.terminate()
    assert process.wait(60) == 0


def test_workers_are_replaced_and_their_figures_add_up(folders):
    server = Server("--model", folders["embed"], "--workers", "2", "--threads", "1")

    def workers():
        path = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
        with open(path) as stream:
            return {int(pid) for pid in stream.read().split()}

    def figure(name):
        return server.figure(rf'{name}{{path="/embed"}}')

    first = workers()
    assert len(first) == 2
    answers = [server.post("/embed", {"inputs": "a b c"}) for _ in range(40)]
    assert all(one == answers[0] for one in answers)
    assert figure("te_request_count_total") == 40 == figure("te_request_success_total")
    killed = min(first)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: len(workers() - first) == 1)
    assert f"worker {killed} ended (-9)" in server.log()
    for _ in range(20):
        assert server.post("/embed", {"inputs": "a b c"}) == answers[0]
    assert figure("te_request_count_total") == 60
    children = workers()
    assert server.end() == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


def test_a_worker_that_is_killed_costs_what_it_had_in_hand(folders):
    """Eight clients ask without a pause while three workers are killed: each loses the request that
    a dead one had, one a death, and gets right answers to all others."""
    server = Server("--model", folders["embed"], "--workers", "2", "--threads", "1")
    texts = ["the cat sat on a mat " * 20] * 3
    wanted = refimpl.SentenceEncoder(folders["embed"]).encode(texts, normalize_embeddings=True)
    body = json.dumps({"inputs": texts})
    found, lost, over = [], [], threading.Event()

    def client(number):
        connection = server.connection()
        while not over.is_set():
            try:
                connection.request("POST", "/embed", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                found.append((answer.status, answer.read()))
            except (OSError, http.client.HTTPException):
                lost.append(number)
                connection.close()
                connection = server.connection()

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    path = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
    for deaths in range(1, 4):
        wait_for(lambda deaths=deaths: len(found) >= 40 * deaths)
        with open(path) as stream:
            os.kill(int(stream.read().split()[0]), signal.SIGKILL)
        wait_for(lambda deaths=deaths: server.log().count("another takes over") == deaths)
    over.set()
    for thread in threads:
        thread.join(60)
    assert server.end() == 0
    assert max(map(lost.count, range(8))) <= 3 and {status for status, _ in found} == {200}
    assert all(np.array_equal(np.array(json.loads(x), np.float32), wanted) for _, x in found)


def test_workers_end_when_their_supervisor_is_killed(folders):
    server = Server("--model", folders["embed"], "--workers", "2", "--threads", "1")
    pid = server.process.pid
    with open(f"/proc/{pid}/task/{pid}/children") as stream:
        children = [int(x) for x in stream.read().split()]
    server.process.kill()
    server.process.wait()
    wait_for(lambda: not any(map(alive, children)))


def alive(pid):
    """Neither gone nor waiting for somebody to ask."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
