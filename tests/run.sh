#!/usr/bin/env bash
# Runs the parts of the tests that are named and adds up their closing lines.
#   tests/run.sh BUILD PART...      the parts: see the end
# Each part ends in "N passed, N failed, N skipped"; so does the whole, after a line of how long each
# took. Exit 1: something failed.
set -u
build=$1
shift
passed=0 failed=0 skipped=0 took=

part() { # name, command...
  local name=$1 log last begin=$SECONDS
  shift
  log=$(mktemp)
  echo "== $name"
  "$@" 2>&1 | tee "$log"
  local status=${PIPESTATUS[0]}
  last=$(tail -n 1 "$log")
  rm -f "$log"
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    skipped=$((skipped + BASH_REMATCH[3]))
    [ "$status" = 0 ] || [ "${BASH_REMATCH[2]}" != 0 ] || failed=$((failed + 1))
  else
    echo "$name ended without its count (status $status)"
    failed=$((failed + 1))
  fi
  took+=", $name $((SECONDS - begin))"
}

skipped() { # what, why
  echo "skipped: $1: $2"
  echo "0 passed, 0 failed, 1 skipped"
}

# Parts on a build of their own, which is made first.
elsewhere() { # suffix of the build, target that makes it, parts...
  if make -j"$(nproc)" "$2"; then
    "$0" "$build$1" "${@:3}"
  else
    echo "$2 failed"
    echo "0 passed, 1 failed, 0 skipped"
  fi
}

# The lines that the tests reach, counted on a build that counts them.
coverage() {
  local log
  command -v gcovr >/dev/null || { skipped coverage 'no gcovr here'; return; }
  log=$(mktemp)
  elsewhere -coverage coverage-build check fuzz cli tuner faults | tee "$log"
  tests/coverage.sh "$build-coverage" || echo 'FAIL coverage: no report' >>"$log"
  tail -n 1 "$log"
  rm "$log"
}

soak() {
  if [ -x "$build/soak" ]; then
    "$build/soak" "${SOAK:-600}"
  else
    skipped soak "$build/soak was not built: no jansson"
  fi
}

# The whole tree under the other compiler, warnings being errors.
clang_build() {
  if ! command -v clang >/dev/null; then
    skipped 'build with clang' 'no clang here'
  elif make CC=clang B="$build-clang" all "$build-clang/check"; then
    echo "1 passed, 0 failed, 0 skipped"
  else
    echo "0 passed, 1 failed, 0 skipped"
  fi
}

# Every target over its corpus, without a fuzzer.
replay() {
  local passed=0 failed=0 out
  for target in tests/fuzz/corpus/*; do
    out=$("$build/replay-${target##*/}" "$target" 2>&1)
    echo "$out" | sed '$d'
    if [[ $(echo "$out" | tail -n 1) =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
      passed=$((passed + BASH_REMATCH[1]))
      failed=$((failed + BASH_REMATCH[2]))
    else
      echo "FAIL ${target##*/}: $out"
      failed=$((failed + 1))
    fi
  done
  echo "$passed passed, $failed failed, 0 skipped"
}

# On another machine: build-aarch64/check under qemu-user, on a processor with nothing but NEON, one
# with SDOT, one with all. The first runs the suites in which the machine matters, the others what it
# has not: their rows, whole layers.
arm_run() { # processor, arguments of check...
  local cpu=$1
  shift
  echo "-- $cpu"
  CHECK_EMULATED=1 FP4MOE_TABLE=none qemu-aarch64 -cpu "$cpu" -L /usr/aarch64-linux-gnu \
    build-aarch64/check "$@"
}

arm_skip() { # why
  echo "skipped: the tests on cortex-a72, neoverse-n1 and max: $1"
  echo "0 passed, 0 failed, 3 skipped"
}

# The loops of ARM's limits run there: what an emulator makes of them means nothing, but not that it
# ends before it has any.
arm_limits() {
  local out
  out=$(FP4MOE_TABLE=none qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu \
    -E "LD_LIBRARY_PATH=build-aarch64/sysroot/usr/lib/aarch64-linux-gnu" build-aarch64/fp4moe bench \
    --hidden 64 --intermediate 64 --experts 4 --topk 1 --format mxfp4 --precision int8 --tokens 1 --json 2>&1)
  if [[ $out =~ \"int8_gops\":\ *[0-9.]*[1-9] && $out =~ \"bf16_gflops\":\ *[0-9.]*[1-9] ]]; then
    echo "1 passed, 0 failed, 0 skipped"
  else
    echo "FAIL the limits on ARM: $(tail -c 500 <<<"$out")"
    echo "0 passed, 1 failed, 0 skipped"
  fi
}

arm() {
  local logs passed=0 failed=0 skipped=0 log p f s
  command -v aarch64-linux-gnu-gcc >/dev/null || { arm_skip 'no aarch64-linux-gnu-gcc'; return; }
  command -v qemu-aarch64 >/dev/null || { arm_skip 'no qemu-aarch64'; return; }
  .ci/sysroot build-aarch64 || { arm_skip 'no libraries of arm64'; return; }
  # The compiler is said, for a CC of the caller's would come along.
  if ! make CROSS=aarch64-linux-gnu- CC=aarch64-linux-gnu-gcc all build-aarch64/check rules; then
    echo "the build for aarch64 failed"
    echo "0 passed, 1 failed, 0 skipped"
    return
  fi
  logs=$(mktemp -d)
  # shellcheck disable=SC2046 # words: the suites in which the machine matters
  arm_run cortex-a72 $(printf -- '-f %s ' harness unpack quant matmul 'summation*_neon' act combine pack io data layer table tasks host) >"$logs/1" 2>&1 &
  (
    arm_run neoverse-n1 -f '*_dotprod' -f data >"$logs/2" 2>&1
    arm_run max -f '*_i8mm' -f '*_bf16neon' -f data -f layer >"$logs/3" 2>&1
    arm_limits >"$logs/4"
  ) &
  wait
  cat "$logs"/[1-4]
  for log in "$logs"/[1-4]; do
    read -r p f s < <(tail -n 1 "$log" | sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p')
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1})) skipped=$((skipped + ${s:-0}))
  done
  rm -r "$logs"
  echo "$passed passed, $failed failed, $skipped skipped"
}

for name in "$@"; do
  case $name in
  check) part check "$build/check" ;;
  faults) part faults bash tests/check_faults.sh "$build" 9 ;;
  every-fault) part every-fault bash tests/check_faults.sh "$build" ;;
  cli) part cli bash tests/check_cli.sh "$build/fp4moe" ;;
  tuner) part tuner sh tests/check_tuner.sh "$build" ;;
  examples) part examples bash tests/examples/run.sh "$build" ;;
  clang) part clang clang_build ;;
  fuzz) part fuzz replay ;;
  isa | rules | install | pages | build | profile) part "$name" bash "tests/check_$name.sh" "$build" ;;
  vm) part vm bash tests/check_vm.sh "$build" ;;
  qemu | valgrind) part "$name" bash tests/check_emulated.sh "$build" "$name" ;;
  arm) part arm arm ;;
  asan) part asan elsewhere -asan asan-build check fuzz cli tuner faults ;;
  tsan) part tsan elsewhere -tsan tsan-build threads ;;
  threads) FP4MOE_TABLE=none part threads "$build/check" -f 'reload while calling' -f pool -f 'threads on one layer' ;;
  memcheck) part memcheck bash tests/check_emulated.sh "$build" memcheck ;;
  coverage) part coverage coverage ;;
  soak) part soak soak ;;
  *) echo "no part $name" && failed=$((failed + 1)) ;;
  esac
done
echo
echo "seconds: ${took#, }"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
