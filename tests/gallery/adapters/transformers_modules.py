"""transformers 4.48 to 5 on torch's CPU kernels: every module's output under its own name.

    transformers_modules.py KIT OUT ATTENTION DTYPE [old-keys]

The folder is loaded as anybody does it, by the class that its config names. Forward hooks take what
modules give; attention, GLU and the sum before mlp_norm are what modules are given. The rotated q
and k have no module. old-keys: config.json is rewritten to the keys of transformers 4 first.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import torch
import transformers
from kit import OPTIONS, Case, Refused, in_old_keys, main

transformers.logging.set_verbosity_error()
ATTENTION, DTYPE = OPTIONS[:2]
REWRITTEN = "old-keys" in OPTIONS
INPUTS = {"attn.Wo": "attention", "mlp.Wo": "glu", "mlp_norm": "residual_1"}


@cache
def loaded(folder: Path):
    """The model of a folder, and what its modules have given, by name."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # A head that this version lacks is left out.
    kind = getattr(transformers, config["architectures"][0], transformers.ModernBertModel)
    with in_old_keys(folder) if REWRITTEN else nullcontext(folder) as files:
        model = kind.from_pretrained(
            files, attn_implementation=ATTENTION, torch_dtype=getattr(torch, DTYPE), **COMPILED
        ).eval()
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, x: object) -> None:
        x = x[0] if isinstance(x, tuple) else x
        if isinstance(x, torch.Tensor):
            seen[name] = x.detach().float().clone()

    for name, module in getattr(model, "model", model).named_modules():
        module.register_forward_hook(lambda m, args, out, name=name: keep(name, out))
        layer, _, inner = name.removeprefix("layers.").partition(".")
        if name.startswith("layers.") and inner in INPUTS:
            step = f"layers.{layer}.{INPUTS[inner]}"
            module.register_forward_pre_hook(lambda m, args, step=step: keep(step, args[0]))
    return model, seen


# What no step of the kit is the output of; "" is the model itself.
UNUSED = ("drop", "act", "tok_embeddings", "rotary_emb")
# Version 4 compiles the MLP where a compiler is found; version 5 has no such key.
COMPILED = {"reference_compile": False} if transformers.__version__ < "5" else {}


def steps(case: Case):
    if "cu_seqlens" in case.inputs:
        raise Refused("it takes packed input with flash attention only")
    model, seen = loaded(case.model)
    seen.clear()
    with torch.no_grad():
        out = model(**{name: torch.from_numpy(x) for name, x in case.inputs.items()})
    for name in ("logits", "start_logits", "end_logits"):
        if getattr(out, name, None) is not None:
            seen[name] = getattr(out, name).float()
    return {name: x.numpy() for name, x in seen.items() if name and not name.endswith(UNUSED)}


if __name__ == "__main__":
    main(steps, dtype=DTYPE)
