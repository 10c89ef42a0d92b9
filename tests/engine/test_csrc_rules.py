"""The dependency rule of csrc/, read from its includes, and what keeps wide code in its place."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
if not CSRC.exists():
    pytest.skip("no sources of the engine here", allow_module_level=True)

# Bottom first; tiers are below the engine, which sees their tables only. cuda is a library of its
# own, above what it shares with the other.
ENGINE = ["base", "simd", "kernels", "tiers", "files", "text", "engine", "training"]
C_INTERFACE = [
    "modernbert.h",
    "modernbert_ops.h",
    "modernbert_text.h",
    "modernbert_training.h",
]  # all that Python sees of it
LAYERS = [*ENGINE, *C_INTERFACE, "abi", "modernbert_cuda.h", "cuda"]
FILES = sorted(p for p in CSRC.rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".inl", ".inc"))
TIERS = [p.stem for p in FILES if p.parent.name == "tiers" and p.stem != "table"]
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CSRC)))


def layer(path):
    return path.relative_to(CSRC).parts[0]


def own_includes(text):
    return re.findall(r'#include "([^"]+)"', text)


def breaches(where, text):
    if where.startswith("bindings"):
        return [name for name in own_includes(text) if name not in (*C_INTERFACE, "bindings.h")]
    rank = LAYERS.index(where)
    return [name for name in own_includes(text) if LAYERS.index(name.split("/")[0]) > rank]


@every_file
def test_includes_lower_layers_only_and_by_full_path(path):
    text = path.read_text(encoding="utf-8")
    assert breaches(layer(path), text) == []
    assert all((CSRC / name).exists() for name in own_includes(text))


def test_a_breach_is_seen():
    text = '#include "base/cpu.h"\n#include "engine/engine.h"'
    assert breaches("simd", text) == ["engine/engine.h"]
    assert breaches("bindings.cpp", text) == ["base/cpu.h", "engine/engine.h"]


@every_file
def test_file_opens_with_its_purpose(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    its_header = path.with_suffix(".h")
    assert first.startswith(("// ", "/* ")) or (path.suffix == ".cpp" and its_header.exists())


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".inl"], ids=lambda p: p.name)
def test_algorithms_use_no_header_and_no_library(path):
    """A weak std:: symbol compiled for a wide tier could be linked into the plain path."""
    code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    types = r"std::(size_t|ptrdiff_t|u?int(8|16|32|64)_t)\b"
    assert "#include" not in code and "std::" not in re.sub(types, "", code)


@pytest.mark.parametrize("tier", TIERS)
def test_tier_is_listed_and_includes_every_header_before_its_region(tier):
    assert f"REFIMPL_TIER({tier})" in (CSRC / "base" / "tiers.inc").read_text(encoding="utf-8")
    text = (CSRC / "tiers" / f"{tier}.cpp").read_text(encoding="utf-8")
    if tier == "scalar":  # no wider than the ABI
        assert "REFIMPL_TARGET_BEGIN" not in text
        return
    region = text[text.index("REFIMPL_TARGET_BEGIN") : text.index("REFIMPL_TARGET_END")]
    assert "#include <" not in region and '#include "kernels/kernels.h"' not in region
    assert "immintrin.h" not in region


def test_build_is_for_the_plainest_processor_and_exact():
    flags = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert "-march" not in flags and "-mtune" not in flags and "fast-math" not in flags
    assert "-ffp-contract=off" in flags
