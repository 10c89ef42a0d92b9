"""transformers' ModernBERT (torch, eager or sdpa) as a port, every step taken by hooks.

The model is built from the case's config and a strict load of its weights, in float32, bfloat16,
float16 or float64. What has no module of its own is taken where it passes: q, k, v out of Wqkv,
rotated ones by wrapping apply_rotary_pos_emb, residual sums and pooled rows before the module that
they go into. Needs transformers >= 5. It takes no packed input.

Long because building, hooking and running share what they know of transformers' modules.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...errors import MissingExtraError
from ...reference.heads import HEADS
from ..findings import Finding
from ..truth.fixtures import hf_names
from ..truth.rounding import base_of
from .collect import from_arrays
from .names import Description
from .port import PortResult, Request

Array = np.ndarray
LAYER_TYPES = {"full_attention": "full", "sliding_attention": "sliding"}
# Outputs of modules of a layer, and inputs of modules of a layer, that are steps as they are.
OUTPUTS = {"attn_norm": "attn_norm", "attn.Wo": "attn_out", "mlp_norm": "mlp_norm",
           "mlp.Wi": "wi", "mlp.Wo": "mlp_out", "": "residual_2"}  # fmt: skip
INPUTS = {"attn.Wo": "attention", "mlp_norm": "residual_1", "mlp.Wo": "glu"}


class TransformersPort:
    """attention: "eager" or "sdpa"; dtype: float32, bfloat16, float16 or float64, in which rotary
    tables stay float32: that is declared.

    adapt: called with each model that is built, to change it. Raises MissingExtraError.
    """

    abilities = frozenset({"inputs", "state", "threads", "positions"})

    def __init__(
        self,
        attention: str = "sdpa",
        dtype: str = "float32",
        adapt: Callable[[Any], None] | None = None,
    ) -> None:
        try:
            import torch
            from transformers.models.modernbert import modeling_modernbert
        except ImportError:
            raise MissingExtraError("transformers", "oracle", "running transformers") from None
        self.torch: Any = torch
        self.hf: Any = modeling_modernbert
        self.attention, self.base, self.adapt = attention, base_of(dtype), adapt
        self.dtype = f"{dtype}+float32-tables" if dtype == "float64" else dtype
        self.model: Any = None
        self.loaded: tuple[Any, ...] = ()
        self.seen = threading.local()

    @property
    def name(self) -> str:
        return f"transformers {self.attention}"

    def run(self, request: Request) -> PortResult:
        with one_thread(self.torch):
            return self.answer(request)

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        with one_thread(self.torch), ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(self.answer, requests))

    def answer(self, request: Request) -> PortResult:
        if request.inputs.get("cu_seqlens") is not None:
            message = "not run: transformers takes packed input only with flash attention"
            return PortResult(findings=(Finding("port", "note", message, request.name),))
        try:
            self.load(request)
            with self.wrapped_rotary():
                steps = self.forward(request)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            message = f"transformers raises {type(error).__name__}: {error}"
            return PortResult(findings=(Finding("port", "fail", message, request.name),))
        description = Description(plan=self.plan(request))
        return from_arrays(request, steps | self.weights(request), description, self.dtype)

    # -- the model --------------------------------------------------------------------------------

    def load(self, request: Request) -> None:
        """Build the request's model, unless it is the one that is loaded."""
        params = list(request.params.values())
        key = (json.dumps(dict(request.config), sort_keys=True), request.head)
        if self.loaded[:2] == key and all(
            a is b for a, b in zip(self.loaded[2], params, strict=True)
        ):
            return
        model = self.build(request)
        self.hook(model, model.model if request.head else model, request.head)
        self.model, self.loaded = model, (*key, params)

    def build(self, request: Request) -> Any:
        """The request's model, in evaluation mode, without hooks."""
        torch, hf = self.torch, self.hf
        config = hf.ModernBertConfig.from_dict(dict(request.config))
        config._attn_implementation = self.attention
        names = {k: HEADS[k].architecture for k in HEADS}
        with torch.device("meta"):  # no time spent on weights that are replaced at once
            skeleton = getattr(hf, names[request.head] if request.head else "ModernBertModel")(
                config
            )
        model = skeleton.to_empty(device="cpu").to(getattr(torch, self.base))
        encoder = model.model if request.head else model
        encoder.rotary_emb = hf.ModernBertRotaryEmbedding(config)  # its buffers are in no file
        state = {
            name: torch.tensor(np.asarray(x, np.float32))
            for name, x in hf_names(dict(request.params), request.head).items()
        }
        if request.head == "masked_lm":
            state.setdefault("decoder.weight", state["model.embeddings.tok_embeddings.weight"])
        model.load_state_dict(state, strict=True)
        if self.adapt is not None:
            self.adapt(model)
        return model.eval()

    def plan(self, request: Request) -> dict[str, Any]:
        """What the loaded model is going to compute, from its modules where they know it."""
        encoder = self.model.model if request.head else self.model
        config = encoder.config
        windows = [layer.attn.sliding_window for layer in encoder.layers]
        return {
            "hidden_size": config.hidden_size,
            "num_attention_heads": config.num_attention_heads,
            "num_hidden_layers": len(encoder.layers),
            "intermediate_size": config.intermediate_size,
            "hidden_activation": config.hidden_activation,
            "norm_eps": encoder.final_norm.eps,
            "layers": [
                # sliding_window holds the half width plus one, as flash attention wants it.
                {
                    "window": None if window is None else window - 1,
                    "theta": config.rope_parameters[kind]["rope_theta"],
                }
                for window, kind in zip(windows, config.layer_types, strict=True)
            ],
        }

    def weights(self, request: Request) -> dict[str, Array]:
        """The parameters as the model holds them; a tied decoder is the embedding, told once."""
        return {
            "weights." + name.removeprefix("model."): self.array(x)
            for name, x in self.model.state_dict().items()
            if name.removeprefix("model.") in request.params
        }

    # -- the steps --------------------------------------------------------------------------------

    def forward(self, request: Request) -> dict[str, Array]:
        """Every step of one pass."""
        torch = self.torch
        self.seen.steps, self.seen.rotated = {}, 0
        given = {
            name: torch.from_numpy(np.array(x))
            for name, x in request.inputs.items()
            if x is not None
        }
        with torch.no_grad():
            out = self.model(**given)
        for name in ("logits", "start_logits", "end_logits"):
            if request.head and getattr(out, name, None) is not None:
                self.keep(name, getattr(out, name))
        return {name: self.array(x) for name, x in self.seen.steps.items()}

    def keep(self, step: str, x: Any) -> None:
        self.seen.steps[step] = x[0] if isinstance(x, tuple) else x

    def array(self, x: Any) -> Array:
        wide = x.to(self.torch.float32) if x.dtype == self.torch.bfloat16 else x
        return np.array(wide.detach().numpy())

    def hook(self, model: Any, encoder: Any, head: str | None) -> None:
        """Hooks that keep steps; each thread keeps its own."""

        def output(module: Any, step: str) -> None:
            module.register_forward_hook(lambda m, args, out: self.keep(step, out))

        def before(module: Any, step: str) -> None:
            module.register_forward_pre_hook(lambda m, args: self.keep(step, args[0]))

        output(encoder.embeddings, "embedding")
        output(encoder.final_norm, "final_norm")
        encoder.rotary_emb.register_forward_hook(self.keep_table)
        for i, layer in enumerate(encoder.layers):
            for module, step in OUTPUTS.items():
                output(layer.get_submodule(module), f"layers.{i}.{step}")
            for module, step in INPUTS.items():
                before(layer.get_submodule(module), f"layers.{i}.{step}")
            layer.attn.Wqkv.register_forward_hook(
                lambda m, args, out, i=i: self.keep(f"layers.{i}.qkv", out)
            )
        if head is not None:
            output(model.head.dense, "head.dense")
            output(model.head.act, "head.act")
            output(model.head.norm, "head.norm")
        if head == "sequence_classification":
            before(model.head, "pooled")

    def keep_table(self, module: Any, args: tuple[Any, ...], out: tuple[Any, Any]) -> None:
        for function, table in zip(("cos", "sin"), out, strict=True):
            self.keep(f"rope.{LAYER_TYPES[args[2]]}.{function}", table)

    @contextlib.contextmanager
    def wrapped_rotary(self) -> Iterator[None]:
        """transformers' rotation, its results kept (q and k are [batch, heads, seq, head_dim])."""
        hf = self.hf
        with _ROTARY_LOCK:
            if not hasattr(hf.apply_rotary_pos_emb, "kept_by"):
                hf.apply_rotary_pos_emb = _kept(hf.apply_rotary_pos_emb)
        _KEEPER.port = self
        try:
            yield
        finally:
            _KEEPER.port = None


@contextlib.contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """torch with one thread: on models so small its threads only wait for one another, at more than
    the cost of the verdict."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_ROTARY_LOCK = threading.Lock()
_KEEPER = threading.local()


def _kept(rotate: Callable[..., Any]) -> Callable[..., Any]:
    """The rotation, which shows its results to the port that runs in this thread, if any."""

    def rotated(*args: Any, **kwargs: Any) -> Any:
        out = rotate(*args, **kwargs)
        port: TransformersPort | None = getattr(_KEEPER, "port", None)
        if port is not None:
            i = port.seen.rotated
            port.seen.rotated += 1
            for letter, x in zip("qk", out, strict=True):
                port.keep(f"layers.{i}.{letter}_rot", x.transpose(1, 2))
        return out

    rotated.kept_by = True  # type: ignore[attr-defined]
    return rotated
