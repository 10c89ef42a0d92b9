"""Questions of a lesson: an answer is held against what the reference gives, and told in words.

    check("3.2", answer, truth)                          3.2  right
    check("4.6", answer, sealed="5f0a91c2", digits=3)    where the truth would give itself away

An answer of `...` (or None, which a function without a body returns) is not answered yet, and the
lesson goes on. A wrong one raises NotYet, which says how it is wrong and not what is right.
Numbers count as right to 1e-9 of the largest of them, as float64 computes, or to so many `digits`
behind the point; text, truth values, whole numbers and lists of them exactly. A sealed truth is a
hash of it (`seal`): whoever reads the question does not read the answer beside it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

TOLERANCE = 1e-9


class NotYet(AssertionError):
    """An answer that is not right yet. Attribute: `question`."""

    def __init__(self, question: str, how: str) -> None:
        self.question = question
        super().__init__(f"question {question}: not yet: {how}")


def check(
    question: str,
    answer: Any,
    truth: Any = None,
    *,
    digits: int | None = None,
    sealed: str | None = None,
) -> None:
    """Print whether an answer is right. NotYet where it is wrong.

    answer: a number, an array of any shape, text, a truth value or a list; truth: the same, of the
    reference; digits: behind the point, of a number that was read off or estimated; sealed: the
    hash of a truth (no array) in its place.
    """
    if answer is None or answer is Ellipsis:
        print(f"{question}  not answered yet")
        return
    if sealed is not None:
        how = None if seal(question, answer, digits) == sealed else "no"
    elif isinstance(truth, np.ndarray):
        how = _array(answer, truth)
    else:
        how = _one(answer, truth, digits)
    if how is not None:
        raise NotYet(question, how)
    print(f"{question}  right")


def seal(question: str, value: Any, digits: int | None = None) -> str:
    """Eight hexadecimal digits of a hash of a question's answer, 3.0 as 3. Not a secret: it keeps
    a glance from being an answer."""
    if isinstance(value, (list, tuple)):
        said = "[" + ", ".join(_plain(x, digits) for x in value) + "]"
    else:
        said = _plain(value, digits)
    return hashlib.sha256(f"{question} {said}".encode()).hexdigest()[:8]


def _plain(value: Any, digits: int | None) -> str:
    """A single value as text: numbers with so many digits, or whole."""
    if isinstance(value, (str, bool, np.bool_)):
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return repr(value)
    if digits is not None:
        return f"{number + 0.0:.{digits}f}"
    return str(int(number)) if number.is_integer() else repr(number)


def _one(answer: Any, truth: Any, digits: int | None) -> str | None:
    """What is wrong with an answer that is no array, or None."""
    if isinstance(truth, (str, bool, list, tuple, np.bool_)):
        wanted, given = type(truth), type(answer)
        if isinstance(truth, (list, tuple)):
            if not isinstance(answer, (list, tuple)):
                return f"the answer is a list, and this is of type {given.__name__}"
            if len(answer) != len(truth):
                return f"it has {len(answer)} entries, not as many as there are"
            wrong = [i for i, (a, b) in enumerate(zip(answer, truth, strict=True)) if a != b]
            return f"entry {wrong[0]} is not right" if wrong else None
        if isinstance(truth, (bool, np.bool_)) and not isinstance(answer, (bool, np.bool_)):
            return f"the answer is True or False, and this is of type {given.__name__}"
        if isinstance(truth, str) and not isinstance(answer, str):
            return f"the answer is of type {wanted.__name__}, and this is of type {given.__name__}"
        return None if answer == truth else "no"
    if isinstance(answer, (str, bool)) or np.ndim(answer) != 0:
        return f"the answer is one number, and this is {type(answer).__name__}"
    a, b = float(answer), float(truth)
    if isinstance(truth, (int, np.integer)):
        near = a == b
    elif digits is not None:
        near = abs(a - b) <= 0.5000001 * 10.0**-digits
    else:
        near = abs(a - b) <= TOLERANCE * abs(b)
    if near:
        return None
    if not np.isfinite(a):
        return f"{a} is no number to work with"
    return "too small" if a < b else "too large"


def _array(answer: Any, truth: np.ndarray) -> str | None:
    """What is wrong with an array, or None."""
    a = np.asarray(answer)
    if a.shape != truth.shape:
        return f"its shape is {list(a.shape)}, and should be {list(truth.shape)}"
    if a.dtype.kind not in "biuf":
        return f"its entries are of type {a.dtype}, not numbers"
    if truth.dtype.kind in "biu":
        wrong = a != truth
    else:
        with np.errstate(invalid="ignore"):
            scale = np.abs(truth[np.isfinite(truth)]).max(initial=0.0)
            same = (a == truth) | (np.isnan(a) & np.isnan(truth))
            wrong = ~(same | (np.abs(a - truth) <= TOLERANCE * scale))
    if not wrong.any():
        return None
    first = [int(i) for i in np.argwhere(wrong)[0]]
    return f"{int(wrong.sum()):,} of {wrong.size:,} entries differ, first the one at {first}"
