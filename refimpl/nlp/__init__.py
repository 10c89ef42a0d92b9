"""The configurable heads, by task type, as the Keras system has them that this descends from.

task_types.py names the tasks, task_config.py and options.py say what a head is asked for, head.py
and families.py compute it, multi_task.py combines heads, layer.py makes them usable alone,
keras_names.py answers what Keras models are asked for.
Models of an encoder with such a head are made in models/create.py. Imports: reference.
"""

from .head import NLPHead
from .layer import HeadLayer, create_multi_task_nlp_head, create_nlp_head
from .multi_task import CONFIG_KEY, MultiTaskHead, config_with_head, head_from_config
from .options import HeadOptions
from .task_config import NLPTaskConfig
from .task_types import NLPTaskType

__all__ = [
    "CONFIG_KEY",
    "HeadLayer",
    "HeadOptions",
    "MultiTaskHead",
    "NLPHead",
    "NLPTaskConfig",
    "NLPTaskType",
    "config_with_head",
    "create_multi_task_nlp_head",
    "create_nlp_head",
    "head_from_config",
]
