"""How much does the numpy reference cost beyond its own matrix products, and how much memory?

1 x 512: time of `encode` over the time of the same matrix products alone (same shapes, same
operands, same process, interleaved). The aim is a ratio of at most 3.
1 x 8192: peak resident size of a fresh process that builds the weights and runs one forward. The
aim is less than 2 GB. Random weights, float32; the error is against the same run in float64.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
from harness import interleaved, peak_rss, relative_error, report, summary

from refimpl.reference.config import VARIANTS, ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.ops import query_blocks
from refimpl.reference.params import encoder_shapes, initialise

LARGEST_RATIO = 3.0
LARGEST_RSS = 2e9
SEED = 0


def inputs(config: ModernBertConfig, seq: int) -> np.ndarray:
    """Random ids [1, seq]."""
    return np.random.default_rng(SEED).integers(0, config.vocab_size, (1, seq))


def matrix_products(
    params: dict[str, np.ndarray], config: ModernBertConfig, seq: int
) -> Callable[[], None]:
    """A function that runs every matrix product of one forward pass over `seq` tokens, no more.

    The four linear maps of each layer with the model's own weights, and for each block of queries
    that `ops.attention` works on the two products of all heads, on contiguous operands.
    """
    rng = np.random.default_rng(SEED)
    heads, head_dim, hidden = config.num_attention_heads, config.head_dim, config.hidden_size
    x = rng.standard_normal((seq, hidden), np.float32)
    gated = rng.standard_normal((seq, config.intermediate_size), np.float32)
    operands = {"attn.Wqkv": x, "attn.Wo": x, "mlp.Wi": x, "mlp.Wo": gated}
    q = rng.standard_normal((heads, seq, head_dim), np.float32)

    def run() -> None:
        for i in range(config.num_hidden_layers):
            at = f"layers.{i}."
            for name, operand in operands.items():
                np.matmul(operand, params[f"{at}{name}.weight"].T)
            for start, stop, first, last in query_blocks(seq, heads, config.window(i)):
                scores = q[:, start:stop] @ q[:, first:last].swapaxes(-1, -2)
                np.matmul(scores, q[:, first:last])

    return run


def measure_time(variant: str, seq: int, rounds: int) -> tuple[dict, float]:
    """Rows for the report, and the ratio forward / products."""
    config = ModernBertConfig.from_variant(variant)
    params = initialise(encoder_shapes(config), config, SEED)
    ids = inputs(config, seq)

    seconds = interleaved(
        {
            "forward": lambda: encode(params, config, ids),
            "its matrix products": matrix_products(params, config, seq),
        },
        rounds=rounds,
    )
    rows = {name: summary(s) for name, s in seconds.items()}
    truth = encode({k: v.astype(np.float64) for k, v in params.items()}, config, ids)
    rows["forward"]["error"] = relative_error(encode(params, config, ids), truth)
    return rows, rows["forward"]["median_s"] / rows["its matrix products"]["median_s"]


def one_forward(variant: str, seq: int) -> None:
    """Build the weights, run once, and print the peak resident size of this process in bytes."""
    config = ModernBertConfig.from_variant(variant)
    encode(initialise(encoder_shapes(config), config, SEED), config, inputs(config, seq))
    print(json.dumps(peak_rss()))


def peak_rss_of_fresh_process(variant: str, seq: int) -> int:
    command = [sys.executable, __file__, "--variant", variant, "--only-rss-at", str(seq)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, default="base")
    parser.add_argument("--seq", type=int, default=512, help="length of the timed forward")
    parser.add_argument("--long-seq", type=int, default=8192, help="length for the memory figure")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only-rss-at", type=int, metavar="SEQ", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_rss_at:
        one_forward(options.variant, options.only_rss_at)
        return
    lengths = (options.seq, options.long_seq)
    rss = {seq: peak_rss_of_fresh_process(options.variant, seq) for seq in lengths}
    rows, ratio = measure_time(options.variant, options.seq, options.rounds)
    report(
        f"numpy reference, {options.variant}, 1 x {options.seq}, float32",
        rows,
        ratio=ratio,
        ratio_aim=LARGEST_RATIO,
        **{f"peak_rss_gb_1x{seq}": size / 1e9 for seq, size in rss.items()},
        peak_rss_gb_aim=LARGEST_RSS / 1e9,
    )


if __name__ == "__main__":
    main()
