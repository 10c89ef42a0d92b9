"""Measuring: interleaved runs, median and spread, an error column, machine facts, JSON last.

A figure is the median of runs that alternate with those of its rivals, so that a slow minute of the
machine hits all of them; the spread is the interquartile range over the median. Speed is printed
beside the error of the same result. Does not decide what is fast enough: that is the caller's.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def interleaved(
    functions: Mapping[Any, Callable[[], Any]], *, rounds: int, warmup: int = 1, pause: float = 0.0
) -> dict[Any, list[float]]:
    """Seconds of each run of each function: `rounds` rounds, each running every function once.

    The order turns by one from round to round, so that no function always follows the same rival.
    `pause` seconds before each run let the threads of the last one go to sleep.
    """
    names = list(functions)
    seconds: dict[Any, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(pause)
            start = time.perf_counter()
            functions[name]()
            elapsed = time.perf_counter() - start
            if turn >= 0:
                seconds[name].append(elapsed)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, minimum (seconds) and spread: interquartile range / median (0 for a single run)."""
    median = statistics.median(seconds)
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [median] * 3
    return {
        "median_s": median,
        "min_s": min(seconds),
        "spread": (quartiles[2] - quartiles[0]) / median,
        "runs": len(seconds),
    }


def relative_error(got: np.ndarray, truth: np.ndarray) -> float:
    """||got - truth||_2 / ||truth||_2, computed in float64."""
    truth = truth.astype(np.float64)
    return float(np.linalg.norm(got.astype(np.float64) - truth) / np.linalg.norm(truth))


def peak_rss() -> int:
    """Largest resident size that this process has had, in bytes."""
    if Path("/proc/self/status").exists():  # Linux's ru_maxrss begins with the parent's
        return int(status()["VmHWM"] * 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def status() -> dict[str, float]:
    """VmHWM, VmRSS, RssAnon and so on of this process, MiB."""
    text = Path("/proc/self/status").read_text()
    return {name: int(kb) / 1024 for name, kb in re.findall(r"(\w+):\s*(\d+) kB", text)}


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_name(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name', '?')} {blas.get('version', '?')}",
        "threads": {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def save(question: str, rows: Mapping[str, Any], place: Path | None) -> None:
    """Print the rows with date and machine as one line of JSON, and write them to `place`."""
    date, here = time.strftime("%Y-%m-%d"), machine()
    found = {"question": question, "date": date, "rows": rows, "machine": here}
    if place:
        place.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def report(question: str, rows: Mapping[str, Mapping[str, Any]], **facts: Any) -> None:
    """Print one line per row and per fact, and everything as one line of JSON at the end.

    A row holds what `summary` gives and, where there is a truth, `error`.
    """
    here = machine()
    print(f"# {question}")
    print(f"# {here['cpu']}, {here['cores']} cores, load {here['load_1min']}, "
          f"Python {here['python']}, numpy {here['numpy']}, {here['blas']}")  # fmt: skip
    print(f"{'':28} {'median':>12} {'spread':>8} {'runs':>5} {'error':>9}")
    for name, row in rows.items():
        error = f"{row['error']:9.1e}" if "error" in row else f"{'-':>9}"
        median = f"{row['median_s'] * 1e3:9.2f} ms"
        print(f"{name:28} {median:>12} {row['spread']:8.1%} {row['runs']:5} {error}")
    for name, value in facts.items():
        print(f"{name:28} {value:12.2f}" if isinstance(value, float) else f"{name:28} {value}")
    print(json.dumps({"question": question, "rows": rows, "facts": facts, "machine": here}))
