#!/usr/bin/env bash
# Runs tests of the C and AVX2 rows on a machine that is not this one.
#   tests/check_emulated.sh BUILD qemu       a CPU without AVX-512: what is selected there, and runs
#   tests/check_emulated.sh BUILD valgrind   memcheck: every byte that a row reads has been written
#   tests/check_emulated.sh BUILD memcheck   the same over all tests of these rows: minutes
# Fewer tests than natively, all of them tests of build/check by name.
set -u
build=$1
passed=0 failed=0 skipped=0

run() { # glob, command that runs the tests...
  local glob=$1 out status
  shift
  out=$(FP4MOE_TABLE=none "$@" "$build/check" 1 -f "$glob" 2>&1)
  status=$?
  if [[ ${out##*$'\n'} =~ ^([1-9][0-9]*)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]] &&
    [ "$status" = 0 ]; then
    passed=$((passed + BASH_REMATCH[1]))
    skipped=$((skipped + BASH_REMATCH[3]))
    echo "$glob: ${BASH_REMATCH[1]} passed"
  else
    echo "$glob, status $status:"
    tail -n 20 <<<"$out"
    failed=$((failed + 1))
  fi
}

case $2 in
qemu) emulator=(qemu-x86_64 -cpu max) globs=('shapes *_avx2' 'long k *_avx2' '*act_*_avx2' '*quant_*_avx2'
  '*unpack_*_avx2' '*combine_avx2' '*store_avx2') ;;
valgrind) globs=('shapes *_i8_*_avx2' 'shapes *_bf16_*_avx2' 'shapes *_i8_*_c' '*combine_avx2'
  '*store_avx2') ;;
memcheck) globs=('*_avx2' '*_c') ;;
esac
[ "$2" = qemu ] || emulator=(env CHECK_MEMCHECK=1 valgrind -q --error-exitcode=9)

if [ "$(uname -m)" != x86_64 ]; then
  echo "skipped: $2: not x86-64"
  skipped=1
elif ! command -v "${emulator[*]: -3:1}" >/dev/null; then
  echo "skipped: $2: no ${emulator[*]: -3:1} here"
  skipped=1
else
  for glob in "${globs[@]}"; do run "$glob" "${emulator[@]}"; done
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$((passed + skipped))" != 0 ]
