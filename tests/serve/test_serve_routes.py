"""Routes over HTTP: answers are the tasks' own to the bit, in the spelling that clients know."""

import base64
import json

import numpy as np
import pytest
from support.text_folders import some_texts

import refimpl
from refimpl.serve.routes import ROUTES
from refimpl.tasks.space import Space

pytestmark = pytest.mark.extras
pytest.importorskip("uvicorn")

TEXTS = [*some_texts(6), "", "naïve 😀"]


@pytest.fixture(scope="module")
def encoder(folders):
    return refimpl.SentenceEncoder(folders["embed"])


def bits(rows):
    return np.array(rows, np.float32)


def test_embed(servers, encoder):
    server = servers("embed")
    unit = encoder.encode(TEXTS, normalize_embeddings=True)
    assert np.array_equal(bits(server.post("/embed", {"inputs": TEXTS})), unit)
    for text, row in zip(TEXTS, unit, strict=True):
        assert np.array_equal(bits(server.post("/embed", {"inputs": text})), row[None])
    plain = server.post("/embed", {"inputs": TEXTS, "normalize": False, "prompt_name": "query"})
    assert np.array_equal(bits(plain), encoder.encode(TEXTS, prompt_name="query"))
    short = server.post("/embed", {"inputs": TEXTS, "dimensions": 5})
    wanted = encoder.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    assert np.array_equal(bits(short), wanted)
    assert server.post("/", {"inputs": TEXTS[:2]}) == server.post("/embed", {"inputs": TEXTS[:2]})
    hidden = server.post("/embed_all", {"inputs": TEXTS})
    for text, rows in zip(TEXTS, hidden, strict=True):
        ids = encoder.tokenizer.encode(text).ids
        wanted = encoder.model.encoder([ids])["last_hidden_state"][0]
        assert np.array_equal(bits(rows), wanted)


def test_embeddings_as_openai_has_them(servers, encoder):
    server = servers("embed")
    unit = encoder.encode(TEXTS, normalize_embeddings=True)
    found = server.post("/v1/embeddings", {"model": "x", "input": TEXTS})
    assert np.array_equal(bits([x["embedding"] for x in found["data"]]), unit)
    assert [x["index"] for x in found["data"]] == list(range(len(TEXTS)))
    tokens = sum(len(encoder.tokenizer.encode(text)) for text in TEXTS)
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert found["embedding_space"] == str(encoder.space(normalize_embeddings=True))
    packed = server.post("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64"})
    for one, row in zip(packed["data"], unit, strict=True):
        assert base64.b64decode(one["embedding"]) == row.tobytes()
    status, found, _ = server.ask("/v1/embeddings", {"input": [[1, 2], [3]]})
    assert status == 400 and "check_embedding_ctx_length=False" in found["error"]["message"]


def test_every_answer_says_space_and_what_was_cut(servers, encoder):
    server = servers("embed")
    long = "a " * 9000
    limit, second = encoder.max_seq_length, len(encoder.tokenizer.encode("query: a"))
    status, _, told = server.ask("/embed", {"inputs": [long, "a"], "prompt_name": "query"})
    assert status == 200 and told["x-truncated"] == "1" and int(told["x-tokens"]) == limit + second
    space = encoder.space(normalize_embeddings=True, prompt_name="query")
    assert Space.parse(told["x-embedding-space"]) == space
    assert server.post("/v1/embeddings", {"input": long})["truncated"] == 1
    status, found, _ = server.ask("/embed", {"inputs": ["a", long], "truncate": False})
    assert status == 422 and "texts[1] has 9003 tokens, over max_length" in found["error"]
    assert 'or send "truncate": true' in found["error"]
    assert found["error_type"] == "Validation"


def test_similarity_tokenize_decode(servers, encoder):
    server = servers("embed")
    asked = {"source_sentence": TEXTS[0], "sentences": TEXTS}
    found = server.post("/similarity", {"inputs": asked})
    assert np.abs(bits(found) - encoder.similarity(*[encoder.encode(TEXTS)] * 2)[0]).max() < 1e-6
    text = "naïve 😀 mat"
    ((*tokens,),) = server.post("/tokenize", {"inputs": text})
    own = encoder.tokenizer.encode(text)
    assert [x["id"] for x in tokens] == own.ids
    assert [(x["start"], x["stop"]) for x in tokens[1:-1]] == own.offsets[1:-1]
    assert tokens[0]["special"] and tokens[0]["start"] is None
    assert server.post("/decode", {"ids": own.ids[1:-1], "skip_special_tokens": False}) == [text]
    assert server.post("/decode", {"ids": [own.ids, own.ids]}) == [text] * 2
    status, found, _ = server.ask("/decode", {"ids": [10**6]})
    assert status == 422 and "1000000 is not in the vocabulary" in found["error"]


def test_rerank_in_its_dialects(servers, folders):
    server, reranker = servers("rerank"), refimpl.Reranker(folders["rerank"])
    query, pairs = "a cat", [("a cat", text) for text in TEXTS]
    scores = reranker.predict(pairs)
    order = np.argsort(-scores, kind="stable").tolist()
    found = server.post("/rerank", {"query": query, "texts": TEXTS, "return_text": True})
    assert [x["index"] for x in found] == order and found[0]["text"] == TEXTS[order[0]]
    assert np.array_equal(bits([x["score"] for x in found]), scores[order])
    raw = server.post("/rerank", {"query": query, "texts": TEXTS, "raw_scores": True})
    logits = reranker.predict(pairs, activation_fn=lambda x: x)
    assert np.array_equal(bits([x["score"] for x in raw]), logits[order])
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        documents = [{"text": text} for text in TEXTS]
        body = {"model": "m", "query": query, "documents": documents, "top_n": 3}
        found = server.post(path, body | {"return_documents": True})
        assert [x["index"] for x in found["results"]] == order[:3]
        assert [x["document"]["text"] for x in found["results"]] == [TEXTS[i] for i in order[:3]]
        assert found["usage"]["total_tokens"] > 0 and found["truncated"] == 0
    found = server.post("/score", {"queries": query, "documents": TEXTS})
    assert np.array_equal(bits([x["score"] for x in found["data"]]), scores)
    two = server.post("/score", {"text_1": [query, "x"], "text_2": TEXTS[:2]})
    assert two["data"][0]["score"] == found["data"][0]["score"]
    status, found, _ = server.ask("/score", {"queries": ["a", "b"], "documents": TEXTS})
    assert status == 422 and "2 queries do not pair with 8 documents" in found["error"]
    for body in ({"query": "a"}, {"query": "a", "texts": ["b"], "documents": ["c"]}):
        assert server.ask("/rerank", body)[0] == 422


def test_classify_in_its_dialects(servers, folders):
    server, classify = (
        servers("classify"),
        refimpl.pipeline("text-classification", folders["classify"]),
    )
    expected = classify(TEXTS, top_k=None)
    found = server.post("/predict", {"inputs": [[text] for text in TEXTS]})
    assert found == expected
    assert server.post("/predict", {"inputs": TEXTS[0]}) == expected[0]
    pair = classify({"text": "a", "text_pair": "b"}, top_k=None)
    assert server.post("/predict", {"inputs": ["a", "b"]}) == pair
    assert server.post("/predict", {"inputs": [["a", "b"]]}) == [pair]
    raw = server.post("/predict", {"inputs": "a", "raw_scores": True})
    assert raw == classify("a", top_k=None, function_to_apply="none")
    found = server.post("/classify", {"model": "m", "input": TEXTS})
    assert [x["label"] for x in found["data"]] == [x[0]["label"] for x in expected]
    named = [{x["label"]: x["score"] for x in one} for one in expected]
    assert [x["probs"] for x in found["data"]] == [[x["no"], x["yes"]] for x in named]


def test_entities_answers_and_masks(servers, folders):
    tag = refimpl.pipeline("ner", folders["ner"], aggregation_strategy="simple")
    found = servers("ner").post("/ner", {"inputs": TEXTS})
    assert found == tag(TEXTS)
    assert servers("ner").post("/", {"inputs": TEXTS[0]}) == tag(TEXTS[0])
    ask = refimpl.pipeline("question-answering", folders["answer"])
    asked = {"question": "who sat?", "context": " ".join(TEXTS)}
    for body in (asked, {"inputs": asked}):
        assert servers("answer").post("/question-answering", body) == ask(**asked)
    several = servers("answer").post("/question-answering", asked | {"top_k": 3})
    assert several == ask(**asked, top_k=3)
    fill = refimpl.pipeline("fill-mask", folders["fill-mask"])
    text = "the [MASK] sat"
    assert servers("fill-mask").post("/fill-mask", {"inputs": text}) == fill(text)
    two = servers("fill-mask").post("/fill-mask", {"inputs": [text, "a [MASK]"], "top_k": 2})
    assert [[x["token"] for x in one] for one in two] == [
        [x["token"] for x in fill(one, top_k=2)] for one in (text, "a [MASK]")
    ]
    status, found, _ = servers("fill-mask").ask("/fill-mask", {"inputs": "no mask"})
    assert status == 422 and "holds no [MASK]" in found["error"]
    # Small bodies that ask for gigabytes.
    status, found, _ = servers("fill-mask").ask("/fill-mask", {"inputs": "[MASK]" * 3000})
    assert status == 422 and "values; at most 16777216" in found["error"]
    status, found, _ = servers("embed").ask("/embed_all", {"inputs": ["a " * 8000] * 80})
    assert status == 422 and "values; at most 16777216" in found["error"]


def test_what_a_model_cannot_do_is_told(servers):
    for name, path in (("embed", "/rerank"), ("classify", "/embed"), ("ner", "/v1/embeddings"),
                       ("rerank", "/ner"), ("classify", "/rerank")):  # fmt: skip
        body = next(route.example for route in ROUTES if route.path == path)
        status, found, _ = servers(name).ask(path, body)
        assert status == 424, (name, path, found)
        assert "head" in json.dumps(found) or "labels" in json.dumps(found)
        assert "/" not in json.dumps(found).replace("/classify", ""), "where the folder lies"


def test_plain_questions(servers, encoder):
    server = servers("embed")
    assert server.ask("/health")[:2] == server.ask("/ready")[:2] == (200, {})
    found = server.ask("/info")[1]
    assert found["embedding_space"] == str(encoder.space()) and found["tasks"][0] == "embed"
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert server.ask("/v1/models")[1]["data"][0]["object"] == "model"
    assert "paths" in server.ask("/openapi.json")[1]
    status, page, told = server.ask("/docs", raw=True)
    assert status == 200 and told["content-type"].startswith("text/html") and b"http" not in page
    for path, method in (("/nothing", 404), ("/embed", 405)):
        assert server.ask(path)[0] == method
    assert server.ask("/info", {})[0] == 405


def test_figures_and_log_tell_requests_and_no_text(servers):
    server = servers("embed")
    secret = "thewordthatmustnotbelogged"
    mine = {"X-Request-Id": "mine-1"}
    assert server.ask("/embed", {"inputs": secret}, mine)[2]["x-request-id"] == "mine-1"
    odd = server.ask("/embed", {"inputs": "a"}, {"X-Request-Id": "no spaces, please"})[2]
    assert len(odd["x-request-id"]) == 32
    server.ask("/" + secret, {"inputs": 5})
    server.ask("/embed", {"inputs": 5, secret: secret})
    assert secret not in server.log()
    masked = {"inputs": "a [MASK]", "targets": [secret]}  # in-process a warning quotes it
    assert servers("fill-mask").ask("/fill-mask", masked)[0] == 200
    assert secret not in servers("fill-mask").log()
    line = next(x for x in server.lines() if x["request"] == "mine-1")
    assert line["path"] == "/embed" and line["status"] == 200 and line["texts"] == 1
    assert line["tokens"] > 2 and line["ms"] > 0 and line["queued_ms"] >= 0
    text = server.ask("/metrics", raw=True)[1].decode()
    assert secret not in text
    for name in ("te_request_count", "te_request_success", "te_request_duration",
                 "te_request_queue_duration", "te_request_inference_duration",
                 "te_batch_next_size", "te_batch_next_tokens", "te_queue_size"):  # fmt: skip
        assert f"# TYPE {name}" in text
    paths = {x.split('path="')[1].split('"')[0] for x in text.splitlines() if 'path="' in x}
    assert paths <= {route.path for route in ROUTES} | {
        "other", "/health", "/ready", "/info", "/metrics", "/v1/models", "/openapi.json", "/docs",
    }  # fmt: skip
