"""The loaded model and what it can do for a request, whatever the route.

Promise: the tasks run as they do in-process, over the lanes; a text over the model's limit is cut
and counted, or refused where the request or the server says so. A model that lacks the head for a
question is Refusal 424 that says which it has. Not here: bodies of requests and answers
(routes.py). Long because every question has its limits here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..files.hub import BUNDLED
from ..models.model import ModernBERT
from ..models.task_model import ModernBERTForTask
from ..reference.sentence import SentenceHead
from ..tasks import (
    FillMask,
    QuestionAnswering,
    Reranker,
    SentenceEncoder,
    TextClassification,
    TokenClassification,
)
from ..tasks.fill_mask import masks_of
from ..tasks.space import Space
from ..tasks.task import open_model, output_rows
from ..text.tokenizer import Encoded, Tokenizer
from .lanes import Lanes, in_order
from .refusals import Refusal
from .settings import Settings

Texts = Sequence[str]

COMES_ALONG = "embed"
"""The bundled model that is served by default."""

VALUES = 2**24
"""Most values of an answer, where they are many times its texts' tokens."""

# Heads whose hidden states were trained for something else than one vector a text.
NO_VECTORS = {"sequence_classification", "token_classification", "question_answering",
              "multiple_choice"}  # fmt: skip


@dataclass(frozen=True)
class Embedding:
    """What the lanes are asked for texts to become vectors (see batches.in_passes), and the digest
    of these."""

    encodings: list[Encoded]
    run: Callable[[list[Encoded]], np.ndarray]
    key: tuple[int, bool, int]
    space: str

    @property
    def values(self) -> int:
        """Of all vectors together."""
        return len(self.encodings) * self.key[0]


class Service:
    """Raises what `load` and the tasks raise for a folder."""

    def __init__(self, settings: Settings, **lanes: Any) -> None:
        self.settings = settings
        self.name = settings.served_name or settings.model or COMES_ALONG
        self.model: ModernBERT = open_model(
            settings.model,
            COMES_ALONG,
            backend=settings.backend,
            dtype=settings.dtype,
            num_threads=settings.threads,
        )
        self.born = int(time.time())
        self._lanes: Lanes | None = None
        self._lanes_options = lanes
        self.tasks: dict[str, Any] = {}
        self._spaces: dict[str | None, Space] = {}
        self.lacks: dict[str, str] = {}
        head = self.model.head if isinstance(self.model, ModernBERTForTask) else None
        if head is None or head.kind not in NO_VECTORS:
            self._offer("embed", SentenceEncoder)
        else:
            self.lacks["embed"] = f"this model has a {head.kind} head and gives no embeddings"
        self._offer("rerank", Reranker)
        self._offer("classify", TextClassification)
        self._offer("ner", TokenClassification)
        self._offer("answer", QuestionAnswering)
        self._offer("fill-mask", FillMask)
        own = "fill-mask" if "fill-mask" in self.tasks else next(iter(self.tasks), "none")
        self.kind = own  # what the model was made for
        some = next(iter(self.tasks.values()), None)
        self.tokenizer: Tokenizer = (
            some.tokenizer if some else Tokenizer.from_folder(self.model.source or BUNDLED)
        )

    def _offer(self, name: str, kind: Callable[[ModernBERT], Any]) -> None:
        """A task, where the model has the head for it."""
        try:
            self.tasks[name] = kind(self.model)
        except ValueError as error:
            self.lacks[name] = str(error).replace(str(self.model.folder), "this one")

    def warm(self) -> None:
        """Pack the weights and read the digest, before anybody waits or a process forks."""
        with ThreadPoolExecutor(1) as beside:
            space = beside.submit(lambda: self.space)
            if self.model.engine is None:
                self.model(np.array([[0]]))
            space.result()

    def observe(self, **told: Callable[..., object]) -> None:
        """Who is told of passes and of what waits (see Lanes); before the first."""
        self._lanes_options |= told

    @property
    def lanes(self) -> Lanes:
        """The threads that compute, of this process: made when first asked for, behind a fork."""
        if self._lanes is None:
            limits = self.settings.max_queue_tokens, self.settings.max_request_tokens
            threads = getattr(self.model.engine, "num_threads", 1)
            self._lanes = Lanes(*limits, threads=threads, **self._lanes_options)
            for task in self.tasks.values():
                task.passes = self._lanes.in_passes
        return self._lanes

    def task(self, name: str) -> Any:
        if name not in self.tasks:
            raise Refusal(424, self.lacks[name])
        return self.tasks[name]

    @cached_property
    def space(self) -> str | None:
        """The digest of what /v1/embeddings gives, None for a model that gives no vectors."""
        encoder = self.tasks.get("embed")
        return None if encoder is None else str(encoder.space())

    @property
    def max_length(self) -> int | None:
        """Most tokens of a text."""
        limit: int | None = getattr(
            self.tasks.get(self.kind), "max_seq_length", self.tokenizer.max_length
        )
        return limit

    # -- what routes ask --------------------------------------------------------------------------

    def policy(self, truncate: bool | None) -> str:
        """What happens to long texts: what the request says, else the server."""
        cut = self.settings.truncate == "cut" if truncate is None else truncate
        return "silent" if cut else "error"

    def check_texts(self, count: int) -> None:
        if count > self.settings.max_texts:
            raise Refusal(413, f"{count} texts; at most {self.settings.max_texts} a request")

    def embed(
        self,
        texts: Texts,
        *,
        normalize: bool = False,
        dimensions: int | None = None,
        prompt_name: str | None = None,
        truncate: bool | None = None,
    ) -> Embedding:
        """Vectors of texts, yet to be computed."""
        encoder: SentenceEncoder = self.task("embed")
        if dimensions is not None and dimensions > encoder.dimension:
            raise Refusal(422, f"dimensions is {dimensions}; vectors have {encoder.dimension}")
        self.check_texts(len(texts))
        said: dict[str, Any] = dict(prompt_name=prompt_name)
        encodings = encoder.tokenized(texts, truncate=self.policy(truncate), **said)
        run, key = encoder.pass_of(normalize, dimensions, **said)
        if prompt_name not in self._spaces:  # a known one by now
            self._spaces[prompt_name] = encoder.space(**said)
        space = replace(self._spaces[prompt_name], width=key[0], normalized=normalize)
        return Embedding(encodings, run, key, str(space))

    def vectors(self, of: Embedding) -> np.ndarray:
        """[texts, dimension], when they are there."""
        return in_order(self.lanes.in_passes(of.encodings, of.run, key=of.key))

    def embed_tokens(self, texts: Texts, truncate: bool | None = None) -> list[np.ndarray]:
        """The hidden states [seq, hidden] of each text."""
        self.task("embed")
        self.check_texts(len(texts))
        encodings = self.encode(texts, truncate)
        self.check_values(sum(map(len, encodings)) * self.model.config.hidden_size)
        model = self.model
        encoder = model.encoder if isinstance(model, ModernBERTForTask) else model
        rows = output_rows(encoder, self.tokenizer, encodings, passes=self.lanes.in_passes)
        return [
            row["last_hidden_state"][: len(encoded)]
            for row, encoded in zip(rows, encodings, strict=True)
        ]

    def score(
        self, pairs: Sequence[tuple[str, str]], *, raw: bool = False, truncate: bool | None = None
    ) -> np.ndarray:
        """Scores [pairs] of a reranker."""
        reranker: Reranker = self.task("rerank")
        if reranker.num_labels != 1:
            raise Refusal(424, f"this model gives {reranker.num_labels} labels; see /classify")
        self.check_texts(len(pairs))
        options: dict[str, Any] = {"truncate": self.policy(truncate)}
        if raw:
            options["activation_fn"] = lambda scores: scores
        scores: np.ndarray = reranker.predict(list(pairs), **options)
        return scores

    def classify(
        self, inputs: Sequence[Any], *, raw: bool = False, truncate: bool | None = None
    ) -> list[list[dict[str, Any]]]:
        """{label, score} of every label of each text or {text, text_pair}, best first."""
        self.check_texts(len(inputs))
        found: list[list[dict[str, Any]]] = self.task("classify")(
            list(inputs),
            top_k=None,
            function_to_apply="none" if raw else None,
            max_length=self.max_length,
            truncate=self.policy(truncate),
        )
        return found

    def encode(self, texts: Sequence[Any], truncate: bool | None = None) -> list[Encoded]:
        """Texts or pairs as ids."""
        return self.tokenizer.encode_batch(
            texts, max_length=self.max_length, truncate=self.policy(truncate)
        )

    def fill_mask(
        self,
        texts: Texts,
        *,
        top_k: int,
        targets: Texts | None = None,
        truncate: bool | None = None,
    ) -> list[Any]:
        """Candidates for the masks of the texts, as FillMask gives them."""
        fill: FillMask = self.task("fill-mask")
        self.check_texts(len(texts))
        written = 0
        for encoded in self.encode(texts, truncate):
            masks = len(masks_of(self.tokenizer, encoded))
            written += masks * top_k * len(encoded)  # each candidate comes with its text
            self.check_values(max(written, masks * self.model.config.vocab_size))
        options: dict[str, Any] = dict(top_k=top_k, targets=targets)
        limits: dict[str, Any] = dict(max_length=self.max_length, truncate=self.policy(truncate))
        found: list[Any] = fill(list(texts), **options, **limits)
        return found

    def check_values(self, count: int) -> None:
        """What a text's answer is made of: a small body may ask for a large one."""
        if count > VALUES:
            raise Refusal(422, f"the answer takes {count} values; at most {VALUES}")

    def check_tokens(self, encodings: Sequence[Encoded]) -> None:
        tokens, most = sum(map(len, encodings)), self.settings.max_request_tokens
        if tokens > most:
            raise Refusal(422, f"{tokens} tokens; at most {most} a request")

    def facts(self) -> dict[str, Any]:
        """What /info says, in TEI's names and ours."""
        from .._version import __version__

        head = self.model.head if isinstance(self.model, ModernBERTForTask) else None
        pooling = "mean"
        if isinstance(head, SentenceHead):
            pooling = getattr(head.modules[0], "modes", ("mean",))[0]
        labels = self.model.config.id2label
        named = {str(i): label for i, label in labels.items()}
        classifier = {"id2label": named, "label2id": {x: int(i) for i, x in named.items()}}
        kinds: dict[str, Any] = {
            "embed": {"embedding": {"pooling": pooling}},
            "rerank": {"reranker": classifier},
        }
        return {
            "model_id": self.name,
            "model_dtype": self.model.compute_dtype,
            "model_type": kinds.get(next(iter(self.tasks), ""), {"classifier": classifier}),
            "tasks": list(self.tasks),
            "embedding_space": self.space,
            "backend": self.model.backend,
            "tier": self.model.tier,
            "max_input_length": self.max_length,
            "max_client_batch_size": self.settings.max_texts,
            "max_batch_tokens": self.lanes.budget,
            "max_concurrent_requests": self.settings.max_concurrent_requests,
            "auto_truncate": self.settings.truncate == "cut",
            "workers": self.settings.workers,
            "version": __version__,
        }
