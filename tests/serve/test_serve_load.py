"""Under load: every vector has the bits of the in-process one, whoever asks beside whom."""

import base64
import json
import os
import random
import threading
import time

import numpy as np
import pytest
from support.serving import Server, resident, wait_for
from support.text_folders import some_texts

import refimpl

pytestmark = pytest.mark.extras
pytest.importorskip("uvicorn")

CLIENTS = 16
MANY = int(os.environ.get("REFIMPL_TEST_REQUESTS", 100_000))
GROWTH = 2**12  # KiB, of resident memory over the second half of a server's requests


@pytest.mark.parametrize(
    "requests", [2_000, pytest.param(MANY, marks=pytest.mark.soak)], ids=["some", "many"]
)
def test_no_bit_depends_on_the_load(folders, requests):
    """Random texts, routes, sizes and options over kept connections; a server that is told to end,
    and its successor, which answers nine of ten requests."""
    texts = some_texts(300, 5, 60) + ["a " * n for n in (300, 700, 1500)]
    encoder = refimpl.SentenceEncoder(folders["embed"])
    kinds = [dict(normalize_embeddings=n, truncate_dim=d) for n in (True, False) for d in (None, 9)]
    wanted = [encoder.encode(texts, **kind) for kind in kinds]
    left = iter(range(requests))
    lock = threading.Lock()
    asked, wrong, served, statuses = [0], [], [0], {}

    def client(number):
        rng = random.Random(number)
        connection = server.connection()
        while True:
            with lock:
                if next(left, None) is None:
                    return
                asked[0] += 1
            some = [rng.randrange(len(texts)) for _ in range(rng.choice((1, 1, 1, 2, 5, 20)))]
            kind = rng.randrange(4)
            given = [texts[i] for i in some]
            if rng.random() < 0.5 or kind >= 2:
                path, body = "/embed", {"inputs": given, "normalize": kind < 2}
            else:
                path, body = "/v1/embeddings", {"input": given, "encoding_format": "base64"}
            if kinds[kind]["truncate_dim"]:
                body["dimensions"] = 9
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = json.loads(answer.read())
            if answer.status != 200:
                with lock:
                    statuses[answer.status] = statuses.get(answer.status, 0) + 1
                continue
            if path == "/embed":
                rows = np.array(found, np.float32)
            else:
                packed = [base64.b64decode(x["embedding"]) for x in found["data"]]
                rows = np.frombuffer(b"".join(packed), "<f4").reshape(len(given), -1)
            with lock:
                served[0] += len(rows)
                if not np.array_equal(rows, wanted[kind][some]):
                    wrong.append((path, kind, some))

    for count in (requests // 10, requests - requests // 10):
        left, before, start = iter(range(count)), asked[0], time.monotonic()
        server = Server("--model", folders["embed"], "--log", "none", "--timeout", "600")
        threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        most = []  # KiB that the server has, by tenths of its requests
        for part in range(1, 11) if requests >= MANY else ():
            until = before + part * count // 10
            wait_for(lambda until=until: asked[0] >= until, 10**6)
            most.append(resident(server.process.pid))
        for thread in threads:
            thread.join()
        if most:
            seconds = time.monotonic() - start
            print(f"KiB by tenths of {count} requests, {seconds:.0f} s: {most}")
            assert most[-1] - most[4] < GROWTH
        assert server.end() == 0
    assert wrong == [] and statuses == {} and served[0] > requests
    print(f"{requests} requests, {served[0]} vectors: none differs")


def test_overload_is_refused_at_once_and_passes():
    """While more waits than may, requests are told to come again; what was taken is answered."""
    texts = ["a " * 2000] * 8  # of the bundled model: a pass each, a while on any machine
    server = Server("--max-queue-tokens", "3000", "--timeout", "600", "--threads", "1")
    long = []
    thread = threading.Thread(target=lambda: long.append(server.ask("/embed", {"inputs": texts})))
    thread.start()
    wait_for(lambda: server.figure("te_queue_tokens") > 3000)
    status, found, told = server.ask("/embed", {"inputs": "a cat"})
    assert long == [] and status == 429
    assert told["retry-after"] == "1" and found["error_type"] == "Overloaded"
    thread.join(600)
    assert long[0][0] == 200
    assert server.figure("te_queue_tokens") == 0
    assert server.ask("/embed", {"inputs": "a cat"})[0] == 200
    assert server.end() == 0


def test_what_is_taken_in_a_crowd_is_answered_rightly(folders):
    """Twelve clients at once, with a place for two or three."""
    server = Server(
        "--model", folders["embed"], "--max-queue-tokens", "3000", "--log", "none", "--threads", "1"
    )
    texts = ["a cat " * 200] * 3
    wanted = refimpl.SentenceEncoder(folders["embed"]).encode(texts, normalize_embeddings=True)
    found = []

    def client():
        for _ in range(6):
            found.append(server.ask("/embed", {"inputs": texts})[:2])

    threads = [threading.Thread(target=client) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [rows for status, rows in found if status == 200]
    assert len(found) == 72 and {status for status, _ in found} <= {200, 429} and taken
    assert all(np.array_equal(np.array(rows, np.float32), wanted) for rows in taken)
    assert server.end() == 0


def test_what_the_openapi_says_is_what_is_served(servers):
    """schemathesis on the served document: no status of ours is a fault, none is unlisted."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    checks = schemathesis.checks
    for name in ("embed", "fill-mask"):
        spec = schemathesis.openapi.from_url(servers(name).url + "/openapi.json")
        for operation in spec.get_all_operations():
            case = operation.ok().as_strategy()

            @settings(
                max_examples=12, deadline=None, database=None, phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case)
            def holds(one):
                answer = one.call()
                one.validate_response(answer, checks=[checks.not_a_server_error])
                listed = set(one.operation.definition.raw["responses"])
                assert str(answer.status_code) in listed | {"404", "405"}

            holds()
