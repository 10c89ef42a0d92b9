"""The routes: for each its body's schema and the function from a checked body to an answer.

    POST /embed /embed_all /predict /rerank /similarity /tokenize /decode     as TEI has them
    POST /v1/embeddings                                                        OpenAI
    POST /rerank /v1/rerank /v2/rerank                                         Cohere, Jina
    POST /score /classify                                                      vLLM
    POST /ner /question-answering /fill-mask                                   the other tasks
    POST /                                              what the model is for, as TEI's clients ask

/openapi.json and the page are made of this table. An answer that is an object has `truncated`
(texts that were cut) and, with vectors, `embedding_space`; headers have both always. Long because
every dialect stands here, side by side.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .refusals import Refusal
from .schema import checked
from .service import Embedding, Service

Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a route gives: JSON, the digest of vectors in it, and what `usage` calls the tokens."""

    content: Any
    space: str | None = None
    usage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What a route gives in an answer's place where it is made of vectors [texts, dimension]: which
    ones, and how. So that nobody has to wait where it began."""

    of: Embedding
    then: Callable[[np.ndarray], Answer]


@dataclass(frozen=True)
class Route:
    """example: a body that the page offers, and tests send; soon: of a few short texts `run` gives
    an Asked after less time than it takes to wake a thread."""

    path: str
    about: str
    properties: Mapping[str, Any]
    required: tuple[str, ...]
    run: Callable[[Service, Body], Answer | Asked]
    example: Body
    needs: str | None = None
    soon: bool = False
    schema: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        schema = {
            "type": "object",
            "properties": self.properties,
            "required": list(self.required),
            "example": self.example,
        }
        object.__setattr__(self, "schema", schema)


# -- parts of schemas -----------------------------------------------------------------------------

TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
ONE_OR_MORE = {"anyOf": [TEXT, TEXTS]}
IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
TRUNCATE = {"type": "boolean", "description": "cut long texts; else they are refused"}
SIDE = {"type": "string", "enum": ["Left", "Right", "left", "right"]}
COUNT = {"type": "integer", "minimum": 1}
WIDTH = {**COUNT, "maximum": 2**31}
MODEL = {"type": "string", "description": "taken as it comes: there is one model"}
PAIR = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 2}
DOCUMENT = {"anyOf": [TEXT, {"type": "object", "properties": {"text": TEXT}, "required": ["text"]}]}
OF_TEI = {"truncate": TRUNCATE, "truncation_direction": SIDE}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check_side(service: Service, body: Body) -> None:
    side, own = body.get("truncation_direction"), service.tokenizer.truncation_side
    if side is not None and side.lower() != own:
        raise Refusal(422, f"truncation_direction is {side!r}; this model's texts are cut {own}")


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


# -- TEI ------------------------------------------------------------------------------------------


def embed(service: Service, body: Body) -> Asked:
    check_side(service, body)
    found = service.embed(
        listed(body["inputs"]),
        normalize=body["normalize"],
        dimensions=body["dimensions"],
        prompt_name=body["prompt_name"],
        truncate=body["truncate"],
    )
    return Asked(found, lambda vectors: Answer(vectors.tolist(), found.space))


def embed_all(service: Service, body: Body) -> Answer:
    check_side(service, body)
    hidden = service.embed_tokens(listed(body["inputs"]), body["truncate"])
    return Answer([x.tolist() for x in hidden])


def predict(service: Service, body: Body) -> Answer:
    """A text, a pair (a list of two texts), or a list of lists of one or two texts."""
    check_side(service, body)
    inputs = body["inputs"]
    several = isinstance(inputs, list) and isinstance(inputs[0], list)
    rows = inputs if several else [listed(inputs)]
    if any(not 1 <= len(row) <= 2 for row in rows):
        raise Refusal(422, "inputs must be a text, a pair of texts, or a list of lists of those")
    asked = [{"text": row[0], **({"text_pair": row[1]} if row[1:] else {})} for row in rows]
    found = service.classify(asked, raw=body["raw_scores"], truncate=body["truncate"])
    labels = [[{"score": x["score"], "label": x["label"]} for x in one] for one in found]
    return Answer(labels if several else labels[0])


def similarity(service: Service, body: Body) -> Asked:
    given, said = body["inputs"], body["parameters"] or {}
    found = service.embed(
        [given["source_sentence"], *given["sentences"]],
        normalize=True,
        prompt_name=said.get("prompt_name"),
        truncate=said.get("truncate"),
    )
    return Asked(found, lambda x: Answer((x[1:] @ x[0]).tolist(), found.space))


def tokenize(service: Service, body: Body) -> Answer:
    texts = listed(body["inputs"])
    service.check_texts(len(texts))
    encodings = service.tokenizer.encode_batch(
        texts, truncate="never", add_special_tokens=body["add_special_tokens"]
    )
    service.check_tokens(encodings)
    return Answer(
        [
            [
                {
                    "id": e.ids[i],
                    "text": e.tokens[i] if e.special[i] else text[slice(*e.offsets[i])],
                    "special": e.special[i],
                    "start": None if e.special[i] else e.offsets[i][0],
                    "stop": None if e.special[i] else e.offsets[i][1],
                }
                for i in range(len(e))
            ]
            for text, e in zip(texts, encodings, strict=True)
        ]
    )


def decode(service: Service, body: Body) -> Answer:
    ids = body["ids"]
    rows = ids if isinstance(ids[0], list) else [ids]
    size = service.model.config.vocab_size
    for row in rows:
        for i in row:
            if i >= size:
                raise Refusal(422, f"id {i} is not in the vocabulary of {size}")
    skip = body["skip_special_tokens"]
    return Answer([service.tokenizer.decode(row, skip_special_tokens=skip) for row in rows])


# -- rerank and score -----------------------------------------------------------------------------


def rerank(service: Service, body: Body) -> Answer:
    """TEI's with `texts`, Cohere's and Jina's with `documents`."""
    check_side(service, body)
    given = body["documents"] if body["texts"] is None else body["texts"]
    if given is None or (body["documents"] is not None and body["texts"] is not None):
        raise Refusal(422, "give texts, or documents")
    documents = [one if isinstance(one, str) else one["text"] for one in given]
    query = body["query"]
    scores = service.score(
        [(query, text) for text in documents], raw=body["raw_scores"], truncate=body["truncate"]
    )
    order = np.argsort(-scores, kind="stable")
    if body["texts"] is not None:
        return Answer(
            [
                {"index": int(i), "score": float(scores[i])}
                | ({"text": documents[i]} if body["return_text"] else {})
                for i in order
            ]
        )
    results = [
        {"index": int(i), "relevance_score": float(scores[i])}
        | ({"document": {"text": documents[i]}} if body["return_documents"] else {})
        for i in order[: body["top_n"]]
    ]
    about = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    head = {"id": new_id("rerank"), "model": service.name, "results": results, "meta": about}
    return Answer(head, usage=("prompt_tokens", "total_tokens"))


def score(service: Service, body: Body) -> Answer:
    ones = body["queries"] if body["text_1"] is None else body["text_1"]
    twos = body["documents"] if body["text_2"] is None else body["text_2"]
    if ones is None or twos is None:
        raise Refusal(422, "queries and documents are both needed (or text_1 and text_2)")
    first, second = listed(ones), listed(twos)
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise Refusal(422, f"{len(first)} queries do not pair with {len(second)} documents")
    scores = service.score(list(zip(first, second, strict=True)), truncate=body["truncate"])
    data = [{"index": i, "object": "score", "score": float(x)} for i, x in enumerate(scores)]
    return Answer(head_of(service, "score", data), usage=("prompt_tokens", "total_tokens"))


def classify(service: Service, body: Body) -> Answer:
    labels = service.model.config.id2label
    found = service.classify(listed(body["input"]), truncate=body["truncate"])
    data = []
    for i, one in enumerate(found):
        scores = {x["label"]: x["score"] for x in one}
        probs = [scores[labels[k]] for k in range(len(labels))]
        data.append(
            {"index": i, "label": one[0]["label"], "probs": probs, "num_classes": len(probs)}
        )
    return Answer(head_of(service, "classify", data), usage=("prompt_tokens", "total_tokens"))


def head_of(service: Service, kind: str, data: list[Any]) -> Body:
    return {
        "id": new_id(kind),
        "object": "list",
        "created": service.born,
        "model": service.name,
        "data": data,
    }


# -- OpenAI ---------------------------------------------------------------------------------------


def openai(service: Service, body: Body) -> Asked:
    texts = listed(body["input"])
    if any(not isinstance(text, str) for text in texts):
        raise Refusal(
            400,
            "input holds token ids, which are those of another vocabulary: send text "
            "(LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False)",
        )
    found = service.embed(
        texts, dimensions=body["dimensions"], normalize=True, truncate=body["truncate"]
    )
    packed = body["encoding_format"] == "base64"

    def then(vectors: np.ndarray) -> Answer:
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": base64.b64encode(x.astype("<f4").tobytes()).decode()
                if packed
                else x.tolist(),
            }
            for i, x in enumerate(vectors)
        ]
        content = {"object": "list", "model": service.name, "data": data}
        return Answer(content, found.space, ("prompt_tokens", "total_tokens"))

    return Asked(found, then)


# -- the other tasks ------------------------------------------------------------------------------


def ner(service: Service, body: Body) -> Answer:
    said = {"stride": body["stride"]} if body["stride"] is not None else {}
    task = service.task("ner")
    texts = listed(body["inputs"])
    service.check_texts(len(texts))
    found = task(
        texts,
        aggregation_strategy=body["aggregation_strategy"],
        ignore_labels=body["ignore_labels"],
        truncate=service.policy(body["truncate"]),
        max_length=service.max_length,
        **said,
    )
    return Answer(found[0] if isinstance(body["inputs"], str) else found)


def answers(service: Service, body: Body) -> Answer:
    given = body["inputs"] or body
    if given.get("question") is None or given.get("context") is None:
        raise Refusal(422, "question and context are both needed")
    return Answer(
        service.task("answer")(
            question=given["question"],
            context=given["context"],
            top_k=body["top_k"],
            max_answer_len=body["max_answer_len"],
            handle_impossible_answer=body["handle_impossible_answer"],
        )
    )


def fill_mask(service: Service, body: Body) -> Answer:
    texts = listed(body["inputs"])
    found = service.fill_mask(
        texts, top_k=body["top_k"], targets=body["targets"], truncate=body["truncate"]
    )
    return Answer([found] if len(texts) == 1 and isinstance(body["inputs"], list) else found)


def root(service: Service, body: Body) -> Answer | Asked:
    """What the model is for, as clients that know no route ask."""
    path = {
        "embed": "/embed", "rerank": "/rerank", "classify": "/predict", "ner": "/ner",
        "answer": "/question-answering", "fill-mask": "/fill-mask",
    }.get(service.kind)  # fmt: skip
    inputs = body["inputs"]
    if isinstance(inputs, dict) and "source_sentence" in inputs:
        path = "/similarity"
    elif service.kind == "rerank" and inputs is not None:
        path = "/predict"
    route = BY_PATH.get(path or "")
    if route is None:
        raise Refusal(424, "this model has no task")
    given = {**(body["parameters"] or {}), **{n: x for n, x in body.items() if x is not None}}
    answer = route.run(service, checked(given, route.schema))
    # The inference API gives a list of texts' labels, for a single text too.
    single = path == "/predict" and isinstance(inputs, str)
    return Answer([answer.content]) if isinstance(answer, Answer) and single else answer


NORMALIZE = {**FLAG, "default": True}
RERANK = {
    "model": MODEL,
    "query": TEXT,
    "texts": TEXTS,
    "documents": {"type": "array", "items": DOCUMENT, "minItems": 1},
    "top_n": COUNT,
    "return_documents": FLAG,
    "return_text": FLAG,
    "raw_scores": {**FLAG, "default": False},
    **OF_TEI,
}
CITED = {"query": "a dog", "documents": ["the cat", "a dog in the house"], "top_n": 1}
EMBED = {
    "inputs": ONE_OR_MORE,
    "normalize": NORMALIZE,
    "dimensions": WIDTH,
    "prompt_name": TEXT,
    **OF_TEI,
}

ROUTES = (
    Route(
        "/embed", "vectors of texts", EMBED, ("inputs",), embed, {"inputs": "a text"}, "embed",
        soon=True,
    ),
    Route(
        "/embed_all", "a vector for each token", {"inputs": ONE_OR_MORE, **OF_TEI},
        ("inputs",), embed_all, {"inputs": ["a text"]}, "embed",
    ),
    Route(
        "/v1/embeddings", "vectors of texts, as OpenAI has them, of length 1",
        {
            "model": MODEL,
            "input": {"anyOf": [TEXT, TEXTS, IDS, {"type": "array", "items": IDS, "minItems": 1}]},
            "encoding_format": {"type": "string", "enum": ["float", "base64"], "default": "float"},
            "dimensions": WIDTH,
            "user": TEXT,
            "truncate": TRUNCATE,
        },
        ("input",), openai, {"model": "any", "input": ["a text", "another"]}, "embed", soon=True,
    ),
    Route(
        "/similarity", "cosines of a text with others",
        {
            "inputs": {
                "type": "object",
                "properties": {"source_sentence": TEXT, "sentences": TEXTS},
                "required": ["source_sentence", "sentences"],
            },
            "parameters": {
                "type": "object", "properties": {"truncate": TRUNCATE, "prompt_name": TEXT},
            },
        },
        ("inputs",), similarity,
        {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}, "embed", soon=True,
    ),
    Route("/rerank", "documents by their answers", RERANK, ("query",), rerank, CITED, "rerank"),
    Route("/v1/rerank", "the same", RERANK, ("query",), rerank, CITED, "rerank"),
    Route("/v2/rerank", "the same", RERANK, ("query",), rerank, CITED, "rerank"),
    Route(
        "/score", "scores of pairs; one query goes with every document",
        {
            "model": MODEL, "queries": ONE_OR_MORE, "documents": ONE_OR_MORE,
            "text_1": ONE_OR_MORE, "text_2": ONE_OR_MORE, "truncate": TRUNCATE,
        },
        (), score, {"queries": "a dog", "documents": ["the cat", "a dog"]}, "rerank",
    ),
    Route(
        "/predict", "labels of texts or pairs",
        {
            "inputs": {"anyOf": [TEXT, PAIR, {"type": "array", "items": PAIR, "minItems": 1}]},
            "raw_scores": {**FLAG, "default": False},
            **OF_TEI,
        },
        ("inputs",), predict, {"inputs": [["a text"], ["a text", "its pair"]]}, "classify",
    ),
    Route(
        "/classify", "labels of texts, as vLLM has them",
        {"model": MODEL, "input": ONE_OR_MORE, "truncate": TRUNCATE},
        ("input",), classify, {"model": "any", "input": ["a text"]}, "classify",
    ),
    Route(
        "/ner", "entities with their offsets",
        {
            "inputs": ONE_OR_MORE,
            "aggregation_strategy": {
                "type": "string", "enum": ["none", "simple", "first", "average", "max"],
                "default": "simple",
            },
            "ignore_labels": {"type": "array", "items": TEXT, "default": ["O"]},
            "stride": {"type": "integer", "minimum": 0, "maximum": 2**31},
            "truncate": TRUNCATE,
        },
        ("inputs",), ner, {"inputs": "Ada Lovelace lived in London"}, "ner",
    ),
    Route(
        "/question-answering", "the span of a context that answers a question",
        {
            "inputs": {
                "type": "object", "properties": {"question": TEXT, "context": TEXT},
                "required": ["question", "context"],
            },
            "question": TEXT,
            "context": TEXT,
            "top_k": {**COUNT, "maximum": 100, "default": 1},
            "max_answer_len": {**COUNT, "maximum": 1000, "default": 15},
            "handle_impossible_answer": {**FLAG, "default": False},
        },
        (), answers, {"question": "where?", "context": "Ada lived in London"}, "answer",
    ),
    Route(
        "/fill-mask", "what stands best at each [MASK]",
        {
            "inputs": ONE_OR_MORE,
            "top_k": {**COUNT, "maximum": 1000, "default": 5},
            "targets": TEXTS,
            "truncate": TRUNCATE,
        },
        ("inputs",), fill_mask, {"inputs": "for i in [MASK](10):"}, "fill-mask",
    ),
    Route(
        "/tokenize", "tokens of texts with their offsets",
        {"inputs": ONE_OR_MORE, "add_special_tokens": {**FLAG, "default": True}},
        ("inputs",), tokenize, {"inputs": "a text"},
    ),
    Route(
        "/decode", "the text of ids",
        {
            "ids": {"anyOf": [IDS, {"type": "array", "items": IDS, "minItems": 1}]},
            "skip_special_tokens": {**FLAG, "default": True},
        },
        ("ids",), decode, {"ids": [1, 17, 42, 2]},
    ),
    Route(
        "/", "what the model is for: /embed, /rerank, /predict, /ner, ...",
        {"inputs": {}, "query": TEXT, "texts": TEXTS, "normalize": FLAG, "prompt_name": TEXT,
         "raw_scores": FLAG, "parameters": {"type": "object"}, **OF_TEI},
        (), root, {"inputs": "a text"},
    ),
)  # fmt: skip
BY_PATH = {route.path: route for route in ROUTES}
