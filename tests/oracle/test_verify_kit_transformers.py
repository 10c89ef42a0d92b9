"""The exported kit as a folder of models: transformers loads them and passes the kit's own recipe.

So the kit is readable by others' code, its weights are named as theirs, and its truth is not ours
alone. Checked in float32 against the cumulative budgets, at the encoder's end and at the head's.
"""

import json

import numpy as np
import pytest
from support.kit_reader import read_safetensors, verdict

from refimpl.verify.truth.cases import case
from refimpl.verify.truth.export import export

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.oracle
NAMES = (
    "two-tokens",
    "window-66",
    "silu-64",
    "mean-65",
    "cls-padding",
    "padding-mixed",
    "positions-left",
    "hard-rows",
    "spans",
)
GIVEN = ("logits", "start_logits", "end_logits")


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return export(tmp_path_factory.mktemp("kits") / "kit", [case(name) for name in NAMES])


@pytest.mark.parametrize("name", NAMES)
def test_transformers_loads_the_model_and_passes(kit, name):
    folder = kit / "cases" / name
    source = folder / json.loads((folder / "case.json").read_text())["model"]
    architecture = json.loads((source / "config.json").read_text())["architectures"][0]
    model, info = getattr(transformers, architecture).from_pretrained(
        source.resolve(), attn_implementation="sdpa", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = read_safetensors(folder / "inputs.safetensors")
    inputs = {key: torch.tensor(x.astype(np.int64)) for key, x in inputs.items()}
    with torch.no_grad():
        out = model.eval()(**inputs, output_hidden_states=True)
    port = {"final_norm": out.hidden_states[-1]}
    port |= {key: out[key] for key in GIVEN if key in out}
    assert len(port) == {"hard-rows": 1, "spans": 3}.get(name, 2)
    port = {key: x.double().numpy() for key, x in port.items()}
    assert verdict(folder, port, "float32", "cumulative") == []
    wrong = {key: x + 1e-3 * np.abs(x).max() for key, x in port.items()}
    assert verdict(folder, wrong, "float32", "cumulative") == list(port)
