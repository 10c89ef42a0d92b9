"""Clients as their makers ship them, pointed at a server of ours, give what the tasks give."""

import os

import numpy as np
import pytest
from support.text_folders import some_texts

import refimpl

pytestmark = [
    pytest.mark.extras,
    # What the clients do on their own behalf.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]
pytest.importorskip("uvicorn")

# Traffic goes to the loopback address and nowhere else.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_DISABLE_TELEMETRY": "1"}

TEXTS = some_texts(5)
QUERY = "a cat on a mat"


@pytest.fixture(scope="module")
def unit(folders):
    encoder = refimpl.SentenceEncoder(folders["embed"])
    return lambda texts, **options: encoder.encode(texts, normalize_embeddings=True, **options)


@pytest.fixture(scope="module")
def ranked(folders):
    reranker = refimpl.Reranker(folders["rerank"])
    return [(x["corpus_id"], x["score"]) for x in reranker.rank(QUERY, TEXTS)]


def equal(rows, wanted):
    return np.array_equal(np.array(rows, np.float32), wanted)


def test_openai(servers, unit):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=servers("embed").url + "/v1", api_key="any") as client:
        found = client.embeddings.create(model="any", input=TEXTS)
        assert equal([x.embedding for x in found.data], unit(TEXTS))
        assert found.usage.total_tokens > 5
        found = client.embeddings.create(
            model="any", input=TEXTS[0], dimensions=7, encoding_format="float"
        )
        assert equal([x.embedding for x in found.data], unit(TEXTS[:1], truncate_dim=7))
        assert [model.id for model in client.models.list()]
        with pytest.raises(openai.UnprocessableEntityError, match="vectors have 32"):
            client.embeddings.create(model="any", input="a", dimensions=99)


def test_cohere(servers, ranked):
    cohere = pytest.importorskip("cohere")
    for kind in (cohere.ClientV2, cohere.Client):
        client = kind(base_url=servers("rerank").url, api_key="any")
        found = client.rerank(model="any", query=QUERY, documents=TEXTS, top_n=3)
        assert [(x.index, x.relevance_score) for x in found.results] == ranked[:3]


def test_huggingface_hub(servers, folders, unit):
    hub = pytest.importorskip("huggingface_hub")

    def client(name):
        return hub.InferenceClient(model=servers(name).url)

    assert equal(client("embed").feature_extraction(TEXTS[0]), unit(TEXTS[:1]))
    found = client("embed").sentence_similarity(TEXTS[0], TEXTS[1:])
    vectors = unit(TEXTS)
    assert np.abs(np.array(found) - vectors[1:] @ vectors[0]).max() < 1e-6
    (wanted,) = refimpl.pipeline("text-classification", folders["classify"])(TEXTS[:1], top_k=None)
    found = client("classify").text_classification(TEXTS[0])
    assert [(x.label, x.score) for x in found] == [(x["label"], x["score"]) for x in wanted]
    wanted = refimpl.pipeline("ner", folders["ner"], aggregation_strategy="simple")(TEXTS[0])
    found = client("ner").token_classification(TEXTS[0])
    assert [(x.entity_group, x.start, x.end, x.score) for x in found] == [
        (x["entity_group"], x["start"], x["end"], x["score"]) for x in wanted
    ]
    context = " ".join(TEXTS)
    wanted = refimpl.pipeline("question-answering", folders["answer"])(
        question="who?", context=context
    )
    found = client("answer").question_answering(question="who?", context=context)
    assert (found.answer, found.start, found.end) == tuple(
        wanted[name] for name in ("answer", "start", "end")
    )
    wanted = refimpl.pipeline("fill-mask", folders["fill-mask"])("the [MASK] sat")
    assert len(client("fill-mask").fill_mask("the [MASK] sat", top_k=2)) == 2
    found = client("fill-mask").fill_mask("the [MASK] sat")
    assert [(x.token, x.token_str) for x in found] == [(x["token"], x["token_str"]) for x in wanted]


def test_litellm(servers, unit, ranked):
    litellm = pytest.importorskip("litellm")
    found = litellm.embedding(
        model="openai/any", api_base=servers("embed").url + "/v1", api_key="any", input=TEXTS
    )
    assert equal([x["embedding"] for x in found.data], unit(TEXTS))
    for provider, path in (("cohere", "/v2/rerank"), ("jina_ai", "/v1/rerank")):
        found = litellm.rerank(
            model=f"{provider}/any", query=QUERY, documents=TEXTS, top_n=3, api_key="any",
            api_base=servers("rerank").url + path,
        )  # fmt: skip
        assert [(x["index"], x["relevance_score"]) for x in found.results] == ranked[:3]


def test_langchain_openai(servers, unit):
    module = pytest.importorskip("langchain_openai")
    options = dict(model="any", base_url=servers("embed").url + "/v1", api_key="any")
    client = module.OpenAIEmbeddings(check_embedding_ctx_length=False, **options)
    assert equal(client.embed_documents(TEXTS), unit(TEXTS))
    assert equal(client.embed_query(TEXTS[0]), unit(TEXTS[0]))
