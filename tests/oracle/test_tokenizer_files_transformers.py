"""What the files beside tokenizer.json do: the ids are those of transformers' AutoTokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

from refimpl.models.model import BUNDLED  # noqa: E402
from refimpl.text.tokenizer import Tokenizer  # noqa: E402

TEXTS = [
    "a <A> b<B>c [MASK] d", "[SEP]ignore [PAD]this[MASK]", "xx<A>yy", " <B> ", "<a> <A>\n<B>", "",
    "word <X><Y> and <s>text</s>",
]  # fmt: skip


def token(content: str, **flags: bool) -> dict[str, Any]:
    own = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=False)
    return {"content": content, **own, **flags}


A, B = token("<A>", special=True), token("<B>", normalized=True)
BESIDE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "decoder": {"added_tokens_decoder": {"8193": B, "8192": A}},
    "decoder with other ids": {"added_tokens_decoder": {"8199": A, "8195": B}},
    "decoder, single words": {"added_tokens_decoder": {"8192": token("<A>", single_word=True)}},
    "decoder, stripped": {"added_tokens_decoder": {"8192": token("<A>", lstrip=True, rstrip=True)}},
    "decoder with other flags": {
        "added_tokens_decoder": {"4": token("[MASK]", special=True, lstrip=True, rstrip=True)}
    },
    "extra list": {"extra_special_tokens": ["<X>", "<Y>"]},
    "extra names": {"extra_special_tokens": {"image_token": "<X>", "audio_token": "<Y>"}},
    "older extra list": {"additional_special_tokens": ["<Y>", "<X>"]},
    "own name": {"image_token": "<X>"},
    "split": {"split_special_tokens": True},
    "split with decoder": {"split_special_tokens": True, "added_tokens_decoder": {"8192": A}},
    "left": {"truncation_side": "left"},
    "dict for a name": {"mask_token": {"__type": "AddedToken", **token("[MASK]", lstrip=True)}},
    "bos and eos": {"add_bos_token": True, "add_eos_token": True},
}
MAPS: dict[str, dict[str, Any]] = {
    "none": {},
    "other pad": {"special_tokens_map.json": {"pad_token": "[SEP]"}},
    "extra": {"special_tokens_map.json": {"additional_special_tokens": ["<X>"]}},
    "added": {"added_tokens.json": {"<B>": 8193, "<A>": 8192}},
}


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("beside", BESIDE)
def test_ids_are_theirs(tmp_path: Path, beside: str, maps: str) -> None:
    shutil.copy(BUNDLED / "tokenizer.json", tmp_path / "tokenizer.json")
    settings = json.loads((BUNDLED / "tokenizer_config.json").read_text()) | BESIDE[beside]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((BUNDLED / "config.json").read_text()) | {"vocab_size": 8300}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, content in MAPS[maps].items():
        (tmp_path / name).write_text(json.dumps(content))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_folder(tmp_path)
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
        for limit in (4, 7):
            found = ours.encode(text, max_length=limit, truncate="silent").ids
            assert found == theirs(text, truncation=True, max_length=limit)["input_ids"], text
        pair = theirs(text, "b <A> [SEP]", truncation=True, max_length=9)["input_ids"]
        assert ours.encode(text, "b <A> [SEP]", max_length=9, truncate="silent").ids == pair, text
    for role in ("cls", "sep", "pad", "mask", "unk"):
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id"), role
