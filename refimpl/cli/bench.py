"""`modernbert bench`: how fast a model's encoder is on this machine, how large, and how exact.

Every shape is a packed batch of random ids, run over and over for some seconds after one run that
does not count. tokens/s is that of the median run. error: relative L2 distance of the last hidden
state from the numpy reference in float64 with the parameters as stored, on the first tokens of the
shape's longest sequence (ERROR_TOKENS at most, or float64 would take longer than all the rest).
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_format, add_model, model_options, seconds
from .records import Record, Writer

if TYPE_CHECKING:
    import numpy as np

    from ..models.model import ModernBERT

HELP = "measure tokens per second, latency, memory and error on this machine"
EXAMPLE = "modernbert bench --model FOLDER --dtype bfloat16 --shapes 1x16,8x128,mixed"

COLUMNS = (
    *("shape", "tokens/s", "p50 ms", "p90 ms", "p99 ms", "runs", "RSS MiB", "error"),
    *("backend", "tier", "dtype", "threads"),
)
MIXED = (8, 200, 32)  # least and most tokens of a text, texts
ERROR_TOKENS = 128
SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shapes",
        type=shapes,
        default="1x16,1x128,8x128,mixed",
        metavar="LIST",
        help="texts x tokens, or mixed: 32 texts of 8 to 200 tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=2.0,
        metavar="S",
        help="how long each shape is run, but at least once (default: %(default)g)",
    )
    add_model(parser)
    add_format(parser)
    parser.add_argument(
        "--json", dest="format", action="store_const", const="jsonl", help="--format jsonl"
    )


def shapes(text: str) -> dict[str, list[int]]:
    """An argparse type: name -> tokens of each text."""
    import numpy as np

    found = {}
    for name in text.split(","):
        if name in found:
            raise argparse.ArgumentTypeError(f"{name!r} is named twice")
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", name)
        if name == "mixed":
            least, most, texts = MIXED
            drawn = np.random.default_rng(SEED).integers(least, most + 1, texts)
            found[name] = [int(n) for n in drawn]
        elif match:
            try:
                found[name] = [int(match[2])] * int(match[1])
            except (OverflowError, MemoryError):
                raise argparse.ArgumentTypeError(f"{name!r} is larger than any memory") from None
        else:
            raise argparse.ArgumentTypeError(f"{name!r} is neither TEXTSxTOKENS nor mixed")
    return found


def run(args: argparse.Namespace) -> int:
    from ..models.task_model import ModernBERTForTask
    from ..progress import progress
    from ..tasks.task import open_model

    model = open_model(**model_options(args))
    encoder = model.encoder if isinstance(model, ModernBERTForTask) else model
    records: list[Record] = []
    try:
        # The truth comes last: what it allocates is no part of a model's size.
        for name, lengths in progress(args.shapes.items(), "bench"):
            records.append({"shape": name, **measured(encoder, lengths, args.seconds)})
        errors: dict[int, float] = {}
        measured_shapes = list(zip(records, args.shapes.values(), strict=True))
        for record, lengths in progress(measured_shapes, "bench: error"):
            tokens = min(max(lengths), ERROR_TOKENS)
            if tokens not in errors:
                errors[tokens] = error(encoder, tokens)
            record |= {"error": errors[tokens], "error_tokens": tokens}
    finally:  # Ctrl-C: what there is
        Writer(args, COLUMNS, rows).write(records)
    return 0


def measured(model: ModernBERT, lengths: list[int], seconds: float) -> Record:
    """Speed, latency and size on one shape."""
    import numpy as np

    cu_seqlens = np.cumsum([0, *lengths])
    total = int(cu_seqlens[-1])
    ids = some_ids(model, total)
    model.encode_packed(ids, cu_seqlens)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        model.encode_packed(ids, cu_seqlens)
        taken.append(time.perf_counter() - start)
    p50, p90, p99 = (float(x) for x in np.quantile(taken, [0.5, 0.9, 0.99]))
    engine = model.engine
    return {
        "texts": len(lengths),
        "tokens": total,
        "tokens_per_s": total / p50,
        "p50_ms": 1e3 * p50,
        "p90_ms": 1e3 * p90,
        "p99_ms": 1e3 * p99,
        "runs": len(taken),
        "rss_mib": resident_mib(),
        "device_mib": device_mib(model, total, len(lengths)),
        "error": None,
        "backend": model.backend,
        "tier": engine and engine.tier,
        "dtype": model.compute_dtype,
        "threads": None if engine is None or on_device(model) else engine.num_threads,
    }


def on_device(model: ModernBERT) -> bool:
    return model.backend.startswith("cuda")


def device_mib(model: ModernBERT, total: int, texts: int) -> float | None:
    """Memory of the device that weights and such a pass take; None on this processor."""
    if not on_device(model) or model.engine is None:
        return None
    opened = model.engine.opened
    return (opened.facts.weight_bytes + opened.workspace_bytes(total, texts)) / 2**20


def error(model: ModernBERT, tokens: int) -> float:
    """|y - truth| / |truth| of the last hidden state of one sequence."""
    import numpy as np

    from ..files.stored import StoredParams, widened
    from ..reference.encoder import encode

    ids, stored = some_ids(model, tokens), model.params.stored
    params = StoredParams(stored, np.float64, unkept=stored)
    embeds = widened(stored["embeddings.tok_embeddings.weight"][ids], np.float64)
    truth = encode(params, model.config, inputs_embeds=embeds[None])[0]
    got = model.encode_packed(ids, [0, tokens])
    return float(np.linalg.norm(got - truth) / np.linalg.norm(truth))


def some_ids(model: ModernBERT, total: int) -> np.ndarray:
    """Random ids [total], the same ones whenever as many are asked for."""
    import numpy as np

    return np.random.default_rng(SEED).integers(0, model.config.vocab_size, total)


def resident_mib() -> float | None:
    """Memory of this process that is in RAM, mapped files included; None where nobody tells."""
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    def shown(value: Any, form: str) -> str:
        return "-" if value is None else format(value, form)

    yield (
        record["shape"],
        f"{record['tokens_per_s']:.0f}",
        *(f"{record[name]:.2f}" for name in ("p50_ms", "p90_ms", "p99_ms")),
        record["runs"],
        shown(record["rss_mib"], ".0f"),
        shown(record["error"], ".1e"),
        record["backend"],
        shown(record["tier"], ""),
        record["dtype"],
        shown(record["threads"], ""),
    )
