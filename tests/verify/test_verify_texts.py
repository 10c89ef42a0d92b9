"""Texts of a case become its ids again under the model's tokenizer, for ports that take text."""

import json

import numpy as np
import pytest

from refimpl.verify.truth.cases import CASES, case
from refimpl.verify.truth.kit import model_files
from refimpl.verify.truth.texts import texts_of

tokenizers = pytest.importorskip("tokenizers")
WITH = [c for c in CASES if texts_of(c.inputs) is not None]


def tokenizer(fixture):
    files = dict(model_files(fixture.name, fixture.config(), {}, fixture.head))
    return tokenizers.Tokenizer.from_str(files[f"models/{fixture.name}/tokenizer.json"].decode())


@pytest.mark.parametrize("c", WITH, ids=[c.name for c in WITH])
def test_texts_become_the_ids_of_the_case(c):
    encoded = tokenizer(c.fixture).encode_batch(texts_of(c.inputs))
    rows = np.split(c.inputs["input_ids"], c.inputs["cu_seqlens"][1:-1]) if c.real.ndim == 1 else [
        row[seen] for row, seen in zip(c.inputs["input_ids"], c.real, strict=True)
    ]  # fmt: skip
    assert [e.ids for e in encoded] == [row.tolist() for row in rows]


def test_rows_that_no_tokenizer_makes_have_no_text():
    without = {c.name for c in CASES} - {c.name for c in WITH}
    assert without == {
        "one-token", "cls-padding", "padding-mixed", "positions-left", "positions-far",
        "many-pads-192", "spans", "packed",
    }  # fmt: skip


def test_the_tokenizer_has_the_ids_of_the_config():
    fixture = case("plain-short").fixture
    made, config = tokenizer(fixture), fixture.config()
    for role in ("cls", "sep", "pad"):
        assert made.token_to_id(f"[{role.upper()}]") == config[f"{role}_token_id"]
    assert made.get_vocab_size() == config["vocab_size"]
    files = dict(model_files("m", config, {}, None))
    assert json.loads(files["models/m/tokenizer_config.json"])["model_max_length"] == 8192
