"""Texts for ports that take nothing else: a tokenizer whose words are the ids, and a case's rows.

    id 57 <-> "w57";  [UNK] 0, [CLS] 1, [SEP] 2, [PAD] 3, [MASK] 4;  a text is [CLS] words [SEP]

`tokenizer_files` is what `tokenizers` and transformers load; `texts_of` gives the texts of a case
whose rows a tokenizer could have made: [CLS] first, [SEP] last, padding on the right, no positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray
CLS_ID, SEP_ID, PAD_ID = 1, 2, 3
SPECIALS = {"[UNK]": 0, "[CLS]": CLS_ID, "[SEP]": SEP_ID, "[PAD]": PAD_ID, "[MASK]": 4}


def word(id: int) -> str:
    """The word that becomes this id."""
    return next((name for name, i in SPECIALS.items() if i == id), f"w{id}")


def tokenizer_files(vocab: int, longest: int) -> dict[str, dict[str, Any]]:
    """File name -> content, for a model of `vocab` ids and `longest` positions."""
    added = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for name, i in SPECIALS.items()
    ]  # fmt: skip
    piece = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]
    end = [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    template = {
        "type": "TemplateProcessing",
        "single": [*piece, first, *end],
        "pair": [*piece, first, *end, second, *end],
        "special_tokens": {
            name: {"id": name, "ids": [SPECIALS[name]], "tokens": [name]}
            for name in ("[CLS]", "[SEP]")
        },
    }
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": template,
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": {word(i): i for i in range(vocab)},
                "unk_token": "[UNK]",
            },
        },
        "tokenizer_config.json": {
            **roles,
            "model_max_length": longest,
            "model_input_names": ["input_ids", "attention_mask"],
            "padding_side": "right",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }


def texts_of(inputs: Mapping[str, Array | None]) -> list[str] | None:
    """One text a row (of packed input: a sequence), or None where rows are no tokenizer's."""
    ids, mask, cu = (inputs.get(name) for name in ("input_ids", "attention_mask", "cu_seqlens"))
    if ids is None or inputs.get("position_ids") is not None:
        return None
    if cu is not None:
        rows = np.split(ids, cu[1:-1])
    else:
        visible = np.ones(ids.shape, bool) if mask is None else mask != 0
        if (visible[:, :-1] < visible[:, 1:]).any():
            return None
        rows = [row[seen] for row, seen in zip(ids, visible, strict=True)]
    if not all(len(row) > 1 and (row[0], row[-1]) == (CLS_ID, SEP_ID) for row in rows):
        return None
    return [" ".join(word(int(i)) for i in row[1:-1]) for row in rows]


def text_file(texts: list[str]) -> bytes:
    """texts.json: one line a row."""
    lines = ",\n ".join(map(json.dumps, texts))
    return f"[\n {lines}\n]\n".encode()
