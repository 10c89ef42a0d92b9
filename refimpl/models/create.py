"""An encoder with a configurable head in one call: `create_modern_bert_with_head`.

The heads are those of nlp/. The model saves and loads like any other: the head's description goes
into config.json, its tensors beside the encoder's, where transformers still finds the encoder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..files.stored import StoredParams
from ..nlp import MultiTaskHead, NLPHead, NLPTaskConfig, config_with_head
from ..nlp.head import nlp_head
from ..nlp.multi_task import multi_task_head, task_list
from ..reference.config import ModernBertConfig, default_labels
from ..reference.params import encoder_shapes, initialise
from .model import ModernBERT
from .task_model import ModernBERTForTask

Folder = str | os.PathLike[str]
# Overrides of the encoder's config that name the classes of the new head.
LABELS = {"num_labels", "id2label", "label2id"}
Tasks = NLPTaskConfig | Mapping[str, NLPTaskConfig] | Iterable[NLPTaskConfig]


def create_modern_bert_with_head(
    bert_variant: str,
    task_config: Tasks,
    pretrained: bool | Folder = False,
    weights_dataset: None = None,
    cache_dir: Folder | None = None,
    bert_config_overrides: Mapping[str, Any] | None = None,
    head_config_overrides: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    backend: str = "auto",
    dtype: str = "float32",
    num_threads: int | None = None,
) -> ModernBERTForTask:
    """A model whose outputs are those of the task's head (several tasks: {task: outputs}).

    bert_variant, pretrained, weights_dataset, cache_dir, bert_config_overrides: the encoder, as
    ModernBERT.from_variant takes them. task_config: one NLPTaskConfig, or several for one head each
    over the same encoder. head_config_overrides: options of the head (HeadOptions). The head is
    always random (from `seed`); a vocabulary_size that is missing is the encoder's. Raises
    ValueError, TypeError, HubError, ModelFormatError.
    """
    overrides, options = dict(bert_config_overrides or {}), dict(head_config_overrides or {})
    several = not isinstance(task_config, NLPTaskConfig)
    tasks = task_list(task_config)
    # A wrong task or option is told before a checkpoint is fetched or an encoder drawn.
    plan = ModernBertConfig.from_variant(bert_variant, **overrides)
    head_for(plan, tasks, several, options)
    encoder = ModernBERT.from_variant(
        bert_variant,
        pretrained,
        weights_dataset,
        cache_dir,
        seed=seed,
        backend=backend,
        dtype=dtype,
        num_threads=num_threads,
        **overrides,
    )
    head = head_for(encoder.config, tasks, several, options)
    bare = encoder.config
    if not LABELS & set(overrides):  # a checkpoint's labels name the classes of another head
        bare = bare.replace(id2label=default_labels(bare.num_labels), problem_type=None)
    config = config_with_head(bare, head)
    drawn = initialise(
        head.shapes(config), config, seed, encoder.dtype, len(encoder_shapes(encoder.config))
    )
    return ModernBERTForTask(
        config,
        StoredParams({**encoder.params.stored, **drawn}, encoder.dtype),
        head,
        backend=encoder.backend,
        dtype=encoder.compute_dtype,
        num_threads=num_threads,
        source=encoder.source,
    )


def head_for(
    config: ModernBertConfig, tasks: list[NLPTaskConfig], several: bool, options: Mapping[str, Any]
) -> NLPHead | MultiTaskHead:
    """The head over that encoder: its width, norm and vocabulary, unless the options say others."""
    own = {"norm_eps": config.norm_eps, "norm_bias": config.norm_bias, **options}
    full = [
        replace(task, vocabulary_size=config.vocab_size) if needs_vocabulary(task) else task
        for task in tasks
    ]
    if several:
        return multi_task_head(full, config.hidden_size, own)
    return nlp_head(full[0], config.hidden_size, own)


def needs_vocabulary(task: NLPTaskConfig) -> bool:
    return task.family == "masked_lm" and task.vocabulary_size is None
