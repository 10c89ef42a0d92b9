"""What share of its limit does each of the engine's operations reach?

    python benchmarks/ops.py [--tier avx2] [--dtype float32] [--threads 2] [--variant base]

Compiles ops.cpp with the kernels and limits.cpp with the system's compiler (about two minutes) and
runs both. The limit of a product is the multiply-add rate or reading its weights from memory,
whichever takes longer; attention's is the multiply-add rate, over the pairs of tokens that see one
another; that of a row-wise operation is reading what it reads and writes, all of it from memory, so
that rows which the caches keep may pass it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from harness import machine
from limits import compiled, limits

from refimpl.backends.backend import native
from refimpl.reference.config import ModernBertConfig

CSRC = Path(__file__).resolve().parents[1] / "csrc"
# bfloat16 tile products that stand for one of the dtype.
TILE_PRODUCTS = {"float32": 6, "bf16x3": 3, "bfloat16": 1}


def limit(row: dict, tier: str, dtype: str, rates: dict[str, float]) -> float | None:
    """Seconds that the processor cannot be faster than; None where no loop measures its rate.

    row: an operation's "op", "flops" and "bytes". rates: GFLOP/s and GB/s, as `limits` names them.
    """
    if tier != "amx":
        multiply_adds = rates.get(f"fma_{tier}")
    elif row["op"].startswith("attention") and dtype != "bfloat16":
        multiply_adds = rates["fma_avx512"]
    else:
        multiply_adds = rates["amx_bf16"] / TILE_PRODUCTS[dtype]
    if row["flops"] and multiply_adds is None:
        return None
    return max(row["flops"] / 1e9 / (multiply_adds or 1), row["bytes"] / 1e9 / rates["memory_read"])


def operations(tier: str, dtype: str, threads: int, seconds: float, config: ModernBertConfig):
    """The rows that ops.cpp prints."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [p for part in ("base", "tiers") for p in sorted((CSRC / part).glob("*.cpp"))]
        here = Path(__file__).with_name("ops.cpp")
        program = compiled([here, *sources], Path(folder) / "ops", f"-I{CSRC}")
        sizes = (config.hidden_size, config.intermediate_size, config.num_attention_heads)
        command = [program, tier, dtype, threads, seconds, *sizes]
        run = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tier", choices=native().tiers(), default=native().tiers()[0])
    parser.add_argument("--dtype", choices=tuple(TILE_PRODUCTS), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", default="base")
    parser.add_argument("--seconds", type=float, default=1, help="for each operation and shape")
    options = parser.parse_args()
    config = ModernBertConfig.from_variant(options.variant)
    tier, dtype, threads = options.tier, options.dtype, options.threads
    if dtype not in native().dtypes(tier):
        here = ", ".join(native().dtypes(tier))
        parser.error(f"--dtype {dtype} is not here; tier {tier} has {here}")
    rates = {name: rate[str(threads)] for name, rate in limits(threads).items()}
    rows = operations(tier, dtype, threads, options.seconds, config)
    print(
        f"{'operation':22} {'shape':18} {'ms':>9} {'spread':>6} {'GFLOP/s':>8} {'GB/s':>6}  share"
    )
    for row in rows:
        least = limit(row, tier, dtype, rates)
        row["share"] = least and least / row["seconds"]
        gflops, gbytes = (row[what] / row["seconds"] / 1e9 for what in ("flops", "bytes"))
        print(
            f"{row['op']:22} {row['shape']:18} {row['seconds'] * 1e3:9.3f} {row['spread']:6.1%} "
            f"{gflops or '':8.5} {gbytes or '':6.4} "
            + (f"{row['share']:6.0%}" if row["share"] else "     -")
        )
    question = f"operations, {tier}, {dtype}, {threads} threads, {options.variant}"
    print(json.dumps({"question": question, "rows": rows, "limits": rates, "machine": machine()}))


if __name__ == "__main__":
    main()
