"""What ports call the steps: transformers' modules and outputs, ONNX nodes, a user's own map.

`tap_of(name, ...)` gives the step that a tensor's name means, or None. A name that means different
things in different versions is never guessed: transformers' last `hidden_states` entry is before
the final norm in version 4 and after it in version 5. `Description` is what a user writes in
port.json or hands in as a map: the port's dtype and plan, names, and layouts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..truth.rounding import precision

# transformers' modules and outputs (without `model.`) and the step that each one's output is.
MODULES = {
    "embeddings": "embedding",
    "embeddings.norm": "embedding",
    "embeddings.drop": "embedding",
    "layers.{i}": "layers.{i}.residual_2",
    "layers.{i}.attn": "layers.{i}.attn_out",
    "layers.{i}.attn.Wqkv": "layers.{i}.qkv",
    "layers.{i}.attn.Wo": "layers.{i}.attn_out",
    "layers.{i}.mlp": "layers.{i}.mlp_out",
    "layers.{i}.mlp.Wi": "layers.{i}.wi",
    "layers.{i}.mlp.Wo": "layers.{i}.mlp_out",
    "last_hidden_state": "final_norm",
    "head": "head.norm",
    "classifier": "logits",
    "decoder": "logits",
}
# ONNX names a node's output after its module and operator: /model/layers.0/mlp/Wi/MatMul_output_0.
ONNX_OUTPUT = re.compile(r"/(?P<operator>\w+?)(_\d+)?_output_0$")
HIDDEN_STATE = re.compile(r"hidden_states?[._](?P<i>\d+)$")


@dataclass(frozen=True)
class Description:
    """What is to be known about a port besides its tensors.

    dtype: what it computes in, or None; plan: what it says it computes; names: its name -> step,
    with {i} for a layer's number in both; layouts: step (with {i}) -> axes in words, for example
    "batch heads seq head_dim"; refused: why it does not run the case at all.
    """

    dtype: str | None = None
    plan: Mapping[str, Any] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    refused: str | None = None

    def over(self, other: Description) -> Description:
        """Both; where both say something, this one is right."""
        return Description(
            self.dtype or other.dtype,
            other.plan if self.plan is None else self.plan,
            {**other.names, **self.names},
            {**other.layouts, **self.layouts},
            self.refused or other.refused,
        )


def read_description(path: Path) -> Description:
    """From a JSON file. Raises ValueError that names the file and the key."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not readable JSON: {error}") from None
    known = {"dtype", "plan", "names", "layouts", "refused"}
    if not isinstance(content, dict) or not set(content) <= known:
        raise ValueError(f"{path.name} must hold an object with keys of {sorted(known)}")
    for key, kind in (
        ("plan", dict),
        ("names", dict),
        ("layouts", dict),
        ("dtype", str),
        ("refused", str),
    ):
        value = content.get(key)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{path.name}: {key} is {value!r}; it must be of type {kind.__name__}")
    for key in ("names", "layouts"):
        for name, value in (content.get(key) or {}).items():
            if not isinstance(value, str):
                raise ValueError(f"{path.name}: {key}[{name!r}] is {value!r}; it must be text")
    if content.get("dtype") is not None:
        try:
            precision(content["dtype"])
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
    return Description(**{key: value for key, value in content.items() if value is not None})


def tap_of(
    name: str,
    known: Collection[str],
    names: Mapping[str, str],
    params: Collection[str],
) -> str | None:
    """The step that a name means: an entry of `known`, `layers.{i}.qkv` (three steps), or None.

    names: the user's map; params: names of the case's parameters (the product of a linear map that
    has a bias is not yet the step).
    """
    mapped = _through(names, name)
    if mapped is not None:
        return mapped if _is_step(mapped, known) else None
    if _is_step(name, known):
        return name
    onnx = ONNX_OUTPUT.search(name)
    plain = (ONNX_OUTPUT.sub("", name).lstrip("/") if onnx else name).replace("/", ".")
    plain = plain.removeprefix("model.")
    if _is_step(plain, known):
        return plain
    if onnx and onnx["operator"] == "MatMul" and f"{plain}.bias" in params:
        return None
    state = HIDDEN_STATE.match(plain)
    if state:
        return _hidden_state(int(state["i"]), known)
    step = _through(MODULES, plain)
    return step if step is not None and _is_step(step, known) else None


def ambiguous(name: str, known: Collection[str]) -> bool:
    """Whether a name is the last of transformers' hidden_states, which means two things."""
    state = HIDDEN_STATE.match(name.removeprefix("model."))
    layers = sum(step.endswith(".residual_2") for step in known)
    return state is not None and int(state["i"]) == layers


def _hidden_state(i: int, known: Collection[str]) -> str | None:
    """0 is the embedding, i the output of layer i - 1; the last one depends on the version."""
    layers = sum(step.endswith(".residual_2") for step in known)
    if i == 0:
        return "embedding"
    return f"layers.{i - 1}.residual_2" if i < layers else None


def _through(names: Mapping[str, str], name: str) -> str | None:
    """names[name], where {i} in a key stands for any number and for the same one in its value."""
    if name in names:
        return names[name]
    for number in re.findall(r"\d+", name):
        for pattern in re.finditer(rf"(?<!\d){number}(?!\d)", name):
            key = name[: pattern.start()] + "{i}" + name[pattern.end() :]
            if key in names:
                return names[key].replace("{i}", number)
    return None


def _is_step(name: str, known: Collection[str]) -> bool:
    return name in known or (name.endswith(".qkv") and name.removesuffix("qkv") + "q" in known)


def layout_of(step: str, layouts: Mapping[str, str]) -> str | None:
    """The layout that the user gave to a step, if any."""
    return _through(layouts, step)
