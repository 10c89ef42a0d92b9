"""`modernbert bench`: what it counts and compares, its formats and its end. No time is asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.budget import FACTOR, FLOAT64_PARITY

import refimpl
from refimpl.backends import backend
from refimpl.cli import bench, main
from refimpl.models.model import BUNDLED

QUICK = ("bench", "--seconds", "0")


def records(capsys, *argv, code=0):
    assert main([*QUICK, "--json", *argv]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_shape_is_measured_in_order(capsys):
    found = records(capsys, "--shapes", "3x5,1x130,mixed")
    assert [r["shape"] for r in found] == ["3x5", "1x130", "mixed"]
    assert [(r["texts"], r["tokens"]) for r in found[:2]] == [(3, 15), (1, 130)]
    least, most, texts = bench.MIXED
    assert found[2]["texts"] == texts and least * texts < found[2]["tokens"] < most * texts
    for r in found:
        assert r["runs"] >= 1 and 0 < r["p50_ms"] <= r["p90_ms"] <= r["p99_ms"]
        speed = 1e3 * r["tokens"] / r["p50_ms"]
        assert abs(r["tokens_per_s"] - speed) <= 4 * np.finfo(float).eps * speed  # 4 roundings
    assert [r["error_tokens"] for r in found] == [5, bench.ERROR_TOKENS, bench.ERROR_TOKENS]


def test_error_is_that_of_the_dtype(capsys):
    def error(*options):
        return records(capsys, "--shapes", "1x40", *options)[0]["error"]

    exact = error("--backend", "numpy", "--dtype", "float64")
    single = error("--backend", "numpy")
    assert exact <= FLOAT64_PARITY < single

    model = refimpl.ModernBERT.from_pretrained(BUNDLED, backend="numpy")
    truth = refimpl.ModernBERT.from_pretrained(BUNDLED, dtype="float64")
    ids = bench.some_ids(model, 40)
    y, right = (m(ids[None])["last_hidden_state"] for m in (model, truth))
    padded = np.linalg.norm(y - right) / np.linalg.norm(right)
    assert padded / FACTOR <= single <= padded * FACTOR  # the same numbers in another order


def test_what_computed_is_named(capsys):
    (plain,) = records(capsys, "--shapes", "1x3", "--backend", "numpy")
    assert (plain["backend"], plain["tier"], plain["threads"]) == ("numpy", None, None)
    if backend.why_not_native() is None:
        for dtype in backend.dtypes_of("native"):
            options = ("--backend", "native", "--threads", "2", "--dtype", dtype)
            (r,) = records(capsys, "--shapes", "1x3", *options)
            told = (r["backend"], r["tier"], r["dtype"], r["threads"])
            assert told == ("native", backend.chosen_tier(), dtype, 2)


def test_table_has_a_line_per_shape(capsys):
    assert main([*QUICK, "--shapes", "1x3,2x2", "--backend", "numpy", "--format", "table"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["shape", "tokens/s"]
    assert [line.split()[0] for line in lines] == ["1x3", "2x2"]
    assert lines[0].split()[-4:] == ["numpy", "-", "float32", "-"]


def test_ctrl_c_prints_what_there_is(capsys, monkeypatch):
    plain = bench.measured

    def interrupted(model, lengths, seconds):
        if len(lengths) == 2:
            raise KeyboardInterrupt
        return plain(model, lengths, seconds)

    monkeypatch.setattr(bench, "measured", interrupted)
    (record,) = records(capsys, "--shapes", "1x3,2x2,3x3", code=130)
    assert record["shape"] == "1x3" and record["error"] is None


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--shapes=99999999999999999999x1", "is larger than any memory"),
        (f"--shapes={2**60}x1", "is larger than any memory"),
        ("--shapes=1x3,2x2,1x3", "'1x3' is named twice"),
        ("--seconds=nan", "must be at least 0, not nan"),
        ("--seconds=-1", "must be at least 0, not -1"),
    ],
)
def test_number_that_cannot_be_is_wrong_usage(option, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", option])
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "8", "0x4", "4x0", "1x2,", "x", "-1x3", "1x2 ,3x4"])
def test_shape_that_is_none_is_wrong_usage(text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", f"--shapes={text}"])
    assert ended.value.code == 2
    assert "is neither TEXTSxTOKENS nor mixed" in capsys.readouterr().err
