"""Training in the CPU engine: the encoder's passes there and back, heads' products, updates.

    engine = TrainingEngine(config, params, gradients)
    hidden = engine.forward(input_ids, cu_seqlens)
    for part in engine.backward(d): ..      adds to the arrays of `gradients`
    engine.finish()                         those of the embeddings, once a step

Parameters are read where they stand in every pass, so that they may change in between. No bit
depends on the number of threads, on `recompute`, or on how the sequences of a step are shared
between passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..reference.config import ModernBertConfig
from ..reference.params import encoder_shapes
from .backend import MOST_THREADS, chosen_tier, default_threads, native
from .engine import plan_of

Array = np.ndarray
# What a pass keeps in bytes where `recompute` is left open.
KEPT = 2**30


class TrainingEngine:
    """Not for two threads at once.

    params: name -> float32 array, C-contiguous, of the encoder (others are not looked at).
    gradients: name -> array to add to, for those that are wanted. dtype: of the products, float32,
    or bfloat16 from float32 parameters. num_threads: None for the default. tier: None for the best
    that `REFIMPL_ISA` leaves. recompute: whether a pass keeps the inputs of layers alone and
    computes the rest anew on its way back; None: of the first layers, where it would keep more than
    KEPT bytes.
    Raises ValueError.
    """

    def __init__(
        self,
        config: ModernBertConfig,
        params: Mapping[str, Array],
        gradients: Mapping[str, Array],
        *,
        dtype: str = "float32",
        num_threads: int | None = None,
        tier: str | None = None,
        recompute: bool | None = None,
    ) -> None:
        own = {name: params[name] for name in encoder_shapes(config) if name in params}
        self.dtype, self._recompute = dtype, recompute
        self.num_threads: int = min(num_threads or default_threads(), MOST_THREADS)
        self._native = native().Training(
            plan_of(config),
            own,
            {name: x for name, x in gradients.items() if name in own},
            tier or chosen_tier(),
            dtype,
        )
        self._typed = config.type_vocab_size > 0
        self._layers = config.num_hidden_layers
        # Floats of a token and layer: its input, q k v, joined heads, residual, Wi.
        layer = 6 * config.hidden_size + 2 * config.intermediate_size
        self._layer_bytes = 4 * layer

    @property
    def tier(self) -> str:
        return self._native.tier

    # -- the encoder ------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Array,
        cu_seqlens: Array,
        *,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        key_mask: Array | None = None,
    ) -> Array:
        """Last hidden state [total, hidden] of sequences laid end to end; see `Engine.packed`."""
        if self._recompute is None:
            kept = KEPT // max(self._layer_bytes * len(input_ids), 1)
        else:
            kept = 0 if self._recompute else self._layers
        recomputed = max(self._layers - kept, 0)
        types = token_type_ids if self._typed else None
        return self._native.forward(
            input_ids, cu_seqlens, types, position_ids, key_mask, recomputed, self.num_threads
        )

    def backward(self, d: Array) -> Iterator[str]:
        """From d [total, hidden] of the last pass to the gradients, in parts, last layer first.

        Yields how the names of a part's parameters begin when their gradients are complete, and
        neither those nor the parameters are needed any more: both may be changed then."""
        for part in range(self._layers, -2, -1):
            self._native.backward(part, d if part == self._layers else None, self.num_threads)
            if part == self._layers:
                yield "final_norm."
            else:
                yield f"layers.{part}." if part >= 0 else "embeddings.norm."

    def finish(self) -> None:
        """The gradients of the embeddings, of all passes since the last call."""
        self._native.finish(self.num_threads)

    # -- rows: what heads are made of -------------------------------------------------------------

    def linear(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        """x W^T + b. x [.., in] -> [.., out]."""
        y = native().rows_linear(
            self.tier, self.dtype, x.reshape(-1, x.shape[-1]), weight, bias, self.num_threads
        )
        return y.reshape(*x.shape[:-1], len(weight))

    def linear_adjoint(
        self,
        dy: Array,
        x: Array,
        weight: Array,
        ends: Array,
        dw: Array | None = None,
        db: Array | None = None,
    ) -> Array:
        """dx of rows; dw and db grow by their gradients, unit by unit: ends [units]."""
        return native().rows_linear_adjoint(
            self.tier, self.dtype, ends, dy, x, weight, dw, db, self.num_threads
        )

    def layer_norm_adjoint(
        self,
        dy: Array,
        x: Array,
        weight: Array,
        eps: float,
        ends: Array,
        dw: Array,
        db: Array | None = None,
    ) -> Array:
        """The same of LayerNorm."""
        return native().rows_layer_norm_adjoint(self.tier, ends, dy, x, weight, eps, dw, db)

    def cross_entropy(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        labels: Array,
        ends: Array,
        *,
        smoothing: float,
        share: float,
        dw: Array | None,
        db: Array | None,
    ) -> tuple[Array, Array]:
        """Cross-entropies [rows] of x W^T + b, and dx; gradients are of share times their sum."""
        return native().rows_cross_entropy(
            self.tier, self.dtype, ends, x, weight, bias, labels, smoothing, share, dw, db,
            self.num_threads,
        )  # fmt: skip

    # -- the update -------------------------------------------------------------------------------

    def update(
        self, p: Array, g: Array, first: Array, second: Array, rule: Mapping[str, float]
    ) -> None:
        """One tensor and its moments, in place, by AdamW; StableAdamW where the rule has a peak.

        rule: lr, weight_decay, eps, beta1, beta2, step from 1 on, perhaps peak."""
        native().update(self.tier, p, g, first, second, dict(rule), self.num_threads)

    def all_finite(self, x: Array) -> bool:
        """Whether no number of a gradient is Inf or NaN."""
        return native().all_finite(x, self.num_threads)

    def clear(self, x: Array) -> None:
        """A gradient's zeros for the next one."""
        native().clear(x, self.num_threads)
