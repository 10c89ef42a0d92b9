"""A text run once through a model, with all numbers that a page or a picture of it shows.

    found = explained("for i in [MASK](10):")           the bundled model
    found.arrays["layers.1.q_rot"]                      float64 [rows, heads, head_dim]

Promise: the numbers are those of float64, the truth of this project; a text over the model's limit
is cut and told, or what `truncate` says. Errors name what is wrong before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...models.model import ModernBERT
from ...models.task_model import ModernBERTForTask
from ...reference.config import ModernBertConfig
from ...reference.ops import ACTIVATIONS
from ...tasks.task import Model, open_model, tokenizer_of
from .answers import Answers
from .chosen import Chosen, choose
from .spelling import spelled, visible
from .taken import Taken, rotary

Array = np.ndarray

BUDGET = 8e6  # bytes of a page, unless said otherwise
LINEAR = {"q": "attn.Wqkv", "k": "attn.Wqkv", "v": "attn.Wqkv", "attn_out": "attn.Wo",
          "wi": "mlp.Wi", "mlp_out": "mlp.Wo"}  # fmt: skip
CURVE = np.linspace(-4.0, 4.0, 81)  # where the activation is drawn


@dataclass(frozen=True)
class Explained:
    """A text's way through a model. tokens are spelled for the page; `centre` is the token that is
    looked at first, `masks` those that are to be filled; arrays: name -> float64, for the rows of
    `chosen`."""

    text: str
    model: str
    config: ModernBertConfig
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    masks: tuple[int, ...]
    lost: int
    centre: int
    chosen: Chosen
    arrays: dict[str, Array]
    answers: Answers


def opened(model: Model = None) -> ModernBERT:
    """The model of a folder in float64, on numpy. Raises ValueError for one in another dtype."""
    found = open_model(model, backend="numpy", dtype="float64")
    if found.dtype != np.float64 or found.compute_dtype != "float64":
        raise ValueError(
            f"the model computes in {found.compute_dtype}; a page shows float64: load it with "
            'dtype="float64"'
        )
    return found


def explained(
    text: str,
    model: Model = None,
    *,
    tokens: Sequence[int] = (),
    max_length: int | None = None,
    truncate: str = "warn",
    budget: float = BUDGET,
) -> Explained:
    """Run `text`. tokens: those whose vectors are kept whatever it costs, the first of them looked
    at first; budget: bytes that the page may take.

    Raises TypeError, ValueError for what is no text or no token of it, ModelFormatError, OSError.
    """
    model = opened(model)
    tokenizer = tokenizer_of(model)
    encoded = tokenizer.encode(text, max_length=max_length, truncate=truncate)
    ids, config = encoded.ids, model.config
    if not ids:
        raise ValueError("the text has no token: there is nothing to explain")
    for token in tokens:
        if not 0 <= token < len(ids):
            raise ValueError(
                f"tokens: {token} is no token of the text, whose {len(ids)} are 0 to {len(ids) - 1}"
            )
    masks = tuple(i for i, x in enumerate(ids) if x == tokenizer.mask_token_id)
    centre = (*tokens, *masks, len(ids) // 2)[0]
    chosen = choose(config, len(ids), budget, (*tokens, *masks[:1]), centre)
    answers = Answers(model, tokenizer, chosen.rows)
    taken = Taken(config, len(ids), chosen, answers.look)
    encoder = model.encoder if isinstance(model, ModernBERTForTask) else model
    encoder([ids], tap=taken)
    rows = np.array(chosen.rows)
    return Explained(
        text=text,
        model="the bundled model" if model.folder is None else visible(model.folder.name),
        config=config,
        ids=tuple(ids),
        tokens=tuple(spelled(tokenizer, i) for i in ids),
        masks=masks,
        lost=encoded.lost,
        centre=centre,
        chosen=chosen,
        arrays=beginning(model, ids, rows)
        | taken.arrays
        | answers.arrays
        | rotary(config, rows)
        | weights(model, chosen.columns, with_head=answers.kind is not None),
        answers=answers,
    )


def beginning(model: ModernBERT, ids: Sequence[int], rows: Array) -> dict[str, Array]:
    """What (5) norms, with its moments, and the curve of the activation."""
    into = model.params["embeddings.tok_embeddings.weight"][np.array(ids)[rows]]
    if model.config.type_vocab_size:
        into = into + model.params["embeddings.token_type_embeddings.weight"][0]
    mean = into.mean(axis=-1, keepdims=True)
    return {
        "E": into,
        "embedding.mean": mean[:, 0],
        "embedding.variance": ((into - mean) ** 2).mean(axis=-1),
        "activation": ACTIVATIONS[model.config.hidden_activation].function(CURVE),
    }


def weights(model: ModernBERT, columns: tuple[int, ...], *, with_head: bool) -> dict[str, Array]:
    """Norms' weights whole, and of each linear map the rows of W that give `columns`: for the sums
    of (18). -> `layers.{i}.q.weight` [columns, in] and so on; both halves of wi, [2, columns, in].
    """
    config, params = model.config, model.params
    out = {}
    norms = ["embeddings.norm", "final_norm"]
    for i in range(config.num_hidden_layers):
        norms += [f"layers.{i}.attn_norm", f"layers.{i}.mlp_norm"]
    if with_head:
        norms.append("head.norm")
    for name in norms:
        tap = "embedding" if name == "embeddings.norm" else name
        for part in ("weight", "bias"):
            if f"{name}.{part}" in params:
                out[f"{tap}.{part}"] = params[f"{name}.{part}"]
    at = np.array(columns)
    units = at[at < config.intermediate_size]
    hidden = config.hidden_size
    places = {"q": at, "k": at + hidden, "v": at + 2 * hidden, "attn_out": at, "mlp_out": at,
              "wi": np.stack([units, units + config.intermediate_size])}  # fmt: skip
    for i in range(config.num_hidden_layers):
        for step, name in LINEAR.items():
            for part in ("weight", "bias"):
                if f"layers.{i}.{name}.{part}" in params:
                    whole = params[f"layers.{i}.{name}.{part}"]
                    out[f"layers.{i}.{step}.{part}"] = whole[places[step]]
    return out
