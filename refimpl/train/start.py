"""The model that a run starts from: an encoder under the head of its task.

    with_head(base, "token_classification", ["O", "B-PER"], seed=0)
    with_embeddings(base, max_length=512)
    fresh("tiny", tokenizer, seed=0)

What of the head the base has already comes along (a masked-LM's prediction head is that of the
classifiers too); the rest is drawn from the seed. Heads are those of checkpoints, so that
transformers and sentence-transformers load what is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..models.model import ModernBERT
from ..models.summary import described_head
from ..models.task_model import ModernBERTForTask
from ..nlp import MultiTaskHead, NLPHead
from ..nlp.multi_task import CONFIG_KEY
from ..reference.config import ModernBertConfig
from ..reference.heads import HEADS
from ..reference.params import encoder_shapes, initialise
from ..reference.sentence import Pooling, SentenceHead, Settings
from ..text.tokenizer import Tokenizer

# Parameters of a head that belong to its labels: they start anew where the labels differ.
OF_LABELS = "classifier."


def with_head(
    base: ModernBERT,
    kind: str,
    names: Sequence[str] = (),
    problem: str | None = None,
    seed: int = 0,
) -> ModernBERTForTask:
    """The base's encoder under a head of that kind (reference.heads.HEADS).

    names: of its labels, where it has any; problem: config.json's problem_type. The classifier is
    drawn from `seed`, unless the base has one of the same kind, names and problem (or names none).
    """
    head = HEADS[kind]
    changes: dict[str, Any] = {"architectures": (head.architecture,)}
    if names:
        changes |= {"id2label": dict(enumerate(names)), "problem_type": problem}
    extra = {name: x for name, x in base.config.extra.items() if name != CONFIG_KEY}
    config = base.config.replace(**changes, extra=extra)
    same = isinstance(base, ModernBERTForTask) and base.head is head
    same = same and base.config.id2label == config.id2label
    same = same and base.config.problem_type in (None, config.problem_type)
    shapes, encoder = head.shapes(config), encoder_shapes(config)
    params = initialise(shapes, config, seed, np.dtype(base.dtype), len(encoder))
    keep = [*encoder, *(n for n in shapes if same or not n.startswith(OF_LABELS))]
    params |= {n: base.params[n] for n in keep if n in base.params}
    order = [*encoder, *shapes]
    return ModernBERTForTask(
        config, {n: params[n] for n in order}, head, backend="numpy", source=base.source
    )


def replaced_head(base: ModernBERT, made: ModernBERTForTask) -> list[str]:
    """A line on the configurable head of the base, where a run starts with another in its place."""
    head = getattr(base, "head", None)
    if made.head is head or not isinstance(head, (NLPHead, MultiTaskHead)):
        return []
    return [
        f"the model has {described_head(base)}, which is not trained: the result has a "
        f"{made.head.kind} head in its place; model.fit in Python trains a configurable one"
    ]


def with_embeddings(base: ModernBERT, max_length: int) -> ModernBERTForTask:
    """The base with the sentence modules that it has, else mean pooling. ValueError for modules
    that give scores."""
    head = base.sentence_head
    if head is None:
        settings = Settings(max_seq_length=max_length, similarity_fn_name="cosine")
        head = SentenceHead((Pooling(base.config.hidden_size),), settings)
    if head.makes_scores:
        raise ValueError("model is a reranker, whose modules give scores and not embeddings")
    names = encoder_shapes(base.config) | head.shapes(base.config)
    params = {name: base.params[name] for name in names}
    return ModernBERTForTask(base.config, params, head, backend="numpy", source=base.source)


def fresh(variant: str, tokenizer: Tokenizer, source: Any, seed: int) -> ModernBERTForTask:
    """A masked-LM of a variant's sizes with random weights, for a tokenizer's vocabulary.

    source: the folder whose tokenizer files come along.
    """
    special = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id")
        for role in ("pad", "cls", "sep", "bos", "eos")
    }
    config = ModernBertConfig.from_variant(
        variant,
        vocab_size=max(tokenizer.vocab.values()) + 1,
        **{name: x for name, x in special.items() if x is not None},
    )
    head = HEADS["masked_lm"]
    config = config.replace(architectures=(head.architecture,))
    encoder, own = encoder_shapes(config), head.shapes(config)
    params = initialise(encoder, config, seed, np.dtype(np.float32))
    params |= initialise(own, config, seed, np.dtype(np.float32), len(encoder))
    return ModernBERTForTask(config, params, head, backend="numpy", source=source)
