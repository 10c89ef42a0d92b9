"""Real ports through the kit: transformers in its ways, an ONNX export, and a torch tanh GELU."""

import json
from pathlib import Path

import pytest

from refimpl.cli import main
from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.onnx_port import OnnxPort
from refimpl.verify.ports.port import Request
from refimpl.verify.ports.transformers_port import TransformersPort
from refimpl.verify.truth.cases import CASES, case

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
PACKED = {c.name for c in CASES if "cu_seqlens" in c.inputs}
# Every kind of input once, short ones: the export runs them through ONNX Runtime's own kernels.
MODEL = "window-66"


def of_model(name):
    return [c for c in CASES if c.fixture == case(name).fixture]


@pytest.mark.parametrize(
    ("attention", "dtype"), [("eager", "float32"), ("sdpa", "float32"), ("sdpa", "bfloat16")]
)
def test_transformers_is_exact_spec_in_its_dtype(attention, dtype):
    report = verify(TransformersPort(attention, dtype))
    assert report.verdict == "exact-spec", report.findings
    assert report.dtype == dtype
    compared = {c.name: c.comparison for c in report.cases if c.comparison is not None}
    assert set(compared) == {c.name for c in CASES} - PACKED
    every = {c.name: len(c.comparison.rows) for c in report.cases if c.comparison}
    shapes = {c.name: 14 * c.config["num_hidden_layers"] for c in CASES}
    # All steps of every layer, embedding, four rotary tables, the last norm, and the head.
    assert all(rows >= shapes[name] + 6 for name, rows in every.items())
    assert {f.case for f in report.findings} == PACKED  # refused, and said so


def test_a_port_below_its_dtype_is_seen():
    """What passes as bfloat16 must not pass as float32."""
    report = verify(
        TransformersPort("sdpa", "bfloat16"), [case("eight-tokens")], "float32", suspects=False
    )
    assert report.verdict == "fail"


def test_torch_has_one_thread_while_the_kit_runs_it():
    seen, before = [], torch.get_num_threads()

    def watch(model):
        model.register_forward_pre_hook(lambda m, args: seen.append(torch.get_num_threads()))

    port = TransformersPort("sdpa", "float32", adapt=watch)
    c = case("two-tokens")
    torch.set_num_threads(2)
    try:
        request = Request.of(c.name, c.config, c.model())
        assert port.run(request).taps
        assert all(result.taps for result in port.run_together([request] * 3))
        assert seen == [1] * 4 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def tanh_gelu(model):
    """The MLP's activation replaced in the modules, as a port would."""
    encoder = getattr(model, "model", model)
    for layer in encoder.layers:
        layer.mlp.act = torch.nn.GELU(approximate="tanh")


def test_tanh_gelu_in_torch_is_a_declared_deviation():
    port = TransformersPort("sdpa", "float32", adapt=tanh_gelu)
    report = verify(port, [case("window-66"), case("silu-64")])
    # silu-64 asks for silu: there, tanh GELU is simply wrong.
    assert report.verdict == "fail"
    report = verify(port, [case("window-66"), case("padding-mixed")])
    assert report.verdict == "declared deviation" and report.exit_code == 4
    assert {f.data["deviation"] for f in report.findings if f.level == "deviation"} == {"F2"}


class Logits(torch.nn.Module):
    """The model as it is exported: two inputs, one output."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    c = case(MODEL)
    model = Logits(TransformersPort("sdpa").build(Request.of(c.name, c.config, c.model())))
    ids = torch.ones(2, 9, dtype=torch.int64)
    mask = ids.clone()
    mask[1, 5:] = 0
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("seq", min=2)}
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.onnx.export(
        model,
        (ids, mask),
        path,
        dynamo=True,
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        verbose=False,
    )
    return path


def test_an_onnx_export_passes_through_onnx_runtime(exported):
    cases = of_model(MODEL)
    report = verify(OnnxPort(exported), cases)
    assert report.verdict == "exact-spec", report.findings
    taken = {c.name for c in cases if "position_ids" not in c.inputs}
    assert {c.name for c in report.cases if c.comparison is not None} == taken
    assert {len(c.comparison.rows) for c in report.cases if c.comparison is not None} == {1}


def test_an_onnx_export_of_another_model_fails(exported):
    report = verify(OnnxPort(exported), [case("two-tokens")], runtime=False, suspects=False)
    assert report.verdict == "fail"


class Hidden(torch.nn.Module):
    """A bare encoder as it is exported."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def exported_encoder(path, name, shape):
    """An encoder of the kit for a batch and a length that are fixed."""
    c = case(name)
    model = Hidden(TransformersPort("eager").build(Request.of(c.name, c.config, c.model())))
    ids = torch.ones(*shape, dtype=torch.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model,
        (ids, ids.clone()),
        path,
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
        verbose=False,
    )


def test_a_folder_of_onnx_files_of_one_row_and_a_fixed_length_finds_its_cases(tmp_path, capsys):
    exported_encoder(tmp_path / "plain" / "onnx" / "model.onnx", "plain-short", (1, 32))
    exported_encoder(tmp_path / "biases" / "model.onnx", "plain-biases", (2, 16))
    config = json.dumps(case("plain-biases").config)
    (tmp_path / "biases" / "config.json").write_text(config)
    page = tmp_path / "report.json"
    assert main(["verify", "--onnx", str(tmp_path), "--json", str(page), "--no-runtime"]) == 4
    data = json.loads(page.read_text())
    names = {"plain-short", "plain-window", "plain-padded", "plain-biases"}
    assert data["verdict"] == "exact-spec" and data["port"] == "2 ONNX files"
    assert {c["name"] for c in data["cases"] if c["steps"]} == names
    assert all([s["tap"] for s in c["steps"]] == ["final_norm"] for c in data["cases"])
    pattern = str(tmp_path / "*" / "onnx" / "*.onnx")
    assert main(["verify", "--onnx", pattern, "--case", "plain-padded"]) == 4
    assert "1 of 27 cases" in capsys.readouterr().out


def test_the_command_runs_both(exported, tmp_path, capsys):
    page = tmp_path / "report.json"
    assert main(["verify", "--onnx", str(exported), "--case", MODEL, "--json", str(page)]) == 4
    assert json.loads(page.read_text())["verdict"] == "exact-spec"
    assert main(["verify", "--transformers", "eager", "--case", "spans", "--no-runtime"]) == 4
    assert "transformers eager (float32), incomplete, 1 of 27" in capsys.readouterr().out
    assert Path(exported).exists()
