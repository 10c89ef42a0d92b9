"""On the engine no bit of a task's outputs depends on the texts beside: every head, every dtype."""

import threading
import time
import warnings

import numpy as np
import pytest
from support.native import extension
from support.text_folders import NER_LABELS, model_folder, sentence_folder, some_texts

import refimpl
from refimpl.models.model import BUNDLED
from refimpl.serve.service import Service
from refimpl.serve.settings import Settings
from refimpl.tasks.task import output_rows, tokenizer_of
from refimpl.text.tokenizer import Tokenizer

CLASSES = "sentence_transformers.models."
POOLING = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
ALL_POOLING = POOLING | {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
DENSE = {"activation_function": "torch.nn.modules.activation.Tanh", "bias": True}
MODULES = {
    "pooling": [("Pooling", POOLING)],
    "three poolings, dense, normalize": [
        ("Pooling", ALL_POOLING),
        ("Dense", DENSE | {"in_features": 96, "out_features": 20}),
        ("Normalize", {}),
    ],
    "layer norm, dense": [
        ("Pooling", POOLING),
        ("LayerNorm", {"dimension": 32}),
        ("Dense", DENSE | {"in_features": 32, "out_features": 1}),
    ],
}
HEADS = {
    "sequence_classification": {"id2label": {0: "a", 1: "b", 2: "c"}},
    "sequence_classification, mean": {"classifier_pooling": "mean", "id2label": {0: "a"}},
    "token_classification": {"id2label": NER_LABELS},
    "question_answering": {},
    "masked_lm": {},
    "none": {},
}
TASKS = {
    "TEXT_CLASSIFICATION": 3, "TOKEN_CLASSIFICATION": 3, "QUESTION_ANSWERING": None,
    "TEXT_SIMILARITY": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for name, modules in MODULES.items():
        root = tmp_path_factory.mktemp("modules")
        found[name] = sentence_folder(root, [(CLASSES + kind, x) for kind, x in modules])
    for name, config in HEADS.items():
        kind = None if name == "none" else name.partition(",")[0]
        found[name] = model_folder(tmp_path_factory.mktemp("head"), kind, **config)
    return found


def check(model, tokenizer):
    texts = [*some_texts(20, 3, 40), "a cat " * 90, ""]
    encodings = tokenizer.encode_batch(texts)
    alone = [output_rows(model, tokenizer, [one])[0] for one in encodings]
    for seed, batch_size in enumerate((None, 3, len(texts))):
        order = np.random.default_rng(seed).permutation(len(texts))
        rows = output_rows(model, tokenizer, [encodings[i] for i in order], batch_size)
        for i, row in zip(order, rows, strict=True):
            assert row.keys() == alone[i].keys()
            for name, wanted in alone[i].items():
                # Hidden states come padded to the longest of their pass.
                found = row[name][: len(wanted)] if wanted.ndim and "hidden" in name else row[name]
                if name != "attention_mask":
                    np.testing.assert_array_equal(found, wanted, strict=True)


def dtypes():
    native = extension()
    return native.dtypes(native.tiers()[0])


@pytest.mark.parametrize("dtype", dtypes())
@pytest.mark.parametrize("name", [*MODULES, *HEADS])
def test_heads_of_folders(folders, name, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # int8 without a certificate
        model = refimpl.load(folders[name], backend="native", dtype=dtype)
    check(model, tokenizer_of(model))


@pytest.mark.parametrize("task", TASKS)
def test_configurable_heads(task):
    kind = getattr(refimpl.NLPTaskType, task)
    config = refimpl.NLPTaskConfig("it", kind, num_classes=TASKS[task])
    model = refimpl.create_modern_bert_with_head("tiny", task_config=config, backend="native")
    check(model, Tokenizer.from_folder(BUNDLED))


def test_masks_are_filled_alike_in_any_company(folders):
    fill = refimpl.pipeline("fill-mask", folders["masked_lm"], backend="native")
    texts = [f"{text} [MASK]{' [MASK]' * (i % 3)} so" for i, text in enumerate(some_texts(30))]
    alone = [fill(text) for text in texts]
    assert fill(texts) == alone
    assert fill(texts[::-1], batch_size=7) == alone[::-1]


def test_hidden_states_and_scores_of_one_model_share_no_pass(folders):
    """A head of modules that end in a Dense gives vectors, scores and hidden states: those who ask
    for them at the same time get each their own."""
    service = Service(Settings(model=str(folders["layer norm, dense"]), backend="native"))
    asked = {
        "hidden": lambda: service.embed_tokens(["a cat"])[0],
        "score": lambda: service.score([("a cat", "a mat")], raw=True),
        "vectors": lambda: service.vectors(service.embed(["a cat"])),
    }
    lanes = service.lanes
    alone = {name: ask() for name, ask in asked.items()}
    begun, free, found = threading.Event(), threading.Event(), {}

    def holds(batch):
        begun.set()
        free.wait(20)
        return np.zeros(len(batch))

    def taking(name, does):
        found[name] = does()

    some = service.encode(["a cat"])
    threads = [threading.Thread(target=lambda: list(lanes.in_passes(some, holds, key="mine")))]
    threads[0].start()
    assert begun.wait(20)
    for name, ask in asked.items():
        threads.append(threading.Thread(target=taking, args=(name, ask)))
        threads[-1].start()
    end = time.monotonic() + 20
    while lanes.calls < len(asked):
        assert time.monotonic() < end
        time.sleep(0.001)
    free.set()
    for thread in threads:
        thread.join(20)
    for name, wanted in alone.items():
        np.testing.assert_array_equal(found[name], wanted)
    lanes.stop()
