#!/bin/bash
# Kernels, a pass by them, and the whole device engine on this processor, under AddressSanitizer and UBSan.
#
#   tests/cuda/sanitize.sh [pytest arguments]
#
# First the C++ drivers beside this file, with leaks reported; then Python with the runtimes preloaded, by
# default on every test of the engine that is not soak. Nothing is suppressed. g++; PYTHON names the
# interpreter. Ends with 0 when nothing was reported.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
place=$root/build/cuda-sanitized
python=${PYTHON:-python3}
flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
mkdir -p "$place"
cd "$root"

engine=(csrc/engine/{engine,forward,trace}.cpp csrc/base/{pool,cpus,row_source}.cpp)
for driver in kernels pass; do
  sources=(csrc/base/tensor.cpp)
  [ $driver = kernels ] || sources+=("${engine[@]}")
  g++ -std=c++17 -O1 -ffp-contract=off $flags -Icsrc -o "$place/$driver" "tests/cuda/$driver.cpp" "${sources[@]}" -pthread
  "$place/$driver" --rounds 2
done

export CXX=g++ REFIMPL_CUDA_TEST_FLAGS="-O1 $flags" PYTHONPATH=$root:$root/tests
"$python" -c "from support.cuda import library; print(library())"
[ $# -gt 0 ] || set -- tests/cuda/test_cuda_{engine,heads,graphs,arrays}.py
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
  LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so)" \
  "$python" -m pytest -q -m "heavy and not soak" -p no:cacheprovider "$@"
