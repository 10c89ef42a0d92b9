#!/bin/bash
# Builds the engine with a sanitizer into build/<kind> and runs the engine's tests on it.
#
#   tests/native/sanitize.sh address|undefined|thread [pytest arguments]
#
# First the C++ drivers beside this file, wholly instrumented and with leaks reported; then Python, with
# the runtime preloaded, by default on tests/engine/test_native_*.py but those that build the drivers.
# Leaks are not looked for in Python, which keeps what it likes. gcc; PYTHON names the interpreter. Ends
# with 0 when nothing was reported.
set -eu
kind=${1:?address, undefined or thread}; shift
root=$(cd "$(dirname "$0")/../.." && pwd)
place=$root/build/$kind
python=${PYTHON:-python3}
case $kind in
  address) runtime=libasan.so ;;
  undefined) runtime=libubsan.so ;;
  thread) runtime=libtsan.so ;;
  *) echo "unknown sanitizer: $kind" >&2; exit 2 ;;
esac
flags="-fsanitize=$kind -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"

mkdir -p "$place"
rm -rf "$place"/{csrc,tests,report*}
cp -pr "$root"/{setup.py,pyproject.toml,README.md,MODEL.md,csrc,tests,refimpl} "$place"
cd "$place"
sed -i 's/"-Wl,-s"//; s/"-O[3s]"/"-O1"/; s/, "-g0"//' setup.py  # reports name functions and lines

export UBSAN_OPTIONS=print_stacktrace=1:log_path=$place/report ASAN_OPTIONS=log_path=$place/report
export TSAN_OPTIONS=log_path=$place/report:die_after_fork=0
# What the runtimes of gcc 12 do not bear. address: their own allocator's locks in the child of a fork while
# other threads allocate. thread: a thread born in the child of a process with several; addresses as random as
# kernels make them. The driver of the pool forks in each of these states, within what they bear.
in_order=() chosen=()
[ "$kind" != thread ] || in_order=(setarch -R)
[ "$kind" = undefined ] || chosen=(-k "not fork_while")

CXX=g++ CC=gcc CFLAGS="$flags" CXXFLAGS="$flags" LDFLAGS="-fsanitize=$kind" REFIMPL_REQUIRE_NATIVE=1 \
  "$python" setup.py -q build_ext --inplace --build-temp objects

# The drivers with the objects of that; again only when something has changed since they passed.
if [ ! -e drivers_passed ] || [ -n "$(find csrc tests/native -newer drivers_passed)" ]; then
  for driver in tests/native/*.cpp; do
    g++ -std=c++17 $flags -Icsrc -o driver "$driver" \
      $(find objects -name '*.o' ! -name 'bindings*.o') -pthread
    "${in_order[@]}" ./driver
  done
  touch drivers_passed
fi

status=0
[ $# -gt 0 ] || set -- $(grep -L COMPILER tests/engine/test_native_*.py)  # those that build a driver: done above
export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 REFIMPL_REQUIRE_NATIVE=1 PYTHONPATH=$place
LD_PRELOAD="$(gcc -print-file-name=$runtime) $(gcc -print-file-name=libstdc++.so)" \
  "${in_order[@]}" "$python" -m pytest -q -m "not oracle and not soak" -p no:cacheprovider "${chosen[@]}" "$@" || status=$?
if compgen -G "$place/report*" >/dev/null; then cat "$place"/report*; status=1; fi
exit $status
