"""Does a sequence have the same bits on the engine in any company, layout and number of threads?

    python benchmarks/same_bits.py [--draws 10000] [--tier avx2] [--dtype bfloat16] [--seed 0]

Each draw takes one of a few random models and a random batch (1 - 6 sequences of 1 - 150 tokens, or
now and then of 600), in random order, packed or padded on the right, on 1 - 8 threads, and compares
every bit with each sequence alone on one thread. Without --tier and --dtype, every tier of the
machine and every dtype that it has have their turn. Exits 1 at the first difference.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
from harness import machine

from refimpl.backends.backend import BACKENDS, native
from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.params import encoder_shapes, initialise

MODELS = 12
ACTIVATIONS = ("gelu", "silu", "gelu_pytorch_tanh", "relu")


def model(rng: np.random.Generator, tier: str, dtype: str) -> tuple[Engine, int]:
    """A random small engine and its vocabulary."""
    heads, layers = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    kinds = ("full_attention", "sliding_attention")
    config = ModernBertConfig.from_variant(
        "tiny",
        vocab_size=64,
        num_attention_heads=heads,
        hidden_size=heads * int(rng.choice([2, 8, 10, 16, 34])),
        intermediate_size=int(rng.integers(3, 60)),
        num_hidden_layers=layers,
        layer_types=tuple(str(rng.choice(kinds)) for _ in range(layers)),
        local_attention=int(rng.choice([1, 2, 7, 16, 33, 128])),
        hidden_activation=str(rng.choice(ACTIVATIONS)),
    )
    params = initialise(encoder_shapes(config), config, int(rng.integers(2**31)), np.dtype("f4"))
    # Initial values are small; larger ones make attention choose.
    params = {n: x * np.float32(8) if x.ndim == 2 else x for n, x in params.items()}
    return Engine(config, params, 1, tier, dtype), config.vocab_size


def draw(rng: np.random.Generator, engine: Engine, vocab: int) -> bool:
    """True when one random batch gives the bits of its sequences alone."""
    long = rng.random() < 0.02
    counts = rng.integers(1, 601 if long else 151, int(rng.integers(1, 7)))
    sequences = [rng.integers(0, vocab, n) for n in counts]
    engine.num_threads = 1
    alone = [engine.packed(s, np.array([0, len(s)])) for s in sequences]
    engine.num_threads = int(rng.integers(1, 9))
    order = rng.permutation(len(sequences))
    mixed = [sequences[i] for i in order]
    if rng.random() < 0.5:
        cu_seqlens = np.cumsum([0, *map(len, mixed)])
        got = np.split(engine.packed(np.concatenate(mixed), cu_seqlens), cu_seqlens[1:-1])
    else:
        seq = max(map(len, mixed)) + int(rng.integers(0, 70))
        ids = np.stack([np.pad(s, (0, seq - len(s))) for s in mixed])
        mask = np.arange(seq) < np.array([[len(s)] for s in mixed])
        out = engine.padded(ids, None, mask, None, None)
        got = [row[: len(s)] for row, s in zip(out, mixed, strict=True)]
    return all(
        np.array_equal(y.view(np.uint32), alone[i].view(np.uint32))
        for i, y in zip(order, got, strict=True)
    )


def pairs(here: list[tuple[str, str]]) -> str:
    return ", ".join(f"{tier} {dtype}" for tier, dtype in here)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--tier", choices=native().tiers())
    parser.add_argument("--dtype", choices=BACKENDS["native"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    here = [(t, d) for t in native().tiers() for d in native().dtypes(t)]
    wanted = [(t, d) for t, d in here if args.tier in (None, t) and args.dtype in (None, d)]
    if not wanted:
        parser.error(f"--dtype {args.dtype} is not here; these are: {pairs(here)}")
    result = {}
    for tier, dtype in wanted:
        name, rng = f"{tier} {dtype}", np.random.default_rng(args.seed)
        models = [model(rng, tier, dtype) for _ in range(MODELS)]
        for n in range(args.draws):
            if not draw(rng, *models[n % MODELS]):
                sys.exit(f"{name}: draw {n} of seed {args.seed} differs")
        print(f"{name}: {args.draws} draws, no bit differs", flush=True)
        result[name] = {"draws": args.draws, "different": 0, "seed": args.seed}
    print(json.dumps({"rows": result, "machine": machine()}))


if __name__ == "__main__":
    main()
