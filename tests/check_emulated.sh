#!/usr/bin/env bash
# Runs tests of the C and AVX2 rows on a machine that is not this one.
#   tests/check_emulated.sh BUILD qemu       a CPU without AVX-512: what is selected there, and runs
#   tests/check_emulated.sh BUILD valgrind   memcheck: every byte that a row reads has been written
#   tests/check_emulated.sh BUILD memcheck   the same over all tests of these rows, and over layers
#                                            whose workspace is undefined: minutes
# Fewer tests than natively, all of them tests of build/check by name.
set -u
build=$1
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

# Tests by one glob: what they skip, how many pass or what fails, and a line of three numbers.
run() { # glob
  local glob=$1 out status begin=$SECONDS
  out=$(FP4MOE_TABLE=none "${emulator[@]}" "$build/check" 1 -f "$glob" 2>&1)
  status=$?
  grep '^skipped ' <<<"$out"
  if [[ ${out##*$'\n'} =~ ^([1-9][0-9]*)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]] &&
    [ "$status" = 0 ]; then
    echo "$glob: ${BASH_REMATCH[1]} passed in $((SECONDS - begin)) s"
    echo "${BASH_REMATCH[1]} 0 ${BASH_REMATCH[3]}"
  else
    echo "$glob, status $status:"
    tail -n 20 <<<"$out"
    echo '0 1 0'
  fi
}

# As many side by side as there are cores, for valgrind runs one thread at a time.
run_all() {
  local i p f s passed=0 failed=0 skipped=0
  for i in "${!globs[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
    run "${globs[i]}" >"$scratch/$i" &
  done
  wait
  for i in "${!globs[@]}"; do
    sed '$d' "$scratch/$i"
    read -r p f s < <(tail -n 1 "$scratch/$i")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  done
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" = 0 ]
}

emulator=(env CHECK_MEMCHECK=1 valgrind -q --error-exitcode=9 --fair-sched=try)
case $2 in
qemu) emulator=(qemu-x86_64 -cpu max) globs=('shapes *_avx2' 'long k *_avx2' '*act_*_avx2' '*quant_*_avx2'
  '*unpack_*_avx2' '*combine_avx2' '*store_avx2') ;;
valgrind) globs=('shapes *_i8_*_avx2' 'shapes *_bf16_*_avx2' 'shapes *_i8_*_c' '*combine_avx2'
  '*store_avx2') ;;
memcheck) globs=('*_avx2' '*_c' contract 'rows with ids' 'rows by expert' router) ;;
esac
tool=qemu-x86_64
[ "$2" = qemu ] || tool=valgrind

if [ "$(uname -m)" != x86_64 ]; then
  echo "skipped: $2: not x86-64"
  echo '0 passed, 0 failed, 1 skipped'
elif ! command -v $tool >/dev/null; then
  echo "skipped: $2: no $tool here"
  echo '0 passed, 0 failed, 1 skipped'
else
  run_all
fi
