"""What a pass costs a device at least, and what its kernels take of one. No device is needed.

    python benchmarks/gpu_floors.py [LIBRARY.so] [--variant base] [--flops 790e12] [--bytes 4.3e12]

Of each shape: its products and bytes, the time that each takes at the rates of a device (as given,
an H200's: products of bf16, copies), the larger of which is the floor; and its launches, of 2 - 3
us each where they are no graph. Of each kernel of a library that was built by nvcc, by `cuobjdump`:
registers and stack of a thread, shared memory of a block as the launch asks for it, and the blocks
that a multiprocessor holds at once; kernels of one name are one line, with the most of each. The
table comes last, JSON before it.
Long because the resources of a multiprocessor are written down here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Texts of a search index, short and long, drawn once.
_MIXED = tuple(int(n) for n in np.random.default_rng(0).integers(8, 201, 32))
SHAPES: dict[str, tuple[int, ...]] = {
    "1x16": (16,),
    "1x128": (128,),
    "8 queries": (12, 20, 31, 40, 64, 77, 100, 128),
    "32 texts": _MIXED,
    "64x512": (512,) * 64,
    "8x8192": (8192,) * 8,
}
# Bytes of a number in products, and products of bf16 that one of these is.
DTYPES = {"bfloat16": (2, 1), "bf16x3": (4, 3), "float32": (4, 6)}
# Launches of a layer (norm, or the embedding; Wqkv, attention, Wo, norm, Wi, the MLP's Wo), and the
# final norm.
PER_LAYER, BESIDE = 7, 1
CHUNK = 8192  # tokens of all launches of a layer but attention


# -- a pass ---------------------------------------------------------------------------------------


def work(config: Any, lengths: tuple[int, ...], number: int) -> dict[str, float]:
    """Bytes that a pass has to move, floating-point operations that it has to do, its launches.

    Bytes: every weight of the layers once, in `number` bytes, and ids in and hidden states out.
    Operations: the four products, and attention over the keys that each query may see.
    """
    h, inter, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    total = sum(lengths)
    matrices = layers * (3 * h * h + h * h + 2 * inter * h + inter * h)
    seen = 0.0
    for i in range(layers):
        window = config.window(i)
        for n in lengths:
            reach = n if window is None else min(n, window + 1)
            # Of each query: the keys up to `reach` - 1 away on both sides, that exist.
            seen += n * n if reach >= n else n * (2 * reach - 1) - reach * (reach - 1)
    chunks = -(-total // CHUNK)
    return {
        "bytes": float(number * matrices + total * (8 + 4 * h)),
        "flops": 2.0 * total * matrices + 4.0 * h * seen,
        "launches": float(layers * (chunks * (PER_LAYER - 1) + 1) + BESIDE),
    }


def floor_seconds(of: Mapping[str, float], bytes_per_s: float, flops_per_s: float) -> float:
    return max(of["bytes"] / bytes_per_s, of["flops"] / flops_per_s)


def floors(config: Any, flops_per_s: float, bytes_per_s: float) -> dict[str, dict[str, Any]]:
    """Shape, dtype -> work and seconds."""
    out: dict[str, dict[str, Any]] = {}
    for name, lengths in SHAPES.items():
        out[name] = {}
        for dtype, (number, products) in DTYPES.items():
            of = work(config, lengths, number)
            least = floor_seconds(of, bytes_per_s, flops_per_s / products)
            memory = of["bytes"] / bytes_per_s >= of["flops"] * products / flops_per_s
            out[name][dtype] = {
                **of,
                "floor_s": least,
                "bound by": "memory" if memory else "products",
            }
    return out


# -- kernels --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """A block as the host asks for it: threads, and bytes of shared memory."""

    threads: int
    shared: int


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel. stack: bytes of a thread that registers had no room for, or a call's."""

    architecture: str
    name: str
    registers: int
    stack: int
    shared: int
    threads: int

    @property
    def blocks(self) -> int:
        return blocks_at_once(self)


# Of a multiprocessor: registers, threads, blocks, bytes of shared memory. CUDA C++ Programming
# Guide, "Compute Capabilities"; a block's shared memory counts 1 KB more, the system's, which
# reports for sm_90 hold and those for sm_80 do not.
MULTIPROCESSOR = {"sm_80": (65_536, 2048, 32, 167_936), "sm_90a": (65_536, 2048, 32, 233_472)}
RESERVED = 1024
WARP, REGISTERS_AT_ONCE = 32, 256  # registers are given to warps, so many at a time


def blocks_at_once(k: Kernel) -> int:
    """Blocks of a kernel that a multiprocessor holds."""
    registers, threads, blocks, shared = MULTIPROCESSOR[k.architecture]
    of_a_warp = -(-k.registers * WARP // REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
    warps = -(-k.threads // WARP)
    # Of four parts a multiprocessor has, each with a fourth of the registers.
    by_registers = registers // 4 // of_a_warp * 4 // warps
    return min(by_registers, threads // k.threads, blocks, shared // (k.shared + RESERVED))


def parts_of(mangled: str) -> tuple[str, str, tuple[int, ...]]:
    """Kernel, number ("float", "bf16", "") and whole-number arguments in a mangled name.

    ValueError for one that is not this library's."""
    found = re.match(r"_ZN7refimpl4cuda(\d+)", mangled)
    if found is None:
        raise ValueError(f"{mangled!r} is no kernel of refimpl::cuda")
    start, length = found.end(), int(found[1])
    name, rest = mangled[start : start + length], mangled[start + length :]
    number = re.match(r"I(f|NS_4bf16E)", rest)
    values = tuple(int(n) for n in re.findall(r"Lj(\d+)E", rest))
    return name, {"f": "float", "NS_4bf16E": "bf16"}[number[1]] if number else "", values


# As product_shared, attention_shared and kPoolShared of csrc/cuda have them, which
# tests/cuda/launches.cpp tells.
def launch_of(mangled: str) -> Launch:
    name, number, values = parts_of(mangled)
    size = 2 if number == "bf16" else 4
    if name == "product_kernel":
        rows = 32 * values[1]
        return Launch(2 * rows, (3 if size == 2 else 2) * (rows + 128) * 40 * size)
    if name == "attention_kernel":
        return Launch(128, 2 * 64 * (values[1] + 8) * size)
    if name == "pool_kernel":
        return Launch(256, 3 * 8 * 4 + (8 * 32 + 8) * 8)
    by_rows = ("residual_norm_kernel", "embedding_norm_kernel", "unit_kernel")
    return Launch(128 if name in by_rows else 256, 0)


def kernels_in(report: str) -> list[Kernel]:
    """Those in what `cuobjdump -res-usage` says."""
    out, architecture = [], ""
    for line in report.splitlines():
        if found := re.search(r"arch = (sm_\w+)", line):
            architecture = found[1]
        elif found := re.search(r"Function (\w+):", line):
            name = found[1]
        elif found := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, found.groups())
            if architecture != "sm_80":
                shared = max(0, shared - RESERVED)
            launch = launch_of(name)
            out.append(
                Kernel(
                    architecture, name, registers, stack + local, shared + launch.shared,
                    launch.threads,
                )
            )  # fmt: skip
    return out


def cuobjdump(*arguments: str | Path) -> str:
    """What it says. FileNotFoundError where it is not."""
    path = shutil.which(os.environ.get("CUOBJDUMP", "cuobjdump"))
    if path is None:
        raise FileNotFoundError("there is no cuobjdump on the PATH, nor one that CUOBJDUMP names")
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout


def short_name(k: Kernel) -> str:
    name, number, values = parts_of(k.name)
    of = [number, *map(str, values)] if number else []
    ends = next((e for e in ("AddTo", "ToHeads", "Gelu", "Named") if e in k.name), None)
    return f"{name.removesuffix('_kernel')} {' '.join([*of, *([ends] if ends else [])])}".rstrip()


# -- both -----------------------------------------------------------------------------------------


def table(floors: Mapping[str, Mapping[str, Any]], kernels: list[Kernel]) -> str:
    lines = [f"{'shape':12s} {'dtype':9s} {'GFLOP':>9s} {'MB':>7s} {'floor us':>10s}  launches"]
    for shape, dtypes in floors.items():
        for dtype, of in dtypes.items():
            lines.append(
                f"{shape:12s} {dtype:9s} {of['flops'] / 1e9:9.1f} {of['bytes'] / 1e6:7.0f} "
                f"{1e6 * of['floor_s']:10.1f}  {of['launches']:.0f}, bound by {of['bound by']}"
            )
    if kernels:
        lines += ["", f"{'kernel':40s} for     registers  stack  shared  threads  blocks at once"]
    of: dict[tuple[str, str], list[Kernel]] = {}
    for k in kernels:
        of.setdefault((k.architecture, short_name(k)), []).append(k)
    for (architecture, name), found in sorted(of.items()):
        most = [max(getattr(k, what) for k in found) for what in ("registers", "stack", "shared")]
        lines.append(
            f"{name:40s} {architecture:7s} {most[0]:9d} {most[1]:6d} {most[2]:7d} "
            f"{found[0].threads:8d} {min(k.blocks for k in found):15d}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    from refimpl.reference.config import ModernBertConfig

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", nargs="?", type=Path, metavar="LIBRARY.so")
    parser.add_argument("--variant", default="base", choices=("tiny", "base", "large"))
    parser.add_argument("--flops", type=float, default=790e12, help="bf16 products, a second")
    parser.add_argument("--bytes", type=float, default=4.3e12, help="copied, a second")
    args = parser.parse_args(argv)
    config = ModernBertConfig.from_variant(args.variant)
    found = floors(config, args.flops, args.bytes)
    kernels = kernels_in(cuobjdump("-res-usage", args.library)) if args.library else []
    print(json.dumps({"floors": found, "kernels": [asdict(k) for k in kernels]}))
    print(table(found, kernels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
