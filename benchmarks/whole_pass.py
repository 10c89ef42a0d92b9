"""What share of the multiply-add rate does a whole pass of the engine reach?

    python benchmarks/whole_pass.py [--tier avx2] [--threads 1,2] [--variant base] [--rounds 9]
                                    [--shapes 1x128,8x128,mixed,1x512,1x2048] [--save FILE]

float32, random weights and ids. Every round measures the rate of multiply-adds from registers anew,
then the pass, so that both see the machine in the same second; a share is that of a round. A pass
counts the multiply-adds of its products, and in attention those of the pairs of tokens that see one
another: exponentials, norms, activations and waiting are what is lacking. The last line is JSON.
`perf record` of it tells which function takes what.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from harness import interleaved, save
from limits import SOURCE, compiled, measured
from peers import PAUSE_S, sequences, shape_names

from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.params import encoder_shapes, initialise

SHAPES = ("1x128", "8x128", "mixed", "1x512", "1x2048")


def seen(length: int, reach: int | None) -> int:
    """Pairs of tokens that see one another, `reach` to each side (None: all)."""
    if reach is None:
        return length * length
    i = np.arange(length)
    return int((np.minimum(i, reach) + 1 + np.minimum(length - 1 - i, reach)).sum())


def flops(config: ModernBertConfig, lengths: list[int]) -> float:
    """Of one pass of the encoder over sequences of these lengths."""
    hidden, inter = config.hidden_size, config.intermediate_size
    token = 2 * (3 * hidden * hidden + hidden * hidden + 2 * inter * hidden + inter * hidden)
    pairs = sum(seen(n, config.window(i)) for i in range(config.num_hidden_layers) for n in lengths)
    return float(token * config.num_hidden_layers * sum(lengths) + 4 * hidden * pairs)


def shares(engine: Engine, config: ModernBertConfig, shape: str, rate, rounds: int) -> dict:
    """Tokens/s, GFLOP/s and limit, medians of the rounds, and the quartiles of the share."""
    texts = sequences(shape, config.vocab_size)
    ids, ends = np.concatenate(texts), np.cumsum([0, *map(len, texts)])
    work, rates = flops(config, list(map(len, texts))) / 1e9, []
    runs = {"rate": lambda: rates.append(rate()), "pass": lambda: engine.packed(ids, ends)}
    took = interleaved(runs, rounds=rounds, pause=PAUSE_S)["pass"]
    rates = rates[-rounds:]
    of_rate = [work / seconds / limit for seconds, limit in zip(took, rates, strict=True)]
    return {
        "tokens_per_s": len(ids) / statistics.median(took),
        "gflops": work / statistics.median(took),
        "limit": statistics.median(rates),
        "share": statistics.quantiles(of_rate, n=4, method="inclusive"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tier", choices=("avx2", "avx512"), default="avx2")
    parser.add_argument("--threads", default="1,2", help="numbers, with commas")
    parser.add_argument("--variant", default="base")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", type=shape_names, default=",".join(SHAPES))
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    config = ModernBertConfig.from_variant(options.variant)
    params = initialise(encoder_shapes(config), config, 0, np.dtype("f4"))
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        program = compiled([SOURCE], Path(folder) / "limits")
        name = f"fma_{options.tier}"
        for threads in map(int, options.threads.split(",")):
            engine = Engine(config, params, threads, options.tier)
            for shape in options.shapes:
                row = rows[f"{shape}, {threads}"] = shares(
                    engine, config, shape,
                    lambda n=threads: measured(program, n, name)[name][str(n)], options.rounds,
                )  # fmt: skip
                low, middle, high = row["share"]
                print(f"{shape:8} {threads} threads {row['tokens_per_s']:8.0f} tokens/s "
                      f"{row['gflops']:7.1f} of {row['limit']:7.1f} GFLOP/s  "
                      f"{middle:4.0%} ({low:.0%} - {high:.0%})", flush=True)  # fmt: skip
    save(f"whole pass, {options.tier}, {options.variant}", rows, options.save)


if __name__ == "__main__":
    main()
