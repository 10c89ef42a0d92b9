"""A command that makes a folder of parts, killed at random moments and started again."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

from support.children import PROGRAM, SECONDS


def digests(out: Path | str) -> dict[str, str]:
    """Name -> sha256 of every part; nothing else is there but job.json and manifests."""
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(out).iterdir()}
    others = [name for name in found if not name.endswith((".parquet", ".arrow"))]
    assert all(n == "job.json" or n.startswith("manifest") for n in others), others
    return {name: found[name] for name in found if name not in others}


def started(arguments: list[str], out: Path) -> subprocess.Popen[bytes]:
    """`modernbert` with these arguments, resuming a job in a session of its own."""
    command = [*PROGRAM, *arguments, "--out", str(out), "--resume", "--threads", "1"]
    with open(f"{out}.stderr", "w") as stream:
        return subprocess.Popen(command, stderr=stream, start_new_session=True)


def killed_and_resumed(
    arguments: list[str], wanted: dict[str, str], root: Path, kills: int, most: int = 5
) -> tuple[int, int]:
    """SIGKILL to the process group so many times: behind up to `most` parts of its own, and while
    it starts. A run that ends before its kill starts the job anew. In the end every job has the
    wanted parts. Returns the jobs that were done, and the kills behind a part of their run."""
    rng = random.Random(kills)
    finished = killed = on_their_way = 0

    def parts(folder: Path) -> list[Path]:
        return list(folder.glob("[0-9]*.parquet"))

    def told(folder: Path) -> str:
        return Path(f"{folder}.stderr").read_text()

    while killed < kills:
        out = root / f"{finished}"
        process = started(arguments, out)
        there = len(parts(out))
        more, end = rng.randrange(most), time.monotonic() + SECONDS
        while process.poll() is None and len(parts(out)) < there + more:
            assert time.monotonic() < end, told(out)
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
            on_their_way += len(parts(out)) > there
        assert process.wait() in (0, 3, -signal.SIGKILL), told(out)
        found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in parts(out)}
        assert found.items() <= wanted.items()
        finished += process.returncode in (0, 3)
    last = root / f"{finished}"
    assert started(arguments, last).wait() in (0, 3), told(last)
    for i in range(finished + 1):
        assert digests(root / f"{i}") == wanted
    return finished + 1, on_their_way
