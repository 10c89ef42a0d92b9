"""What processes around the package do: numpy set to raise, no home, arrays that refuse to be read,
the package in a zip."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.children import in_child

import refimpl
from refimpl.backends.backend import dtypes_of, present
from refimpl.cli import main
from refimpl.files.hub import cache_folder
from refimpl.nlp import NLPTaskConfig, create_nlp_head
from refimpl.reference import ops

CHOICES = [(backend, dtype) for backend in present() for dtype in dtypes_of(backend)]
IDS = np.array([[1, 17, 42, 2], [1, 17, 2, 3]])
ROOT = Path(refimpl.__file__).resolve().parents[1]


def sharp(backend: str, dtype: str) -> refimpl.ModernBERT:
    """The bundled model with attention so sharp that most of its weights underflow."""
    kept = "float64" if dtype == "float64" else "float32"
    base = refimpl.ModernBERT.from_variant("tiny", pretrained=True, backend="numpy", dtype=kept)
    params = {
        n: x * (6 if n.endswith(("Wqkv.weight", "Wi.weight")) else 1)
        for n, x in base.params.items()
    }
    return refimpl.ModernBERT(base.config, params, backend=backend, dtype=dtype)


# -- numpy set to raise ---------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "dtype"), CHOICES)
@pytest.mark.parametrize(
    "options", [{}, {"output_hidden_states": True}, {"output_attentions": True}], ids=str
)
def test_numbers_are_the_same_when_numpy_is_set_to_raise(
    backend: str, dtype: str, options: dict[str, bool]
) -> None:
    model = sharp(backend, dtype)
    ids, mask = [[1, 17, 42, 2] * 20], [[1] * 70 + [0] * 10]
    with np.errstate(all="ignore"):
        wanted = model(ids, mask, **options)["last_hidden_state"]
        packed = model.encode_packed(ids[0], [0, 80])
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(model(ids, mask, **options)["last_hidden_state"], wanted)
        np.testing.assert_array_equal(model.encode_packed(ids[0], [0, 80]), packed)
        np.testing.assert_array_equal(
            model.predict({"input_ids": ids, "attention_mask": mask})["last_hidden_state"],
            model(ids, mask)["last_hidden_state"],
        )
        assert np.geterr()["under"] == "raise", "the caller's settings are as they were"


def test_softmax_of_the_sharp_model_underflows() -> None:
    """So the test above has something to guard."""
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        ops.softmax(np.array([0.0, -200.0], np.float32), np.ones(2, bool))


def test_tasks_and_heads_answer_when_numpy_is_set_to_raise() -> None:
    pytest.importorskip("tokenizers")
    fill = refimpl.pipeline("fill-mask")
    text = "for i in [MASK](10):"
    wanted = fill(text)
    head = create_nlp_head(NLPTaskConfig("mood", "sentiment_analysis", num_classes=3), 8)
    hidden = np.full((2, 3, 8), 1e-30, np.float32)
    with np.errstate(all="raise"):
        assert fill(text) == wanted
        head(hidden)
        head(hidden * 1e3)


# -- arrays that refuse to be read ----------------------------------------------------------------


class Refuses:
    """As torch.Tensor.__array__ on other devices, in bfloat16, or where it requires grad."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise self.error


REFUSALS = [
    TypeError("Got unsupported ScalarType BFloat16"),
    RuntimeError("Can't call numpy() on Tensor that requires grad."),
    ValueError("no"),
    OSError("gone"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "name", ["input_ids", "inputs_embeds", "attention_mask", "position_ids", "token_type_ids"]
)
def test_array_like_that_refuses_is_a_value_error_that_names_it(
    name: str, error: Exception
) -> None:
    model = refimpl.ModernBERT.from_variant("tiny", seed=0)
    given = {"input_ids": IDS, name: Refuses(error)}
    if name == "inputs_embeds":
        del given["input_ids"]
    with pytest.raises(ValueError, match=f"^{name} is a Refuses that numpy cannot read"):
        model(given)


def test_array_like_that_refuses_is_named_by_every_other_entry() -> None:
    model, bad = refimpl.ModernBERT.from_variant("tiny", seed=0), Refuses(TypeError("meta"))
    with pytest.raises(ValueError, match="^cu_seqlens is a Refuses"):
        model.encode_packed([1, 2], bad)
    with pytest.raises(ValueError, match="^attention_mask is a Refuses"):
        model.predict({"input_ids": IDS, "attention_mask": bad})
    head = create_nlp_head(NLPTaskConfig("mood", "sentiment_analysis", num_classes=3), 8)
    with pytest.raises(ValueError, match="^hidden_states is a Refuses"):
        head(bad)
    params = {**model.params, "final_norm.weight": bad}
    with pytest.raises(ValueError, match=r"^params\['final_norm.weight'\] is a Refuses"):
        refimpl.ModernBERT(model.config, params)


def test_memory_that_runs_out_is_no_wrong_argument() -> None:
    model = refimpl.ModernBERT.from_variant("tiny", seed=0)
    with pytest.raises(MemoryError):
        model(Refuses(MemoryError()))


# -- no home --------------------------------------------------------------------------------------

PLACES = ("HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root")
def test_user_without_a_home_gets_the_documented_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's: a number that nobody knows, and no HOME."""
    command = ["fill-mask", "a [MASK]", "--model", "someone/nothing-of-that-name"]
    assert main(command) == 1  # imports what it needs while files can be read

    def homeless() -> bool:
        os.setgroups([])
        os.setgid(54321)
        os.setuid(54321)
        for place in (None, "~/models"):
            if place is not None:
                os.environ["HF_HOME"] = place
            with pytest.raises(refimpl.HubError, match="looked in ~/"):
                refimpl.load("someone/nothing-of-that-name")
            assert main(command) == 1
        return str(cache_folder()) == "~/models/hub"

    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    assert in_child(homeless) == 0


# -- the package in a zip -------------------------------------------------------------------------

IN_A_ZIP = """
import sys; sys.path.insert(0, sys.argv[1])
import refimpl
assert refimpl.__file__.startswith(sys.argv[1]), refimpl.__file__
print(refimpl.load(sys.argv[2])([[1, 17, 2]])["last_hidden_state"].shape, refimpl.info()["backend"])
for ask in (
    lambda: refimpl.ModernBERT.from_variant("tiny", pretrained=True),
    lambda: refimpl.pipeline("fill-mask"),
    lambda: refimpl.SentenceEncoder(),
):
    try:
        ask()
    except refimpl.HubError as error:
        print(error)
"""


def test_package_in_a_zip_computes_and_says_where_the_bundled_model_is(tmp_path: Path) -> None:
    refimpl.ModernBERT.from_variant("tiny", seed=1).save_pretrained(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "package", "w") as file:
        for path in (ROOT / "refimpl").rglob("*"):
            if path.is_file() and path.suffix in (".py", ".css", ".md", ".h", ".json", ".so"):
                file.write(path, path.relative_to(ROOT))
    command = [sys.executable, "-c", IN_A_ZIP, str(tmp_path / "package"), str(tmp_path / "model")]
    env = {k: v for k, v in os.environ.items() if not k.startswith("REFIMPL_")}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    shape, *errors = done.stdout.splitlines()
    assert shape == "(1, 3, 256) numpy"
    assert len(errors) == 3 and all(f"lies in {tmp_path / 'package'}, a zip" in e for e in errors)


# -- an eps that float32 cannot hold --------------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-50, 1e-40, 1e39])
def test_norm_eps_that_float32_cannot_hold_is_refused_but_in_float64(
    tmp_path: Path, eps: float
) -> None:
    config = refimpl.ModernBertConfig.from_variant("tiny", norm_eps=eps)
    for backend in present():
        with pytest.raises(ValueError, match="norm_eps is .*; norms are computed in float32"):
            refimpl.ModernBERT.from_variant("tiny", norm_eps=eps, backend=backend)
    model = refimpl.ModernBERT.from_variant("tiny", norm_eps=eps, dtype="float64")
    assert np.isfinite(model(IDS)["last_hidden_state"]).all()
    model.save_pretrained(tmp_path)
    with pytest.raises(refimpl.ModelFormatError, match="config.json: norm_eps is"):
        refimpl.load(tmp_path)
    assert refimpl.load(tmp_path, dtype="float64").config.norm_eps == config.norm_eps
