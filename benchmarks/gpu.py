"""Everything that a CUDA device alone can show, in one call of at most 8 minutes.

    python benchmarks/gpu.py [--json FILE] [--seconds 450] [--only steps,kit,..] [--variant base]
    python benchmarks/gpu.py --rehearse LIBRARY      # on this processor, in its smallest form

In falling order of importance, each part in a process of its own with a time limit, so that one
that is slow, or dies, costs only itself:

    build      libmodernbert_cuda.so by nvcc, for what is here
    steps      every step of MODEL.md by the kernels, against float64
    kit        the conformance kit in each dtype
    bits       sequences alone and in company, bit by bit
    memcheck, racecheck    compute-sanitizer over a small pass
    ceilings   bf16 products and copies, as torch has them
    speed      shapes in bfloat16, with the floor of each (gpu_floors.py) and the share of it that
               is reached, as graphs and kernel by kernel
    packed     the same shapes by packed-encoders: its graphs, its packed pass, its padded one
    sdpa       by transformers with torch's sdpa
    compile    by that under torch.compile max-autotune
    sentence   by sentence-transformers, pooling with it
    eager      by transformers, eager

A peer that is not here says so. Its inputs and results stay on the device. A library that
REFIMPL_CUDA_LIBRARY names is taken as it is, and not built. A table comes last, JSON before it.
Exits 1 when a part of the first six fails.
Long because each part is a few lines that no other script needs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_floors import SHAPES, floor_seconds, work

ROOT = Path(__file__).resolve().parents[1]
# Part -> most seconds, in falling order of importance.
LIMITS = {
    "build": 200,
    "steps": 60,
    "kit": 120,
    "bits": 60,
    "memcheck": 60,
    "racecheck": 60,
    "ceilings": 30,
    "speed": 60,
    "packed": 60,
    "sdpa": 30,
    "compile": 120,
    "sentence": 30,
    "eager": 30,
}
PEERS = ("packed", "sdpa", "compile", "sentence", "eager")
MUST_HOLD = ("build", "steps", "kit", "bits", "memcheck", "racecheck")
DTYPES = ("float32", "bf16x3", "bfloat16")

SMALL_SHAPES = {"1x16": (16,), "2 queries": (5, 9)}


# -- parts ----------------------------------------------------------------------------------------


def config_of(variant: str) -> Any:
    from refimpl.reference.config import ModernBertConfig

    return ModernBertConfig.from_variant(variant)


def model_of(variant: str, dtype: str) -> Any:
    from refimpl import ModernBERT

    return ModernBERT.from_variant(variant, backend="cuda", dtype=dtype)


def build(args: argparse.Namespace) -> dict[str, Any]:
    from refimpl import info

    if not os.environ.get("REFIMPL_CUDA_LIBRARY"):
        env = {**os.environ, "REFIMPL_CUDA": "1"}
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(command, cwd=ROOT, env=env, check=True)
    facts = info()["cuda"]
    return {"ok": facts["built"] and facts["reason"] is None, **facts}


def steps(args: argparse.Namespace) -> dict[str, Any]:
    """Error of each step relative to its size, over all steps the largest."""
    from refimpl.backends.engine import Engine
    from refimpl.reference.config import ModernBertConfig
    from refimpl.reference.encoder import encode
    from refimpl.reference.params import encoder_shapes, initialise
    from refimpl.reference.taps import record

    config = ModernBertConfig.from_variant(
        "tiny", vocab_size=64, hidden_size=128, num_attention_heads=2, intermediate_size=100,
        num_hidden_layers=3, local_attention=10,
    )  # fmt: skip
    params = initialise(encoder_shapes(config), config, 1, np.dtype("float32"))
    cu = np.cumsum([0, 1, 7, 130, 66])
    ids = np.random.default_rng(0).integers(0, 64, cu[-1])
    truth: dict[str, np.ndarray] = {}
    wide = {n: x.astype(np.float64) for n, x in params.items()}
    encode(wide, config, ids, cu_seqlens=cu, tap=record(truth))
    out: dict[str, Any] = {"ok": True}
    for dtype, unit in zip(DTYPES, (2.0**-24, 2.0**-16, 2.0**-8), strict=True):
        pieces: dict[str, list[np.ndarray]] = {}

        def tap(step, layer, first_row, rows, pieces=pieces):
            pieces.setdefault(step if layer is None else f"layers.{layer}.{step}", []).append(rows)

        engine = Engine(config, params, dtype=dtype, backend="cuda").opened
        engine.trace(ids, None, cu, None, None, None, fused=False, tap=tap)
        worst, where = 0.0, ""
        for name, found in pieces.items():
            got = np.concatenate(found)
            exact = truth[name].reshape(got.shape)
            off = float(np.linalg.norm(got - exact) / np.linalg.norm(exact)) / unit
            if not off <= worst:
                worst, where = off, name
        bound = 8.0 * (config.num_hidden_layers + 1)
        out[dtype] = {"steps": len(pieces), "worst in units": round(worst, 2), "at": where}
        out["ok"] = out["ok"] and len(pieces) == len(truth) and worst <= bound
    return out


def kit(args: argparse.Namespace) -> dict[str, Any]:
    out: dict[str, Any] = {"ok": True}
    for dtype in ("float32", "bfloat16"):
        command = [sys.executable, "-m", "refimpl", "verify", "--engine", "cuda", "--dtype", dtype]
        if args.rehearse:
            command += ["--case", "plain-short", "--partial", "--no-runtime"]
        ran = subprocess.run(command, capture_output=True, text=True)
        out[dtype] = (ran.stdout.splitlines() or [ran.stderr[-200:]])[0]
        out["ok"] = out["ok"] and ran.returncode == 0
    return out


def bits(args: argparse.Namespace) -> dict[str, Any]:
    """Draws until the time is up, at most 10,000; every sequence beside others, and alone."""
    rng, end, draws = np.random.default_rng(1), time.monotonic() + 0.8 * args.limit, 0
    most = len(DTYPES) if args.rehearse else 10_000
    models = [model_of("tiny", dtype) for dtype in DTYPES]
    while draws < most and time.monotonic() < end:
        model = models[draws % len(models)]
        sequences = [rng.integers(0, 64, n) for n in rng.integers(1, 150, rng.integers(1, 6))]
        cu = np.cumsum([0, *map(len, sequences)])
        together = np.split(model.encode_packed(np.concatenate(sequences), cu), cu[1:-1])
        one = int(rng.integers(len(sequences)))
        alone = model.encode_packed(sequences[one], [0, len(sequences[one])])
        if not np.array_equal(alone.view(np.uint32), together[one].view(np.uint32)):
            return {"ok": False, "draws": draws, "lengths": list(map(len, sequences)), "of": one}
        draws += 1
    return {"ok": True, "draws": draws}


SMALL_PASS = """
import numpy as np, refimpl
for dtype in ("float32", "bf16x3", "bfloat16"):
    model = refimpl.ModernBERT.from_variant("tiny", backend="cuda", dtype=dtype)
    model.encode_packed(np.arange(200) % 64, [0, 1, 66, 200])
"""


def sanitized(tool: str, args: argparse.Namespace) -> dict[str, Any]:
    path = shutil.which("compute-sanitizer")
    if path is None:
        return {"ok": None, "why": "there is no compute-sanitizer here"}
    command = [path, "--tool", tool, sys.executable, "-c", SMALL_PASS]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return {**summary_of(tool, ran.stdout + ran.stderr), "exit": ran.returncode}


def summary_of(tool: str, text: str) -> dict[str, Any]:
    """What compute-sanitizer says in its last line; no such line is a failure."""
    kind = "RACECHECK" if tool == "racecheck" else "ERROR"
    found = re.findall(rf"{kind} SUMMARY: (\d+) (?:hazard|error)", text)
    if not found:
        return {"ok": False, "why": (text.strip().splitlines() or ["no output"])[-1]}
    return {"ok": found[-1] == "0", "found": int(found[-1])}


def memcheck(args: argparse.Namespace) -> dict[str, Any]:
    return sanitized("memcheck", args)


def racecheck(args: argparse.Namespace) -> dict[str, Any]:
    return sanitized("racecheck", args)


def seconds_of(run: Any, finish: Any, least: float = 0.5, rounds: int = 200) -> float:
    """Median of single calls, each waited for, after two that do not count."""
    for _ in range(2):
        run()
    finish()
    took: list[float] = []
    end = time.perf_counter() + least
    while len(took) < 5 or (time.perf_counter() < end and len(took) < rounds):
        start = time.perf_counter()
        run()
        finish()
        took.append(time.perf_counter() - start)
    return float(np.median(took))


def ceilings(args: argparse.Namespace) -> dict[str, Any]:
    """Of this device, in the same run: bf16 products of random numbers, 8192^3, and copies."""
    try:
        import torch
    except ImportError:
        return {"ok": None, "why": "torch is not installed"}
    if not torch.cuda.is_available():
        return {"ok": None, "why": "torch sees no device"}
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = seconds_of(lambda: a @ b, torch.cuda.synchronize)
    x = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    copy = seconds_of(lambda: y.copy_(x), torch.cuda.synchronize)
    return {"ok": True, "flops_per_s": 2 * 8192**3 / product, "bytes_per_s": 2 * 2**30 / copy}


def shapes_of(args: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    return SMALL_SHAPES if args.rehearse else SHAPES


def tokens_of(lengths: tuple[int, ...], vocab: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(2).integers(0, vocab, sum(lengths), dtype=np.int64)
    return ids, np.cumsum([0, *lengths])


class IdsThere:
    """Ids in memory of a device."""

    def __init__(self, ids: np.ndarray, device: int) -> None:
        from refimpl.backends import cuda

        self.device, self.shape, memory = device, ids.shape, ctypes.c_void_p()
        cuda.call("allocate", device, ctypes.c_size_t(ids.nbytes), ctypes.byref(memory))
        self.pointer, self.free = memory.value, cuda.library().modernbert_cuda_free
        to, given = ctypes.c_void_p(self.pointer), ids.ctypes.data_as(ctypes.c_void_p)
        cuda.call("to_device", device, to, given, ctypes.c_size_t(ids.nbytes))

    def __del__(self) -> None:
        self.free(self.device, self.pointer)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": "<i8", "data": (self.pointer, True), "version": 3}


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a pass: ids from the host and hidden states back, and with arrays that stay."""
    from refimpl.backends.device_arrays import packed

    model = model_of(args.variant, "bfloat16")
    os.environ["REFIMPL_CUDA_GRAPHS"] = "0"
    plain = model_of(args.variant, "bfloat16")
    plain.encode_packed(np.arange(2), np.array([0, 2]))
    config, opened = model.config, model.engine.opened
    out: dict[str, Any] = {"ok": True}
    for name, lengths in shapes_of(args).items():
        ids, cu = tokens_of(lengths, config.vocab_size)
        end_to_end = seconds_of(
            lambda ids=ids, cu=cu: model.encode_packed(ids, cu), lambda: None, args.least
        )
        there_ids, stays = IdsThere(ids, opened.device), []

        def there(ids=there_ids, cu=cu, stays=stays) -> None:
            stays[:] = [packed(opened, ids, cu)]

        device = seconds_of(there, lambda stays=stays: stays[0].finish(), args.least)
        one_by_one = seconds_of(
            lambda ids=ids, cu=cu: plain.encode_packed(ids, cu), lambda: None, args.least
        )
        out[name] = {"s": end_to_end, "device_s": device, "no_graphs_s": one_by_one}
        out[name] |= work(config, lengths, 2)
    return out


# -- peers ----------------------------------------------------------------------------------------


def timed_peers(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Seconds of a pass of others by shape, of the fastest of `names`; why one is left out."""
    try:
        import torch
    except ImportError:
        return {"ok": None, "why": "torch is not installed"}
    if not torch.cuda.is_available():
        return {"ok": None, "why": "torch sees no device"}
    out: dict[str, Any] = {"ok": True, "s": {}, "why": {}}
    end = time.monotonic() + 0.9 * args.limit
    for name in names:
        try:
            made = MAKERS[name](args.variant, torch)
        except Exception as error:  # one that does not run here costs only itself
            out["why"][name] = said(error)
            continue
        for shape, lengths in shapes_of(args).items():
            if time.monotonic() > end:
                out["why"][f"{name}, {shape}"] = "no time was left"
                continue
            try:
                run = made(lengths)
                run()
                found = seconds_of(run, torch.cuda.synchronize, args.least)
                out["s"][shape] = min(found, out["s"].get(shape, found))
            except Exception as error:
                out["why"][f"{name}, {shape}"] = said(error)
            print(json.dumps(out), flush=True)  # what there is, should the time be up
    if not out["s"]:
        out["ok"] = None
    return out


def said(error: Exception) -> str:
    """Its kind and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:200]


def transformers_model(variant: str, torch: Any, attention: str) -> Any:
    """Of random weights, bf16, on the device: for speed only."""
    import transformers

    config = config_of(variant)
    same = transformers.ModernBertConfig(
        vocab_size=config.vocab_size, hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size, num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads, attn_implementation=attention,
    )  # fmt: skip
    return transformers.ModernBertModel(same).to("cuda", torch.bfloat16).eval()


def padded_passes(model: Any, vocab: int, torch: Any) -> Any:
    """lengths -> a function that runs model(input_ids, attention_mask) of padded rows."""

    def of(lengths: tuple[int, ...]) -> Any:
        longest = max(lengths)
        ids = torch.randint(0, vocab, (len(lengths), longest), device="cuda")
        mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        mask = mask.long().to("cuda")

        def run() -> None:
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=mask)

        return run

    return of


def eager(variant: str, torch: Any) -> Any:
    model = transformers_model(variant, torch, "eager")
    return padded_passes(model, model.config.vocab_size, torch)


def sdpa(variant: str, torch: Any) -> Any:
    model = transformers_model(variant, torch, "sdpa")
    return padded_passes(model, model.config.vocab_size, torch)


def compiled(variant: str, torch: Any) -> Any:
    model = transformers_model(variant, torch, "sdpa")
    vocab = model.config.vocab_size
    return padded_passes(torch.compile(model, mode="max-autotune", dynamic=False), vocab, torch)


def sentence(variant: str, torch: Any) -> Any:
    """Its modules over tensors, texts left out: the encoder as a module, and its mean pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling

    inner = transformers_model(variant, torch, "sdpa")

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
            found = self.inner(
                input_ids=features["input_ids"], attention_mask=features["attention_mask"]
            )
            return {**features, "token_embeddings": found.last_hidden_state}

    whole = SentenceTransformer(modules=[Encoder(), Pooling(inner.config.hidden_size)])
    whole = whole.to("cuda").eval()
    return padded_passes(lambda **features: whole(features), inner.config.vocab_size, torch)


def packed_padded(variant: str, torch: Any) -> Any:
    import packed_encoders

    model = transformers_model(variant, torch, "sdpa")
    packed_encoders.pack(model)
    return padded_passes(model, model.config.vocab_size, torch)


def packed_graphs(variant: str, torch: Any) -> Any:
    """Its graphs; shapes beyond what it bounds them by run without."""
    import packed_encoders

    model = transformers_model(variant, torch, "sdpa")
    bounds = packed_encoders.GraphConfig(pad_to=64, max_batch=256, max_seq=128, max_graphs=32)
    packed_encoders.pack(model, cuda_graph=bounds)
    return padded_passes(model, model.config.vocab_size, torch)


def packed_alone(variant: str, torch: Any) -> Any:
    """Its pass over tokens that stand one after the other, as ours."""
    import packed_encoders
    from packed_encoders.config import ModernBertParams
    from packed_encoders.forward import packed_forward

    model = transformers_model(variant, torch, "sdpa")
    packed_encoders.pack(model)
    sizes = ModernBertParams.from_hf_config(model.config)

    def of(lengths: tuple[int, ...]) -> Any:
        ids = torch.randint(0, model.config.vocab_size, (sum(lengths),), device="cuda")
        cu = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device="cuda")
        positions = torch.cat([torch.arange(n) for n in lengths]).to("cuda")

        def run() -> None:
            with torch.inference_mode():
                packed_forward(model, sizes, ids, cu, max(lengths), positions)

        return run

    return of


MAKERS = {
    f.__name__: f
    for f in (eager, sdpa, compiled, sentence, packed_padded, packed_graphs, packed_alone)
}
# Part -> what it times.
OF_A_PEER = {
    "packed": ("packed_graphs", "packed_alone", "packed_padded"),
    "sdpa": ("sdpa",),
    "compile": ("compiled",),
    "sentence": ("sentence",),
    "eager": ("eager",),
}

PARTS = {f.__name__: f for f in (build, steps, kit, bits, memcheck, racecheck, ceilings, speed)}
PARTS |= {
    name: lambda args, what=what: timed_peers(args, *what) for name, what in OF_A_PEER.items()
}


# -- all of them ----------------------------------------------------------------------------------


def run_part(name: str, argv: list[str], limit: float, rehearse: str | None) -> dict[str, Any]:
    """A part in a process of its own; its last line is JSON."""
    env = dict(os.environ)
    if rehearse:
        env["REFIMPL_CUDA_LIBRARY"] = rehearse
    command = [sys.executable, __file__, "--part", name, "--limit", str(limit), *argv]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=out, stderr=errors, start_new_session=True
        )
        try:
            status: int | None = child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(child.pid, signal.SIGKILL)  # and what it has started
            child.wait()
        out.seek(0), errors.seek(0)
        found = result_of(status, out.read(), errors.read(), limit)
    return {**found, "took_s": round(time.monotonic() - start, 1)}


def result_of(status: int | None, out: str, errors: str, limit: float) -> dict[str, Any]:
    """What a part has found. status: how it ended, None when its time was up: then what it had."""
    results = [line for line in out.splitlines() if line.startswith("{") and line.endswith("}")]
    if status == 0 and results:
        return json.loads(results[-1])
    why = f"more than {limit:.0f} s"
    if status is None and results:
        return {**json.loads(results[-1]), "late": why}
    if status is None:
        return {"ok": False, "why": why}
    return {"ok": False, "why": (errors.strip() or out.strip() or "no output").splitlines()[-1]}


def table(results: dict[str, Any]) -> str:
    """A line a part, then a line a shape with its floor, and how near we and others come."""
    lines = []
    for name, r in results.items():
        state = {True: "ok", False: "FAILED", None: "left out"}[r.get("ok")]
        more = {k: v for k, v in r.items() if k not in ("ok", "took_s") and name != "speed"}
        lines.append(f"{name:10s} {state:8s} {r['took_s']:6.1f} s  {json.dumps(more)[:160]}")
    rates, own = results.get("ceilings", {}), results.get("speed", {})
    others = {n: results[n].get("s", {}) for n in PEERS if n in results}
    for shape, r in own.items():
        if not isinstance(r, dict):
            continue
        line = f"{shape:12s} {1e6 * r['s']:10.0f} us, {1e6 * r['device_s']:10.0f} us on the device"
        line += f", {1e6 * r['no_graphs_s']:10.0f} us kernel by kernel"
        if rates.get("ok"):
            floor = floor_seconds(r, rates["bytes_per_s"], rates["flops_per_s"])
            share = r["flops"] / r["device_s"] / rates["flops_per_s"]
            line += f", floor {1e6 * floor:8.0f} us, {100 * share:4.1f} % of the product rate"
        timed = {n: p[shape] for n, p in others.items() if shape in p}
        if timed:
            best = min(timed, key=timed.__getitem__)
            line += f", {timed[best] / r['device_s']:.2f} times the best peer ({best})"
        lines.append(line)
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=450, help="of all parts together")
    parser.add_argument("--only", help="parts, with commas")
    parser.add_argument("--variant", default="base", choices=("tiny", "base", "large"))
    parser.add_argument("--rehearse", metavar="LIBRARY", help="one whose device is this processor")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=60.0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.least = 0.0 if args.rehearse else 0.5
    if args.rehearse:
        args.variant = "tiny"
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return 0
    wanted = args.only.split(",") if args.only else list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"--only {unknown[0]!r} is no part; parts: {', '.join(PARTS)}")
    passed_on = ["--variant", args.variant]
    if args.rehearse:
        passed_on += ["--rehearse", args.rehearse]
    end, results = time.monotonic() + args.seconds, {}
    for name in (n for n in PARTS if n in wanted):
        left = end - time.monotonic()
        limit = min(left, 600.0 if args.rehearse else LIMITS[name])
        results[name] = (
            run_part(name, passed_on, limit, args.rehearse)
            if left > 5
            else {"ok": None, "why": "no time was left", "took_s": 0.0}
        )
        print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results))
    print(table(results))
    return int(any(results.get(n, {}).get("ok") is False for n in MUST_HOLD))


if __name__ == "__main__":
    sys.exit(main())
