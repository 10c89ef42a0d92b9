#!/bin/bash
# The table of the amx tier in one call of at most 15 minutes: engine and peers on the same weights and inputs,
# base, then large, on two threads; the ratios last.
#
#   benchmarks/amx_table.sh CACHE [SECONDS]         # SECONDS: 900 at most, by default 900
#   VARIANTS=tiny SHAPES=1x16,1x64 benchmarks/amx_table.sh CACHE 60       # the same in small, to try it
#
# CACHE is peers.py's folder: random weights, ONNX files and float64 truths that are there already save their time.
# Base gets two thirds of the time, the cells that matter most first; each result is in CACHE as soon as it is there,
# and a run that is still going at the end is stopped. The table says what was left out. On a processor without
# AMX the best tier that it has runs instead, and the first line says so.
# Needs refimpl with its engine, torch, transformers, onnx, onnxscript, onnxruntime and openvino; PYTHON names the
# interpreter.
set -euo pipefail
cache=${1:?the folder for weights, exports, truths and results}
limit=${2:-900}
[ "$limit" -le 900 ] || { echo "amx_table: $limit seconds; 900 at most" >&2; exit 2; }
read -ra variants <<<"${VARIANTS:-base large}"
shapes=${SHAPES:-1x128,8x128,1x512,1x16,mixed,1x2048,1x8192}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
peers=("$python" "$here/peers.py" "$cache" --threads 2 --shapes "$shapes")
export PYTHONWARNINGS=ignore  # those of exporting
printing=20  # seconds that are kept for the tables
end=$((SECONDS + limit - printing))

"$python" -c '
from refimpl.backends.backend import native
tiers = native().tiers()
print(f"tier {tiers[0]}: {chr(44).join(native().dtypes(tiers[0]))}" + ("" if tiers[0] == "amx" else ", a rehearsal: no AMX here"))
'
for i in "${!variants[@]}"; do
    left=$((end - SECONDS)) rest=$((${#variants[@]} - i))
    [ "$rest" -eq 1 ] || left=$((left * 2 / 3))
    [ "$left" -gt 0 ] || continue
    # `timeout` ends what --budget cannot: an export, or one run that takes too long.
    timeout -k 5 "$left" "${peers[@]}" --variant "${variants[i]}" --fresh --budget $((left * 9 / 10)) --seconds 120 \
        --only "refimpl,torch,openvino,onnxruntime float32" >/dev/null ||
        echo "amx_table: ${variants[i]} was stopped, or failed ($?)" >&2
done
for variant in "${variants[@]}"; do
    echo "== $variant"
    if [ -e "$cache/$variant/results-2.json" ]; then
        "${peers[@]}" --variant "$variant" --no-run --save "$cache/amx_table-$variant.json"
    else
        echo "ratio $variant: nothing was measured"
    fi
done >"$cache/amx_table.txt"
grep -v -e '^ratio ' -e '^{' "$cache/amx_table.txt"
grep '^ratio ' "$cache/amx_table.txt"
