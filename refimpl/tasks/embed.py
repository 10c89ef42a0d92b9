"""Sentence embeddings: one vector per text, with the names and rules of sentence-transformers.

    encode: [prompt +] text -> encoder -> the folder's modules (pooling, dense, normalise)
            -> first truncate_dim values -> length 1 if asked

A model without such modules gets mean pooling, and a warning if it is not the bundled tiny. Texts
are batched by length and come back in their order. Long because each option of the one class has
its refusal here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..files.folder import ModelFolder
from ..files.hub import BUNDLED
from ..files.sentence_files import (
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    settings_of_folder,
)
from ..models.inputs import check_inputs
from ..models.model import ModernBERT
from ..models.summary import described_head, described_modules
from ..models.task_model import ModernBERTForTask
from ..nlp import NLPHead
from ..reference.numerics import as_array, underflow_is_zero
from ..reference.params import encoder_shapes
from ..reference.sentence import Pooling, SentenceHead, Settings, normalize
from ..text.tokenizer import Encoded, Tokenizer
from .batches import Passes, in_passes
from .prompts import Prompts
from .search import nearest
from .similarity import SIMILARITIES
from .space import Space, weights_digest
from .task import (
    Model,
    as_list,
    check_top_k,
    head_limit,
    open_model,
    tokenizer_of,
)

Array = np.ndarray


class SentenceEncoder:
    """Texts to vectors. `dimension`: their width; `prompts`: name -> text put before a text;
    `max_seq_length`: most tokens of a text, or None; `similarity_fn_name`: what `similarity` is.
    """

    def __init__(
        self,
        model: Model = None,
        *,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        tokenizer: Tokenizer | None = None,
        backend: str = "auto",
        dtype: str = "float32",
        num_threads: int | None = None,
        revision: str | None = None,
    ) -> None:
        """model: a sentence-transformers or plain folder, a cached hub id, a loaded model, or None
        for the bundled one. The other options override what the folder says.

        Raises ValueError for a model with a head that gives no embeddings, ModelFormatError,
        HubError, MissingExtraError.
        """
        where = dict(backend=backend, dtype=dtype, num_threads=num_threads, revision=revision)
        self.model = open_model(model, "embed", **where)
        settings = settings_of(self.model)
        if tokenizer is None:
            tokenizer = tokenizer_of(self.model, lowercase=settings.do_lower_case)
        self.tokenizer = tokenizer
        limit = settings.max_seq_length or head_limit(self.model)
        self.max_seq_length = limit or tokenizer.max_length
        self._query_length, self._document_length = settings.query_length, settings.document_length
        self._prompts = Prompts(settings, prompts, default_prompt_name)
        _check_width(truncate_dim)
        self.truncate_dim = settings.truncate_dim if truncate_dim is None else truncate_dim
        self.similarity_fn_name = settings.similarity_fn_name or "cosine"
        self._mean = SentenceHead((Pooling(self.model.config.hidden_size),))
        self._head = _head_of(self.model) or self._mean
        self._full_dimension = _dimension(self._head)
        self._weights: str | None = None
        self.passes: Passes = in_passes

    def __repr__(self) -> str:
        head = self._head
        made_by = described_modules(head) if isinstance(head, SentenceHead) else [head.kind]
        parts = " -> ".join(made_by)
        limit = f", {self.max_seq_length:,} tokens at most" if self.max_seq_length else ""
        return f"SentenceEncoder({self.dimension:,} values, {parts}{limit}, {self.model!r})"

    @property
    def prompts(self) -> dict[str, str]:
        """Name -> text put before a text."""
        return self._prompts.texts

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt of a call that names none; None for no prompt."""
        return self._prompts.default

    @property
    def dimension(self) -> int:
        """Width of the vectors that `encode` gives by default."""
        return min(self._full_dimension, self.truncate_dim or self._full_dimension)

    @underflow_is_zero
    def encode(
        self,
        texts: str | Sequence[str],
        batch_size: int | None = None,
        normalize_embeddings: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        *,
        max_length: int | None = None,
        truncate: str = "warn",
        show_progress_bar: bool | None = False,
        return_lost: bool = False,
    ) -> Any:
        """Embeddings [texts, dimension] in the model's dtype; [dimension] for a single str.

        prompt: text put before each text; prompt_name: one of `prompts`, when no prompt is given.
        batch_size: most texts of a pass; None leaves it to their tokens (batches.py). truncate_dim:
        keep so many values, before normalising. max_length, truncate: see Tokenizer.encode_batch.
        return_lost: give (embeddings, tokens cut off each text, int64).
        No texts give shape [0, dimension]. Raises ValueError, TypeError.
        """
        _check_width(truncate_dim)
        items, single = as_list(texts, "texts")
        given: dict[str, Any] = dict(prompt=prompt, prompt_name=prompt_name, max_length=max_length)
        encodings = self.tokenized(items, truncate=truncate, **given)
        vectors = self.embedded(
            encodings,
            batch_size,
            normalize_embeddings,
            truncate_dim,
            show_progress_bar=show_progress_bar,
            **given,
        )
        lost = np.array([e.lost for e in encodings], dtype=np.int64)
        if single:
            vectors = vectors[0]
        return (vectors, lost) if return_lost else vectors

    def tokenized(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_length: int | None = None,
        truncate: str = "warn",
    ) -> list[Encoded]:
        """The first half of `encode`: texts behind their prompt, as ids."""
        items = list(texts)
        _check_texts(items)
        before, limit = self._text_options(prompt, prompt_name, max_length)
        return self.tokenizer.encode_batch(
            [before + text for text in items], max_length=limit, truncate=truncate
        )

    @underflow_is_zero
    def embedded(
        self,
        encodings: Sequence[Encoded],
        batch_size: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_length: int | None = None,
        show_progress_bar: bool | None = False,
    ) -> Array:
        """The second half of `encode`, of what `tokenized` gave with the same prompt and limit:
        [texts, dimension], in the order given."""
        run, key = self.pass_of(
            normalize_embeddings, truncate_dim,
            prompt=prompt, prompt_name=prompt_name, max_length=max_length,
        )  # fmt: skip
        width, *_ = key
        vectors = np.empty((len(encodings), width), self.model.dtype)
        for places, found in self.passes(
            encodings, run, batch_size, key=key, label="encode", verbose=show_progress_bar
        ):
            vectors[places] = found
        return vectors

    def pass_of(
        self,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_length: int | None = None,
    ) -> tuple[Callable[[list[Encoded]], Array], tuple[int, bool, int]]:
        """What `embedded` runs a pass with: encodings -> [batch, width]; and what passes must agree
        in to be one: width, length 1, tokens of the prompt."""
        before, limit = self._text_options(prompt, prompt_name, max_length)
        prompt_length = self._prompt_length(before, limit) if before else 0
        width = self._width(truncate_dim)
        types = self.model.config.type_vocab_size > 0

        def run(batch: list[Encoded]) -> Array:
            inputs = self.tokenizer.pad(batch, token_type_ids=types)
            return self._embed(inputs, prompt_length, width, normalize_embeddings)

        return run, (width, normalize_embeddings, prompt_length)

    def space(
        self,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        normalize_embeddings: bool = False,
    ) -> Space:
        """What the vectors of `encode` with these options depend on, as one short string
        (space.py). The weights are read once for it. Raises ValueError, OSError."""
        _check_width(truncate_dim)
        before, limit = self._text_options(prompt, prompt_name, max_length)
        head = self._head
        if self._weights is None:
            shapes = encoder_shapes(self.model.config) | head.shapes(self.model.config)
            self._weights = weights_digest(self.model, shapes)
        return Space.of(
            weights=self._weights,
            tokenizer=self.tokenizer.digest(),
            pooling=head.modules if isinstance(head, SentenceHead) else head,
            texts=(before, limit, self.tokenizer.truncation_side),
            width=self._width(truncate_dim),
            normalized=normalize_embeddings,
            dtype=self.model.compute_dtype,
            tier=self.model.tier or "numpy",
        )

    def _text_options(
        self, prompt: str | None, prompt_name: str | None, max_length: int | None
    ) -> tuple[str, int | None]:
        """What goes before a text, and the most tokens that it may have."""
        limit = self.max_seq_length if max_length is None else max_length
        return self._prompts.text(prompt, prompt_name), limit

    def _width(self, truncate_dim: int | None) -> int:
        width = self.truncate_dim if truncate_dim is None else truncate_dim
        return min(self._full_dimension, width or self._full_dimension)

    def encode_query(self, texts: str | Sequence[str], **options: Any) -> Any:
        """`encode` with the prompt "query" and the folder's `query_length`, unless the options name
        others."""
        own = {"prompt_name": "query", "max_length": self._query_length}
        return self.encode(texts, **(own | options))

    def encode_document(self, texts: str | Sequence[str], **options: Any) -> Any:
        """`encode` with the prompt "document" and the folder's `document_length`, unless the
        options name others."""
        own = {"prompt_name": "document", "max_length": self._document_length}
        return self.encode(texts, **(own | options))

    @underflow_is_zero
    def similarity(self, a: Array, b: Array) -> Array:
        """Similarity of every row of a with every row of b, [rows of a, rows of b].

        a, b: [rows, dimension] or [dimension]. Higher is closer; see `similarity_fn_name`.
        """
        a, b = (
            np.atleast_2d(as_array(name, x, "[rows, dimension]"))
            for name, x in (("a", a), ("b", b))
        )
        if a.shape[1] != b.shape[1]:
            raise ValueError(f"a is {a.shape[1]} wide and b {b.shape[1]}; they must agree")
        return SIMILARITIES[self.similarity_fn_name](a, b)

    def search(
        self,
        queries: str | Sequence[str] | Array,
        vectors: Array,
        k: int = 10,
        **options: Any,
    ) -> Any:
        """The k rows of `vectors` nearest to each query, by `similarity`: exact, in blocks.

        queries: texts, which are encoded with the prompt "query" unless the options (those of
        `encode`) name another; or vectors of theirs [queries, dimension] or [dimension]. vectors
        [rows, dimension] from `encode`. Gives for a single query a list of {corpus_id: row, score},
        best first, for several a list of such lists, as sentence-transformers' `semantic_search`.
        A row that is not finite is never found. Raises ValueError, TypeError.
        """
        check_top_k(k)
        vectors = np.asanyarray(vectors)
        if vectors.ndim != 2 or vectors.dtype.kind != "f":
            raise ValueError(
                f"vectors is {vectors.dtype} {list(vectors.shape)}; it must be floats [rows, "
                "dimension]"
            )
        width = vectors.shape[1]
        if isinstance(queries, np.ndarray):
            asked, single = np.atleast_2d(queries), queries.ndim == 1
        else:
            single = isinstance(queries, str)
            asked = np.atleast_2d(self.encode_query(queries, **options))
        if asked.ndim != 2 or asked.shape[1] != width:
            raise ValueError(
                f"vectors are {width} wide and queries {asked.shape[-1]}: of another model, or of "
                "another truncate_dim"
            )
        found = [
            [{"corpus_id": int(i), "score": float(s)} for s, i in zip(*one, strict=True)]
            for one in nearest(asked, vectors, int(k), self.similarity_fn_name)
        ]
        return found[0] if single else found

    def _embed(
        self, inputs: Mapping[str, Array], prompt_length: int, width: int, unit: bool
    ) -> Array:
        """Model inputs, and how many tokens belong to the prompt -> vectors [batch, width], of
        length 1 where `unit` says so. On backend native all of it is the engine's."""
        engine = self.model.engine
        if engine is not None and (engine.head or self._mean) == self._head:
            checked = check_inputs(self.model.config, inputs, dtype=self.model.dtype)
            return engine.embed(
                checked.rows(), width=width, normalize=unit, prompt_length=prompt_length
            )
        if isinstance(self._head, NLPHead):
            vectors = self.model(inputs)["embeddings"]
        else:
            model = self.model.encoder if isinstance(self.model, ModernBERTForTask) else self.model
            vectors = self._head.forward(
                self.model.params,
                self.model.config,
                model(inputs)["last_hidden_state"],
                inputs["attention_mask"],
                prompt_length=prompt_length,
            )["embeddings"]
        return normalize(vectors[:, :width]) if unit else vectors[:, :width]

    def _prompt_length(self, prompt: str, limit: int | None) -> int:
        """Tokens at the start of a text that belong to its prompt, [CLS] included; of a prompt
        over the limit those that are left of it, so that something stands behind it."""
        encoded = self.tokenizer.encode(prompt, max_length=limit, truncate="silent")
        return len(encoded) - (encoded.special[-1] if len(encoded) else 0)


def settings_of(model: ModernBERT) -> Settings:
    """What the model's folder says about texts; the defaults for a model that came from none."""
    if isinstance(model, ModernBERTForTask) and isinstance(model.head, SentenceHead):
        return model.head.settings
    return Settings() if model.source is None else settings_of_folder(model.source)


def _head_of(model: ModernBERT) -> SentenceHead | NLPHead | None:
    """What makes vectors: the model's own head, or None, with a warning, for others; the bundled
    model is known to have none."""
    head = model.head if isinstance(model, ModernBERTForTask) else None
    if isinstance(head, NLPHead) and head.kind == "text_similarity":
        return head
    if isinstance(head, SentenceHead):
        if head.makes_scores:
            raise ValueError(f"{model.folder} scores pairs and gives no embeddings; see Reranker")
        return head
    if model.source is None or model.source.path.resolve() != BUNDLED.resolve():
        warnings.warn(
            f"{_lack(model.source)} ({described_head(model)}): mean pooling is used", stacklevel=3
        )
    return None


def _lack(source: ModelFolder | None) -> str:
    """Why a model that came from that folder has no modules."""
    if source is None:
        return "this model has no modules.json"
    if source.modules is None:
        left = [n for n in (SETTINGS_FILE, TRANSFORMER_FILE) if (source.path / n).is_file()]
        unread = f", without which {' and '.join(left)} are not read" if left else ""
        return f"{source.path} has no modules.json{unread}"
    if source.modules:
        return f"the model was loaded without the modules in modules.json of {source.path}"
    return f"modules.json of {source.path} lists the Transformer alone"


def _dimension(head: SentenceHead | NLPHead) -> int:
    return head.width_out if isinstance(head, NLPHead) else head.dimension


def _check_width(truncate_dim: int | None) -> None:
    if truncate_dim is None:
        return
    if isinstance(truncate_dim, bool) or not isinstance(truncate_dim, (int, np.integer)):
        raise TypeError(f"truncate_dim must be an int, not {type(truncate_dim).__name__}")
    if truncate_dim < 1:
        raise ValueError(f"truncate_dim must be at least 1, not {truncate_dim}")


def _check_texts(items: list[Any]) -> None:
    """TypeError, naming the position, for what is not a str: a prompt cannot go before it."""
    for i, text in enumerate(items):
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] must be a str, not {type(text).__name__}")
