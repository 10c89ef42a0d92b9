"""The models that come with the package: tiny, complete, in bfloat16, stored once; two heads with
adapters on its encoder, which mean something; and their cards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refimpl
from refimpl.files.checkpoint import read_checkpoint
from refimpl.files.safetensors import open_safetensors
from refimpl.files.strictjson import read_json

BUNDLED = Path(__file__).resolve().parents[2] / "refimpl" / "bundled"
TINY = BUNDLED / "tiny"
HEADS = ("classify", "embed")
BASE = "base_model_name_or_path"


def test_bundled_model_loads_with_its_head() -> None:
    found = read_checkpoint(TINY)
    assert found.head is not None and found.head.kind == "masked_lm"
    assert (found.config.num_hidden_layers, found.config.local_attention) == (4, 64)
    assert found.config.tie_word_embeddings


def test_bundled_model_is_bfloat16_and_says_so() -> None:
    tensors = open_safetensors(TINY / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {"BF16"}
    assert read_json(TINY / "config.json")["dtype"] == "bfloat16"
    assert tensors.metadata == {"format": "pt"}


def test_bundled_encoder_is_stored_once_with_tokenizer_and_cards() -> None:
    files = {str(p.relative_to(BUNDLED)) for p in BUNDLED.rglob("*") if p.is_file()}
    adapter = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    names = {
        "tiny": ["README.md", "config.json", "model.safetensors", "tokenizer.json",
                 "tokenizer_config.json"],
        "classify": [*adapter, "config.json"],
        "embed": [*adapter, "modules.json", "1_Pooling/config.json",
                  "config_sentence_transformers.json", "sentence_bert_config.json"],
    }  # fmt: skip
    assert files == {f"{place}/{name}" for place, own in names.items() for name in own}
    for name in HEADS:
        assert read_json(BUNDLED / name / "adapter_config.json")[BASE] == "../tiny"
        assert (BUNDLED / name / "adapter_model.safetensors").stat().st_size < 700_000


@pytest.mark.parametrize("name", ["tiny", *HEADS])
def test_a_bundled_card_names_the_sources_and_their_licences(name: str) -> None:
    card = (BUNDLED / name / "README.md").read_text(encoding="utf-8")
    assert "WordNet 3.0 licence" in card
    for word in ("PSF licence", "public domain", "PostgreSQL licence"):
        assert word in card or name == "classify"


def test_classify_without_a_model_tells_what_kind_of_thing_is_defined() -> None:
    asked = {
        "a small animal with soft fur that hunts mice": "animal",
        "a tall tree with needles and cones": "plant",
        "someone who repairs shoes": "person",
        "a thick soup made with beans and meat": "food",
        "a city in the south of France": "place",
        "a tool with a heavy head for driving nails": "artifact",
        "the bone of the upper arm": "body",
        "a strong feeling of sadness and regret": "feeling",
        "a hard white metal that does not rust": "substance",
        "the first month of the year": "time",
    }
    found = refimpl.pipeline("text-classification")(list(asked))
    right = [one["label"] == label for one, label in zip(found, asked.values(), strict=True)]
    assert sum(right) >= 9


def test_search_without_a_model_finds_what_is_meant() -> None:
    texts = [
        "The function returns the number of characters of a string.",
        "An index makes queries that select few rows of a table faster.",
        "A large grey animal with a trunk and tusks lives in Africa and Asia.",
        "Bread is baked from flour, water and yeast.",
        "A thread waits until the lock is released by another thread.",
        "A doctor who treats diseases of the heart.",
    ]
    asked = ["length of text", "speed up a database", "elephant", "food made of dough",
             "concurrency", "cardiologist"]  # fmt: skip
    encoder = refimpl.SentenceEncoder()
    scores = encoder.similarity(encoder.encode(asked), encoder.encode(texts))
    assert (scores.argmax(axis=1) == np.arange(len(texts))).sum() >= 5
