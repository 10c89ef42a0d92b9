#!/bin/bash
# Runs the engine on processors that this machine is not, in qemu's user mode:
#
#   tests/native/emulated.sh [rounds]
#
#   AArch64       kernels.cpp over every kernel of the neon tier
#   plain x86-64  kernels.cpp: the wide tiers are told to be missing, none of their instructions is met
#   Nehalem       Python with the extension: the least that numpy's wheels run on
#
# Needs qemu-user-static and g++-aarch64-linux-gnu (Debian's names), g++, and a Python (PYTHON) with pytest
# and refimpl: installed, or built in place and PYTHONPATH set. What follows the first part is for x86-64
# machines. Ends with 0 when all passed.
set -euo pipefail
rounds=${1:-1}
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

driver() { # compiler, program
    mkdir "$2.objects"
    { find csrc/{base,tiers,engine} -name '*.cpp'; echo tests/native/kernels.cpp; } | while read -r file; do
        echo "$file -o $2.objects/$(tr / - <<<"$file").o"
    done | xargs -P "$(nproc)" -L 1 "$1" -std=c++17 -O1 -ffp-contract=off -Icsrc -c
    "$1" -static -o "$2" "$2".objects/*.o -pthread
}

echo "== AArch64"
driver aarch64-linux-gnu-g++ "$place/aarch64"
qemu-aarch64-static "$place/aarch64" --tier neon --rounds "$rounds"

[ "$(uname -m)" = x86_64 ] || exit 0
echo "== plain x86-64"
driver g++ "$place/x86_64"
qemu-x86_64-static -cpu qemu64 "$place/x86_64" --rounds "$rounds" | tee "$place/plain"
grep -q "^avx2 .*not here" "$place/plain"

echo "== Nehalem"
nehalem=(qemu-x86_64-static -cpu Nehalem "$(command -v "$python")")
export OMP_NUM_THREADS=1 PYTHONSAFEPATH=1  # not the checkout, unless it was asked for
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE  # where they are set, they name the real processor's kernels
"${nehalem[@]}" -c '
import refimpl
from refimpl.backends import backend

engine = backend.native()
assert engine is not None and engine.tiers() == ["scalar"], (engine, engine and engine.missing_tiers())
answer = refimpl.pipeline("fill-mask")("for i in [MASK](10):")[0]["token_str"]
assert answer.strip() == "range", answer
print("tiers", *engine.tiers(), "and the answer", answer.strip())
'
"${nehalem[@]}" -m pytest -q -p no:cacheprovider tests/backends/test_backend_choice.py tests/tasks/test_fill_mask_results.py
