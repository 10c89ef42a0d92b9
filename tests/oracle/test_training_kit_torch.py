"""torch under the training kit: transformers' models in a plain loop are right, mistakes are named.

transformers' own Trainer needs accelerate; without it those tests are skipped.
"""

import numpy as np
import pytest

from refimpl.verify.training.cases import case
from refimpl.verify.training.judge import verify

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from refimpl.verify.training.torch_port import TorchPort, TransformersTrainer  # noqa: E402

pytestmark = pytest.mark.oracle
NAMES = ("classes-plain", "mask-tied", "mask-silu", "tokens-biased", "several-labels", "answer",
         "choice", "regression")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_torch_is_right(name, attention):
    port = TorchPort(TransformersTrainer(False, attention).model)
    report = verify(port, [case(name)])
    assert report.verdict == "exact-spec", report.findings
    assert report.cases[0].comparison.ratio < 0.9


def test_a_wrong_module_is_named():
    """The pooled vector's gradient is lost where a module detaches it."""

    def build(one):
        model = TransformersTrainer(False).model(one)
        model.head.register_forward_pre_hook(lambda m, given: (given[0].detach(),))
        return model

    report = verify(TorchPort(build), [case("classes-plain")])
    assert report.culprit == ("classes-plain", "grad.final_norm.weight")


def test_what_torch_does_not_do_is_a_note():
    report = verify(TorchPort(TransformersTrainer(False).model), [case("packed")])
    assert "packed input needs flash attention" in report.findings[0].message
    assert report.findings[0].level == "note"


def test_trainer_accumulates_masks_rightly_and_other_heads_not():
    pytest.importorskip("accelerate")
    right = verify(TransformersTrainer(True), [case("mask-tied"), case("partial-window")])
    assert right.verdict == "exact-spec", right.findings
    wrong = verify(TransformersTrainer(True), [case("tokens-biased")])
    assert wrong.verdict == "fail" and wrong.suspects[0].id == "L1"
    assert np.isclose(wrong.suspects[0].explained, 1.0)
