"""What an ONNX file keeps its weights in, from its bytes alone."""

from collections import Counter

import pytest

from refimpl.verify.ports.onnx_types import compute_dtype, weight_types


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def part(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def number(field, n):
    return varint(field << 3) + varint(n)


def tensor(kind, shape, packed=True, size=0):
    dims = (
        part(1, b"".join(map(varint, shape))) if packed else b"".join(number(1, n) for n in shape)
    )
    return dims + number(2, kind) + part(8, b"a name") + part(9, bytes(size))


def model(*tensors):
    """ir_version, a node, the initializers, an opset."""
    graph = part(1, part(4, b"MatMul")) + b"".join(part(5, t) for t in tensors)
    return number(1, 8) + part(7, graph) + part(8, number(2, 17))


def test_types_and_numbers_of_the_weights_are_read(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(tensor(10, (300, 4), size=2400), tensor(1, (7,), packed=False),
                           tensor(3, (5, 5)), tensor(16, ()), tensor(99, (2,))))  # fmt: skip
    types = weight_types(path)
    assert types == {"float16": 1200, "float32": 7, "int8": 25, "bfloat16": 1, "type 99": 2}
    assert compute_dtype(types) == "float16"
    assert compute_dtype(Counter({"int8": 9, "float32": 2})) == "float32"
    assert compute_dtype(Counter({"int64": 9})) is None


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_file_that_is_cut_or_is_none_tells_nothing_and_never_fails(tmp_path, cut):
    whole = model(tensor(10, (3, 4), size=24))
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: max(1, len(whole) - cut)])
    assert set(weight_types(path)) <= {"float16"}
    path.write_bytes(bytes([0xFF]) * cut)
    assert weight_types(path) == {}
