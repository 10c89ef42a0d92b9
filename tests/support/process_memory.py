"""What this process holds in memory, as Linux tells it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

in_linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")


def anonymous() -> int:
    """Bytes of this process's anonymous memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1))


def resident(file: Path) -> int:
    """Bytes of a file's mappings that are in this process's memory."""
    entries = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    mine = [e for e in entries if e.splitlines() and e.splitlines()[0].endswith(f" {file}")]
    assert mine, "the file is not mapped"
    return sum(1024 * int(re.search(r"(?m)^Rss: +(\d+) kB", e).group(1)) for e in mine)
