"""How fast is the engine beside its peers, on the same weights and inputs, and how exact?

    python benchmarks/peers.py CACHE [--variant base] [--threads 2] [--shapes 1x16,mixed]
                               [--only NAME,..] [--isa avx2] [--seconds 60] [--budget S] [--fresh]
                               [--no-run] [--save benchmarks/results/NAME.json]

CACHE keeps, per variant, random weights, what peers need made from them (ONNX, int8, GGUF), the
float64 truth of each shape, and the results. A shape is "batch x length", or "mixed": 32 texts of
8 - 200 tokens. Everybody gets padded batches and is measured at its better way to take them: all at
once, or sorted by length in batches of 8. What is measured is written at once; later runs, with
other shapes or names, fill up the same table. --no-run prints it. The last line is JSON. A ratio is
that of a round, ours beside the best peer of the class; rounds go on until its quartiles are within
5 %, or the time of --seconds is up, which the table then says. Under --budget the shapes share that
time in their order; what does not fit is left out and told. --fresh forgets earlier results.
This file is long: one program, from the texts to the table.

Who is not installed, or does not do a precision on this processor, is told with the reason.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import rivals
from harness import interleaved, machine, relative_error, summary

SHAPES = ("1x16", "1x128", "8x128", "mixed", "1x512", "1x2048", "1x8192")
OURS = "refimpl"
SEED = 0
# Whose attention holds batch x heads x length^2 scores, some times over: left out beyond half of
# the free memory rather than driven into swap.
DENSE = ("onnxruntime", "openvino")
COPIES = 6
# Rounds go on until the quartiles of a ratio are within this share of its median, or time is up.
WITHIN, FEWEST = 0.05, 5
# Tokens whose float64 truth is made within a --budget.
QUICK = 4096
# Spinning threads of the last runner have gone to sleep after this.
PAUSE_S = 0.03


def shape_names(text: str) -> list[str]:
    """An argparse type: the shapes of a list with commas."""
    for name in text.split(","):
        if name != "mixed" and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", name):
            raise argparse.ArgumentTypeError(f"{name!r} is neither TEXTSxTOKENS nor mixed")
    return text.split(",")


def sequences(shape: str, vocab: int) -> list:
    """Random ids of each text of a shape."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    if shape == "mixed":
        lengths = rng.integers(8, 201, 32).tolist()
    else:
        batch, length = map(int, shape.split("x"))
        lengths = [length] * batch
    return [rng.integers(0, vocab, n) for n in lengths]


def batches(texts: list, size: int) -> list:
    """(ids, mask) of the texts, sorted by length, `size` at a time, padded on the right."""
    import numpy as np

    made = []
    texts = sorted(texts, key=len)
    for first in range(0, len(texts), size):
        part = texts[first : first + size]
        ids = np.zeros((len(part), max(map(len, part))), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(part):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        made.append((ids, mask))
    return made


def ways(shape: str, texts: list) -> dict[str, list]:
    """How the texts may be given: name -> batches."""
    if shape != "mixed":
        return {"one batch": batches(texts, len(texts))}
    return {"one batch": batches(texts, len(texts)), "batches of 8": batches(texts, 8)}


def joined(outputs: list, given: list):
    """The real rows of the batches' outputs, [total, hidden], in the order of `batches`."""
    import numpy as np

    pairs = zip(outputs, given, strict=True)
    return np.concatenate([out[mask.astype(bool)] for out, (_, mask) in pairs])


def model_folder(cache: Path, variant: str) -> Path:
    """The folder with the variant's random weights, written once."""
    from refimpl.files.checkpoint import write_checkpoint
    from refimpl.reference.config import ModernBertConfig
    from refimpl.reference.params import encoder_shapes, initialise

    folder = cache / variant
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = ModernBertConfig.from_variant(variant)
        write_checkpoint(folder, config, initialise(encoder_shapes(config), config, SEED), None)
    return folder


def truth(folder: Path, shape: str, given: list):
    """The last hidden state in float64, [total, hidden], computed once by the numpy reference."""
    import numpy as np

    from refimpl.files.checkpoint import read_checkpoint
    from refimpl.reference.encoder import encode

    path = folder / f"truth-{shape}.npy"
    if not path.exists():
        model = read_checkpoint(folder, dtype=np.float64)
        rows = [
            encode(model.params, model.config, row[None, mask.astype(bool)])[0]
            for ids, masks in given
            for row, mask in zip(ids, masks, strict=True)
        ]
        np.save(path, np.concatenate(rows))
    return np.load(path)


def fits(name: str, shape: str, heads: int) -> bool:
    """False when the scores of a dense attention would take more than half of the free memory."""
    if not name.startswith(DENSE) or shape == "mixed" or not hasattr(os, "sysconf"):
        return True
    batch, length = map(int, shape.split("x"))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return COPIES * 4 * batch * heads * length**2 < free / 2


def affordable(costs: dict[str, float], seconds: float) -> set[str]:
    """Those whose first run and one round fit into the time; the slowest peers have to go first."""
    kept = dict(costs)
    while kept and 2 * sum(kept.values()) > seconds:
        peers = [name for name in kept if not name.startswith(OURS)] or list(kept)
        del kept[max(peers, key=lambda name: kept[name])]
    return set(kept)


def has_truth(folder: Path, shape: str, texts: list) -> bool:
    """Whether the float64 result of a shape is there, or made in seconds."""
    return (folder / f"truth-{shape}.npy").exists() or sum(map(len, texts)) <= QUICK


def measure(
    runs: dict[str, rivals.Run], shape: str, texts: list, want: Any, seconds: float
) -> dict[str, dict]:
    """A row for each contender: its better way, verified."""
    functions, errors, cost, rows = {}, {}, 0.0, {}
    tokens = sum(map(len, texts))
    for name, run in runs.items():
        for way, given in ways(shape, texts).items():
            start = time.perf_counter()
            try:
                got = joined([run(*batch) for batch in given], given)
            except Exception as error:  # a peer's failure is a row of the table, whatever it raises
                rows[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
                continue
            cost += time.perf_counter() - start
            errors[name, way] = None if want is None else relative_error(got, want)
            functions[name, way] = lambda run=run, given=given: [run(*batch) for batch in given]
    timed = until_settled(functions, seconds - cost) if functions else {}
    for (name, way), measured in timed.items():
        row = summary(measured) | {"error": errors[name, way], "way": way}
        row["tokens_per_s"] = tokens / row["median_s"]
        if name not in rows or row["tokens_per_s"] > rows[name].get("tokens_per_s", 0):
            rows[name] = row
    for name, (low, median, high) in round_ratios(timed).items():
        calm = settled(low, median, high)
        rows[name]["ratio"] = {"low": low, "median": median, "high": high, "settled": calm}
    return rows


def settled(low: float, median: float, high: float) -> bool:
    """Whether the quartiles of a ratio are within WITHIN of its median."""
    return low >= (1 - WITHIN) * median and high <= (1 + WITHIN) * median


def until_settled(functions: dict, seconds: float) -> dict[tuple[str, str], list[float]]:
    """Seconds of each round of each function, interleaved, for as many rounds as it takes until the
    quartiles of every ratio of ours are within WITHIN of its median, or the time is used up."""
    start, timed = time.perf_counter(), {name: [] for name in functions}
    for rounds in itertools.count(1):
        names = list(functions)
        first = rounds % len(names)  # the order turns from round to round
        turned = {name: functions[name] for name in names[first:] + names[:first]}
        for name, some in interleaved(turned, rounds=1, warmup=0, pause=PAUSE_S).items():
            timed[name] += some
        found = round_ratios(timed).values()
        calm = all(settled(*ratio) for ratio in found)
        spent = time.perf_counter() - start
        if (rounds >= FEWEST and calm) or spent * (rounds + 1) / rounds > seconds:
            break
    return timed


def round_ratios(timed: dict[tuple[str, str], list[float]]) -> dict[str, tuple]:
    """Ours -> lower quartile, median, upper quartile of the ratio of a round: the seconds of the
    best peer of the same class over ours, each at its better way."""
    known, best = rivals.contenders(), {}
    for (name, _), times in timed.items():
        if name not in best or statistics.median(times) < statistics.median(best[name]):
            best[name] = times
    found = {}
    for name, times in best.items():
        kind = "float32" if known[name][0] == "bf16x3" else known[name][0]
        peers = [t for n, t in best.items() if not n.startswith(OURS) and known[n][0] == kind]
        if name.startswith(OURS) and peers:
            peer = min(peers, key=statistics.median)
            each = [theirs / ours for theirs, ours in zip(peer, times, strict=True)]
            found[name] = (
                tuple(statistics.quantiles(each, n=4)) if len(each) > 1 else (each[0],) * 3
            )
    return found


def ratios(rows: dict[str, dict]) -> dict[str, float]:
    """Our speed over the best peer's of the same class; bf16x3 is held against float32."""
    known = rivals.contenders()
    peers: dict[str, list[float]] = {}
    for name, row in rows.items():
        if not name.startswith(OURS) and "tokens_per_s" in row:
            peers.setdefault(known[name][0], []).append(row["tokens_per_s"])
    found = {}
    for name, row in rows.items():
        rival = peers.get("float32" if known[name][0] == "bf16x3" else known[name][0])
        if name.startswith(OURS) and "tokens_per_s" in row and rival:
            found[name] = row["tokens_per_s"] / max(rival)
    return found


def show(shape: str, rows: dict[str, dict]) -> None:
    print(f"\n{shape:24} {'tokens/s':>9} {'spread':>7} {'runs':>4} {'error':>8}  ratio")
    ours = ratios(rows)
    for name in [n for n in rivals.contenders() if n in rows]:
        row = rows[name]
        if "tokens_per_s" not in row:
            print(f"{name:24} {row.get('failed') or row['left_out']}")
            continue
        ratio = f"{ours[name]:6.2f}" if name in ours else ""
        if "ratio" in row:
            r = row["ratio"]
            ratio = f"{r['median']:6.2f} ({r['low']:.2f} - {r['high']:.2f})"
            ratio += "" if r["settled"] else " not settled"
        way = "" if row["way"] == "one batch" else row["way"]
        error = f"{row['error']:8.1e}" if row["error"] is not None else f"{'no truth':>8}"
        print(f"{name:24} {row['tokens_per_s']:9.0f} {row['spread']:7.1%} {row['runs']:4} "
              f"{error} {ratio} {way}")  # fmt: skip


def ratio_line(variant: str, shape: str, rows: dict[str, dict]) -> str:
    """All ratios of a shape in one line, and in a word why one is missing."""
    found = []
    for name in (n for n in rivals.contenders() if n.startswith(OURS)):
        row, dtype = rows.get(name, {"left_out": "not measured"}), name.split()[1]
        if "ratio" in row:
            r = row["ratio"]
            calm = "" if r["settled"] else ", not settled"
            found.append(f"{dtype} {r['median']:.2f} ({r['low']:.2f} - {r['high']:.2f}{calm})")
        elif "tokens_per_s" in row:
            found.append(f"{dtype} without a peer")
        else:
            found.append(f"{dtype} {(row.get('failed') or row['left_out']).split(':')[0]}")
    return f"ratio {variant} {shape}: " + "; ".join(found)


def config_of(variant: str, parser: argparse.ArgumentParser) -> Any:
    """The variant's config; a name that is none ends the program."""
    from refimpl.reference.config import ModernBertConfig

    try:
        return ModernBertConfig.from_variant(variant)
    except ValueError as error:
        parser.error(f"--variant: {error}")


def wanted(only: str | None, parser: argparse.ArgumentParser) -> list[str]:
    """Contenders whose names start as one of `only`, with commas, does; all for None."""
    names = [n for n in rivals.contenders() if not only or n.startswith(tuple(only.split(",")))]
    if not names:
        parser.error(f"--only {only}: nobody; known: {', '.join(rivals.contenders())}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cache", type=Path, help="folder for weights, exports, truths and results")
    parser.add_argument("--variant", default="base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", type=shape_names, default=",".join(SHAPES))
    parser.add_argument("--only", help="contenders to run, by the start of their names")
    parser.add_argument("--isa", choices=rivals.CAPS, help="cap everybody that can be capped")
    parser.add_argument("--seconds", type=float, default=60, help="about how long per shape")
    parser.add_argument("--budget", type=float, help="seconds for all shapes together")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--no-run", action="store_true", help="print what has been measured")
    parser.add_argument("--save", type=Path, help="write the last line to this file as well")
    options = parser.parse_args()
    # Before any peer is imported: their libraries read these once.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.update(rivals.CAPS.get(options.isa, {}))
    config, names = config_of(options.variant, parser), wanted(options.only, parser)
    folder = model_folder(options.cache, options.variant)
    suffix = f"-{options.isa}" if options.isa else ""
    path = folder / f"results-{options.threads}{suffix}.json"
    if options.fresh:
        path.unlink(missing_ok=True)
    table: dict[str, dict] = json.loads(path.read_text()) if path.exists() else {}
    shapes = options.shapes
    if not options.no_run:
        run_all(names, shapes, folder, table, path, config, options)
    for shape in shapes:
        if shape in table:
            show(shape, table[shape])
    print()
    for shape in shapes:
        print(ratio_line(options.variant, shape, table.get(shape, {})))
    found = {
        "question": f"engine and peers, {options.variant}, {options.threads} threads{suffix}",
        "date": time.strftime("%Y-%m-%d"),
        "rows": {s: table[s] for s in shapes if s in table},
        "ratios": {s: ratios(table[s]) for s in shapes if s in table},
        "machine": machine(),
    }
    if options.save:
        options.save.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def run_all(names, shapes, folder, table, path, config, options) -> None:
    """Load whom there is, and measure shape by shape into `table` and its file."""
    end = time.perf_counter() + (options.budget or float("inf"))
    texts = {shape: sequences(shape, config.vocab_size) for shape in shapes}
    runs: dict[str, rivals.Run] = {}
    for name in names:
        try:
            if time.perf_counter() > end:
                raise TimeoutError("no time was left to load it")
            runs[name] = rivals.load(name, folder, options.threads)
        except Exception as error:  # not there, or not here: the table says so
            why = f"not available: {str(error).splitlines()[0][:160]}"
            print(f"{name}: {why}", file=sys.stderr)
            for shape in shapes:
                table.setdefault(shape, {})[name] = {"left_out": why}
    rates: dict[str, float] = {}
    for i, shape in enumerate(shapes):
        rows = table.setdefault(shape, {})
        tokens, seconds = sum(map(len, texts[shape])), options.seconds
        here = {n: r for n, r in runs.items() if fits(n, shape, config.num_attention_heads)}
        rows.update({n: {"left_out": "left out: its scores do not fit into memory"}
                     for n in runs if n not in here})  # fmt: skip
        want = None
        if not options.budget or has_truth(folder, shape, texts[shape]):
            want = truth(folder, shape, batches(texts[shape], len(texts[shape])))
        if options.budget:
            seconds = min(seconds, (end - time.perf_counter()) / (len(shapes) - i))
            costs = {n: tokens / rates[n] * len(ways(shape, texts[shape])) if n in rates else 0.0
                     for n in here}  # fmt: skip
            kept = affordable(costs, seconds) if seconds > 0 else set()
            rows.update({n: {"left_out": f"no time: about {costs[n]:.1f} s a run"}
                         for n in here if n not in kept})  # fmt: skip
            here = {n: r for n, r in here.items() if n in kept}
        found = measure(here, shape, texts[shape], want, seconds)
        rates |= {n: row["tokens_per_s"] for n, row in found.items() if "tokens_per_s" in row}
        rows.update(found)
        path.write_text(json.dumps(table, indent=1))
        print(ratio_line(options.variant, shape, rows), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
