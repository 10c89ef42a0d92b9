"""How close to float64 is the engine on an input as long as the model allows?

    python benchmarks/long_inputs.py [--variant large] [--seq 8192] [--tiers scalar] [--members 1]

One input of random ids, random weights of the variant's shape (queries and keys three times as
large as initialised, so that attention chooses), float32. Truth is the reference in float64, on
blocks of queries (large takes some 6 GB). Two budgets, of mean, 95th percentile and maximum of the
relative L2 error per token: twice what numpy in float32 shows, as the tests of the engine ask, and
that of the conformance kit, derived from the roundoff of each operation (verify/truth/rounding.py),
of so many members (0: left out). Prints each figure as it is there and ends with JSON; exits 1
where a figure is over a budget.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
from harness import machine, peak_rss

from refimpl.backends.backend import native
from refimpl.backends.engine import Engine
from refimpl.reference import ops
from refimpl.reference.config import VARIANTS, ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.params import encoder_shapes, initialise
from refimpl.verify.truth.errors import STATISTICS, error
from refimpl.verify.truth.passes import Pass, run
from refimpl.verify.truth.rounding import K, noisy

SEED = 0
SHARPER = 3.0
QUERIES = 256  # whose scores are held at a time
Figures = dict[str, float]


def weights(config: ModernBertConfig) -> dict[str, np.ndarray]:
    """float32, as `initialise` draws them, with larger queries and keys."""
    params = initialise(encoder_shapes(config), config, SEED)
    for name, x in params.items():
        if name.endswith("Wqkv.weight"):
            x[: 2 * config.hidden_size] *= np.float32(SHARPER)
    return params


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, key_mask: np.ndarray, window: int | None
) -> np.ndarray:
    """`ops.attention` of one sequence without padding, the scores of a few queries in place: a
    third of the time where a layer sees everything."""
    if window is not None or not key_mask.all() or len(q) != 1:
        return ops.attention(q, k, v, key_mask, window)
    _, seq, heads, head_dim = q.shape
    out = np.empty((1, seq, heads, head_dim), v.dtype)
    for h in range(heads):
        queries, keys, values = (np.ascontiguousarray(x[0, :, h]) for x in (q, k, v))
        for start in range(0, seq, QUERIES):
            s = queries[start : start + QUERIES] @ keys.T
            s *= head_dim**-0.5
            s -= s.max(axis=-1, keepdims=True)
            np.exp(s, out=s)
            total = s.sum(axis=-1, keepdims=True)
            out[0, start : start + QUERIES, h] = s @ values / total
    return out.reshape(1, seq, heads * head_dim)


def last_hidden(p: Pass) -> np.ndarray:
    """The last step of a pass; no other is kept."""
    kept: dict[str, np.ndarray] = {}

    def tap(name: str, x: np.ndarray) -> np.ndarray:
        if name == "final_norm":
            kept[name] = x
        return x

    run(p, tap)
    return kept["final_norm"]


def figures(got: np.ndarray, truth: np.ndarray) -> Figures:
    return error("final_norm", got, truth, np.ones(truth.shape[:2], bool))


def told(name: str, start: float, shown: Figures) -> Figures:
    """`shown`, printed with the seconds that it took."""
    columns = "  ".join(f"{s} {shown[s]:.2e}" for s in STATISTICS)
    print(f"{name:28} {columns}  {time.perf_counter() - start:8.0f} s", flush=True)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, default="base")
    parser.add_argument("--seq", type=int, default=8192)
    parser.add_argument("--tiers", help="default: every tier of this machine")
    parser.add_argument("--members", type=int, default=1, help="of the kit's family; 0: none")
    args = parser.parse_args()
    tiers = args.tiers.split(",") if args.tiers else native().tiers()
    if unknown := sorted(set(tiers) - set(native().tiers())):
        parser.error(f"--tiers {','.join(unknown)}: this machine has {', '.join(native().tiers())}")
    config = ModernBertConfig.from_variant(args.variant)
    ids = np.random.default_rng(SEED).integers(0, config.vocab_size, (1, args.seq))
    params = weights(config)
    print(f"# {args.variant}, 1 x {args.seq}, float32 against float64")

    start = time.perf_counter()
    exact = Pass(config, params, {"input_ids": ids}).astype(np.float64)
    truth = last_hidden(exact.with_ops(attention=attention))
    told("(truth)", start, figures(truth, truth))
    start = time.perf_counter()
    budgets = {"numpy": told("numpy", start, figures(encode(params, config, ids), truth))}
    rows = {}
    for tier in tiers:
        start = time.perf_counter()
        got = Engine(config, params, None, tier).padded(ids, None, np.ones_like(ids), None, None)
        rows[tier] = told(f"engine, {tier}", start, figures(got, truth))
    for seed in range(args.members):
        start = time.perf_counter()
        member = figures(last_hidden(noisy(exact, "float32", seed)), truth)
        told(f"member {seed} of the kit's", start, member)
        worst = budgets.get("the kit", member)
        budgets["the kit"] = {s: max(worst[s], member[s]) for s in STATISTICS}
    shares = {
        f"{tier} / {name}": max(row[s] / (K * budget[s]) for s in STATISTICS)
        for tier, row in rows.items()
        for name, budget in budgets.items()
    }
    for name, share in shares.items():
        print(f"observed / budget, {name}: {share:.2f}")
    facts = {"budgets": budgets, "shares": shares, "peak_rss_gb": peak_rss() / 1e9}
    print(json.dumps({"rows": rows, "facts": facts, "machine": machine()}))
    if not max(shares.values()) <= 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
