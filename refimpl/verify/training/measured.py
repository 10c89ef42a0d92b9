"""What can be measured where the loss or its gradients are wrong: the factor that they are off by.

A normaliser that is wrong multiplies everything by one number; whoever has it can count.
"""

from __future__ import annotations

import numpy as np

from .compare import Right, Told, error

Array = np.ndarray


def factor(of: Right, told: Told) -> float | None:
    """The one number by which every gradient is the right one times it, within budget; None where
    there is none, or where it is 1."""
    names = [n for n in of.truth if n.startswith("grad.") and n in told.values]
    if not names or not all(np.isfinite(told.values[n]).all() for n in names):
        return None
    top = sum(float((told.values[n] * of.truth[n]).sum()) for n in names)
    bottom = sum(float((of.truth[n] ** 2).sum()) for n in names)
    f = top / bottom if bottom else 0.0
    if f == 0.0:
        return None
    worst = 0.0
    for n in names:
        found = error(of.t, n, told.values[n] / f, of.truth[n])
        allowed = {s: 2.0 * max(member[s] for member in of.strays[n]) for s in found}
        worst = max(worst, *(found[s] / allowed[s] if allowed[s] else 0.0 for s in found))
    same = max(abs(f - 1.0) / max(m["mean"] for m in of.strays[n]) for n in names[:1]) < 10.0
    return f if worst <= 1.0 and not same else None


def divisor(of: Right, f: float) -> tuple[float, float]:
    """(what is counted in the step, what a port that is off by f divides by)."""
    t = of.t
    outputs = _counts(of)
    counted = sum(outputs)
    shares = t.share(outputs, t.windows[0], t)
    return counted, 1.0 / (shares[0] * f)


def _counts(of: Right) -> list[float]:
    t = of.t
    out = []
    for micro in t.windows[0]:
        if t.class_weights is not None:
            out.append(float(t.class_weights[micro.labels].sum()))
        elif micro.labels.dtype.kind == "f":
            out.append(float(micro.labels.size))
        else:
            out.append(float(micro.labelled))
    return out
