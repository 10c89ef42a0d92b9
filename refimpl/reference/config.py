"""What a ModernBERT is made of: sizes, layer schedule, windows, thetas (MODEL.md section 1).

The only place that knows the layer schedule: every other file asks `is_global(i)`, `window(i)` and
`rope_theta(i)`. Reads both spellings of config.json (transformers v4: `global_attn_every_n_layers`,
`global_rope_theta`, `local_rope_theta`; v5: `layer_types`, `rope_parameters`, which win when both
are there) and writes both. A value that would change numbers and is not supported is refused by
name. Promise: from_dict(to_dict(c)) == c. Long because the two spellings and every refusal stand
here.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from dataclasses import replace as dataclass_replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from ..errors import shown
from .config_keys import refuse_unsupported, unknown
from .ops import ACTIVATIONS
from .pooling import named

TokenId: TypeAlias = "int | tuple[int, ...] | None"
"""An id, several where a file lists them (the numbers do not depend on it), or none."""

FULL, SLIDING = "full_attention", "sliding_attention"
INDEX = re.compile(r"-?[0-9]{1,18}")  # of a label, in quotes as keys of JSON are

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "tiny": MappingProxyType(dict(
        vocab_size=8192, hidden_size=256, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, local_attention=64, bos_token_id=1, cls_token_id=1, eos_token_id=2,
        sep_token_id=2, pad_token_id=3, classifier_pooling="mean",
    )),
    "base": MappingProxyType(dict(classifier_pooling="mean")),
    "large": MappingProxyType(dict(
        hidden_size=1024, intermediate_size=2624, num_hidden_layers=28, num_attention_heads=16,
        classifier_pooling="mean",
    )),
})  # fmt: skip

# Constructor names of the Keras system (left), and the fields that they set here.
KERAS_NAMES: dict[str, tuple[str, ...]] = {
    "num_layers": ("num_hidden_layers",),
    "num_heads": ("num_attention_heads",),
    "hidden_act": ("hidden_activation",),
    "hidden_dropout_prob": ("embedding_dropout", "mlp_dropout"),
    "attention_probs_dropout_prob": ("attention_dropout",),
    "layer_norm_eps": ("norm_eps",),
    "use_bias": ("attention_bias", "mlp_bias"),
    "global_attention_interval": ("global_attn_every_n_layers",),
    "local_attention_window_size": ("local_attention",),
}
# The v4 spelling, accepted as keyword overrides too.
V4_NAMES = ("global_attn_every_n_layers",)
# Keys of config.json that say nothing about the numbers and are written anew by the saver.
FILE_KEYS = ("model_type", "dtype", "torch_dtype", "transformers_version", "_name_or_path")


@dataclass(frozen=True, eq=True)
class ModernBertConfig:
    """Sizes and switches of one model, with the field names of the Hugging Face config.

    Defaults are those of ModernBERT-base. `local_attention` is the TOTAL window (128: 64 keys per
    side and the token itself). `type_vocab_size` > 0 adds a token-type table (not in true
    ModernBERT). `extra` keeps unknown keys of a file for the round trip. Raises ValueError that
    names the field, its value, and what would be right.
    """

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    type_vocab_size: int = 0
    layer_types: tuple[str, ...] = ()
    local_attention: int = 128
    global_rope_theta: float = 160000.0
    local_rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.0
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    mlp_dropout: float = 0.0
    sparse_prediction: bool = False
    sparse_pred_ignore_index: int = -100
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    initializer_cutoff_factor: float = 2.0
    pad_token_id: int | None = 50283
    bos_token_id: TokenId = 50281
    eos_token_id: TokenId = 50282
    cls_token_id: TokenId = 50281
    sep_token_id: TokenId = 50282
    id2label: Mapping[int, str] = field(default_factory=lambda: default_labels(2))
    problem_type: str | None = None
    architectures: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    # -- per-layer facts: nobody else knows the schedule ------------------------------------------

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def unknown(self) -> list[str]:
        """Keys of `extra` that nobody knows (config_keys.py): kept, and read by nobody."""
        return unknown(self.extra)

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        return {label: i for i, label in self.id2label.items()}

    def is_global(self, i: int) -> bool:
        """True when layer i attends to the whole sequence."""
        return self.layer_types[i] == FULL

    def window(self, i: int) -> int | None:
        """Largest visible distance abs(i - j) in layer i, or None when it sees everything."""
        return None if self.is_global(i) else self.local_attention // 2

    def rope_theta(self, i: int) -> float:
        """Base of the rotary frequencies of layer i."""
        return self.global_rope_theta if self.is_global(i) else self.local_rope_theta

    # -- construction -----------------------------------------------------------------------------

    def __post_init__(self) -> None:
        if not self.layer_types:
            object.__setattr__(self, "layer_types", _schedule(self.num_hidden_layers, 3))
        object.__setattr__(self, "layer_types", tuple(self.layer_types))
        object.__setattr__(self, "architectures", tuple(self.architectures))
        object.__setattr__(self, "id2label", _labels("id2label", self.id2label))
        _check(self)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> ModernBertConfig:
        """The config of `tiny`, `base` or `large`, with fields overridden.

        Overrides may use the field names, `global_attn_every_n_layers`, `num_labels`, or the Keras
        system's constructor names. Raises ValueError for an unknown variant, TypeError for an
        unknown or doubly given override.
        """
        if name not in VARIANTS:
            raise ValueError(f"variant {name!r} is unknown; known: {', '.join(VARIANTS)}")
        return cls.from_dict({**VARIANTS[name], **canonical_names(overrides)})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModernBertConfig:
        """From the content of a config.json, in either spelling.

        Raises ValueError, also for a config of the Keras system, which from_variant takes.
        """
        v = {k: x for k, x in values.items() if k not in FILE_KEYS}
        model_type = values.get("model_type", "modernbert")
        if model_type != "modernbert":
            raise ValueError(f"model_type is {shown(model_type)}; this reads 'modernbert'")
        if not isinstance(v.get("extra", {}), Mapping):
            raise ValueError(f"extra is {shown(v['extra'])}; it maps keys of the file to values")
        refuse_unsupported(v)
        _refuse_keras_config(v)
        _read_layer_types(v)
        _read_rope(v)
        _read_window(v)
        _read_labels(v)
        _ignore_layer_norm_eps(v)
        if v.pop("head_dim", None) not in (None, _head_dim(v)):
            raise ValueError(
                f"head_dim is {shown(values['head_dim'])}; it must be hidden_size / "
                "num_attention_heads"
            )
        known = {f.name for f in fields(cls)} - {"extra"}
        own = {k: v.pop(k) for k in list(v) if k in known}
        for k in ("classifier_pooling", "architectures", "tie_word_embeddings"):
            if own.get(k, "") is None:
                del own[k]
        if not isinstance(own.get("architectures", ()), (list, tuple)):
            raise ValueError(f"architectures is {shown(own['architectures'])}; it must be a list")
        return cls(**own, extra={**v.pop("extra", {}), **v})

    def replace(self, **overrides: Any) -> ModernBertConfig:
        """This config with fields overridden, under the names that from_variant takes.

        A new number of layers keeps the schedule's interval, a new number of labels takes default
        labels. Raises ValueError, TypeError.
        """
        new = canonical_names(overrides)
        if {"num_hidden_layers", "global_attn_every_n_layers"} & set(new) and (
            "layer_types" not in new
        ):
            new = {
                "num_hidden_layers": self.num_hidden_layers,
                "global_attn_every_n_layers": _interval(self.layer_types),
                **new,
            }
            if new["global_attn_every_n_layers"] is None:
                raise ValueError(
                    f"num_hidden_layers is {new['num_hidden_layers']!r}, but layer_types "
                    "follows no interval; give layer_types as well"
                )
            _read_layer_types(new)
        if {"num_labels", "id2label", "label2id"} & set(new):
            _read_labels(new)
        return dataclass_replace(self, **new)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json in both spellings (json-ready types)."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        del out["extra"]
        out |= {name: list(x) for name, x in out.items() if isinstance(x, tuple)}
        out["id2label"] = {str(i): label for i, label in self.id2label.items()}
        out["label2id"] = self.label2id
        out["rope_parameters"] = {
            FULL: {"rope_type": "default", "rope_theta": self.global_rope_theta},
            SLIDING: {"rope_type": "default", "rope_theta": self.local_rope_theta},
        }
        every = _interval(self.layer_types)
        if every is not None:
            out["global_attn_every_n_layers"] = every
        if self.type_vocab_size == 0:
            del out["type_vocab_size"]
        return {"model_type": "modernbert", **self.extra, **out}


def canonical_names(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword overrides under the config's own names. TypeError for an unknown or double one."""
    known = {f.name for f in fields(ModernBertConfig)} | set(V4_NAMES) | {"num_labels", "label2id"}
    out: dict[str, Any] = {}
    for name, value in overrides.items():
        targets = (name,) if name in known else KERAS_NAMES.get(name)
        if targets is None:
            options = ", ".join(sorted(known | set(KERAS_NAMES)))
            raise TypeError(f"unknown config override {name!r}; known: {options}")
        for target in targets:
            if target in out:
                raise TypeError(f"override {name!r} sets {target!r}, which is already given")
            out[target] = value
    if "layer_types" in out and "global_attn_every_n_layers" in out:
        raise TypeError("layer_types and global_attn_every_n_layers say the same thing; give one")
    return out


def default_labels(n: int) -> dict[int, str]:
    """LABEL_0 .. LABEL_{n-1}."""
    return {i: f"LABEL_{i}" for i in range(n)}


# -- reading the two spellings --------------------------------------------------------------------


def _schedule(layers: int, every: int) -> tuple[str, ...]:
    """Layer i is full iff i % every == 0."""
    return tuple(SLIDING if i % every else FULL for i in range(layers))


def _interval(layer_types: tuple[str, ...]) -> int | None:
    """The n for which layer_types is "every n-th layer is full", or None."""
    n = len(layer_types)
    if _schedule(n, 3) == layer_types:  # so few layers fit several: the default comes first
        return 3
    every = next((i for i in range(1, n) if layer_types[i] == FULL), max(n, 1))
    return every if _schedule(n, every) == layer_types else None


def _refuse_keras_config(v: Mapping[str, Any]) -> None:
    """ValueError for a name of the Keras system in place of ours, as its configs have them.

    Beside ours it is a key like any other: transformers does not read it either.
    """
    ours = set(v)
    ours |= {"global_attn_every_n_layers"} if "layer_types" in v else set()
    ours |= {"local_attention"} if "sliding_window" in v else set()
    theirs = {
        name: " and ".join(new)
        for name, new in KERAS_NAMES.items()
        if name in v and name != "layer_norm_eps" and not ours & set(new)
    }
    if theirs:
        told = ", ".join(f"{name} (here {new})" for name, new in theirs.items())
        raise ValueError(
            f"config has names of the Keras system: {told}; "
            'ModernBertConfig.from_variant("base", **values) takes them'
        )


def _read_layer_types(v: dict[str, Any]) -> None:
    every = v.pop("global_attn_every_n_layers", None)
    if v.get("layer_types") is not None:
        if not isinstance(v["layer_types"], (list, tuple)):
            raise ValueError(f"layer_types is {shown(v['layer_types'])}; it must be a list")
        v["layer_types"] = tuple(v["layer_types"])
        if not v["layer_types"]:
            raise ValueError("layer_types is empty; leave it out for the default schedule")
        return
    every = 3 if every is None else every
    layers = v.get("num_hidden_layers", ModernBertConfig.num_hidden_layers)
    _check_integer("num_hidden_layers", layers, 1)
    _check_integer("global_attn_every_n_layers", every, 1)
    v["layer_types"] = _schedule(layers, every)


def _read_rope(v: dict[str, Any]) -> None:
    rope = v.pop("rope_parameters", None) or {}
    scaling = v.pop("rope_scaling", None) or {}
    if not isinstance(rope, Mapping) or not set(rope) <= {FULL, SLIDING}:
        raise ValueError(
            f"rope_parameters is {shown(rope)}; it maps {FULL!r} and {SLIDING!r} to objects"
        )
    if not isinstance(scaling, Mapping):
        raise ValueError(f"rope_scaling is {shown(scaling)}; it must be an object")
    if v.get("global_rope_theta", 0) is None:
        del v["global_rope_theta"]
    if v.get("local_rope_theta", 0) is None:  # v4: null means the global theta
        v["local_rope_theta"] = v.get("global_rope_theta", ModernBertConfig.global_rope_theta)
    for layer_type, name in ((FULL, "global_rope_theta"), (SLIDING, "local_rope_theta")):
        of_type = rope.get(layer_type) or {}
        if not isinstance(of_type, Mapping):
            raise ValueError(
                f"rope_parameters of {layer_type} hold {shown(of_type)}; it must be an object"
            )
        own = {**scaling, **of_type}
        kind = own.pop("rope_type", own.pop("type", "default"))
        theta = own.pop("rope_theta", None)
        if kind != "default" or own:
            raise ValueError(
                f"rope_parameters of {layer_type} hold rope_type {shown(kind)}"
                f"{' and ' + shown(own) if own else ''}; only rope_type 'default' with "
                "rope_theta is supported"
            )
        if theta is not None:
            if v.get(name, theta) != theta:
                warnings.warn(
                    f"{name} {v[name]!r} is not used: rope_parameters of {layer_type}, which win, "
                    f"say {theta!r}",
                    UserWarning,
                    stacklevel=4,
                )
            v[name] = theta


def _read_window(v: dict[str, Any]) -> None:
    half = v.pop("sliding_window", None)
    if half is None:
        return
    _check_integer("sliding_window", half, 0)
    _check_integer("local_attention", v.setdefault("local_attention", 2 * half), 0)
    if v["local_attention"] // 2 != half:
        raise ValueError(
            f"sliding_window is {half} (half) but local_attention is {v['local_attention']} (total)"
        )


def _read_labels(v: dict[str, Any]) -> None:
    n = v.pop("num_labels", None)
    label2id = v.pop("label2id", None)
    labels = v.pop("id2label", None)
    if n is not None:
        _check_integer("num_labels", n, 1)
    name = "id2label"
    if labels is None and label2id is not None:
        name, labels = "label2id", label2id
    if labels is None:
        labels = default_labels(2 if n is None else n)
    v["id2label"] = _labels(name, labels)
    if n is not None and n != len(v["id2label"]):
        raise ValueError(f"num_labels is {n!r} but {name} holds {len(v['id2label'])} labels")


def _ignore_layer_norm_eps(v: dict[str, Any]) -> None:
    """transformers reads norm_eps only, even when layer_norm_eps stands alone: so do we, aloud."""
    eps = v.get("layer_norm_eps")
    used = v.get("norm_eps", ModernBertConfig.norm_eps)
    if eps is not None and eps != used:
        warnings.warn(
            f"layer_norm_eps {eps!r} is ignored, as transformers does; norm_eps {used!r} is used",
            UserWarning,
            stacklevel=4,
        )


def _labels(name: str, labels: Any) -> dict[int, str]:
    """Labels by index 0 .. n-1, in order; labels: index -> label, or as label2id the inverse."""
    by_label = name == "label2id"
    right = "it maps labels to integers" if by_label else "it maps integers to labels"
    if not isinstance(labels, Mapping):
        raise ValueError(f"{name} is {shown(labels)}; {right}")
    out: dict[int, str] = {}
    for key, value in labels.items():
        index, label = (value, key) if by_label else (key, value)
        number = _is_int(index) or isinstance(index, np.integer)
        if not number and not (isinstance(index, str) and INDEX.fullmatch(index)):
            raise ValueError(f"{name} is {shown(labels)}; {right}")
        out[int(index)] = str(label)
    if sorted(out) != list(range(len(out))) or not out:
        raise ValueError(f"{name} has the indices {shown(sorted(out))}; they must be 0 .. n-1")
    return dict(sorted(out.items()))


# -- validation -----------------------------------------------------------------------------------


def _is_int(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _check_integer(name: str, value: Any, least: int) -> None:
    if not _is_int(value):
        raise ValueError(f"{name} is {shown(value)}; it must be an integer")
    if value < least:
        raise ValueError(f"{name} is {shown(value)}; it must be at least {least}")


def _head_dim(v: Mapping[str, Any]) -> int | None:
    hidden = v.get("hidden_size", ModernBertConfig.hidden_size)
    heads = v.get("num_attention_heads", ModernBertConfig.num_attention_heads)
    return hidden // heads if _is_int(hidden) and _is_int(heads) and heads > 0 else None


def lost_in_float32(c: ModernBertConfig) -> str | None:
    """Why norms cannot be computed in float32, or None: their eps would be 0, or infinite."""
    limits = np.finfo(np.float32)
    if float(limits.tiny) <= c.norm_eps <= float(limits.max):
        return None
    return (
        f"norm_eps is {c.norm_eps}; norms are computed in float32, whose normal numbers go from "
        "1.18e-38 to 3.4e+38"
    )


def _check(c: ModernBertConfig) -> None:
    """Refuse by name what is not supported."""
    for f in fields(c):
        value = getattr(c, f.name)
        if f.type == "int" and not _is_int(value):
            raise ValueError(f"{f.name} is {shown(value)}; it must be an integer")
        if f.type == "int | None" and value is not None and not _is_int(value):
            raise ValueError(f"{f.name} is {shown(value)}; it must be an integer or null")
        if f.type == "TokenId" and value is not None and not _is_int(value):
            if not isinstance(value, (list, tuple)) or not all(map(_is_int, value)):
                raise ValueError(
                    f"{f.name} is {shown(value)}; it must be an integer, a list of integers, or "
                    "null"
                )
            object.__setattr__(c, f.name, tuple(value))
        if f.type == "bool" and not isinstance(value, bool):
            raise ValueError(f"{f.name} is {shown(value)}; it must be true or false")
        if f.type == "float":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{f.name} is {shown(value)}; it must be a number")
            object.__setattr__(c, f.name, float(value))
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads", "max_position_embeddings"):  # fmt: skip
        _check_integer(name, getattr(c, name), 1)
    for name in ("local_attention", "type_vocab_size"):
        _check_integer(name, getattr(c, name), 0)
    for name in ("global_rope_theta", "local_rope_theta", "norm_eps", "initializer_range",
                 "initializer_cutoff_factor"):  # fmt: skip
        if not (math.isfinite(getattr(c, name)) and getattr(c, name) > 0):
            raise ValueError(f"{name} is {getattr(c, name)}; it must be positive and finite")
    for name in ("classifier_dropout", "attention_dropout", "embedding_dropout", "mlp_dropout"):
        if not 0 <= getattr(c, name) < 1:
            raise ValueError(f"{name} is {getattr(c, name)}; it must be in [0, 1)")
    for name in ("hidden_activation", "classifier_activation"):
        if not isinstance(getattr(c, name), str) or getattr(c, name) not in ACTIVATIONS:
            options = ", ".join(ACTIVATIONS)
            raise ValueError(f"{name} is {shown(getattr(c, name))}; supported: {options}")
    if c.hidden_size % c.num_attention_heads or c.head_dim % 2:
        raise ValueError(
            f"hidden_size is {c.hidden_size} with num_attention_heads {c.num_attention_heads}; "
            "hidden_size must be a multiple of it with an even head size"
        )
    for kind in c.layer_types:
        if kind not in (FULL, SLIDING):
            raise ValueError(f"layer_types holds {shown(kind)}; supported: {FULL}, {SLIDING}")
    if len(c.layer_types) != c.num_hidden_layers:
        raise ValueError(
            f"layer_types has {len(c.layer_types)} entries for num_hidden_layers "
            f"{c.num_hidden_layers}"
        )
    poolings = named("classifier")
    if not isinstance(c.classifier_pooling, str) or c.classifier_pooling not in poolings:
        raise ValueError(
            f"classifier_pooling is {shown(c.classifier_pooling)}; supported: {', '.join(poolings)}"
        )
    if c.problem_type not in (None, "regression", "single_label_classification",
                              "multi_label_classification"):  # fmt: skip
        raise ValueError(
            f"problem_type is {shown(c.problem_type)}; supported: regression, "
            "single_label_classification, multi_label_classification, null"
        )
