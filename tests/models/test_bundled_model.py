"""The model that comes with the package: complete, in bfloat16, stored once, with its card."""

from __future__ import annotations

from pathlib import Path

from refimpl.files.checkpoint import read_checkpoint
from refimpl.files.safetensors import open_safetensors
from refimpl.files.strictjson import read_json

BUNDLED = Path(__file__).resolve().parents[2] / "refimpl" / "bundled"
TINY = BUNDLED / "tiny"


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


def test_bundled_model_is_stored_once_with_tokenizer_and_card() -> None:
    files = {str(p.relative_to(BUNDLED)) for p in BUNDLED.rglob("*") if p.is_file()}
    names = ["README.md", "config.json", "model.safetensors", "tokenizer.json",
             "tokenizer_config.json"]  # fmt: skip
    assert files == {f"tiny/{name}" for name in names}


def test_bundled_card_names_the_sources_and_their_licences() -> None:
    card = (TINY / "README.md").read_text(encoding="utf-8")
    for word in ("WordNet 3.0 licence", "PSF licence", "public domain", "PostgreSQL licence"):
        assert word in card
