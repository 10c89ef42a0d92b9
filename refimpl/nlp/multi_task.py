"""Several tasks over one encoder: `MultiTaskHead`, and heads to and from their json description.

The outputs are {task: outputs of its head}; the tensors stand under `nlp_head.<task>.`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..reference import ops as equations
from ..reference.config import ModernBertConfig
from ..reference.encoder import Params, Tap, no_tap
from ..reference.params import Shapes
from .families import Outputs
from .head import NLPHead, nlp_head
from .options import known_options, used_by
from .task_config import NLPTaskConfig

Array = np.ndarray
# The key of config.json under which a head's description stands.
CONFIG_KEY = "refimpl_head"
# Keys that a call of the model adds on request; a task of that name would be overwritten.
RESERVED = ("hidden_states", "attentions")


@dataclass(frozen=True)
class MultiTaskHead:
    """One head per task, all reading the same hidden states [batch, seq, hidden]."""

    heads: tuple[NLPHead, ...]

    kind = "multi_task"
    architecture = "ModernBertModel"

    @property
    def takes_pairs(self) -> bool:
        return any(head.takes_pairs for head in self.heads)

    def shapes(self, config: ModernBertConfig | None = None) -> Shapes:
        """Name -> shape of every head's tensors."""
        out: Shapes = {}
        for head in self.heads:
            out |= head.shapes(config)
        return out

    def forward(
        self,
        params: Params,
        config: ModernBertConfig | None,
        hidden: Array,
        attention_mask: Array | None = None,
        ops: Any = equations,
        tap: Tap = no_tap,
    ) -> Outputs:
        """{task: outputs}."""
        return {
            head.task.name: head.forward(params, config, hidden, attention_mask, ops, tap)
            for head in self.heads
        }

    def compare(
        self,
        params: Params,
        first: Outputs,
        second: Outputs,
        ops: Any = equations,
        tap: Tap = no_tap,
    ) -> Outputs:
        """Similarity tasks compare the two texts; the others answer for the first."""
        out = {}
        for head in self.heads:
            name = head.task.name
            out[name] = head.compare(params, first[name], second[name], ops, tap)
        return out

    def to_dict(self) -> dict[str, Any]:
        return {"tasks": [head.to_dict() for head in self.heads]}


def multi_task_head(
    tasks: Mapping[str, NLPTaskConfig] | Iterable[NLPTaskConfig],
    input_dim: int,
    options: Mapping[str, Any],
) -> MultiTaskHead:
    """A head per task; each takes the options that it reads. ValueError, TypeError."""
    known_options(options)
    configs = task_list(tasks)
    names = [task.name for task in configs]
    if not configs or len(set(names)) != len(names):
        raise ValueError(f"task_configs has the names {names}; it needs one or more, all different")
    for task in configs:
        if task.name in RESERVED:
            raise ValueError(
                f"a task is named {task.name!r}; beside other tasks it cannot be "
                f"{' or '.join(RESERVED)}, which are outputs of the encoder"
            )
        if task.family == "multiple_choice":
            raise ValueError(
                f"task {task.name!r} is multiple_choice, whose input is [batch, choices, seq]; it "
                "cannot share an encoder call with tasks over [batch, seq]"
            )
    for option in options:
        if not any(used_by(task.family, option) for task in configs):
            raise ValueError(f"{option} is given, but none of the tasks {names} uses it")
    return MultiTaskHead(
        tuple(
            nlp_head(
                task,
                input_dim,
                {name: x for name, x in options.items() if used_by(task.family, name)},
                scope=task.name + ".",
            )
            for task in configs
        )
    )


def task_list(
    tasks: NLPTaskConfig | Mapping[str, NLPTaskConfig] | Iterable[NLPTaskConfig],
) -> list[NLPTaskConfig]:
    """One or several task configs as a list. ValueError when a key is not its task's name."""
    if isinstance(tasks, NLPTaskConfig):
        return [tasks]
    configs = list(tasks.values() if isinstance(tasks, Mapping) else tasks)
    for task in configs:
        if not isinstance(task, NLPTaskConfig):
            raise TypeError(f"task_config is {task!r}; it must be an NLPTaskConfig")
    names = [task.name for task in configs]
    if isinstance(tasks, Mapping) and list(tasks) != names:
        raise ValueError(f"task_configs has the keys {list(tasks)}, but its tasks' names {names}")
    return configs


def head_from_config(config: ModernBertConfig) -> NLPHead | MultiTaskHead | None:
    """The head that a config.json describes, or None. ValueError for a wrong description."""
    values = config.extra.get(CONFIG_KEY)
    return None if values is None else head_from_dict(values)


def head_from_dict(values: Any) -> NLPHead | MultiTaskHead:
    """The inverse of to_dict. Raises ValueError."""
    if isinstance(values, Mapping) and isinstance(values.get("tasks"), list):
        heads = [_one_from_dict(one, scoped=True) for one in values["tasks"]]
        multi_task_head([head.task for head in heads], 1, {})  # the names and families must fit
        return MultiTaskHead(tuple(heads))
    return _one_from_dict(values, scoped=False)


def _one_from_dict(values: Any, scoped: bool) -> NLPHead:
    if not isinstance(values, Mapping) or set(values) != {"task", "options", "input_dim"}:
        raise ValueError(f"{CONFIG_KEY} holds {values!r}; it needs task, options and input_dim")
    try:
        task = NLPTaskConfig.from_dict(values["task"])
        scope = task.name + "." if scoped else ""
        return nlp_head(task, values["input_dim"], values["options"], scope)
    except TypeError as error:
        raise ValueError(f"{CONFIG_KEY}: {error}") from None


def config_with_head(config: ModernBertConfig, head: NLPHead | MultiTaskHead) -> ModernBertConfig:
    """The config that describes the head too: labels and problem_type where it has classes."""
    changes: dict[str, Any] = {
        "architectures": (head.architecture,),
        "extra": {**config.extra, CONFIG_KEY: head.to_dict()},
    }
    if isinstance(head, NLPHead):
        if head.family in ("sequence_classification", "token_classification", "regression"):
            if head.width_out != config.num_labels:
                changes["num_labels"] = head.width_out
        if head.family == "regression":
            changes["problem_type"] = "regression"
        if head.family == "sequence_classification":
            several = head.task.multi_label
            changes["problem_type"] = f"{'multi' if several else 'single'}_label_classification"
    return config.replace(**changes)
