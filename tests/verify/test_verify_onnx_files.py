"""Which model of the kit an ONNX file holds: by its name, or by the config.json beside it."""

import json

import pytest

from refimpl.verify.ports.onnx_files import by_model, model_of, onnx_files
from refimpl.verify.truth.fixtures import FIXTURES


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    "place", ["silu.onnx", "silu/model.onnx", "silu/onnx/model.onnx", "silu/a/b/model.onnx"]
)
def test_a_file_is_of_the_model_that_it_or_a_folder_above_is_named_after(tmp_path, place):
    assert model_of(touch(tmp_path / place)) == "silu"


@pytest.mark.parametrize("place", ["x/model.onnx", "x/onnx/model.onnx"])
def test_else_the_config_beside_it_says_which(tmp_path, place):
    config = FIXTURES["cls"].config()
    file = touch(tmp_path / place)
    (tmp_path / "x" / "config.json").write_text(json.dumps(config | {"hidden_dropout": 0.1}))
    assert model_of(file) == "cls"


def test_a_file_of_no_model_or_of_one_of_several_is_refused_with_what_would_do(tmp_path):
    file = touch(tmp_path / "x" / "model.onnx")
    with pytest.raises(ValueError, match="nothing says which model it holds; name it or its"):
        model_of(file)
    config = tmp_path / "x" / "config.json"
    config.write_text(json.dumps(FIXTURES["plain"].config()))
    with pytest.raises(ValueError, match="is that of plain and of plain-contradicting; name it"):
        model_of(file)
    config.write_text(json.dumps(FIXTURES["plain"].config() | {"hidden_size": 48}))
    with pytest.raises(ValueError, match="is that of no model of the kit"):
        model_of(file)
    config.write_text("[]")
    with pytest.raises(ValueError, match="is no config.json of ModernBERT"):
        model_of(file)


def test_a_file_a_folder_and_a_pattern(tmp_path):
    plain, silu = touch(tmp_path / "plain" / "model.onnx"), touch(tmp_path / "silu" / "model.onnx")
    assert onnx_files(str(plain)) == [plain]
    assert onnx_files(str(tmp_path)) == [plain, silu]
    assert onnx_files(str(tmp_path / "*" / "model.onnx")) == [plain, silu]
    assert by_model([plain, silu]) == {"plain": plain, "silu": silu}
    with pytest.raises(ValueError, match="there is no such file, and none below it or like it"):
        onnx_files(str(tmp_path / "*.onnx"))
    half = touch(tmp_path / "plain" / "model_fp16.onnx")
    with pytest.raises(ValueError, match="are both of the model plain; give a pattern"):
        by_model([plain, half])
