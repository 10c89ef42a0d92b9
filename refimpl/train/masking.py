"""Which tokens a masked-LM has to guess, and what stands in their place (MODEL.md (57)).

    masked, labels = mask_tokens(ids, sequence, position, ...)

Of the tokens drawn, 80 % become the mask token, 10 % a random id, 10 % stay. Any may be drawn,
[CLS] and [SEP] too; padding must not be among ids. A token's fate depends on its place alone.
"""

from __future__ import annotations

import numpy as np

from . import labels as check
from .counter import purpose, words
from .losses import IGNORED

Array = np.ndarray

RATE = 0.3
# Of the tokens drawn: up to the first the mask token, up to the second a random id, the rest stay.
BY_MASK, BY_RANDOM = 0.8, 0.9


def mask_tokens(
    ids: Array,
    sequence: Array,
    position: Array,
    *,
    mask_id: int,
    vocab_size: int,
    seed: int,
    step: int,
    rate: float = RATE,
) -> tuple[Array, Array]:
    """ids, sequence, position int [..] -> what the model sees, and the labels: the id, or IGNORED.

    sequence: numbered within the step; step: of the run. rate: share of tokens to guess. Random ids
    are below vocab_size. Raises ValueError for a rate outside [0, 1), a seed or step that is no
    number of 32 bits, ids outside the vocabulary.
    """
    check.fraction("rate", rate)
    for name, value in (("ids", ids), ("mask_id", np.asarray(mask_id))):
        if ((value < 0) | (value >= vocab_size)).any():
            raise ValueError(
                f"{name} holds {value.min()} .. {value.max()}; vocab_size is {vocab_size}"
            )
    key = purpose(check.whole("seed", seed), "mask")
    drawn = words(key, (0, position, sequence, check.whole("step", step)))
    chosen, fate, other = (drawn[..., n].astype(np.uint64) for n in range(3))
    wanted = chosen < round(rate * 2**32)
    random_id = (other * np.uint64(vocab_size) >> np.uint64(32)).astype(ids.dtype)
    instead = np.where(fate < round(BY_RANDOM * 2**32), random_id, ids)
    instead = np.where(fate < round(BY_MASK * 2**32), mask_id, instead)
    return np.where(wanted, instead, ids), np.where(wanted, ids, IGNORED)
