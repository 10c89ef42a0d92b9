"""What `import refimpl` costs beyond `import numpy`, in fresh processes. Exits 1 above 20 ms.

Also printed: what it costs to import every public name, which are otherwise imported when first
used. Timed inside each process, after numpy.
"""

import statistics
import subprocess
import sys

LARGEST_MS = 20.0
RUNS = 15

TIME = "import time, numpy; t = time.perf_counter(); {}; print(1e3 * (time.perf_counter() - t))"
STATEMENTS = {
    "import refimpl": "import refimpl",
    "every public name": "import refimpl; [getattr(refimpl, n) for n in refimpl.__all__]",
}


def milliseconds(statement: str) -> float:
    command = [sys.executable, "-c", TIME.format(statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


medians = {
    name: statistics.median(milliseconds(statement) for _ in range(RUNS))
    for name, statement in STATEMENTS.items()
}
for name, median in medians.items():
    print(f"{name}: numpy + {median:.1f} ms (median of {RUNS} fresh processes)")
if medians["import refimpl"] > LARGEST_MS:
    sys.exit(f"import refimpl may take at most {LARGEST_MS:.0f} ms more than numpy")
