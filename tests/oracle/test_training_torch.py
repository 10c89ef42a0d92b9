"""Training beside torch: 200 steps side by side, and a finetuned folder that transformers loads."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.cases import BY_NAME, mixed

import refimpl
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.heads import HEADS
from refimpl.train import AdamW, Schedule, gradients
from refimpl.train.finetune import finetune
from refimpl.train.settings import Settings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")
import hf  # noqa: E402  (it imports both)

pytestmark = pytest.mark.oracle

STEPS, TRACK = 200, 1e-3  # the promise: 0.1 % of the loss at every step


@pytest.mark.parametrize("name", ["v4-window6-tied", "v5-window7-all-biases"])
def test_200_steps_in_float32_track_torch(name, record_property):
    """Masked-LM, float32 both: the same batches, labels, learning rates and AdamW."""
    case = BY_NAME[name]
    params = case.params("masked_lm", np.float32)
    config = ModernBertConfig.from_dict(case.config())
    theirs = hf.build(case.config(), params, "masked_lm", torch.float32, "sdpa")
    theirs.model.embeddings.tok_embeddings.padding_idx = None
    if case.tied:
        theirs.decoder.weight = theirs.model.embeddings.tok_embeddings.weight
    mine = refimpl.ModernBERTForTask(config, params, HEADS["masked_lm"], backend="numpy")
    own = dict(mine.params)
    ours = AdamW((0.9, 0.98), 1e-6, 0.01)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    its = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6)
    schedule, worst, losses = Schedule("linear", 20, STEPS), 0.0, []
    batch = mixed(24, (24, "none"), (17, "right"), (9, "right"), (24, "none"))
    rng = np.random.default_rng(1)
    for step in range(STEPS):
        inputs = case.inputs(batch)
        ids = rng.integers(4, case.vocab, inputs.input_ids.shape)
        wanted = (inputs.mask != 0) & (rng.random(ids.shape) < 0.3)
        labels = np.where(wanted, (ids * 7 + 3) % case.vocab, -100)
        lr = 1e-3 * schedule(step)
        for group in its.param_groups:
            group["lr"] = lr
        out = theirs(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(inputs.mask))
        loss = torch.nn.functional.cross_entropy(
            out.logits.flatten(0, 1), torch.from_numpy(labels).flatten()
        )
        its.zero_grad()
        loss.backward()
        its.step()
        found, grads = gradients(
            mine, {"input_ids": ids, "attention_mask": inputs.mask}, labels, task="mask"
        )
        ours.update(own, grads, lr)
        losses.append(found)
        worst = max(worst, abs(found - loss.item()) / loss.item())
    record_property("largest difference of the loss", f"{worst:.3g}")
    print(f"{name}: loss {losses[0]:.3f} to {losses[-1]:.3f}, largest difference {worst:.3g}")
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])  # it learned
    assert worst <= TRACK


@pytest.mark.parametrize("problem", ["single", "multi", "regression"])
def test_transformers_loads_what_finetune_wrote(problem, tmp_path):
    labels = {
        "single": ["a", "b", "c"],
        "multi": [["a"], ["b", "c"], []],
        "regression": [0.5, 1.5, -1.0],
    }[problem]
    rows = [{"text": f"some text {i}", "label": labels[i % 3]} for i in range(6)]
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finetune("classify", [data], tmp_path / "out", settings=Settings(epochs=1, batch_size=3))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(
        ["some text 1", "another"], return_tensors="pt", padding=True
    )
    tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    mine = refimpl.load(tmp_path / "out", backend="numpy")
    assert theirs.config.problem_type == mine.config.problem_type
    with torch.no_grad():
        want = theirs.eval()(**tokens).logits.numpy()
    got = mine({name: x.numpy() for name, x in tokens.items()})["logits"]
    np.testing.assert_allclose(got, want, atol=1e-4)
