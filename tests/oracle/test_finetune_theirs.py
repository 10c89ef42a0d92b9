"""What `finetune` writes and computes, beside transformers, sentence-transformers and PEFT."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.text_folders import model_folder

import refimpl
from refimpl.train import contrastive, merged, metrics, ranking, read_adapter, reranking
from refimpl.train.finetune import defaults, finetune

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")
sentence_transformers = pytest.importorskip("sentence_transformers")

pytestmark = pytest.mark.oracle

HEADS = {
    "classify": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "answer": "AutoModelForQuestionAnswering",
    "choice": "AutoModelForMultipleChoice",
    "mask": "AutoModelForMaskedLM",
}
ROWS = {
    "classify": [{"text": f"{w} day {i}", "label": w} for i in range(3) for w in ("good", "bad")],
    "tokens": [{"tokens": ["Anna", "lives", "here"], "tags": ["B-PER", "O", "O"]}] * 3,
    "answer": [{"question": "who?", "context": "the cat sat", "answer": "cat"}] * 3,
    "choice": [{"text": "she ate", "choices": ["a stone", "bread", "iron"], "label": 1}] * 3,
    "mask": [{"text": "import numpy as np and more"}] * 4,
    "embed": [{"anchor": f"number {i}", "positive": f"digit {i}"} for i in range(4)],
    "rerank": [{"query": f"q {i}", "positive": f"digit {i}", "negative": "dog"} for i in range(3)],
}
TEXTS = ["number 1", "a somewhat longer text of several words", "dog"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return model_folder(tmp_path_factory.mktemp("base"), "masked_lm")


def finetuned(task: str, folder: Path, base: Path, **changes) -> Path:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[task]))
    settings = replace(defaults(task), epochs=2, batch_size=2, learning_rate=1e-2, **changes)
    finetune(task, [data], folder / "out", model=base, settings=settings)
    return folder / "out"


@pytest.mark.parametrize("task", HEADS)
def test_transformers_loads_it_with_equal_outputs(task, tmp_path, base):
    out = finetuned(task, tmp_path, base)
    theirs = getattr(transformers, HEADS[task]).from_pretrained(out).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(out)(
        TEXTS, return_tensors="pt", padding=True
    )
    tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    if task == "choice":
        tokens = {name: x[None] for name, x in tokens.items()}
    with torch.no_grad():
        want = theirs(**tokens)
    mine = refimpl.load(out, backend="numpy")({name: x.numpy() for name, x in tokens.items()})
    real = tokens["attention_mask"].numpy() != 0
    for name in ("start_logits", "end_logits") if task == "answer" else ("logits",):
        got, its = mine[name], want[name].numpy()
        if task in ("tokens", "mask", "answer"):
            got, its = got[real], its[real]
        np.testing.assert_allclose(got, its, atol=1e-4)
    moved = refimpl.load(base, backend="numpy").params["layers.1.mlp.Wi.weight"]
    assert np.abs(theirs.state_dict()["model.layers.1.mlp.Wi.weight"].numpy() - moved).max() > 1e-3


def test_sentence_transformers_loads_it_with_equal_vectors(tmp_path, base):
    out = finetuned("embed", tmp_path, base)
    want = sentence_transformers.SentenceTransformer(str(out), device="cpu").encode(TEXTS)
    got = refimpl.SentenceEncoder(out, backend="numpy").encode(TEXTS)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_cross_encoder_loads_it_with_equal_scores(tmp_path, base):
    out = finetuned("rerank", tmp_path, base)
    pairs = [("number 1", text) for text in TEXTS]
    want = sentence_transformers.CrossEncoder(str(out), device="cpu").predict(pairs)
    got = refimpl.Reranker(out, backend="numpy").predict(pairs)
    np.testing.assert_allclose(got, want, atol=1e-5)


# -- losses ---------------------------------------------------------------------------------------

SCORES = np.array([0.125, 0.875, 0.375, 0.375, 0.75])  # exact in float32, to which theirs round
OURS = {
    "MultipleNegativesRankingLoss": (lambda x: contrastive.multiple_negatives(x[0], x[1:]), 3, 0),
    "CoSENTLoss": (lambda x: contrastive.cosent(*x, SCORES), 2, SCORES),
    "CosineSimilarityLoss": (lambda x: contrastive.cosine_similarity(*x, SCORES), 2, SCORES),
    "TripletLoss": (lambda x: contrastive.triplet(*x), 3, 0),
    "MarginMSELoss": (lambda x: contrastive.margin_mse(*x, SCORES), 3, SCORES),
}


class Vectors(torch.nn.Module):
    """A model of sentence-transformers whose features are its embeddings."""

    def forward(self, features):
        return {"sentence_embedding": features["x"]}


@pytest.mark.parametrize("name", OURS)
def test_losses_and_gradients_are_theirs(name):
    try:
        from sentence_transformers.sentence_transformer import losses
    except ImportError:
        from sentence_transformers import losses
    ours, n, labels = OURS[name]
    rng = np.random.default_rng(0)
    given = [rng.standard_normal((5, 7)) for _ in range(n)]
    theirs = [torch.tensor(x, requires_grad=True) for x in given]
    loss = getattr(losses, name)(Vectors())
    value = loss([{"x": x} for x in theirs], torch.tensor(np.broadcast_to(labels, 5).copy()))
    value.backward()
    found = ours(given)
    assert found.total / found.count == pytest.approx(value.item(), rel=1e-10)
    for x, g in zip(theirs, found.gradients, strict=True):
        np.testing.assert_allclose(g / found.count, x.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_matryoshka_is_theirs():
    rng = np.random.default_rng(1)
    given = [rng.standard_normal((4, 8)) for _ in range(2)]
    theirs = [torch.tensor(x, requires_grad=True) for x in given]
    own = torch.nn.functional.cross_entropy
    value = sum(
        own(
            20.0
            * torch.nn.functional.normalize(theirs[0][:, :w])
            @ torch.nn.functional.normalize(theirs[1][:, :w]).T,
            torch.arange(4),
        )
        for w in (8, 4, 2)
    )
    value.backward()
    found = contrastive.matryoshka(
        lambda a, b: contrastive.multiple_negatives(a, [b]), given, [8, 4, 2]
    )
    assert found.total / found.count == pytest.approx(value.item(), rel=1e-10)
    for x, g in zip(theirs, found.gradients, strict=True):
        np.testing.assert_allclose(g / found.count, x.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_losses_of_rerankers_are_theirs():
    """Of sentence-transformers' cross-encoders: what is behind the logits, with its defaults."""
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    kind, rng = losses.MultipleNegativesRankingLoss, np.random.default_rng(0)
    defaults_ = {n: p.default for n, p in inspect.signature(kind.__init__).parameters.items()}
    assert defaults_["num_negatives"] == reranking.NEGATIVES
    theirs = kind.__new__(kind)
    torch.nn.Module.__init__(theirs)
    theirs.scale, theirs.activation_fn = defaults_["scale"], defaults_["activation_fn"]
    theirs.cross_entropy_loss = torch.nn.CrossEntropyLoss()
    scores, margins = rng.standard_normal((4, 6)), rng.standard_normal((4, 5))
    x = torch.tensor(scores, requires_grad=True)
    wanted = {
        "ranking": theirs.calculate_loss(list(x.T), 4),
        "margin": torch.nn.MSELoss()(x[:, :1] - x[:, 1:], torch.tensor(margins)),
    }
    found = {
        "ranking": [ranking.multiple_negatives(row) for row in scores],
        "margin": [ranking.margin_mse(*row) for row in zip(scores, margins, strict=True)],
    }
    for name, value in wanted.items():
        x.grad = None
        value.backward()
        count = sum(loss.count for loss in found[name])
        assert sum(loss.total for loss in found[name]) / count == pytest.approx(value.item())
        mine = np.stack([loss.gradients[0] for loss in found[name]]) / count
        np.testing.assert_allclose(mine, x.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_spearman_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 50).astype(float), rng.standard_normal(50)
    assert metrics.alike(a, b)["spearman"] == pytest.approx(stats.spearmanr(a, b)[0])
    np.testing.assert_array_equal(metrics.ranks(a), stats.rankdata(a))


def test_entities_are_seqevals():
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    rng = np.random.default_rng(0)
    for _ in range(200):
        tags = rng.choice(["O", "B-A", "I-A", "B-B", "I-B"], 12).tolist()
        assert metrics.entities(tags) == set(labeling.get_entities(tags))


# -- adapters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classify", "tokens", "answer", "mask", "embed"])
def test_peft_loads_the_adapter_with_equal_outputs(task, tmp_path, base):
    peft = pytest.importorskip("peft")
    out = finetuned(task, tmp_path, base, lora_rank=4)
    kind = HEADS.get(task, "AutoModel")
    labels = {}
    if task in ("classify", "tokens"):
        names = refimpl.load(out).config.id2label
        labels = dict(id2label=dict(names), label2id={n: i for i, n in names.items()})
    theirs = getattr(transformers, kind).from_pretrained(base, **labels)
    its = peft.PeftModel.from_pretrained(theirs, str(out / "adapter")).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(out)(
        TEXTS, return_tensors="pt", padding=True
    )
    tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        want = its(**tokens)
    mine = refimpl.load(out, backend="numpy")
    arrays = {name: x.numpy() for name, x in tokens.items()}
    key = {"answer": "start_logits", "embed": "last_hidden_state"}.get(task, "logits")
    got = (mine.encoder if task == "embed" else mine)(arrays)[key]
    real = arrays["attention_mask"] != 0 if task != "classify" else slice(None)
    np.testing.assert_allclose(got[real], want[key].numpy()[real], atol=1e-4)
    assert its.peft_config["default"].r == 4


def test_what_peft_writes_is_read(tmp_path, base):
    peft = pytest.importorskip("peft")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["attn.Wqkv", "attn.Wo"], task_type="SEQ_CLS",
        modules_to_save=["classifier", "head"], init_lora_weights=False,
    )  # fmt: skip
    its = peft.get_peft_model(theirs, config).eval()
    its.save_pretrained(tmp_path / "adapter")
    its.base_model.model.save_pretrained(tmp_path / "plain")
    start = refimpl.load(base, backend="numpy")
    from refimpl.train.start import with_head

    names = ["LABEL_0", "LABEL_1"]
    mine = with_head(start, "sequence_classification", names, None, 0)
    adapter, whole = read_adapter(tmp_path / "adapter", mine.params)
    assert adapter.scale == pytest.approx(5 / 3) and adapter.rank == 3
    params = merged({**mine.params, **whole}, adapter)
    model = refimpl.ModernBERTForTask(mine.config, params, mine.head, backend="numpy")
    tokens = transformers.AutoTokenizer.from_pretrained(base)(
        TEXTS, return_tensors="pt", padding=True
    )
    tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        want = its(**tokens).logits.numpy()
    got = model({name: x.numpy() for name, x in tokens.items()})["logits"]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_folder_of_peft_is_loaded_as_it_is(tmp_path, base):
    """Without a config.json beside it: its labels have no names, and the base is where it says."""
    peft = pytest.importorskip("peft")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["attn.Wqkv", "mlp.Wi"], task_type="SEQ_CLS",
        modules_to_save=["classifier", "head"], init_lora_weights=False, use_rslora=True,
    )  # fmt: skip
    its = peft.get_peft_model(theirs, config).eval()
    its.save_pretrained(tmp_path)
    tokens = transformers.AutoTokenizer.from_pretrained(base)(
        TEXTS, return_tensors="pt", padding=True
    )
    tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        want = its(**tokens).logits.numpy()
    model = refimpl.load(tmp_path)
    assert list(model.config.id2label.values()) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    got = model({name: x.numpy() for name, x in tokens.items()})["logits"]
    np.testing.assert_allclose(got, want, atol=1e-4)
    (found,) = refimpl.pipeline("text-classification", tmp_path)(TEXTS[0])
    assert found["label"].startswith("LABEL_")


def test_a_folder_of_sentence_transformers_with_an_adapter_is_loaded(tmp_path, base):
    peft = pytest.importorskip("peft")
    import sentence_transformers as st

    its = st.SentenceTransformer(str(base), device="cpu")
    its.save(str(tmp_path / "whole"))
    folder = tmp_path / "adapter"
    left = shutil.ignore_patterns("model.safetensors")
    shutil.copytree(tmp_path / "whole", folder, ignore=left)
    (folder / "config.json").unlink()
    its = st.SentenceTransformer(str(tmp_path / "whole"), device="cpu")
    config = peft.LoraConfig(
        r=2, target_modules=["attn.Wqkv", "attn.Wo"], task_type="FEATURE_EXTRACTION",
        init_lora_weights=False,
    )  # fmt: skip
    its[0].model = peft.get_peft_model(its[0].auto_model, config).eval()
    its[0].model.save_pretrained(folder)
    want = its.encode(TEXTS)
    got = refimpl.SentenceEncoder(folder).encode(TEXTS)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_every_key_of_peft_is_known():
    peft = pytest.importorskip("peft")
    from refimpl.files import adapter

    known = {*adapter.READ, *adapter.NEUTRAL, *adapter.HARMLESS}
    assert set(peft.LoraConfig(r=2).to_dict()) - known == set()
