#!/bin/bash
# Fuzzes the reading of model folders (files), packed weights (pack), tokenizers (text), the arguments of the C
# interface (arguments) or calls of its training (training) with clang's libFuzzer under AddressSanitizer and UBSan, on one core.
#
#   tests/native/fuzz/run.sh files|pack|text|arguments|training [seconds]
#
# CXX names the compiler, clang++ by default. Objects, corpus (seeds are made here) and what crashed
# stand in build/fuzz. Ends with 0 when nothing was found; a second run goes on from the first's corpus.
set -eu
target=${1:?files, pack, text, arguments or training}; seconds=${2:-60}
root=$(cd "$(dirname "$0")/../../.." && pwd)
place=$root/build/fuzz
cxx=${CXX:-clang++}
[ -e "$root/tests/native/fuzz/$target.cpp" ] || { echo "$target is none of files, pack, text, arguments, training" >&2; exit 2; }
flags="-std=c++17 -ffp-contract=off -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
mkdir -p "$place/objects" "$place/$target"
cd "$root"
newest=$(find csrc \( -name '*.h' -o -name '*.inl' -o -name '*.inc' \) -printf '%T@ %p\n' | sort -n | tail -1)
newest=${newest#* }  # what is included: everything is built anew when it changes
find csrc -mindepth 2 -name '*.cpp' | while read -r file; do
  object=$place/objects/$(tr / - <<<"$file").o
  [ "$object" -nt "$file" ] && [ "$object" -nt "$newest" ] || echo "-c $file -o $object"
done | xargs -r -P "$(nproc)" -L 1 "$cxx" $flags -fsanitize=fuzzer-no-link -Icsrc
"$cxx" $flags -fsanitize=fuzzer -Icsrc -Itests/native "tests/native/fuzz/$target.cpp" "$place"/objects/*.o \
  -pthread -o "$place/$target.bin"

# Seeds: the right config, header, file, index, a json text and modules, each behind its kind; some bytes.
if [ "$target" = files ]; then
  tiny=refimpl/bundled/tiny
  for n in 0 3 4; do { printf "\\$n"; cat $tiny/config.json; } >"$place/$target/config$n"; done
  { printf '\3{"weight_map":{"final_norm.weight":"a.safetensors"}}'; } >"$place/$target/index"
  { printf '\5[{"type":"sentence_transformers.models.Transformer","path":"","kwargs":[]},{"type":"sentence_transformers.models.Pooling","path":"1"}]'; } >"$place/$target/modules"
  { printf '\6{"in_features":2,"out_features":1,"bias":false,"activation_function":"torch.nn.GELU"}'; } >"$place/$target/dense"
  { printf '\1'; head -c 9000 $tiny/model.safetensors | tail -c +9 | head -c 3000; } >"$place/$target/header"
  printf '\4{"a":[1,-2.5e3,"\\u00e9\\ud83d\\ude00",null,true,{}]}' >"$place/$target/json"
elif [ "$target" = pack ]; then
  printf '\0\0\20\1\1x' >"$place/$target/byte"
  printf '\0\0\0\1\1\377\20\0\1\0' >"$place/$target/length"
  printf '\1\20\0\0\0\0\0\0\0{"__metadata__":{}}' >"$place/$target/file"
elif [ "$target" = text ]; then
  printf '\0\1the [MASK] of  it, e\314\201\n' >"$place/$target/nfc"
  printf '\1\0the the  \342\226\201 ab\n\n' >"$place/$target/characters"
  printf '\2{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}' >"$place/$target/file"
else
  for n in 1 2 3 4; do head -c 600 /dev/zero | tr '\0' "\\$n$n" >"$place/$target/seed$n"; done
fi
cat >"$place/words" <<'WORDS'
"\"dtype\""
"\"shape\""
"\"data_offsets\""
"\"F32\""
"\"BF16\""
"\"F64\""
"\"__metadata__\""
"\"modernbert_pack\""
"\"layout\""
"\"U8\""
"source.0.facts"
"\"hidden_size\""
"\"layer_types\""
"\"full_attention\""
"\"sliding_attention\""
"\"rope_parameters\""
"\"rope_theta\""
"\"type_vocab_size\""
"\"num_hidden_layers\""
"\"weight_map\""
"9223372036854775807"
"\\ud800"
WORDS
export ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
exec "$place/$target.bin" -max_total_time="$seconds" -dict="$place/words" -rss_limit_mb=2048 -timeout=20 \
  -max_len=8192 -print_final_stats=1 -artifact_prefix="$place/$target-" "$place/$target"
