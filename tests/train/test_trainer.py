"""The trainer: it learns, resumes with the same bits wherever it was stopped, and refuses aloud."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refimpl
from refimpl.files.safetensors import open_safetensors
from refimpl.train import gradients
from refimpl.train.examples import Examples, Unit
from refimpl.train.finetune import finetune
from refimpl.train.settings import Settings
from refimpl.train.start import with_head
from refimpl.train.trainer import Trainer
from refimpl.train.work import Supervised

CLASSES = 3
SETTINGS = Settings(epochs=3, batch_size=4, learning_rate=5e-3)
PROBLEM = "single_label_classification"


def small_model(seed: int = 0, dtype: str = "float32", **more) -> refimpl.ModernBERTForTask:
    rates = dict(attention_dropout=0.1, mlp_dropout=0.1, classifier_dropout=0.1)
    base = refimpl.ModernBERT.from_variant(
        "tiny", num_layers=2, hidden_size=16, num_heads=2, intermediate_size=12, vocab_size=40,
        local_attention=4, seed=seed, dtype=dtype, backend="numpy", **(rates | more),
    )  # fmt: skip
    return with_head(base, "sequence_classification", ["a", "b", "c"], PROBLEM, seed)


def examples(n: int = 18, seed: int = 0) -> Supervised:
    """Texts whose class is that of their second token."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    ids = [
        np.array([1, 10 + y, *rng.integers(20, 40, rng.integers(1, 9)), 2], np.int64)
        for y in labels
    ]
    units = [Unit([x], labels[i : i + 1], f"text {i}") for i, x in enumerate(ids)]
    return Supervised(Examples("classify", units, 0))


def trained(folder: Path, settings: Settings = SETTINGS, tell=lambda line: None, resume=False):
    trainer = Trainer(small_model(), examples(), examples(9, 1), settings, folder, tell)
    return trainer, trainer.run(resume=resume)


def bits(folder: Path) -> dict[str, bytes]:
    """Of every tensor of the model and of the run's state."""
    return {
        f"{file}/{name}": tensor.array().tobytes()
        for file in ("model.safetensors", "training.safetensors")
        for name, tensor in open_safetensors(folder / file).items()
    }


@pytest.mark.heavy
def test_it_learns_and_the_folder_loads(tmp_path):
    settings = Settings(epochs=15, batch_size=10, learning_rate=1e-2)
    held_out = examples(30, 1)
    figures = Trainer(small_model(), examples(100), held_out, settings, tmp_path).run()
    assert figures["eval_accuracy"] >= 0.9 and figures["steps"] == 150
    found = refimpl.load(tmp_path, backend="numpy")
    assert found.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert held_out.evaluate(found)["loss"] == pytest.approx(figures["best"], rel=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "loss" in x] == list(range(1, 151))
    assert len([x for x in lines if "eval_loss" in x]) == 15


def test_a_step_is_the_update_of_the_batch_gradient(tmp_path):
    """In float64: its units add up to the gradient of the whole batch, without dropout."""
    rates = dict(attention_dropout=0.0, mlp_dropout=0.0, classifier_dropout=0.0)
    model = small_model(dtype="float64", **rates)
    settings = Settings(epochs=1, batch_size=18, warmup=0.0, learning_rate=8e-5)
    trainer = Trainer(model, examples(), None, settings, tmp_path)
    before = {name: x.copy() for name, x in trainer.params.items()}
    trainer._step()
    units = examples().examples.units
    ids = [x for unit in units for x in unit.sequences]
    packed = {
        "input_ids": np.concatenate(ids),
        "cu_seqlens": np.cumsum([0, *(len(x) for x in ids)]),
    }
    labels = np.concatenate([unit.labels for unit in units])
    _, grads = gradients(model, packed, labels, task="classify")
    for name, x in trainer.params.items():
        g = grads[name]
        # The first step of AdamW: both means are the gradient's own, so p moves by lr g / |g|.
        kept = before[name] * (1 - 8e-5 * 1e-5 * (x.ndim > 1))
        want = kept - 8e-5 * g / (np.abs(g) + 1e-6)
        np.testing.assert_allclose(x, want, atol=1e-12)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 11, 14])
def test_a_run_that_broke_off_goes_on_with_the_same_bits(tmp_path, stop):
    trained(tmp_path / "whole")

    def tell(line):
        if line.startswith(f"step {stop}/"):
            raise Interrupted

    with pytest.raises(Interrupted):
        trained(tmp_path / "broken", tell=tell)
    trained(tmp_path / "broken", resume=True)
    assert bits(tmp_path / "broken") == bits(tmp_path / "whole")
    whole, broken = ((tmp_path / x / "metrics.jsonl").read_text() for x in ("whole", "broken"))
    assert broken == whole


def test_a_resumed_run_remembers_which_model_was_the_best(tmp_path):
    """At this learning rate the loss rises: the best model is one from before the stop."""
    settings = Settings(epochs=6, batch_size=4, learning_rate=0.3, schedule="constant")
    whole, _ = trained(tmp_path / "whole", settings)

    def tell(line):
        if line.startswith("step 27/"):
            raise Interrupted

    with pytest.raises(Interrupted):
        trained(tmp_path / "broken", settings, tell=tell)
    assert whole.progress.since_best > 0
    trained(tmp_path / "broken", settings, resume=True)
    assert bits(tmp_path / "broken") == bits(tmp_path / "whole")


CHILD = """
import sys
sys.path[:0] = {paths!r}
from test_trainer import SETTINGS, replace, trained
from pathlib import Path
settings = replace(SETTINGS, batch_size=int(sys.argv[2]), accumulate=int(sys.argv[3]))
trained(Path(sys.argv[1]), settings, resume=True, tell=lambda line: print(line, flush=True))
"""


def child(folder: Path, split: tuple[int, int] = (4, 1)) -> subprocess.Popen:
    code = CHILD.format(paths=sys.path)  # the package that is tested here, wherever that is
    call = [sys.executable, "-c", code, str(folder), *map(str, split)]
    return subprocess.Popen(
        call, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def killed(folder: Path, seed: int, most: int, split: tuple[int, int] = (4, 1)) -> int:
    """A run that is killed some milliseconds after a random step, and resumed, until it ends.
    split: texts a batch, batches a step.

    Returns how often it was killed."""
    rng, kills = random.Random(seed), 0
    for _ in range(10 * most + 1):
        process, after = child(folder, split), rng.randint(1, 7)
        for seen, _line in enumerate(process.stdout, start=1):
            if seen >= after and kills < most:
                time.sleep(rng.random() * 0.02)
                process.kill()
        code = process.wait()
        process.stdout.close()
        if code == 0:
            return kills
        assert code == -signal.SIGKILL
        kills += 1
    raise AssertionError("the run did not end")


def test_a_run_that_was_killed_goes_on_with_the_same_bits(tmp_path):
    trained(tmp_path / "whole")
    assert killed(tmp_path / "killed", 5, 6) >= 3
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


@pytest.mark.soak
def test_a_hundred_kills_leave_the_same_bits(tmp_path):
    trained(tmp_path / "whole")
    kills, run = 0, 0
    while kills < 100:
        kills += killed(tmp_path / str(run), run, 10)
        assert bits(tmp_path / str(run)) == bits(tmp_path / "whole"), f"run {run}"
        run += 1
    print(f"{kills} kills in {run} runs")


@pytest.mark.soak
def test_random_pairs_of_runs_have_the_same_bits(tmp_path):
    """They differ in how a step is split into batches, and in how often they are killed."""
    trained(tmp_path / "whole")
    want, rng, kills = bits(tmp_path / "whole"), random.Random(1), 0
    for n in range(50):
        split = rng.choice([(4, 1), (2, 2), (1, 4)])
        kills += killed(tmp_path / str(n), n, rng.randint(0, 4), split)
        assert bits(tmp_path / str(n)) == want, (n, split)
        print(f"{n + 1} pairs, {kills} kills", flush=True)


def test_ctrl_c_saves_after_the_step_and_the_run_goes_on(tmp_path):
    trained(tmp_path / "whole")

    def tell(line):
        if line.startswith("step 7/"):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", tell=tell)
    assert signal.getsignal(signal.SIGINT) is before
    trainer = Trainer(small_model(), examples(), examples(9, 1), SETTINGS, tmp_path / "stopped")
    trainer._restore(tmp_path / "stopped" / "training.safetensors")
    assert trainer.progress.step == 7
    trained(tmp_path / "stopped", resume=True)
    assert bits(tmp_path / "stopped") == bits(tmp_path / "whole")


def test_a_finished_run_resumes_to_itself(tmp_path):
    trained(tmp_path)
    first = bits(tmp_path)
    trained(tmp_path, resume=True)
    assert bits(tmp_path) == first


def test_the_best_model_is_kept_and_patience_ends_a_run(tmp_path):
    settings = Settings(epochs=30, batch_size=4, learning_rate=0.3, patience=2)
    trainer, figures = trained(tmp_path, settings)
    assert trainer.progress.ended and figures["steps"] < 150
    found = examples(9, 1).evaluate(refimpl.load(tmp_path, backend="numpy"))
    assert found["loss"] == pytest.approx(trainer.progress.best, rel=1e-6)


def test_another_run_is_not_gone_on_with(tmp_path):
    trained(tmp_path)
    other = Settings(**{**vars(SETTINGS), "seed": 7})
    with pytest.raises(ValueError, match="holds a run already; resume it, or take another folder"):
        trained(tmp_path)
    with pytest.raises(ValueError, match="belongs to another run: its seed is 0, here it is 7"):
        trained(tmp_path, other, resume=True)
    trainer = Trainer(small_model(), examples(seed=9), examples(9, 1), SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="belongs to another run: its train is"):
        trainer.run(resume=True)


def test_a_number_that_is_not_finite_stops_the_run_and_leaves_the_last_state(tmp_path):
    trainer = Trainer(small_model(), examples(), None, SETTINGS, tmp_path)

    def tell(line):
        if line.startswith("step 8/"):
            trainer.params["layers.1.mlp.Wo.weight"][0, 0] = np.inf

    trainer.tell = tell
    with pytest.raises(FloatingPointError, match=r"step 9, text \d+: .* is not finite"):
        with np.errstate(invalid="ignore", over="ignore"):
            trainer.run()
    state = open_safetensors(tmp_path / "training.safetensors")
    assert json.loads(state.metadata["refimpl_run"])["progress"]["step"] == 5
    assert all(np.isfinite(t.array()).all() for t in state.values())


def test_numbers_that_overflow_are_told_with_step_and_tensor(tmp_path):
    settings = replace(SETTINGS, learning_rate=1e38, warmup=0.0, save_every=1)
    trainer = Trainer(small_model(), examples(), None, settings, tmp_path)
    with np.errstate(all="ignore"), pytest.raises(
        FloatingPointError, match=r"step \d+(, text \d+)?: [\w. ]+ is not finite"
    ):  # fmt: skip
        trainer.run()
    state = open_safetensors(tmp_path / "training.safetensors")
    assert all(np.isfinite(t.array()).all() for t in state.values())


def test_a_full_disk_names_file_and_step_and_leaves_the_last_state(tmp_path):
    """Every write beyond some bytes of a file fails, as on a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    trained(tmp_path / "whole")

    def tell(line):
        if line.startswith("step 7/"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    try:
        with pytest.raises(OSError, match="of step 10 was not written, what was there is as") as e:
            trained(tmp_path / "full", tell=tell)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path / "full") in str(e.value)
    state = open_safetensors(tmp_path / "full" / "training.safetensors")
    assert json.loads(state.metadata["refimpl_run"])["progress"]["step"] == 5
    refimpl.load(tmp_path / "full")
    trained(tmp_path / "full", resume=True)
    assert bits(tmp_path / "full") == bits(tmp_path / "whole")


def test_the_picture_shows_the_run(tmp_path):
    trained(tmp_path)
    picture = (tmp_path / "run.svg").read_text()
    assert picture.count("<circle") == 3 and picture.count("<polyline") == 3
    import xml.etree.ElementTree as tree

    tree.fromstring(picture)


def test_the_learning_rate_goes_with_the_width():
    assert Settings().peak(768) == 8e-5 and Settings().peak(256) == pytest.approx(7.2e-4)
    assert Settings(learning_rate=1e-3).peak(256) == 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(epochs=0), "epochs is 0"),
        (dict(batch_size=2.5), "batch_size is 2.5"),
        (dict(seed=-1), "seed is -1"),
        (dict(learning_rate=0.0), "learning_rate is 0.0"),
        (dict(warmup=1.0), "warmup is 1.0"),
        (dict(accumulate=0), "accumulate is 0"),
        (dict(warmup=0.6, decay=0.6), "warmup 0.6 . decay 0.6 is more"),
        (dict(layer_decay=0.0), "layer_decay is 0.0"),
        (dict(optimiser="sgd"), "optimiser is 'sgd'; known: adamw, stable_adamw"),
        (dict(schedule="step"), "schedule is 'step'; known"),
        (dict(batch_start=17), "batch_start is 17; it must be at most"),
        (dict(label_smoothing=1.0), "label_smoothing is 1.0"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


# -- from files -----------------------------------------------------------------------------------


def data_file(path: Path, n: int = 12) -> Path:
    words = {"good": ["great", "fine"], "bad": ["awful", "poor"]}
    rows = [
        {"text": f"this is {words[y][i % 2]} {i}", "label": y}
        for i, y in ((i, ("good", "bad")[i % 2]) for i in range(n))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_finetune_on_the_bundled_encoder(tmp_path):
    data = data_file(tmp_path / "a.jsonl")
    settings = Settings(epochs=2, batch_size=6)
    figures = finetune("classify", [data], tmp_path / "out", settings=settings)
    assert figures["labels"] == ["bad", "good"] and figures["truncated"] == 0
    classify = refimpl.pipeline("text-classification", tmp_path / "out")
    assert {r["label"] for r in classify("this is great", top_k=2)} == {"good", "bad"}
    base = refimpl.ModernBERT.from_variant("tiny", pretrained=True)
    found = refimpl.load(tmp_path / "out")
    assert not np.array_equal(found.params["final_norm.weight"], base.params["final_norm.weight"])


def test_the_prediction_head_of_a_masked_lm_comes_along():
    base = refimpl.load(Path(refimpl.__file__).parent / "bundled" / "tiny", backend="numpy")
    assert base.head.kind == "masked_lm"
    made = with_head(base, "sequence_classification", ["x", "y"], PROBLEM, 0)
    for name in ("head.dense.weight", "head.norm.weight", "layers.1.mlp.Wi.weight"):
        np.testing.assert_array_equal(made.params[name], base.params[name])
    assert not made.params["classifier.bias"].any() and "decoder.bias" not in made.params
    again = with_head(made, "sequence_classification", ["x", "y"], PROBLEM, 5)
    np.testing.assert_array_equal(
        again.params["classifier.weight"], made.params["classifier.weight"]
    )
    other = with_head(made, "sequence_classification", ["x", "z"], PROBLEM, 5)
    assert not np.array_equal(other.params["classifier.weight"], made.params["classifier.weight"])


def test_a_configurable_head_is_told_where_another_takes_its_place(tmp_path):
    mood = refimpl.NLPTaskConfig("mood", "sentiment_analysis", num_classes=2)
    tags = refimpl.NLPTaskConfig("tags", "part_of_speech_tagging", num_labels=2)
    data, brief = data_file(tmp_path / "a.jsonl"), Settings(epochs=1, batch_size=6)

    def lines(start, out):
        found = []
        finetune("classify", [data], tmp_path / out, model=start, settings=brief, tell=found.append)
        return [line for line in found if "in its place" in line]

    for i, tasks in enumerate((mood, [mood, tags])):
        base = refimpl.create_modern_bert_with_head("tiny", tasks, pretrained=True)
        base.save_pretrained(tmp_path / "base")
        (told,) = lines(tmp_path / "base", f"out{i}")
        assert "sentiment_analysis" in told and ("part_of_speech_tagging" in told) == (i == 1)
        assert "a sequence_classification head in its place" in told
    assert not lines(None, "plain")  # heads of checkpoints are no news
    assert not lines(tmp_path / "plain", "again")


def test_a_folder_that_cannot_be_is_told_before_the_work(tmp_path):
    data = data_file(tmp_path / "a.jsonl")
    with pytest.raises(OSError, match="a.jsonl"):
        finetune("classify", [data], data / "below-a-file")


def test_no_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="data is empty"):
        finetune("classify", [], tmp_path / "out")


def test_the_command_trains_evaluates_and_resumes(tmp_path, capsys):
    from refimpl.cli import main

    data, out = str(data_file(tmp_path / "a.jsonl")), str(tmp_path / "out")
    call = ["finetune", "classify", data, "--eval", data, "--out", out, "--epochs", "1"]
    assert main(call) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["out"] == out and record["labels"] == ["bad", "good"] and record["steps"] == 1
    assert "tokens/s" in said.err and "eval_accuracy" in said.err
    assert main(call) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert main([*call, "--resume"]) == 0


def test_ctrl_c_at_the_command_saves_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    from refimpl.cli import finetune as verb
    from refimpl.cli import main

    data, out = str(data_file(tmp_path / "a.jsonl")), str(tmp_path / "out")
    call = ["finetune", "classify", data, "--out", out, "--epochs", "3", "--batch-size", "4"]

    def tell(line):
        if line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(verb, "tell", tell)
    assert main(call) == 130
    said = capsys.readouterr().err
    assert f"stopped and saved; the same command with --resume goes on from {out}" in said
    assert main([*call, "--resume"]) == 0
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["step"] for x in lines] == list(range(1, 10))


def test_the_command_tells_what_is_wrong_with_the_data(tmp_path, capsys):
    from refimpl.cli import main

    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": 1, "label": "y"}\n')
    assert main(["finetune", "classify", str(path), "--out", str(tmp_path / "out")]) == 1
    assert f"{path}, row 2: text is int, not text" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
