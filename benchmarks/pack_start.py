"""From the start of a process to its first vector, and what several such processes take of memory.

    python benchmarks/pack_start.py FOLDER [--dtypes float32,bfloat16] [--rounds 9] [--save FILE]

FOLDER is copied by links, packed, and read once, so that all is in the page cache. A process opens
it with its tokenizer and embeds one text, in Python and in C, with the pack and without. Wall-clock
seconds are the quickest of the rounds, from before the process starts; CPU seconds are its own.
Memory is Pss of one process, and the sum of four that stand at the same time: a page that n
processes share counts 1/n in each. On disk: the library and all files of the folder. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import save

from refimpl.backends.backend import library, library_header
from refimpl.backends.pack import make_pack

HERE = Path(__file__).parent
PYTHON = """
import sys, time
from refimpl import SentenceEncoder
import warnings
warnings.simplefilter("ignore")
encoder = SentenceEncoder(sys.argv[1], backend="native", dtype=sys.argv[2])
encoder.encode("for i in range(10):")
packed = "packed" if encoder.model.engine.pack else "in_memory"
print(packed, time.process_time(), flush=True)
sys.stdin.read()
"""
PROCESSES, MIB = 4, 2**20


class Process:
    """One that has made its first vector: `wall`, `cpu` seconds; ended with the block."""

    def __init__(self, command: list[str], use: str) -> None:
        begin = time.perf_counter()
        pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.child = subprocess.Popen(command, env=os.environ | {"REFIMPL_PACK": use}, **pipes)
        assert self.child.stdout is not None
        said = self.child.stdout.readline().split()
        self.wall = time.perf_counter() - begin
        self.packed, self.cpu = said[0] == "packed", float(said[1])

    def pss(self) -> float:
        rollup = Path(f"/proc/{self.child.pid}/smaps_rollup").read_text()
        found = re.search(r"(?m)^Pss: +(\d+) kB", rollup)
        assert found
        return int(found[1]) * 1024 / MIB

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.communicate()


def measured(command: list[str], use: str, rounds: int) -> dict[str, Any]:
    runs = []
    for _ in range(rounds):
        with Process(command, use) as one:
            runs.append((one.wall, one.cpu, one.pss(), one.packed))
    together = [Process(command, use) for _ in range(PROCESSES)]
    memory = sum(one.pss() for one in together)
    for one in together:
        one.__exit__()
    alone = min(pss for _, _, pss, _ in runs)
    return {
        "wall_ms": 1e3 * min(wall for wall, *_ in runs),
        "cpu_ms": 1e3 * min(cpu for _, cpu, *_ in runs),
        "pss_mib": alone,
        f"pss_of_{PROCESSES}_mib": memory,
        "ratio": memory / alone,
        "packed": all(packed for *_, packed in runs),
    }


def linked(folder: Path, to: Path) -> Path:
    """The folder by links, to be packed where the packs of another are not its own."""
    to.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        if (folder / name).exists():
            (to / name).symlink_to((folder / name).resolve())
    return to


def program(place: Path) -> str:
    """pack_start.c, built."""
    out, where = place / "pack_start", library().parent
    flags = [f"-I{library_header().parent}", f"-L{where}", f"-Wl,-rpath,{where}"]
    source = str(HERE / "pack_start.c")
    subprocess.run(["cc", "-O2", source, *flags, "-lmodernbert", "-o", str(out)], check=True)
    return str(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", type=Path, help="write the last line to this file as well")
    args = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder.resolve().parent) as place:
        folder, c = linked(args.folder, Path(place) / "model"), program(Path(place))
        for dtype in args.dtypes.split(","):
            pack = make_pack(folder, dtype)
            for name, command in (
                ("Python", [sys.executable, "-c", PYTHON, str(folder), dtype]),
                ("C", [c, str(folder), dtype]),
            ):
                rows[f"{name}, {dtype}, packed"] = measured(command, "take", args.rounds)
            files = [library(), *folder.iterdir()]
            disk = sum(f.stat().st_size for f in files if f.suffix != ".pack" or f == pack) / MIB
            pack.rename(pack.with_suffix(".aside"))
            rows[f"C, {dtype}, in memory"] = measured([c, str(folder), dtype], "take", 2)
            rows[f"C, {dtype}, packed"]["disk_mib"] = disk
            pack.with_suffix(".aside").unlink()
    for name, row in rows.items():
        told = ", ".join(f"{k} {v:,.2f}" for k, v in row.items() if not isinstance(v, bool))
        print(f"{name:28} {told}", flush=True)
    save("start to the first vector, and memory", rows, args.save)


if __name__ == "__main__":
    main()
