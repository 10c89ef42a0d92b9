"""`import refimpl` loads numpy and the standard library, nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ["tokenizers", "scipy", "huggingface_hub", "safetensors", "torch", "transformers", "cffi"]

LIST_NEW = """
import sys
import numpy
before = set(sys.modules)
import {module}
print(*sorted({{name.split(".")[0] for name in set(sys.modules) - before}}))
"""


def newly_imported(module: str) -> set[str]:
    """Top-level modules that `import module` loads in a fresh process that already has numpy."""
    out = subprocess.run(
        [sys.executable, "-c", LIST_NEW.format(module=module)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return set(out.split())


def test_import_needs_numpy_alone():
    new = newly_imported("refimpl")
    assert "refimpl" in new
    assert new - {"refimpl", "numpy"} <= set(sys.stdlib_module_names)


def test_import_leaves_the_extras_alone():
    assert newly_imported("refimpl").isdisjoint(HEAVY)


def test_command_imports_no_extra_before_it_is_needed():
    assert newly_imported("refimpl.cli").isdisjoint(HEAVY)


def test_an_import_is_seen():
    assert "json" in newly_imported("json.tool")
    assert "scipy" in newly_imported("scipy")
