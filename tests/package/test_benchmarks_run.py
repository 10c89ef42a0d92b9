"""The benchmark harness computes what it says, and the benchmarks run. No time is asserted."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refimpl
from refimpl.backends.backend import native, why_not_native
from refimpl.reference import ops

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import harness

    return harness


def test_interleaved_runs_alternate_in_turning_order(harness):
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = harness.interleaved(functions, rounds=3, warmup=1)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert rounds == ["cab", "abc", "bca", "cab"]
    assert {name: len(s) for name, s in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_summary_is_median_minimum_and_interquartile_spread(harness):
    got = harness.summary([4.0, 1.0, 2.0, 3.0, 10.0])
    assert got == {"median_s": 3.0, "min_s": 1.0, "spread": (7.0 - 1.5) / 3.0, "runs": 5}
    assert harness.summary([2.0])["spread"] == 0


def test_relative_error_is_that_of_the_whole_array(harness):
    truth = np.array([3.0, 4.0])
    assert harness.relative_error(truth + [0.0, 0.5], truth) == 0.1


def test_reference_benchmark_runs_and_ends_in_json():
    command = [sys.executable, "benchmarks/reference_forward.py", "--variant", "tiny"]
    command += ["--seq", "40", "--long-seq", "80", "--rounds", "2"]
    out = subprocess.run(
        command, cwd=BENCHMARKS.parent, check=True, capture_output=True, text=True
    ).stdout
    result = json.loads(out.splitlines()[-1])
    assert set(result["rows"]) == {"forward", "its matrix products"}
    assert 0 < result["rows"]["forward"]["error"]
    assert result["facts"]["peak_rss_gb_1x80"] > 0
    assert result["machine"]["numpy"] == np.__version__


@pytest.mark.skipif(why_not_native() is not None, reason="needs the C library")
def test_text_benchmark_runs_and_ends_in_json():
    command = [sys.executable, "benchmarks/text_to_ids.py", "--rounds", "2", "--megabytes", "0.05"]
    out = subprocess.run(
        command, cwd=BENCHMARKS.parent, check=True, capture_output=True, text=True
    ).stdout
    rows = json.loads(out.splitlines()[-1])["rows"]
    assert set(rows) == {f"{t}, {who}" for t in ("code", "prose") for who in ("own", "tokenizers")}
    assert all(row["mb_per_s"] > 0 for row in rows.values())


@pytest.mark.heavy
@pytest.mark.skipif(why_not_native() is not None, reason="needs the engine")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_benchmark_runs_and_ends_in_json():
    command = [sys.executable, "benchmarks/memory.py", "--variant", "tiny", "--calls", "3"]
    out = subprocess.run(
        [*command, "--dtype", "float32"],
        cwd=BENCHMARKS.parent, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    rows = json.loads(out.splitlines()[-1])["rows"]
    assert list(rows) == ["float32, float32", "float32, float16", "float32, bfloat16"]
    for row in rows.values():
        assert row["before"] < row["loaded"] <= row["peak"]
        assert row["own"] <= row["steady"] <= row["peak"] and row["long_adds"] > 0


@pytest.mark.heavy
def test_few_shot_benchmark_trains_and_ends_in_json(tmp_path):
    """On a file in WordNet's form, of words that tell the label."""
    lines = [
        f'{i:08d} {file} n 01 word 0 000 @ 0 | {label} of the kind number {i} and so on; "it is"'
        for file, label in (("05", "beast"), ("06", "thing"), ("13", "meal"), ("18", "man"))
        for i in range(170)
    ]
    (tmp_path / "data.noun").write_text("\n".join(["  1 a licence", *lines]))
    command = [sys.executable, "benchmarks/few_shot.py", str(tmp_path / "data.noun")]
    out = subprocess.run(
        [*command, "--seeds", "1", "--only", "refimpl"],
        cwd=BENCHMARKS.parent, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    row = json.loads(out.splitlines()[-1])["rows"]["refimpl"]
    assert row["mean"] > 0.9 and row["processor_s"][0] > 0


@pytest.fixture
def peers(harness):
    import peers

    return peers


def test_batches_hold_every_text_once_with_its_mask(peers):
    texts = [np.arange(1, 1 + n) for n in (5, 2, 7)]
    (short, mask), (long, _) = peers.batches(texts, 2)
    assert short.tolist() == [[1, 2, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert mask.tolist() == [[1, 1, 0, 0, 0], [1] * 5]
    assert long.tolist() == [[1, 2, 3, 4, 5, 6, 7]]


def test_ratios_are_against_the_best_peer_of_the_same_class(peers):
    speeds = {"refimpl float32": 30, "refimpl bf16x3": 45, "refimpl bfloat16": 80}
    speeds |= {"torch float32": 10, "onnxruntime float32": 15, "torch bfloat16": 20}
    rows = {name: {"tokens_per_s": float(speed)} for name, speed in speeds.items()}
    rows["onnxruntime int8"] = {"tokens_per_s": 1000.0}
    rows["openvino float32"] = {"left_out": "not available"}
    want = {"refimpl float32": 2.0, "refimpl bf16x3": 3.0, "refimpl bfloat16": 4.0}
    assert peers.ratios(rows) == want


def test_ratio_is_that_of_a_round_beside_the_best_peer(peers):
    ours, slow, fast = ("refimpl float32", "one batch"), ("torch float32", "one batch"), (
        "onnxruntime float32", "one batch")  # fmt: skip
    timed = {ours: [1.0, 2.0, 1.0, 2.0], slow: [9.0] * 4, fast: [2.0, 4.0, 2.0, 6.0]}
    low, median, high = peers.round_ratios(timed)["refimpl float32"]
    assert (low, median) == (2.0, 2.0) and 2.5 <= high <= 3.0
    better = timed | {("onnxruntime float32", "batches of 8"): [1.0, 2.0, 1.0, 2.0]}
    assert peers.round_ratios(better)["refimpl float32"] == (1.0, 1.0, 1.0)


def test_rounds_go_on_until_the_ratio_is_calm_or_time_is_up(peers, monkeypatch):
    calls = {"n": 0}
    steady = {("refimpl float32", "w"): lambda: None, ("torch float32", "w"): lambda: None}

    def timed(functions, rounds, warmup, pause):
        calls["n"] += 1
        shaky = calls["n"] <= 20
        return {name: [1.0 if name[0].startswith("refimpl") or not shaky else calls["n"]]
                for name in functions}  # fmt: skip

    monkeypatch.setattr(peers, "interleaved", timed)
    found = peers.until_settled(steady, 1e9)
    assert 20 < len(found["torch float32", "w"]) < 1000
    calls["n"] = 0
    assert len(peers.until_settled(steady, 0)["torch float32", "w"]) == 1


def test_peers_benchmark_fills_its_table_and_tells_who_is_missing(
    peers, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for package in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    command = ["peers.py", str(tmp_path), "--variant", "tiny", "--threads", "1", "--seconds", "0"]

    def run(only, shape):
        arguments = [*command, "--only", only, "--shapes", shape]
        monkeypatch.setattr(sys, "argv", arguments)
        peers.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]

    row = run("openvino", "1x9")["1x9"]["openvino float32"]
    assert "openvino" in row["left_out"]
    both = run("refimpl float32", "1x9")["1x9"]
    assert set(both) == {
        "refimpl float32",
        *(f"openvino {kind}" for kind in ("float32", "bfloat16", "int8")),
    }
    if "left_out" in both["refimpl float32"]:
        assert "native" in both["refimpl float32"]["left_out"]
    else:
        assert 0 < both["refimpl float32"]["error"] < np.sqrt(np.finfo(np.float32).eps)


def test_a_budget_leaves_out_the_slowest_peers_first_and_says_so(
    peers, monkeypatch, tmp_path, capsys
):
    costs = {"refimpl float32": 3.0, "torch float32": 9.0, "onnxruntime float32": 4.0}
    assert peers.affordable(costs, 32.0) == set(costs)
    assert peers.affordable(costs, 31.9) == {"refimpl float32", "onnxruntime float32"}
    assert peers.affordable(costs, 6.0) == {"refimpl float32"}
    assert peers.affordable(costs, 5.9) == set()

    class Ours:
        CONTENDERS = {"refimpl float32": "float32"}

        @staticmethod
        def load(name, files, threads):
            return lambda ids, mask: np.zeros((*ids.shape, 1), np.float32)

    seconds = iter(range(0, 10_000, 7))
    monkeypatch.setattr(peers.rivals, "FILES", ("ours",))
    monkeypatch.setattr(peers.rivals, "module", lambda file: Ours)
    monkeypatch.setattr(peers, "truth", lambda *given: np.ones((1, 1)))
    monkeypatch.setattr(peers.time, "perf_counter", lambda: float(next(seconds)))
    command = ["peers.py", str(tmp_path), "--variant", "tiny", "--shapes", "1x9,1x90,1x10"]
    monkeypatch.setattr(sys, "argv", [*command, "--budget", "60"])
    peers.main()
    out = capsys.readouterr().out.splitlines()
    rows = json.loads(out[-1])["rows"]
    assert "tokens_per_s" in rows["1x9"]["refimpl float32"]
    assert rows["1x10"]["refimpl float32"]["left_out"].startswith("no time")
    assert out[-4].startswith("ratio tiny 1x9: float32 without a peer")
    assert out[-2].startswith("ratio tiny 1x10: float32 no time")

    monkeypatch.setattr(sys, "argv", [*command, "--only", "refimpl", "--fresh", "--no-run"])
    peers.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == {}


STUB = r"""#!/bin/bash
[ "$1" != -c ] || { echo "tier none"; exit; }
cache=$2 variant=$(sed 's/.*--variant \([a-z]*\).*/\1/' <<<"$*")
case " $* " in
    *" --no-run "*) printf 'table of %s\nratio %s 1x16: 2\n{}\n' "$variant" "$variant" ;;
    *) mkdir -p "$cache/$variant"
       [ "$variant" = b ] || echo {} >"$cache/$variant/results-2.json"
       exec sleep 600 ;;
esac
"""


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs coreutils' timeout")
def test_amx_table_keeps_its_time_and_prints_ratios_last(tmp_path):
    (tmp_path / "python").write_text(STUB)
    (tmp_path / "python").chmod(0o755)
    command = ["bash", str(BENCHMARKS / "amx_table.sh"), str(tmp_path)]
    env = os.environ | {"PYTHON": str(tmp_path / "python"), "VARIANTS": "a b"}
    run = subprocess.run([*command, "24"], env=env, capture_output=True, text=True, timeout=23)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[:4] == ["tier none", "== a", "table of a", "== b"]
    assert lines[4:] == ["ratio a 1x16: 2", "ratio b: nothing was measured"]
    assert run.stderr.count("was stopped") == 2
    too_long = subprocess.run([*command, "901"], env=env, capture_output=True, text=True)
    assert too_long.returncode == 2 and "900 at most" in too_long.stderr


@pytest.mark.skipif(why_not_native() is not None, reason="needs the engine")
@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("peers", ["FOLDER", "--only", "nobody"], "--only nobody: nobody; known: refimpl float32"),
        ("peers", ["FOLDER", "--shapes", "1x16,x"], "'x' is neither TEXTSxTOKENS nor mixed"),
        ("ops", ["--tier", "scalar", "--dtype", "bf16x3"], "tier scalar has float32"),
        ("same_bits", ["--tier", "scalar", "--dtype", "bf16x3"], "scalar float32"),
        ("memory", ["--dtype", "int4"], "invalid choice: 'int4'"),
        ("peers_memory", ["FOLDER", "--shape", "mixed"], "'mixed' is not TEXTSxTOKENS"),
        ("peers_memory", ["FOLDER", "--only", "nobody"], "--only nobody: nobody; known: refimpl f"),
        ("install_weight", ["--only", "nobody"], "--only: 'nobody' is none of refimpl, refimpl["),
        ("long_inputs", ["--tiers", "scalar,sse"], "--tiers sse: this machine has"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_measured(
    script, arguments, said, harness, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that what a script sets is undone
    given = [str(tmp_path) if x == "FOLDER" else x for x in arguments]
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *given])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(script).main()
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(why_not_native() is not None, reason="needs the engine")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_of_peers_is_that_of_a_process_each(harness, monkeypatch, tmp_path, capsys):
    import peers_memory

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    saved = tmp_path / "saved.json"
    command = ["peers_memory.py", str(tmp_path), "--variant", "tiny", "--threads", "1"]
    command += ["--shape", "1x9", "--only", "refimpl float32", "--save", str(saved)]
    monkeypatch.setattr(sys, "argv", command)
    held = np.ones(100 * 2**20, np.uint8)  # of this process, not of theirs
    peers_memory.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads(saved.read_text()) and found["machine"]["numpy"] == np.__version__
    row = found["rows"]["refimpl float32"]
    assert 20 < row["peak_mib"] < harness.status()["VmHWM"] and held.any()
    assert 0 < row["error"] < np.sqrt(np.finfo(np.float32).eps)


def test_a_peer_that_fails_is_left_out_with_its_last_line(harness, tmp_path):
    import peers_memory

    row = peers_memory.in_fresh_process(str(tmp_path), "--shape", "mixed")
    assert row["left_out"].endswith("argument --shape: 'mixed' is not TEXTSxTOKENS")


def test_weight_is_that_of_the_files_without_compiled_python(harness, tmp_path):
    import install_weight

    (tmp_path / "one-1.5.dist-info").mkdir()
    about = b"Metadata-Version: 2.1\nName: one\nVersion: 1.5\n"
    (tmp_path / "one-1.5.dist-info" / "METADATA").write_bytes(about)
    (tmp_path / "one.so").write_bytes(bytes(2**20))
    (tmp_path / "one.pyc").write_bytes(bytes(2**20))
    (tmp_path / "link.so").symlink_to(tmp_path / "one.so")
    found = install_weight.weighed(tmp_path)
    assert found == {"mib": 1 + len(about) / 2**20, "packages": {"one": "1.5"}}


@pytest.mark.skipif(why_not_native() is not None, reason="needs the engine")
def test_long_inputs_are_held_against_both_budgets():
    out = subprocess.run(
        [sys.executable, "benchmarks/long_inputs.py", "--variant", "tiny", "--seq", "300",
         "--tiers", "scalar", "--members", "1"],
        cwd=BENCHMARKS.parent, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    result = json.loads(out.splitlines()[-1])
    assert set(result["rows"]) == {"scalar"}
    assert set(result["facts"]["shares"]) == {"scalar / numpy", "scalar / the kit"}
    assert all(0.01 < share <= 1 for share in result["facts"]["shares"].values())


def test_attention_of_long_inputs_is_the_references(harness):
    import long_inputs

    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 300, 2, 8)) for _ in range(3))
    every = np.ones((1, 300), bool)
    for mask, window in (every, None), (every, 5), (rng.random((1, 300)) < 0.5, None):
        got = long_inputs.attention(q, k, v, mask, window)
        np.testing.assert_allclose(got, ops.attention(q, k, v, mask, window), rtol=0, atol=1e-14)


@pytest.mark.skipif(why_not_native() is not None, reason="needs the engine")
def test_bits_benchmark_ends_in_json_with_the_machine():
    out = subprocess.run(
        [sys.executable, "benchmarks/same_bits.py", "--draws", "1", "--tier", "scalar",
         "--dtype", "float32"],
        cwd=BENCHMARKS.parent, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    result = json.loads(out.splitlines()[-1])
    assert result["rows"] == {"scalar float32": {"draws": 1, "different": 0, "seed": 0}}
    assert result["machine"]["numpy"] == np.__version__


@pytest.mark.skipif(why_not_native() is not None, reason="needs the engine")
def test_builds_are_held_against_the_first_bit_by_bit():
    library = refimpl.info()["native"]["library"]
    folder = str(Path(refimpl.__file__).parent / "bundled" / "tiny")
    command = [sys.executable, "benchmarks/builds.py", folder, library]
    options = ["--shapes", "1x9,2x3", "--seconds", "0", "--threads", "1"]
    run = subprocess.run(
        [*command, library, *options], cwd=BENCHMARKS.parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout.splitlines()[-1])["rows"][library]
    assert [(row["shape"], row["rounds"], row["same_bits"]) for row in rows] == [
        ("1x9", 2, True), ("2x3", 2, True)]  # fmt: skip
    assert all(row["tokens_per_s"][1] > 0 for row in rows)
    alone = subprocess.run(command, cwd=BENCHMARKS.parent, capture_output=True, text=True)
    assert alone.returncode == 2 and "two at least" in alone.stderr


def test_a_pass_counts_the_pairs_that_see_one_another(harness):
    import whole_pass

    for length in (1, 5, 40):
        for reach in (None, 0, 3, 39, 100):
            pairs = sum(
                reach is None or abs(i - j) <= reach for i in range(length) for j in range(length)
            )
            assert whole_pass.seen(length, reach) == pairs, (length, reach)
    config = refimpl.ModernBertConfig.from_variant("tiny", local_attention=2)
    matrices = 4 * (4 * 256 * 256 + 3 * 256 * 384)  # of four layers; the first and last see all
    pairs = 2 * (9 + 1) + 2 * (7 + 1)
    assert whole_pass.flops(config, [3, 1]) == 2 * 4 * matrices + 4 * 256 * pairs


@pytest.mark.heavy  # compiles its limit
@pytest.mark.skipif(why_not_native() is not None, reason="needs the engine")
def test_a_whole_pass_is_held_against_the_rate_of_its_round():
    if "avx2" not in native().tiers():
        pytest.skip("multiply-adds are measured on x86-64 alone")
    command = [sys.executable, "benchmarks/whole_pass.py", "--variant", "tiny", "--rounds", "2"]
    out = subprocess.run(
        [*command, "--threads", "1", "--shapes", "1x9,2x3"],
        cwd=BENCHMARKS.parent, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    rows = json.loads(out.splitlines()[-1])["rows"]
    assert set(rows) == {"1x9, 1", "2x3, 1"}
    for row in rows.values():
        assert 0 < row["gflops"] and 0 < row["limit"]
        assert len(row["share"]) == 3 and 0 < row["share"][0] <= row["share"][2]


def test_limits_without_a_compiler_say_so(harness, monkeypatch, tmp_path):
    import limits

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(limits.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="no C\\+\\+ compiler found: set CXX"):
        limits.limits(1)


def test_an_operation_is_held_against_its_slower_limit(harness):
    import ops

    rates = {"fma_avx2": 100.0, "memory_read": 10.0, "amx_bf16": 600.0, "fma_avx512": 200.0}

    def limit(tier, dtype, op="Wo", flops=2e9, size=0.0):
        return ops.limit({"op": op, "flops": flops, "bytes": size}, tier, dtype, rates)

    assert limit("avx2", "float32") == limit("avx2", "bfloat16", size=0.1e9) == 0.02
    assert (
        limit("avx2", "float32", size=1e9) == limit("scalar", "float32", "LayerNorm", 0, 1e9) == 0.1
    )
    assert limit("scalar", "float32") is None
    assert limit("amx", "bfloat16") == limit("amx", "bf16x3") / 3 == limit("amx", "float32") / 6
    assert limit("amx", "float32", "attention, window") == 0.01


def test_operations_are_told_with_their_share(harness, monkeypatch, capsys):
    import ops

    if why_not_native() is not None:
        pytest.skip("needs the engine")
    row = {
        "op": "Wo",
        "shape": "1 x 2 x 3",
        "seconds": 0.04,
        "spread": 0.1,
        "flops": 2e9,
        "bytes": 1e6,
    }
    monkeypatch.setattr(
        ops, "limits", lambda n: {"fma_avx2": {"2": 100.0}, "memory_read": {"2": 10.0}}
    )
    monkeypatch.setattr(ops, "operations", lambda *_: [row, row | {"op": "LayerNorm", "flops": 0}])
    monkeypatch.setattr(sys, "argv", ["ops.py", "--tier", ops.native().tiers()[-1]])
    ops.main()
    head, product, rowwise, result = capsys.readouterr().out.splitlines()
    assert product.split()[-3:] == ["50.0", "0.025", "-"] and rowwise.split()[-1] == "0%"
    assert json.loads(result)["rows"][1]["share"] == 1e-4 / 0.04


@pytest.mark.extras
@pytest.mark.skipif(why_not_native() is not None, reason="needs the engine")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_serving_benchmark_runs_and_names_the_peers_that_are_absent():
    pytest.importorskip("uvicorn")
    command = [sys.executable, "benchmarks/serving.py", "--seconds", "1"]
    command += ["--st-python", "/nowhere/python", "--infinity", "no-such-command"]
    done = subprocess.run(command, cwd=BENCHMARKS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "sentence-transformers    left out: /nowhere/python" in out
    assert "infinity_emb             left out: there is no no-such-command" in out
    result = json.loads(out.splitlines()[-1])["result"]
    assert result["exit_code"] == result["overload_exit_code"] == 0
    assert result["http_tokens_per_s"] > 0 and result["query_p99_ms"] > 0
    assert result["overload_answered"] > 0
    assert result["rss_mib"]["first half at most"] >= result["rss_mib"]["ready"] > 0
