"""How a configurable head is built, beyond what its task says: `HeadOptions`.

Promise: an option that the task's family does not read is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..reference.ops import ACTIVATIONS
from ..reference.pooling import named
from .task_config import POOLED_FAMILIES, NLPTaskConfig

# Poolings of the configurable heads; "attention" has parameters, the others are in pooling.py.
HEAD_POOLINGS = (*named("head"), "attention")
SIMILARITIES = ("cosine", "dot", "learned")


@dataclass(frozen=True)
class HeadOptions:
    """pooling_type: one of HEAD_POOLINGS, default cls, None where nothing is pooled.
    use_intermediate: the layer Dense -> LayerNorm -> activation before the output.
    intermediate_size: its width, default the input's; the task's hidden_size is the same thing.
    activation_type: of that layer. similarity_function: one of SIMILARITIES, None for other tasks.
    norm_eps, norm_bias: of the head's LayerNorms, as in ModernBertConfig.
    """

    pooling_type: str | None = None
    use_intermediate: bool = True
    intermediate_size: int | None = None
    activation_type: str = "gelu"
    similarity_function: str | None = None
    norm_eps: float = 1e-5
    norm_bias: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def known_options(given: Mapping[str, Any]) -> None:
    """TypeError for a name that is no head option."""
    known = [f.name for f in fields(HeadOptions)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"unknown head option {unknown[0]!r}; known: {', '.join(known)}")


def used_by(family: str, option: str) -> bool:
    """True when heads of the family read the option."""
    if option == "pooling_type":
        return family in POOLED_FAMILIES
    return option != "similarity_function" or family == "text_similarity"


def resolve_options(task: NLPTaskConfig, input_dim: int, given: Mapping[str, Any]) -> HeadOptions:
    """The options of a task's head with every default filled in. Raises ValueError, TypeError."""
    known_options(given)
    o = HeadOptions(**given)
    for name in ("pooling_type", "similarity_function"):
        if getattr(o, name) is not None and not used_by(task.family, name):
            raise ValueError(f"{name} is {getattr(o, name)!r}; {task.task_type} does not use it")
    if used_by(task.family, "pooling_type"):
        o = replace(o, pooling_type=_pooling(task, o.pooling_type))
    if used_by(task.family, "similarity_function"):
        o = replace(o, similarity_function=o.similarity_function or "cosine")
        if o.similarity_function not in SIMILARITIES:
            known = ", ".join(SIMILARITIES)
            raise ValueError(f"similarity_function is {o.similarity_function!r}; known: {known}")
    o = replace(o, intermediate_size=_width(task, o, input_dim))
    if o.activation_type not in ACTIVATIONS:
        options = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation_type is {o.activation_type!r}; supported: {options}")
    if not isinstance(o.norm_eps, (int, float)) or not o.norm_eps > 0:
        raise ValueError(f"norm_eps is {o.norm_eps!r}; it must be a positive number")
    for name in ("use_intermediate", "norm_bias"):
        if not isinstance(getattr(o, name), bool):
            raise ValueError(f"{name} is {getattr(o, name)!r}; it must be True or False")
    return o


def _pooling(task: NLPTaskConfig, given: str | None) -> str:
    if task.use_attention_pooling and given not in (None, "attention"):
        raise ValueError(f"pooling_type is {given!r}, but the task says use_attention_pooling")
    how = given or ("attention" if task.use_attention_pooling else "cls")
    if how not in HEAD_POOLINGS:
        raise ValueError(f"pooling_type is {how!r}; known: {', '.join(HEAD_POOLINGS)}")
    return how


def _width(task: NLPTaskConfig, o: HeadOptions, input_dim: int) -> int:
    """Of the intermediate layer; for text similarity also of the embedding."""
    given = {w for w in (task.hidden_size, o.intermediate_size) if w is not None}
    if len(given) == 2:
        raise ValueError(
            f"intermediate_size is {o.intermediate_size}, but the task says hidden_size "
            f"{task.hidden_size}; they are the same thing"
        )
    width = given.pop() if given else input_dim
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise ValueError(f"intermediate_size is {width!r}; it must be an integer >= 1")
    if not o.use_intermediate and width != input_dim and task.family != "text_similarity":
        raise ValueError(f"use_intermediate is False, so the width {width} has nothing to set")
    return width
