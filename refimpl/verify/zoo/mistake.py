"""What a mistake is: a named change of the reference, and the few tools to write one in a line.

    broken = mistake.apply(p)           Pass -> Pass, nothing is changed in place

A mistake replaces equations (`p.with_ops`), the config, the parameters or the inputs, or rewires
steps: `rewired` gives a step another value made from what the steps before it hand on, so that the
change is the same in a free run and in a teacher-forced one. Every change keeps the dtype of the
pass. Not here: mistakes that need several calls to show (faulty.py). Long because every tool that
mistakes of two files share stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np

from ...reference import ops as equations
from ...reference.config import ModernBertConfig
from ...reference.heads import HEADS
from ..truth.passes import Pass

Array = np.ndarray
Change = Callable[[str, Array, Mapping[str, Array]], Array]


@dataclass(frozen=True)
class Mistake:
    """A known mistake of ports.

    id: that of the list, with a letter where it has variants; text: what the port does; citations:
    public threads where somebody made it, `owner/repo#number` or `repo#number`; taps: patterns of
    the steps at which it shows first; klass: mistakes of one class give the same numbers, whatever
    the case; deviation: a declared departure, not a failure; noise: the change is rounding, so a
    replay meets its size and place but not its digits; reports: only what is handed out is wrong,
    and the port goes on with its own.
    """

    id: str
    title: str
    text: str
    citations: tuple[str, ...]
    apply: Callable[[Pass], Pass]
    taps: tuple[str, ...]
    klass: str = ""
    deviation: bool = False
    noise: bool = False
    reports: bool = False

    def __post_init__(self) -> None:
        if not self.klass:
            object.__setattr__(self, "klass", self.id)

    def shows_at(self, tap: str) -> bool:
        """Whether the mistake may show first at that step."""
        return any(fnmatchcase(tap, pattern) for pattern in self.taps)


def with_config(p: Pass, **fields: Any) -> Pass:
    """The same pass under a config with some fields replaced."""
    return replace(p, config=_config(_Same(p.config), tuple(fields.items())))


class _Same:
    """A config by what it is, not by what it holds: it is asked for again and again."""

    def __init__(self, config: ModernBertConfig) -> None:
        self.config = config

    def __hash__(self) -> int:
        return id(self.config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.config is self.config


@lru_cache(4096)
def _config(config: _Same, fields: tuple[tuple[str, Any], ...]) -> ModernBertConfig:
    return replace(config.config, **dict(fields))


GIVEN = "given "
"""Before the name of a step that a part of a pass starts from: it is read, and no longer made."""


# -- rewiring -------------------------------------------------------------------------------------


def rewired(p: Pass, change: Change, *, reported_only: bool = False) -> Pass:
    """Every step's value is change(name, value, seen); seen holds what later steps read, by name.

    reported_only: whoever listens is shown the changed value, and the pass goes on with its own.
    """

    def listen(tap: Callable[[str, Array], Array], seen: dict[str, Array]) -> Any:
        def wired(name: str, value: Array) -> Array:
            if name.startswith(GIVEN):
                seen[name.removeprefix(GIVEN)] = value
                return tap(name, value)
            changed = change(name, value, seen)
            if reported_only and changed is not value:
                tap(name, changed)
            else:
                value = tap(name, changed)
            seen[name] = value
            return value

        return wired

    def encode(*args: Any, tap: Callable[[str, Array], Array], **inputs: Any) -> Array:
        return p.encode(*args, tap=listen(tap, {}), **inputs)

    def head(params: Any, config: Any, hidden: Array, mask: Any, ops: Any, tap: Any) -> Any:
        forward = p.head_forward or HEADS[p.head or ""].forward
        return forward(params, config, hidden, mask, ops, listen(tap, {"final_norm": hidden}))

    def vectors(hidden: Array, mask: Any, tap: Any) -> None:
        assert p.vectors is not None
        p.vectors(hidden, mask, listen(tap, {"final_norm": hidden}))

    return replace(
        p, encode=encode, head_forward=head if p.head else None,
        vectors=vectors if p.vectors else None,
    )  # fmt: skip


def at(pattern: str, change: Callable[[str, Array, Mapping[str, Array]], Array]) -> Change:
    """The change, for steps whose name matches; every other step stays."""
    return lambda name, value, seen: (
        change(name, value, seen) if fnmatchcase(name, pattern) else value
    )


def before(name: str, step: str) -> str:
    """The name of another step of the same layer: before("layers.3.q_rot", "q") = "layers.3.q"."""
    return name.rpartition(".")[0] + "." + step


def layer_input(name: str) -> str:
    """The name of the step that the layer of `name` starts from."""
    i = int(name.split(".")[1])
    return f"layers.{i - 1}.residual_2" if i else "embedding"


# -- attention ------------------------------------------------------------------------------------


def with_attention(p: Pass, attention: Callable[..., Array]) -> Pass:
    """attention(q, k, v, key_mask, window) in place of the reference's, padded and packed."""

    def packed(q: Array, k: Array, v: Array, cu_seqlens: Array, window: int | None) -> Array:
        parts = []
        for start, stop in zip(cu_seqlens[:-1], cu_seqlens[1:], strict=True):
            one = slice(start, stop)
            every_key = np.ones((1, stop - start), bool)
            parts.append(attention(q[None, one], k[None, one], v[None, one], every_key, window)[0])
        return np.concatenate(parts)

    return p.with_ops(attention=attention, attention_packed=packed)


def with_window(p: Pass, window: Callable[[int | None], int | None]) -> Pass:
    """Every layer's half width replaced by window(half width); None means no window."""
    attention, packed = p.ops.attention, p.ops.attention_packed
    return p.with_ops(
        attention=lambda q, k, v, mask, w: attention(q, k, v, mask, window(w)),
        attention_packed=lambda q, k, v, cu, w: packed(q, k, v, cu, window(w)),
    )


def dense(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Softmax attention with an explicit visibility bool [batch, 1 or heads, seq, seq]."""
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out = equations.attention_probs(q, k, seen) @ v
    return out.swapaxes(1, 2).reshape(out.shape[0], out.shape[2], -1)


def distances(seq: int) -> Array:
    """key index - query index, int [seq, seq]."""
    return np.arange(seq)[None, :] - np.arange(seq)[:, None]


def with_visibility(p: Pass, rule: Callable[[Array, int | None], Array]) -> Pass:
    """rule(key index - query index, window) -> bool says who is seen, besides the padding mask."""

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        v = np.where(key_mask[..., None, None], v, 0.0).astype(v.dtype, copy=False)
        visible = rule(distances(q.shape[1]), window) & key_mask[:, None, :]
        return dense(q, k, v, visible[:, None])

    return with_attention(p, attention)


# -- positions ------------------------------------------------------------------------------------


def axes(p: Pass) -> tuple[int, ...]:
    """[batch, seq] or [total] of the pass's input."""
    ids, embeds = p.inputs.get("input_ids"), p.inputs.get("inputs_embeds")
    if ids is not None:
        return ids.shape
    assert embeds is not None
    return embeds.shape[:-1]


def positions(p: Pass) -> Array:
    """The positions that the pass rotates by, in the shape of its axes."""
    given, cu = p.inputs.get("position_ids"), p.inputs.get("cu_seqlens")
    if given is None:
        given = np.arange(axes(p)[-1]) if cu is None else equations.packed_positions(cu)
    return np.broadcast_to(given, axes(p))


# -- rounding -------------------------------------------------------------------------------------


def round_bits(x: Array, bits: int) -> Array:
    """x rounded to `bits` significant bits, to nearest even, exponent unlimited: 8 is bfloat16, 11
    are float16 and TF32. The dtype stays."""
    significand, exponent = np.frexp(x)
    scale = 2.0**bits
    return np.ldexp(np.rint(significand * scale) / scale, exponent).astype(x.dtype, copy=False)


def through(x: Array, dtype: type) -> Array:
    """x stored in another dtype and read back; overflow included."""
    return x.astype(dtype).astype(x.dtype)
