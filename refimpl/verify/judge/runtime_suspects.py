"""Which runtime mistake it is: the faulty ports of the zoo run through the same checks.

A runtime mistake has no step to be replayed at; what it leaves is which checks fail. `ranked` holds
the port's failed checks against those of each known faulty port: the share they have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from ..findings import Finding
from ..ports.port import ReferencePort
from ..truth.cases import Case, case
from ..zoo import FAULTY
from .runtime import base_case, runtime_findings


def ranked(findings: Iterable[Finding], cases: Sequence[Case]) -> list[tuple[str, float]]:
    """(id of FAULTY, share of failed checks in common) of those that share any, best first."""
    failed, base = failed_checks(findings), base_case(cases)
    out: list[tuple[str, float]] = []
    if base is None:
        return out
    for id in FAULTY:
        known = _known(id, base.name)
        common = len(failed & known) / max(len(failed | known), 1)
        if common:
            out.append((id, common))
    return sorted(out, key=lambda one: -one[1])


def failed_checks(findings: Iterable[Finding]) -> frozenset[str]:
    """What was done in each check of the runtime gate that failed."""
    return frozenset(
        f.message.partition(":")[0] for f in findings if f.gate == "runtime" and f.level == "fail"
    )


@cache
def _known(id: str, name: str) -> frozenset[str]:
    port = FAULTY[id].wrap(ReferencePort())
    return failed_checks(runtime_findings(port, [case(name)], port.dtype))
