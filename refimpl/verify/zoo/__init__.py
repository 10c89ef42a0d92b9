"""Known mistakes of ports, each as a small change of the reference.

`ZOO[id]` is a Mistake (mistake.py); `CLASSES` are the ids that give the same numbers whatever the
case; `FAULTY[id]` are mistakes that take several calls to show, as wrappers of a port; what cannot
be had here is in NOT_EXPRESSED with the reason. The ids are those of the list of mistakes that
public ports have made, with a letter where one has variants. Imports: truth, ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import attention, heads, masks, mlp, plan, rotary, runtime
from .faulty import FAULTY, Faulty
from .mistake import Mistake

__all__ = ["CLASSES", "FAULTY", "NOT_EXPRESSED", "ZOO", "Faulty", "Mistake"]

ZOO: Mapping[str, Mistake] = MappingProxyType(
    {
        m.id: m
        for section in (plan, masks, rotary, attention, mlp, heads, runtime)
        for m in section.MISTAKES
    }
)

CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        klass: tuple(m.id for m in ZOO.values() if m.klass == klass)
        for klass in dict.fromkeys(m.klass for m in ZOO.values())
    }
)

NOT_EXPRESSED: Mapping[str, str] = MappingProxyType(
    {
        "T4": "it happens in text before there are ids; the kit hands out ids",
        "C9": "it is what a port says to a config that it does not support; there is no number",
    }
)
