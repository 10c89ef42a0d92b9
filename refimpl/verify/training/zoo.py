"""The known mistakes of training steps. `ZOO[id]`; what cannot be had here is in NOT_EXPRESSED.

The table of public mistakes, and those of backward passes written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import zoo_backward, zoo_loss, zoo_update
from .mistake import Mistake

ZOO: Mapping[str, Mistake] = MappingProxyType(
    {m.id: m for part in (zoo_loss, zoo_backward, zoo_update) for m in part.MISTAKES}
)

NOT_EXPRESSED: Mapping[str, str] = MappingProxyType(
    {
        "ST#3757": "teacher not detached: no case has a distillation loss",
        "ST#3329": "layer weights off by N^2: no case has a distillation loss",
        "ST distillation temperature": "no case has a distillation loss",
        "ST#3886": "a metric inverted: no metric is a part of a step",
        "ST gradcache": "other dropout masks in a second forward pass: no case has dropout, whose "
        "masks are everybody's own",
        "ST NO_DUPLICATES": "it is in which texts a batch is made of; the kit hands out batches",
        "ST 6.1.0": "formulas in documentation are not run",
        "padding_idx": "torch's Embedding gives the row of padding no gradient: only a loss that "
        "reads padded positions shows it, and what padding holds is free",
        "ICTMCG/SCM#4": "special tokens in text: it happens before there are ids",
    }
)
