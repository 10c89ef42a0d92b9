"""Dumps of ports: names, layouts and files are read as meant, and what is wrong is a finding."""

import io
import json
import zipfile

import numpy as np
import pytest

from refimpl.files.safetensors import write_safetensors
from refimpl.verify.ports import tensors as containers
from refimpl.verify.ports.dump import DumpPort
from refimpl.verify.ports.names import Description, tap_of
from refimpl.verify.ports.port import Request
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.passes import trace
from refimpl.verify.truth.shapes import tap_shapes

NAME = "padding-mixed"


def request(name=NAME):
    c = case(name)
    return Request.of(c.name, c.config, c.model())


def truth(name=NAME):
    return trace(case(name).model().astype(np.float32))


def write_npy(folder, arrays):
    folder.mkdir(exist_ok=True)
    for name, x in arrays.items():
        np.save(folder / f"{name}.npy", x)
    return folder


def read(path, name=NAME, description=None):
    return DumpPort(path, case=name, description=description or Description()).run(request(name))


def messages(result, level="fail"):
    return [f.message for f in result.findings if f.level == level]


@pytest.mark.parametrize("name", ["two-tokens", "packed", "mean-65", "spans", "positions-far"])
def test_shapes_known_beforehand_are_those_of_the_trace(name):
    p = case(name).model()
    steps = trace(p)
    assert tap_shapes(p.config, p.inputs, p.head) == {k: x.shape for k, x in steps.items()}
    assert list(tap_shapes(p.config, p.inputs, p.head)) == list(steps)


@pytest.mark.parametrize("how", ["npy", "npz", "safetensors", "folder per case", "file per case"])
def test_every_container_gives_the_same_steps(tmp_path, how):
    steps, case_name = truth(), NAME
    if how == "npy":
        path = write_npy(tmp_path / "dump", steps)
    elif how == "npz":
        path = tmp_path / "dump.npz"
        np.savez_compressed(path, **steps)
    elif how == "safetensors":
        path = tmp_path / "dump.safetensors"
        write_safetensors(path, steps)
    else:
        path, case_name = tmp_path, None
        if how == "folder per case":
            write_npy(tmp_path / NAME, steps)
        else:
            np.savez(tmp_path / f"{NAME}.npz", **steps)
    result = DumpPort(path, case=case_name).run(request())
    assert result.findings == ()
    assert list(result.taps) == list(steps)
    assert all(np.array_equal(result.taps[k], x) for k, x in steps.items())


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f8", "<f2"])
def test_byte_order_and_width_of_floats_do_not_matter(tmp_path, dtype):
    step = truth()["final_norm"].astype(np.float16)
    result = read(write_npy(tmp_path / "dump", {"final_norm": step.astype(dtype)}))
    assert messages(result) == []
    assert result.taps["final_norm"].dtype.isnative
    assert np.array_equal(result.taps["final_norm"], step)


def test_bfloat16_is_widened(tmp_path):
    path = tmp_path / "dump.safetensors"
    write_safetensors(path, {"final_norm": truth()["final_norm"]}, dtype="bfloat16")
    step = read(path).taps["final_norm"]
    assert step.dtype == np.float32
    assert not (step.view(np.uint32) & 0xFFFF).any() and step.any()


def test_column_major_files_are_read_in_their_order(tmp_path):
    step = truth()["final_norm"]
    result = read(write_npy(tmp_path / "dump", {"final_norm": np.asfortranarray(step)}))
    assert np.array_equal(result.taps["final_norm"], step)


LAYOUTS = {
    "heads joined": lambda x, real: x.reshape(*x.shape[:2], -1),
    "axes flattened": lambda x, real: x.reshape(-1, *x.shape[2:]),
    "packed": lambda x, real: x[real],
    "packed, heads joined": lambda x, real: x[real].reshape(real.sum(), -1),
    "leading one": lambda x, real: x[None],
}


@pytest.mark.parametrize("how", LAYOUTS)
def test_layouts_with_one_meaning_are_read_unasked(tmp_path, how):
    real, step = case(NAME).real, truth()["layers.1.q"]
    path = write_npy(tmp_path / "dump", {"layers.1.q": LAYOUTS[how](step, real)})
    result = read(path)
    assert messages(result) == []
    got = result.taps["layers.1.q"]
    assert got.shape == step.shape and np.array_equal(got[real], step[real])
    assert np.isnan(got[~real]).all() == how.startswith("packed")


def test_heads_first_is_read_when_named_so_and_refused_otherwise(tmp_path):
    step = truth()["layers.1.q"]
    path = write_npy(tmp_path / "dump", {"layers.1.q": step.swapaxes(1, 2)})
    assert "give its layout" in messages(read(path))[0]
    named = Description(layouts={"layers.{i}.q": "batch heads seq head_dim"})
    assert np.array_equal(read(path, description=named).taps["layers.1.q"], step)
    wrong = Description(layouts={"layers.{i}.q": "heads batch seq head_dim"})
    assert "under the layout" in messages(read(path, description=wrong))[0]
    nonsense = Description(layouts={"layers.{i}.q": "batch heads heads head_dim"})
    assert "its axes must be" in messages(read(path, description=nonsense))[0]


def test_rope_tables_are_read_without_batch_and_in_halves(tmp_path):
    steps = truth()
    cos, sin = steps["rope.full.cos"], steps["rope.full.sin"]
    half = {"rope.full.cos": cos[0], "rope.full.sin": sin[0, :, : sin.shape[-1] // 2]}
    result = read(write_npy(tmp_path / "dump", half))
    assert np.array_equal(result.taps["rope.full.cos"], cos)
    assert np.array_equal(result.taps["rope.full.sin"], sin)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("layers.1.q", "layers.1.q"),
        ("model.layers.1.mlp.Wi", "layers.1.wi"),
        ("layers.1.attn.Wo", "layers.1.attn_out"),
        ("model.layers.1", "layers.1.residual_2"),
        ("model.embeddings.norm", "embedding"),
        ("last_hidden_state", "final_norm"),
        ("hidden_states.0", "embedding"),
        ("hidden_states.2", "layers.1.residual_2"),
        ("layers.1.attn.Wqkv", "layers.1.qkv"),
        ("/model/layers.1/mlp_norm/LayerNormalization_output_0", "layers.1.mlp_norm"),
        ("/model/layers.1/mlp/Wo/MatMul_output_0", "layers.1.mlp_out"),
        ("/decoder/Add_output_0", "logits"),
        ("/decoder/MatMul_output_0", None),
        ("layers.9.q", None),
        ("something", None),
    ],
)
def test_names_of_other_projects_are_understood(name, step):
    p = case("window-66").model()
    known = tap_shapes(p.config, p.inputs, p.head)
    assert "decoder.bias" in p.params
    assert tap_of(name, known, {}, p.params) == step


def test_a_fused_qkv_is_split_in_thirds(tmp_path):
    steps = truth()
    joined = np.stack([steps[f"layers.1.{x}"] for x in "qkv"], axis=2).reshape(
        *case(NAME).real.shape, -1
    )
    result = read(write_npy(tmp_path / "dump", {"layers.1.attn.Wqkv": joined}))
    assert set(result.taps) == {"layers.1.q", "layers.1.k", "layers.1.v"}
    assert all(np.array_equal(x, steps[name]) for name, x in result.taps.items())


def test_a_map_renames_with_layer_numbers_and_beats_port_json(tmp_path):
    steps = truth()
    path = write_npy(
        tmp_path / "dump", {"blk-1-out": steps["layers.1.residual_2"], "emb": steps["embedding"]}
    )
    (path / "port.json").write_text(
        json.dumps({"dtype": "bfloat16", "plan": {"hidden_size": 1},
                    "names": {"blk-{i}-out": "layers.{i}.residual_1", "emb": "embedding"}})
    )  # fmt: skip
    named = Description(names={"blk-{i}-out": "layers.{i}.residual_2"})
    result = read(path, description=named)
    assert set(result.taps) == {"embedding", "layers.1.residual_2"}
    assert result.dtype == "bfloat16" and result.plan == {"hidden_size": 1}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"name": 1}', '{"names": {"a": 1}}', '{"plan": 3}']
)
def test_a_bad_port_json_is_a_finding(tmp_path, content):
    path = write_npy(tmp_path / "dump", {"final_norm": truth()["final_norm"]})
    (path / "port.json").write_text(content)
    assert any("port.json" in m for m in messages(read(path)))


def test_the_last_hidden_state_is_never_guessed(tmp_path):
    steps = truth()
    layers = case(NAME).model().config.num_hidden_layers
    path = write_npy(
        tmp_path / "dump",
        {"embedding": steps["embedding"], f"hidden_states.{layers}": steps["final_norm"]},
    )
    result = read(path)
    assert set(result.taps) == {"embedding"}
    assert any("before the final norm" in m for m in messages(result, "note"))


def test_weights_and_inputs_are_told_apart_from_steps(tmp_path):
    r = request()
    weight = np.asarray(r.params["final_norm.weight"], np.float32)
    wi = r.params["layers.0.mlp.Wi.weight"]
    path = write_npy(
        tmp_path / "dump",
        {
            "final_norm": truth()["final_norm"],
            "weights.final_norm.weight": weight,
            "weights.layers.0.mlp.Wi.weight": np.zeros(wi.shape[::-1]),
            "inputs.input_ids": r.inputs["input_ids"],
            "inputs.attention_mask": np.asarray(r.inputs["attention_mask"], np.float32),
        },
    )  # fmt: skip
    result = read(path)
    assert set(result.weights) == {"final_norm.weight"}
    assert np.array_equal(result.inputs["input_ids"], r.inputs["input_ids"])
    said = messages(result)
    assert any("transposed" in m for m in said) and any("not an integer" in m for m in said)


def npz_bomb(path):
    """An .npz whose header is right and whose data end early."""
    x = truth()["final_norm"]
    data = io.BytesIO()
    np.save(data, x)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("final_norm.npy", data.getvalue()[:-8])


def test_broken_files_are_findings_and_the_rest_is_read(tmp_path):
    path = write_npy(tmp_path / "dump", {"final_norm": truth()["final_norm"]})
    (path / "empty.npy").write_bytes(b"")
    (path / "text.npy").write_text("not an array")
    (path / "cut.npy").write_bytes((path / "final_norm.npy").read_bytes()[:-4])
    (path / "bad.safetensors").write_bytes(b"\xff" * 64)
    (path / "bad.npz").write_bytes(b"PK\x03\x04")
    npz_bomb(path / "short.npz")
    np.save(path / "pickled.npy", np.array([{"a": 1}]), allow_pickle=True)
    (path / "folder.npy").mkdir()
    result = read(path)
    assert set(result.taps) == {"final_norm"}
    said = " | ".join(messages(result) + messages(result, "note"))
    for name in ("empty", "text", "cut", "bad.safetensors", "bad.npz", "short.npz", "folder.npy"):
        assert name in said
    assert "Traceback" not in said


def test_a_pickle_is_never_loaded_even_under_the_name_of_a_step(tmp_path):
    path = tmp_path / "dump"
    path.mkdir()
    shape = truth()["final_norm"].shape
    np.save(path / "final_norm.npy", np.full(shape, None), allow_pickle=True)
    result = read(path)
    assert not result.taps
    assert any("object" in m or "bytes" in m for m in messages(result))


def test_too_many_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MAX_FILES", 3)
    path = write_npy(tmp_path / "dump", dict(list(truth().items())[:4]))
    result = read(path)
    assert not result.taps and any("more than 3 files" in m for m in messages(result))


def test_a_case_without_a_dump_is_a_note(tmp_path):
    result = DumpPort(tmp_path).run(request())
    assert messages(result) == [] and len(messages(result, "note")) == 1
